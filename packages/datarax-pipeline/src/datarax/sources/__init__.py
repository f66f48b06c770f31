"""Sources of records for `datarax.pipeline`."""

from datarax.sources._concat import ConcatSource as ConcatSource
from datarax.sources._config import SourceConfig as SourceConfig
from datarax.sources._folder import ImageFolderConfig as ImageFolderConfig
from datarax.sources._folder import ImageFolderSource as ImageFolderSource
from datarax.sources._grain import GrainSource as GrainSource
from datarax.sources._grain import GrainSourceConfig as GrainSourceConfig
from datarax.sources._memory import MemorySource as MemorySource
from datarax.sources._memory import MemorySourceConfig as MemorySourceConfig
from datarax.sources._mixture_source import MixtureSource as MixtureSource
from datarax.sources._selected import SelectedSource as SelectedSource
from datarax.sources._source import DataSourceModule as DataSourceModule
from datarax.sources._tfds import TFDSEagerConfig as TFDSEagerConfig
from datarax.sources._tfds import TFDSEagerSource as TFDSEagerSource
