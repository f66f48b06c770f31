"""Pipelines: batches from a source, through operators, epoch after epoch."""

from datarax.pipeline._iterator import PipelineIterator as PipelineIterator
from datarax.pipeline._pipeline import Pipeline as Pipeline
