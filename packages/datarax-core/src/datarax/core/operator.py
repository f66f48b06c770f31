"""`OperatorModule`: transforms batches, record by record, with the randomness of each record."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar, overload

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Key, PyTree

from datarax.core import _dispatch, _plain, _raw_key, _transfers, randomness
from datarax.core._code import asks_for_none
from datarax.core._records import (
    apply_record,
    checked_params,
    map_records,
    require_declared_structure,
)
from datarax.core.config import OperatorConfig
from datarax.core.element_batch import Batch
from datarax.core.module import DataraxModule

OperatorConfigT = TypeVar("OperatorConfigT", bound=OperatorConfig)


class OperatorModule(DataraxModule[OperatorConfigT]):
    """Base class of operators: implement `apply`, and `generate_random_params` if stochastic.

    `op(batch)` runs `apply_batch` as one compiled call; inside a caller's `jax.jit`, `nnx.jit`,
    `jax.grad`, `jax.lax.scan` or `shard_map` it is traced inline, with the same result. A plain
    dict of arrays comes back as a plain dict. With `op(batch, key=key)` all randomness comes from
    that key. Otherwise, if the batch has a `record_index`, a record's random parameters depend on
    the operator's base key, the epoch, the record and its view alone; and if it has none, each call
    draws the next key of the operator's stream.

    Args:
      config: what the operator does.
      rngs: streams to derive its own from, which advance; needed if `config.stochastic`.
      name: its name in messages.

    Attributes:
      per_record_params: set it to False in a subclass whose random parameters are drawn once for
        the whole batch; with a `record_index`, the key is then that of the first valid record.
      optional_randomness: set it to True in a subclass that has a `generate_random_params` and also
        works with `stochastic=False`, unless its `apply` asks whether `random_params is None`.
      deterministic: whether stochastic operators pass records through, as `op.eval()`,
        `op.train()` and `nnx.view` set it.

    Raises:
      TypeError: if `config` is not an `OperatorConfig`.
      ValueError: if `config.stochastic` and `rngs` lacks the stream; or if the class has a
        `generate_random_params` that nothing would call.

    >>> import numpy as np
    >>> class Double(OperatorModule):
    ...     def apply(self, data, state, metadata, random_params=None, stats=None):
    ...         return {**data, "x": 2 * data["x"]}, state, metadata
    >>> Double(OperatorConfig())(Batch.from_arrays({"x": np.float32([1, 2])}))["x"].tolist()
    [2.0, 4.0]
    """

    config_class = OperatorConfig
    per_record_params: bool = True
    optional_randomness: bool = False

    def __init__(
        self,
        config: OperatorConfigT,
        *,
        rngs: nnx.Rngs | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(config, rngs=rngs, name=name)
        self.deterministic = False
        if not self.stochastic and not self._works_without_draws():
            raise ValueError(
                f"{self._label()} has a generate_random_params, which is never called with "
                f"stochastic=False; write {type(config).__name__}(stochastic=True, ...), or set "
                "optional_randomness = True in the class if it also works without"
            )

    def _works_without_draws(self) -> bool:
        draw = type(self).generate_random_params
        if draw is OperatorModule.generate_random_params or self.optional_randomness:
            return True
        transforms = (getattr(type(self), name, None) for name in ("apply", "transform_field"))
        return any(asks_for_none(transform, "random_params") for transform in transforms)

    def set_view(self, deterministic: bool | None = None) -> None:
        """What `nnx.view(op, deterministic=...)` calls on its copy."""
        if deterministic is not None:
            self.deterministic = deterministic

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
          random_params: this record's part of what `generate_random_params` returned.
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
        __tracebackhide__ = True
        require_batch(self, batch)
        if self._passes_through():
            return self._passed_through(batch)
        if stats is None:
            stats = self.get_statistics()
        with self._random_params(batch) as random_params:
            data, states = map_records(self, batch, random_params, stats)
        if type(self).get_output_structure is not OperatorModule.get_output_structure:
            require_declared_structure(self, batch, (data, states))
        self.count_operations(batch.valid_mask, self.applied_records(random_params))
        return batch.replace(data=data, states=states)

    def source_rows(self, rows: int) -> np.ndarray | None:
        """For an operator that changes the number of rows: which row each row comes from.

        Metadata, which no compiled call sees, follows it.

        Args:
          rows: how many rows the batch has.

        Returns:
          Integers, one for each row of the result; None if rows stay where they are.
        """
        return None

    def pass_through(self, batch: Batch) -> Batch:
        """What a stochastic operator does in evaluation mode: nothing.

        Override it where the result must have another form than the batch; count nothing.
        """
        return batch

    def rest_fields(self, data: PyTree) -> dict[str, Array]:
        """What the operator would add to one record that it leaves alone; by default nothing.

        Where records go through different operators, those that do not go through this one get it.

        Args:
          data: the record's fields.

        Returns:
          By dotted path, fields that the record has not, and in which this operator finds what
          earlier ones have left, such as the visibility of boxes.
        """
        return {}

    def _passes_through(self) -> bool:
        return self.stochastic and self.deterministic

    def _passed_through(self, batch: Batch) -> Batch:
        out = self.pass_through(batch)
        self.count_operations(batch.valid_mask, applied=jnp.zeros(batch.batch_size, bool))
        return out

    def _draws(self) -> bool:
        """Whether a call needs randomness; compositions override it."""
        return self.stochastic and not self.deterministic

    def _stream(self) -> nnx.RngStream:
        assert self.rngs is not None
        assert self.stream_name is not None
        return self.rngs[self.stream_name]

    def _base_key(self) -> Key[Array, ""]:
        """The key for `record_keys`: the call's explicit one, or the operator's own."""
        given = randomness.given_key(type(self))
        if given is not None:
            return given
        return randomness.told_apart(self._stream().key.get_value())

    @contextmanager
    def _call_key(self) -> Iterator[Key[Array, ""]]:
        """The key of this call: the explicit one, or the next of the stream, which then advances.

        The stream stays where it is if the block raises.
        """
        given = randomness.given_key(type(self))
        if given is not None:
            yield given
            return
        with randomness.call_key(self._label(), self._stream()) as key:
            yield key

    @contextmanager
    def _random_params(self, batch: Batch) -> Iterator[PyTree]:
        """The batch's random parameters; the stream advances if it was used and nothing raised."""
        if not self.stochastic:
            yield None
            return
        rows = batch.batch_size
        shapes = jax.tree.map(lambda leaf: tuple(leaf.shape), batch.data)
        if batch.record_index is None:
            with self._call_key() as key:
                params = self.generate_random_params(key, shapes)
                yield checked_params(self, params, rows) if self.per_record_params else params
            return
        numbers = self._base_key(), batch.epoch, batch.record_index, batch.view
        if not self.per_record_params:
            key = randomness.first_valid_key(*numbers, batch.valid_mask)
            yield self.generate_random_params(key, shapes)
            return
        shapes = jax.tree.map(lambda leaf: (1, *leaf.shape[1:]), batch.data)

        def one(key: Key[Array, ""]) -> PyTree:
            params = checked_params(self, self.generate_random_params(key, shapes), 1)
            return jax.tree.map(lambda leaf: leaf[0], params)

        yield jax.vmap(one)(randomness.record_keys(*numbers))

    def get_output_structure(
        self, sample_data: PyTree, sample_state: PyTree
    ) -> tuple[PyTree, PyTree]:
        """The structure of `apply`'s result, found without computing it.

        A result of another structure than an override says is a ValueError.

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

    @overload
    def __call__(self, batch: Batch, *, key: Key[Array, ""] | None = None) -> Batch: ...

    @overload
    def __call__(
        self, batch: Mapping[str, Any], *, key: Key[Array, ""] | None = None
    ) -> dict[str, Any]: ...

    def __call__(
        self, batch: Batch | Mapping[str, Any], *, key: Key[Array, ""] | None = None
    ) -> Batch | dict[str, Any]:
        """Transforms a batch: `apply_batch`, compiled once for each shape.

        Args:
          batch: the records, as a `Batch` or as a dict of arrays `(batch, ...)`: NumPy, JAX or
            torch. A field `valid_mask` of the dict, bool `(batch,)`, tells records from padding.
          key: what to draw from in place of the operator's stream, typed or raw; a deterministic
            operator ignores it. The result is a pure function of key and batch.

        Returns:
          A `Batch`; or, for a dict, a dict of the transformed fields, with `valid_mask` if it had
          one, and with what the operator leaves in `states`.

        Raises:
          TypeError: if `batch` is neither, or `key` is not a key.
          ValueError: if a dict's fields are no batch; or if the operator must draw from its stream
            where the stream cannot advance.
        """
        __tracebackhide__ = True
        if _transfers.guarded():
            # Not a decorator, which would cost every call another frame.
            with jax.transfer_guard("allow"):
                return self(batch, key=key)
        if isinstance(batch, Batch):
            self._check_values(batch)
            return _dispatch.call(self, batch, None if key is None else _raw_key.checked(key))
        rows = _plain.as_batch(self, batch)
        return _plain.as_fields(self, self(rows, key=key), batch, rows.valid_mask)

    @_transfers.transferring
    def recycle(self, batch: Batch, spent: Batch, *, key: Key[Array, ""] | None = None) -> Batch:
        """`op(batch)`, written into the memory of arrays that are not needed any more.

        Above some 30 MB, fresh memory costs several times the work itself. In a loop that is done
        with the previous result: `out = op.recycle(batch, spent=out)`; with the batch itself:
        `out = op.recycle(batch, spent=batch)`.

        Args:
          batch: the records.
          spent: an earlier result of the same shapes, or `batch` itself. Its arrays that the
            operator makes anew are deleted; those that it passes through stay, all of them if a
            stochastic operator is in evaluation mode.
          key: see `__call__`.

        Returns:
          What `op(batch)` returns.

        Raises:
          TypeError: if `batch` or `spent` is not a `Batch`.
          ValueError: if `spent` does not fit, is on the host, or was recycled before; inside a
            trace; if the operator is `cacheable`; besides all that the operator raises. Nothing is
            given away then.
        """
        __tracebackhide__ = True
        require_batch(self, batch)
        require_batch(self, spent)
        checked = None if key is None else _raw_key.checked(key)
        self._check_values(batch)
        if self._passes_through():
            # Nothing is made that could be written over another array.
            return _dispatch.call(self, batch)
        return _dispatch.recycle(self, batch, spent, checked)

    def _check_values(self, batch: Batch) -> None:
        """Raises if values, which a trace does not see, are wrong; checks nothing by default."""

    def _checked_fields(self) -> tuple[str, ...]:
        """Dotted paths of the fields whose values `_check_values` reads."""
        return ()

    def reset_cache(self) -> None:
        _dispatch.forget_results(self)


def require_batch(operator: OperatorModule, batch: object) -> None:
    """Raises a TypeError that says how to make a `Batch` of what came."""
    if not isinstance(batch, Batch):
        raise TypeError(
            f"{type(operator).__name__} transforms a Batch, got {type(batch).__name__}; make one "
            "with Batch.from_arrays(...) or Batch.from_elements(...)"
        )
