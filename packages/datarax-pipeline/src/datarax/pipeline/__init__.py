"""Pipelines: batches from a source, through operators, epoch after epoch."""

from datarax.pipeline._grain_transforms import GrainMap as GrainMap
from datarax.pipeline._grain_transforms import GrainMapWithIndex as GrainMapWithIndex
from datarax.pipeline._grain_transforms import GrainRandomMap as GrainRandomMap
from datarax.pipeline._iterator import PipelineIterator as PipelineIterator
from datarax.pipeline._pipeline import Pipeline as Pipeline
from datarax.pipeline._statistics import PipelineStats as PipelineStats
