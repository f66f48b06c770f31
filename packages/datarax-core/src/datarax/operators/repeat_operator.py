"""`RepeatOperator`: several copies of each record, for what follows to augment differently."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from operator import index
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from datarax.core.config import OperatorConfig
from datarax.core.element_batch import Batch
from datarax.core.operator import OperatorModule, require_batch


@dataclass(frozen=True)
class RepeatOperatorConfig(OperatorConfig):
    """Configuration of `RepeatOperator`.

    Args:
      num_views: how many copies of each record, 1 or more.
      stochastic: must be False; what follows draws.
      batch_strategy: makes no difference.
      cacheable, batch_stats_fn, precomputed_stats, stream_name: see `OperatorConfig`.

    Raises:
      TypeError: if `num_views` is not an integer.
      ValueError: if `num_views` is below 1, or for `stochastic`.

    >>> RepeatOperatorConfig(num_views=3).num_views
    3
    """

    num_views: int = dataclasses.field(default=2, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        views = self.num_views
        if isinstance(views, bool) or not hasattr(views, "__index__"):
            raise TypeError(
                f"{type(self).__name__}.num_views must be an integer, got "
                f"{type(views).__name__} {views!r}"
            )
        if index(views) < 1:
            raise ValueError(f"{type(self).__name__}.num_views must be 1 or more, got {views}")
        object.__setattr__(self, "num_views", index(views))
        if self.stochastic:
            raise ValueError(
                f"{type(self).__name__}.stochastic must be False: copies are alike until an "
                "operator after this one draws for each of them"
            )


class RepeatOperator(OperatorModule[RepeatOperatorConfig]):
    """Repeats each record: repeated augmentation, if operators follow that draw.

    The copies of a record are adjacent rows (record 0 view 0, record 0 view 1, ..., record 1
    view 0, ...), so that groups and shards hold whole records, and are numbered in `batch.view`:
    with a `record_index`, each copy has draws of its own, which depend on nothing else. A batch
    that has views already is numbered `view * num_views + copy`. Mask, indices, states and metadata
    follow. In evaluation mode records are repeated too, since batches keep their size.

    Args:
      config: how many copies.
      name: its name in messages.

    References:
      Hoffer et al. 2020, Augment Your Batch: Improving Generalization Through Instance Repetition,
      section 3.

    >>> batch = Batch.from_arrays({"x": np.float32([5, 7])}, record_index=[0, 1])
    >>> out = RepeatOperator(RepeatOperatorConfig(num_views=2))(batch)
    >>> out["x"].tolist(), out.record_index.tolist(), out.view.tolist()
    ([5.0, 5.0, 7.0, 7.0], [0, 0, 1, 1], [0, 1, 0, 1])
    """

    config_class = RepeatOperatorConfig

    def apply(
        self,
        data: PyTree,
        state: PyTree,
        metadata: Any,
        random_params: PyTree = None,
        stats: dict[str, Any] | None = None,
    ) -> tuple[PyTree, PyTree, Any]:
        """Returns the record, which is what each of its copies is."""
        return data, state, metadata

    def apply_batch(self, batch: Batch, stats: dict[str, Any] | None = None) -> Batch:
        """Repeats each row.

        Args:
          batch: the records.
          stats: not used.

        Returns:
          A batch of `num_views` times as many rows.
        """
        require_batch(self, batch)
        self.count_operations(batch.valid_mask)
        rows, views = batch.batch_size, self.config.num_views

        def repeated(tree: PyTree) -> PyTree:
            return jax.tree.map(lambda leaf: repeat_rows(leaf, views), tree)

        # On the host, where the number of rows is not a symbol.
        tile = np.tile if isinstance(rows, int) else jnp.tile
        view = tile(np.arange(views, dtype=np.uint32), rows)
        if batch.view is not None:
            view = repeated(batch.view) * np.uint32(views) + view
        metadata = batch.metadata
        if metadata is not None:
            metadata = tuple(metadata[row] for row in self.source_rows(rows))
        return dataclasses.replace(
            batch,
            data=repeated(batch.data),
            states=repeated(batch.states),
            valid_mask=repeated(batch.valid_mask),
            record_index=repeated(batch.record_index),
            view=view,
            metadata=metadata,
        )

    def source_rows(self, rows: int) -> np.ndarray:
        return np.repeat(np.arange(rows), self.config.num_views)


def repeat_rows(leaf: Any, views: int) -> Any:
    """Each row of an array so many times; on the host if it is there, sharded if it is sharded."""
    if isinstance(leaf, np.ndarray):
        return np.repeat(leaf, views, axis=0)
    copies = jnp.broadcast_to(leaf[:, None], (leaf.shape[0], views, *leaf.shape[1:]))
    return copies.reshape(-1, *leaf.shape[1:])
