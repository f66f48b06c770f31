"""Streaming mean, variance, minimum and maximum per field, without padding."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.tree_util import tree_map_with_path
from jaxtyping import Bool

from datarax.core import _moments, specs
from datarax.core import _sole_owner as _sole_owner
from datarax.core._moments import Moments, is_moments
from datarax.core._statistics_input import (
    data_and_mask,
    field_name,
    field_names,
    matching,
    reduced_axes,
    shape_and_dtype,
    signature,
)
from datarax.core._transfers import transferring
from datarax.core.element_batch import Batch, Element

Axes = tuple[int, ...] | Mapping[str, tuple[int, ...]] | None


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class RunningStatistics:
    """Count, mean, population variance, minimum and maximum of each field so far.

    An immutable pytree: `update`, `merge` and `psum` return new statistics. Works on the host and
    in `jax.jit`, `jax.lax.scan` and `jax.shard_map`. NumPy fields are summed in float64 and device
    fields in pairs of float32, so that both agree with float64 to 1e-6 even where the mean is far
    larger than the deviation. Counts are exact up to 2**45. Valid NaN and infinite values, and
    values whose square overflows float32, make the mean or variance NaN; rows that are not valid
    have no influence.

    `RunningStatistics()` takes the fields of its first batch and reduces all their axes. Where the
    structure must not change (a scan's carry), or for other axes, start from `create`.

    Args:
      moments: pytree of the fields, made by `create`; None before the first batch.

    References:
      Chan, Golub and LeVeque (1983), Algorithms for computing the sample variance: analysis and
      recommendations, equation 2.1.

    >>> images = np.arange(24, dtype=np.uint8).reshape(2, 2, 2, 3)
    >>> statistics = RunningStatistics.create({"image": images}, axes={"image": (0, 1, 2)})
    >>> statistics.update({"image": images}).result()["image"]["mean"]
    array([10.5, 11.5, 12.5])
    """

    moments: Any = None

    @classmethod
    @transferring
    def create(cls, data: Any, *, axes: Axes = None) -> RunningStatistics:
        """Returns the statistics of nothing yet.

        Args:
          data: a `Batch`, or a pytree of arrays or `jax.ShapeDtypeStruct`s `(batch, ...)`. Only
            dtypes and the sizes of the axes that are kept matter. Bools count as uint8 0 and 1.
          axes: axes to reduce; axis 0 must be among them. None: all, so that each field has scalar
            statistics. A tuple: these, of every field. A dict: these of the named fields (dotted
            paths), all of the others; `{"image": (0, 1, 2)}` gives each channel its own.

        Raises:
          TypeError: if a leaf is not a real number or bool.
          ValueError: if a leaf has no batch axis, or not those axes.
          KeyError: if `axes` names a field that is not there.
        """
        data, _ = data_and_mask(data, None)
        names = field_names(data)
        for name in axes if isinstance(axes, Mapping) else ():
            if name not in names:
                raise KeyError(f"axes names {name!r}, which is no field; there are {names}")

        def empty(path: Any, leaf: Any) -> Moments:
            name = field_name(path)
            of_field = axes.get(name) if isinstance(axes, Mapping) else axes
            shape, dtype = shape_and_dtype(name, leaf)
            reduced = reduced_axes(name, shape, of_field)
            kept = tuple(size for axis, size in enumerate(shape) if axis not in reduced)
            return _moments.empty_moments(kept, dtype, reduced)

        return cls(tree_map_with_path(empty, data))

    @transferring
    def update(
        self, data: Any, valid_mask: Bool[np.ndarray | jax.Array, " batch"] | None = None
    ) -> RunningStatistics:
        """Returns the statistics with the valid rows of a batch counted too.

        Args:
          data: a `Batch`, or a pytree `(batch, ...)` with the fields, dtypes and kept axes given to
            `create`, and any number of rows. A field `valid_mask` of a dict is taken as a mask.
          valid_mask: bool `(batch,)`, False for padding. A row must be valid in every mask given.

        Raises:
          TypeError: if a field has another dtype, or the mask is not bool.
          ValueError: if fields or shapes differ, or an integer does not fit the type to which JAX
            narrows it.
        """
        if self.moments is None:
            return RunningStatistics.create(data).update(data, valid_mask)
        data, mask = data_and_mask(data, valid_mask)
        if jax.tree.structure(data) != jax.tree.structure(self.moments, is_leaf=is_moments):
            raise ValueError(
                f"data must have the fields {field_names(self.moments)}, got {field_names(data)}; "
                "select them, or create statistics for these"
            )

        def counted(path: Any, moments: Moments, values: Any) -> Moments:
            values = matching(field_name(path), moments, values, mask)
            return _moments.merge(moments, _moments.batch_moments(values, mask, moments.axes))

        return RunningStatistics(
            tree_map_with_path(counted, self.moments, data, is_leaf=is_moments)
        )

    @transferring
    def merge(self, other: RunningStatistics) -> RunningStatistics:
        """Returns the statistics of all that both have counted.

        Raises:
          ValueError: if they differ in fields, reduced axes, shapes or dtypes.
        """
        if self.moments is None or other.moments is None:
            return other if self.moments is None else self
        if signature(self) != signature(other):
            raise ValueError(
                "statistics to merge must have the same fields, axes, shapes and dtypes, got "
                f"{signature(self)} and {signature(other)}"
            )
        return RunningStatistics(_moments.merge_all(self.moments, other.moments))

    def psum(self, axis_name: str | tuple[str, ...]) -> RunningStatistics:
        """Returns the statistics of all devices together, within `shard_map` over a mesh axis.

        Each device must have started from empty statistics: what all have counted counts once each.

        Args:
          axis_name: the mesh axis or axes.
        """
        if self.moments is None:
            raise ValueError("psum needs fields, got statistics of nothing; start from create(...)")
        return RunningStatistics(_moments.gather_and_merge(self.moments, axis_name))

    @transferring
    def result(self) -> Any:
        """Returns the statistics, in the structure of the fields.

        Of nothing counted, the count is 0, mean, variance and std are NaN, and minimum and maximum
        are the greatest and the least value of the dtype, for floats inf and -inf.

        Returns:
          For each field a dict of `count` (a scalar), `mean`, `variance` (population), `std`,
          `minimum` and `maximum`, of the shape of the axes that are kept; an empty dict before the
          first batch. The extremes have the field's dtype. The others are NumPy float64; within a
          trace float32 and to its accuracy. A count is a float because JAX would wrap an integer
          that exceeds 32 bits.
        """
        if self.moments is None:
            return {}
        return jax.tree.map(_result, self.moments, is_leaf=is_moments)


@transferring
def batch_statistics(data: Any, *, axes: Axes = None) -> Any:
    """Returns `RunningStatistics.result` of one batch; fits a config's `batch_stats_fn`.

    Args:
      data: a `Batch`, or a pytree of arrays `(batch, ...)`, as for `RunningStatistics.update`.
      axes: axes to reduce, as for `RunningStatistics.create`; bind them with `functools.partial`.

    >>> batch_statistics({"score": np.float32([1, 3])})["score"]["mean"]
    array(2.)
    """
    return RunningStatistics.create(data, axes=axes).update(data).result()


def source_statistics(
    source: Iterable[Any], *, axes: Axes = None, records: bool = False, progress: bool = False
) -> Any:
    """Returns `RunningStatistics.result` of everything that one pass over a source yields.

    Args:
      source: an iterable of `Batch`es, `Element`s, or pytrees of arrays.
      axes: axes to reduce, counted with the batch axis, as for `RunningStatistics.create`.
      records: whether pytrees of arrays are single records, without a batch axis.
      progress: whether to show a progress bar (needs the extra `progress`).

    Raises:
      ImportError: if a progress bar is wanted and tqdm is not installed.
      ValueError: if the source yields nothing.

    >>> source_statistics([Element({"score": 1.0}), Element({"score": 3.0})])["score"]["mean"]
    array(2.)
    """
    statistics = RunningStatistics()
    for item in _with_progress(source) if progress else source:
        if isinstance(item, Element) or (records and not isinstance(item, Batch)):
            record = item.data if isinstance(item, Element) else item
            item = jax.tree.map(lambda leaf: leaf[None], specs.as_leaves("data", record))
        if statistics.moments is None:
            statistics = RunningStatistics.create(item, axes=axes)
        statistics = statistics.update(item)
    if statistics.moments is None:
        raise ValueError("source must yield at least one batch or record, got none; is it used up?")
    return statistics.result()


def _with_progress(source: Iterable[Any]) -> Iterable[Any]:
    try:
        from tqdm import tqdm
    except ImportError as error:
        raise ImportError(
            'progress=True needs tqdm; run: pip install "datarax-core[progress]"'
        ) from error
    return tqdm(source, desc="statistics")


def _result(moments: Moments) -> dict[str, Any]:
    fields = (moments.count, moments.mean, moments.variance)
    library: Any = np
    if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(moments)):
        library, (count, mean, variance) = jnp, (field.hi for field in fields)
    else:
        count, mean, variance = (field.float64() for field in fields)
    none = count == 0
    nan = library.asarray(np.nan, mean.dtype)
    least, greatest = _moments.limits(moments.minimum.dtype)
    return {
        "count": library.asarray(count),
        "mean": library.where(none, nan, mean),
        "variance": library.where(none, nan, variance),
        "std": library.where(none, nan, library.sqrt(variance)),
        "minimum": library.where(none, greatest, moments.minimum),
        "maximum": library.where(none, least, moments.maximum),
    }
