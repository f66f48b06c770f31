"""`OperatorModule`: transforms batches, record by record, with the randomness of each record."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Key, PyTree

from datarax.core import _dispatch, randomness
from datarax.core.config import OperatorConfig
from datarax.core.element_batch import Batch
from datarax.core.module import DataraxModule


class OperatorModule(DataraxModule):
    """Base class of operators: implement `apply`, and `generate_random_params` if stochastic.

    `op(batch)` runs `apply_batch` as one compiled call; inside a caller's `jax.jit`, `nnx.jit`,
    `jax.grad`, `jax.lax.scan` or `shard_map` it is traced inline, with the same result. If the
    batch has a `record_index`, a record's random parameters depend on the operator's base key, the
    epoch and the record alone; otherwise each call draws the next key of the operator's stream.

    Args:
      config: what the operator shall do.
      rngs: streams to derive its own from; needed if `config.stochastic`.
      name: what to call it in messages.

    Attributes:
      per_record_params: set it to False in a subclass whose random parameters are drawn once for
        the whole batch; with a `record_index`, the key is then that of the first valid record.

    >>> import numpy as np
    >>> class Double(OperatorModule):
    ...     def apply(self, data, state, metadata, random_params=None, stats=None):
    ...         return {**data, "x": 2 * data["x"]}, state, metadata
    >>> Double(OperatorConfig())(Batch.from_arrays({"x": np.float32([1, 2])}))["x"].tolist()
    [2.0, 4.0]
    """

    per_record_params: bool = True

    def __init__(
        self, config: OperatorConfig, *, rngs: nnx.Rngs | None = None, name: str | None = None
    ) -> None:
        if not isinstance(config, OperatorConfig):
            raise TypeError(
                f"config of {type(self).__name__} must be an OperatorConfig, "
                f"got {type(config).__name__}"
            )
        super().__init__(config, rngs=rngs, name=name)

    def apply(
        self,
        data: PyTree,
        state: PyTree,
        metadata: Any,
        random_params: PyTree = None,
        stats: dict[str, Any] | None = None,
    ) -> tuple[PyTree, PyTree, Any]:
        """Transforms one record. Pure: randomness comes from `random_params` only.

        Args:
          data: the record's fields, without a batch axis.
          state: the record's state.
          metadata: the record's metadata; None when called for a batch.
          random_params: this record's entry of what `generate_random_params` returned.
          stats: the operator's statistics, or those given to `apply_batch`.

        Returns:
          `(data, state, metadata)`.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement apply")

    def generate_random_params(self, rng: Key[Array, ""], data_shapes: PyTree) -> PyTree:
        """Draws the random parameters of a batch from one key.

        Args:
          rng: the key.
          data_shapes: like the batch's data, with a shape `(batch, ...)` for each array.

        Returns:
          A pytree of arrays `(batch, ...)`, of which `apply` gets one row for each record. None for
          deterministic operators.
        """
        if self.stochastic:
            raise NotImplementedError(
                f"{type(self).__name__} is stochastic and must implement generate_random_params"
            )
        return None

    def applied_records(self, random_params: PyTree) -> Bool[Array, " batch"] | None:
        """Which rows these random parameters change; the others count as skipped. None: all."""
        return None

    def apply_batch(self, batch: Batch, stats: dict[str, Any] | None = None) -> Batch:
        """Transforms every record of a batch.

        Args:
          batch: the records.
          stats: statistics for `apply` in place of the operator's own.

        Returns:
          The transformed batch, with the same mask, indices and metadata.

        Raises:
          TypeError: if `batch` is not a `Batch`.
          ValueError: if the operator must draw from its stream where the stream cannot advance.
        """
        require_batch(self, batch)
        if stats is None:
            stats = self.get_statistics()
        with self._random_params(batch) as random_params:
            data, states = self._map_records(batch, random_params, stats)
        self.count_operations(batch.valid_mask, self.applied_records(random_params))
        return batch.replace(data=data, states=states)

    @contextmanager
    def _random_params(self, batch: Batch) -> Iterator[PyTree]:
        """The batch's random parameters; the stream advances if it was used and nothing raised."""
        if not self.stochastic:
            yield None
            return
        assert self.rngs is not None
        assert self.stream_name is not None
        stream = self.rngs[self.stream_name]
        rows = batch.batch_size
        shapes = jax.tree.map(lambda leaf: tuple(leaf.shape), batch.data)
        if batch.record_index is None:
            with randomness.call_key(self._label(), stream) as key:
                params = self.generate_random_params(key, shapes)
                yield self._checked_params(params, rows) if self.per_record_params else params
            return
        base, epoch, index = stream.key.get_value(), batch.epoch, batch.record_index
        if not self.per_record_params:
            key = randomness.first_valid_key(base, epoch, index, batch.valid_mask)
            yield self.generate_random_params(key, shapes)
            return
        shapes = jax.tree.map(lambda leaf: (1, *leaf.shape[1:]), batch.data)

        def one(key: Key[Array, ""]) -> PyTree:
            params = self._checked_params(self.generate_random_params(key, shapes), 1)
            return jax.tree.map(lambda leaf: leaf[0], params)

        yield jax.vmap(one)(randomness.record_keys(base, epoch, index))

    def _checked_params(self, params: PyTree, rows: int) -> PyTree:
        for path, leaf in jax.tree_util.tree_leaves_with_path(params):
            if jnp.shape(leaf)[:1] != (rows,):
                raise ValueError(
                    f"random_params{jax.tree_util.keystr(path)} from generate_random_params of "
                    f"{self._label()} must have axis 0 of length {rows}, the batch size in "
                    f"data_shapes, got shape {jnp.shape(leaf)}; for one draw a batch set "
                    "per_record_params = False"
                )
        return params

    def _map_records(
        self, batch: Batch, random_params: PyTree, stats: dict[str, Any] | None
    ) -> tuple[PyTree, PyTree]:
        mapped, shared = random_params, None
        if not self.per_record_params:
            mapped, shared = None, random_params

        def one(record: tuple[PyTree, PyTree, PyTree]) -> tuple[PyTree, PyTree]:
            data, state, params = record
            return apply_record(self, data, state, shared if params is None else params, stats)

        records = (batch.data, batch.states, mapped)
        if self.config.batch_strategy == "scan":
            out = jax.lax.map(one, jax.tree.map(jnp.asarray, records))
        else:
            out = jax.vmap(one)(records)
        if type(self).get_output_structure is not OperatorModule.get_output_structure:
            self._check_output_structure(batch, out)
        return out

    def _check_output_structure(self, batch: Batch, out: tuple[PyTree, PyTree]) -> None:
        first = jax.tree.map(lambda leaf: leaf[0], (batch.data, batch.states))
        declared = self.get_output_structure(*first)
        for name, tree, wanted in zip(("data", "state"), out, declared, strict=True):
            actual = jax.tree.structure(tree)
            expected = jax.tree.structure(wanted, is_leaf=lambda leaf: leaf is None)
            if actual != expected:
                raise ValueError(
                    f"{name} from apply must have the structure that get_output_structure of "
                    f"{self._label()} declares: expected {expected}, got {actual}"
                )

    def get_output_structure(
        self, sample_data: PyTree, sample_state: PyTree
    ) -> tuple[PyTree, PyTree]:
        """The structure of `apply`'s result, found without computing it.

        An override is held to its word: a result of another structure is a ValueError.

        Args:
          sample_data: one record's fields (arrays or `jax.ShapeDtypeStruct`s).
          sample_state: one record's state.

        Returns:
          `(data, state)` with None for every array.
        """
        out = self._output_record_spec(sample_data, sample_state)
        return jax.tree.map(lambda _: None, out)

    def _output_record_spec(self, data: PyTree, state: PyTree) -> tuple[PyTree, PyTree]:
        def one(key: Key[Array, ""], data: PyTree, state: PyTree) -> tuple[PyTree, PyTree]:
            params = None
            if self.stochastic:
                shapes = jax.tree.map(lambda leaf: (1, *leaf.shape), data)
                params = self.generate_random_params(key, shapes)
                if self.per_record_params:
                    params = jax.tree.map(lambda leaf: leaf[0], params)
            return apply_record(self, data, state, params, self.get_statistics())

        return jax.eval_shape(one, jax.random.key(0), data, state)

    def output_spec(self, input_spec: PyTree) -> PyTree:
        """The spec of a transformed record; overridden where fields, shapes or dtypes change.

        Args:
          input_spec: pytree of `jax.ShapeDtypeStruct`s, one record's fields.

        Returns:
          The same for the transformed record; by default `input_spec`.
        """
        return input_spec

    def __call__(self, batch: Batch) -> Batch:
        """Transforms a batch: `apply_batch`, compiled once for each shape.

        Raises:
          TypeError: if `batch` is not a `Batch`.
          ValueError: if the operator must draw from its stream where the stream cannot advance.
        """
        require_batch(self, batch)
        self._check_values(batch)
        return _dispatch.call(self, batch)

    def recycle(self, batch: Batch, spent: Batch) -> Batch:
        """`op(batch)`, written into the memory of arrays that nobody needs any more.

        Above some 30 MB, fresh memory costs several times the work itself. In a loop that is done
        with the previous result: `out = op.recycle(batch, spent=out)`; with the batch itself:
        `out = op.recycle(batch, spent=batch)`.

        Args:
          batch: the records.
          spent: an earlier result of the same shapes, or `batch` itself. Its arrays that the
            operator makes anew are deleted; those that it passes through stay.

        Returns:
          What `op(batch)` returns.

        Raises:
          TypeError: if `batch` or `spent` is not a `Batch`.
          ValueError: if `spent` does not fit, is on the host, or was recycled before; inside a
            trace; if the operator is `cacheable`; besides all that the operator raises. Nothing is
            given away then.
        """
        require_batch(self, batch)
        require_batch(self, spent)
        self._check_values(batch)
        return _dispatch.recycle(self, batch, spent)

    def _check_values(self, batch: Batch) -> None:
        """Raises if values, which a trace does not see, are wrong; checks nothing by default."""

    def reset_cache(self) -> None:
        _dispatch.forget_results(self)


def require_batch(operator: OperatorModule, batch: object) -> None:
    """Raises a TypeError that says how to make a `Batch` of what came."""
    if not isinstance(batch, Batch):
        raise TypeError(
            f"{type(operator).__name__} transforms a Batch, got {type(batch).__name__}; make one "
            "with Batch.from_arrays(...) or Batch.from_elements(...)"
        )


def apply_record(
    operator: OperatorModule, data: PyTree, state: PyTree, params: PyTree, stats: Any
) -> tuple[PyTree, PyTree]:
    """Calls `apply` without metadata and checks the form of its result."""
    result = operator.apply(data, state, None, params, stats)
    if not isinstance(result, tuple) or len(result) != 3:
        raise TypeError(
            f"apply of {type(operator).__name__} must return (data, state, metadata), "
            f"got {type(result).__name__}"
        )
    return result[0], result[1]
