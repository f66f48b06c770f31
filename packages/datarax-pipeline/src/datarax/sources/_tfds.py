"""`TFDSEagerSource`: a prepared TensorFlow Datasets directory, read into memory as a whole."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.tree_util import keystr, tree_map_with_path

from datarax.core.config import require_bools, require_names
from datarax.core.element_batch import Batch
from datarax.sources._arrays import ArraySource
from datarax.sources._config import SourceConfig

INFO_FILE = "dataset_info.json"
VERSION = re.compile(r"(\d+)\.(\d+)\.(\d+)")
# Records read at once, which is faster than one by one.
CHUNK = 512


@dataclass(frozen=True, kw_only=True)
class TFDSEagerConfig(SourceConfig):
    """Configuration of `TFDSEagerSource`.

    Args:
      name: the data set, such as "cifar10", "cifar10:3.0.2" or "name/config"; without a version the
        highest one that is there.
      split: which records, such as "train", "train[:256]" or "train[80%:]+test".
      data_dir: the directory with the prepared data sets, or that of this one. None: what the
        environment variable TFDS_DATA_DIR says, else ~/tensorflow_datasets.
      exclude_keys: fields to leave out, such as text, which arrays do not hold, or sequences of
        different lengths.
      on_device: whether to hold the records on the default device, where pipelines then gather.
      cacheable, batch_stats_fn, precomputed_stats: see `DataraxModuleConfig`.
      stochastic, stream_name, shuffle, seed, metadata_fields: see `SourceConfig`.

    Raises:
      TypeError: for a value of the wrong type.
      ValueError: for an empty name.

    >>> TFDSEagerConfig(name="cifar10", split="train[:256]", exclude_keys={"id"}).split
    'train[:256]'
    """

    name: str
    split: str
    data_dir: str | Path | None = None
    exclude_keys: frozenset[str] | set[str] | tuple[str, ...] = frozenset()
    on_device: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require_names(self, "name", "split")
        require_bools(self, "on_device")
        if self.data_dir is not None and not isinstance(self.data_dir, str | os.PathLike):
            raise TypeError(
                f"TFDSEagerConfig.data_dir must be a path or None, got {self.data_dir!r}"
            )
        keys = self.exclude_keys
        if not isinstance(keys, set | frozenset | list | tuple) or not all(
            isinstance(key, str) for key in keys
        ):
            raise TypeError(
                f"TFDSEagerConfig.exclude_keys must be a set of field names, got {keys!r}; write "
                "for example exclude_keys={'id'}"
            )
        object.__setattr__(self, "exclude_keys", frozenset(keys))


class TFDSEagerSource(ArraySource[TFDSEagerConfig]):
    """Reads a split of a prepared TensorFlow Datasets data set into memory, without TensorFlow.

    The data set must be in the ArrayRecord format:
    `tfds.builder("cifar10", file_format="array_record").download_and_prepare()`. Needs the extra
    `[tfds]`; the data set's own code is not needed. Nothing is ever downloaded.

    Args:
      config: which records of which data set, and whether to shuffle.
      rngs: streams from which the order is derived if `config.seed` is None.
      name: its name in messages.

    Raises:
      ImportError: without the extra `[tfds]`.
      TypeError: for a field that is not of numbers.
      ValueError: if there is no such data set in ArrayRecord format or no such split, or if records
        differ in shape.
      KeyError: if `exclude_keys` or `metadata_fields` names a field that is not there.

    >>> config = TFDSEagerConfig(
    ...     name="cifar10", split="train", data_dir="data", shuffle=True, seed=0
    ... )
    >>> TFDSEagerSource(config)  # doctest: +SKIP
    """

    config_class = TFDSEagerConfig

    def __init__(
        self, config: TFDSEagerConfig, *, rngs: nnx.Rngs | None = None, name: str | None = None
    ) -> None:
        self._require_config(config)
        columns, metadata = _columns(config)
        if config.on_device:
            columns = jax.tree.map(jnp.asarray, columns)
        records = Batch.from_arrays(columns, metadata=metadata)
        super().__init__(config, records, rngs=rngs, name=name)


def _columns(config: TFDSEagerConfig) -> tuple[dict[str, Any], list[dict[str, Any]] | None]:
    """All records of the split, side by side, and their metadata."""
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise ImportError(
            "TFDSEagerSource needs tensorflow-datasets, importlib_resources and array_record; run "
            f"python -m pip install 'datarax-pipeline[tfds]' (the import failed with: {error})"
        ) from error
    folder = _folder(config)
    builder: Any = tfds.builder_from_directory(folder)
    if builder.name != re.split("[/:]", config.name)[0]:
        raise ValueError(f"{folder} holds the data set {builder.name!r}, not {config.name!r}")
    there = {name: split.num_examples for name, split in builder.info.splits.items()}
    if builder.info.file_format != tfds.core.FileFormat.ARRAY_RECORD:
        raise ValueError(
            f"{folder} is in the format {builder.info.file_format.value}, but only array_record "
            "can be read by number; prepare it with "
            f"tfds.builder({builder.name!r}, file_format='array_record').download_and_prepare()"
        )
    fields = sorted(builder.info.features)
    for key in config.exclude_keys:
        if key not in fields:
            raise KeyError(f"exclude_keys names {key!r}, but {folder} has the fields {fields}")
    for key in config.metadata_fields:
        if key not in fields or key in config.exclude_keys:
            raise KeyError(
                f"metadata_fields names {key!r}, but {folder} has the fields {fields} without "
                f"{sorted(config.exclude_keys)}"
            )
    # `decoders` of TFDS cannot leave out sequences and nested features.
    kept = {name: builder.info.features[name] for name in fields if name not in config.exclude_keys}
    parse = tfds.features.FeaturesDict(kept).deserialize_example_np
    try:
        records = builder.as_data_source(config.split)
    except (AssertionError, ValueError) as error:
        raise ValueError(
            f"split {config.split!r} of {folder} cannot be read; there are these splits with so "
            f"many records: {there} ({error})"
        ) from error
    return _stacked(records.data_source, parse, config.metadata_fields, str(folder))


def _folder(config: TFDSEagerConfig) -> Path:
    """The directory of the data set in its highest version, or in the one that its name says."""
    root = config.data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    root = Path(root).expanduser()
    if (root / INFO_FILE).is_file():
        return root
    path, _, version = config.name.partition(":")
    versions = [
        (tuple(map(int, match.groups())), child)
        for child in sorted((root / path).glob(version or "*"))
        if (match := VERSION.fullmatch(child.name)) and (child / INFO_FILE).is_file()
    ]
    if not versions:
        raise ValueError(
            f"no prepared data set {config.name!r} in {root}; prepare it with "
            f"tfds.builder({path!r}, data_dir={str(root)!r}, "
            "file_format='array_record').download_and_prepare(), or set data_dir"
        )
    return max(versions)[1]


def _stacked(
    records: Any, parse: Callable[[bytes], Any], metadata_fields: tuple[str, ...], where: str
) -> tuple[dict[str, Any], list[dict[str, Any]] | None]:
    """One array for each field, filled as the records are read, and what is metadata."""
    columns: Any = None
    metadata = []
    for start in range(0, len(records), CHUNK):
        chunk = records.__getitems__(range(start, min(start + CHUNK, len(records))))
        for number, encoded in enumerate(chunk, start):
            record = parse(encoded)
            metadata.append({name: record.pop(name) for name in metadata_fields})
            if columns is None:
                columns = tree_map_with_path(
                    lambda path, leaf: _column(path, leaf, len(records), where), record
                )
            _write(columns, number, record, where)
    return columns, metadata if metadata_fields else None


def _column(path: Any, leaf: Any, length: int, where: str) -> np.ndarray:
    first = np.asarray(leaf)
    if first.dtype.kind not in "biufcV":
        raise TypeError(
            f"field {keystr(path, simple=True, separator='.')!r} of {where} has dtype "
            f"{first.dtype}, which no batch can hold; leave it out with exclude_keys, or carry it "
            "with metadata_fields"
        )
    return np.empty((length, *first.shape), first.dtype)


def _write(columns: Any, number: int, record: Any, where: str) -> None:
    leaves, structure = jax.tree.flatten(record)
    paths, expected = jax.tree_util.tree_flatten_with_path(columns)
    if structure != expected:
        raise ValueError(
            f"record {number} of {where} differs in structure from record 0: expected {expected}, "
            f"got {structure}; leave out the field with exclude_keys"
        )
    for (path, column), leaf in zip(paths, leaves, strict=True):
        array = np.asarray(leaf)
        if array.shape != column.shape[1:] or array.dtype != column.dtype:
            raise ValueError(
                f"field {keystr(path, simple=True, separator='.')!r} of record {number} of {where} "
                f"must be {column.dtype}{list(column.shape[1:])} like record 0, got "
                f"{array.dtype}{list(array.shape)}; leave it out with exclude_keys"
            )
        column[number] = array
