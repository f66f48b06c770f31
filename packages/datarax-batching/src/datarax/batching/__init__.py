"""Batches of one size with a validity mask, and reductions without padding."""

from datarax.batching._bucket import BucketBatcher as BucketBatcher
from datarax.batching._bucket import BucketBatcherConfig as BucketBatcherConfig
from datarax.batching._compose import SpecChain as SpecChain
from datarax.batching._compose import compose_specs as compose_specs
from datarax.batching._default import DefaultBatcher as DefaultBatcher
from datarax.batching._default import DefaultBatcherConfig as DefaultBatcherConfig
from datarax.batching._masked import fill_padding as fill_padding
from datarax.batching._masked import masked_accuracy as masked_accuracy
from datarax.batching._masked import masked_mean as masked_mean
from datarax.batching._masked import masked_sum_count as masked_sum_count
from datarax.batching._memory import RecycledMemory as RecycledMemory
from datarax.batching._multirate import MultiRateBatcher as MultiRateBatcher
from datarax.batching._multirate import MultiRateBatcherConfig as MultiRateBatcherConfig
from datarax.batching._pack import PackingBatcher as PackingBatcher
from datarax.batching._pack import PackingBatcherConfig as PackingBatcherConfig
from datarax.batching._padding import pad_batch as pad_batch
from datarax.batching._rebatch import equal_steps as equal_steps
from datarax.batching._rebatch import rebatch as rebatch
from datarax.batching._rebatch import unbatch as unbatch
from datarax.batching._shard import shard_batch as shard_batch
from datarax.batching._spec import check_batch as check_batch
from datarax.batching._spec import record_spec as record_spec
from datarax.batching._stream import RecordStream as RecordStream
