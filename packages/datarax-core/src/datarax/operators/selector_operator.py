"""`SelectorOperator`: some of several operators for each record."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import index
from typing import Any

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array, PyTree

from datarax.core import randomness
from datarax.core.config import OperatorConfig, require_bools
from datarax.core.element_batch import Batch
from datarax.core.operator import OperatorModule
from datarax.operators._choice import drawn_numbers, run_chosen, spec_through, whole_weights
from datarax.operators._composition import Composition, with_fields
from datarax.operators._members import checked_members


@dataclass(frozen=True)
class SelectorOperatorConfig(OperatorConfig):
    """Configuration of `SelectorOperator`, which is always stochastic.

    Args:
      k: how many operators each record goes through.
      weights: of the operators, in proportion; None: equally likely. Weights are rounded to
        a 2**-30th of their sum; an operator of weight 0 is never chosen.
      replace: whether an operator can be chosen again for the same record; it then draws anew.
      stochastic: always True.
      batch_strategy: makes no difference; records go one by one.
      cacheable, batch_stats_fn, precomputed_stats, stream_name: see `OperatorConfig`.

    Raises:
      TypeError: if a field has the wrong type.
      ValueError: if `k` is below 1, or if `weights` are negative, not finite or all 0.

    >>> SelectorOperatorConfig(k=2, weights=[1, 1, 2]).weights
    (1.0, 1.0, 2.0)
    """

    k: int = field(default=1, kw_only=True)
    weights: tuple[float, ...] | None = field(default=None, kw_only=True)
    replace: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        object.__setattr__(self, "stochastic", True)
        super().__post_init__()
        require_bools(self, "replace")
        name = type(self).__name__
        if isinstance(self.k, bool) or not hasattr(self.k, "__index__"):
            raise TypeError(f"{name}.k must be an integer, got {type(self.k).__name__} {self.k!r}")
        if index(self.k) < 1:
            raise ValueError(f"{name}.k must be 1 or more, got {self.k}")
        object.__setattr__(self, "k", index(self.k))
        if self.weights is not None:
            object.__setattr__(self, "weights", checked_weights(name, self.weights))


def checked_weights(owner: str, weights: Any) -> tuple[float, ...]:
    """The weights as floats."""
    array = np.asarray(weights)
    if array.ndim != 1 or array.dtype.kind not in "iuf":
        raise TypeError(f"{owner}.weights must be a tuple of numbers or None, got {weights!r}")
    numbers = tuple(map(float, array))
    if not all(math.isfinite(weight) and weight >= 0 for weight in numbers) or not sum(numbers):
        raise ValueError(
            f"{owner}.weights must be finite, 0 or more, and not all 0, got {weights!r}"
        )
    return numbers


class SelectorOperator(Composition[SelectorOperatorConfig]):
    """Sends each record through k of n operators, one after the other in the order drawn.

    Each record has a choice of its own, and only what is chosen runs. Without `replace` an
    operator that was chosen is left out of the next draw. What an operator draws does not depend on
    which others there are. Fields in which one operator finds what earlier ones have left, such as
    the visibility of boxes, come to all records. In evaluation mode all records pass through.

    Args:
      config: how many, and with which weights.
      operators: the members, which make records of the same form but for these fields.
      rngs: where the choices are drawn from; the members have streams of their own.
      name: its name in messages.

    Raises:
      TypeError: if `operators` is not a list of operators.
      ValueError: if there is none, or one of them twice; if one works on whole batches; if there
        are not as many weights; if less than k can be chosen; or if `rngs` lacks the stream. When
        called: if members make records that are not alike.

    >>> import jax.numpy as jnp
    >>> from datarax.operators import MapOperator, MapOperatorConfig
    >>> members = [MapOperator(MapOperatorConfig(), fn=fn) for fn in (jnp.negative, jnp.zeros_like)]
    >>> config = SelectorOperatorConfig(k=1, weights=(3, 1))
    >>> op = SelectorOperator(config, operators=members, rngs=nnx.Rngs(0))
    >>> out = op({"x": np.ones(1000, np.float32)})["x"]
    >>> 700 < int((out == -1).sum()) < 800, bool((out == 1).any())
    (True, False)
    """

    config_class = SelectorOperatorConfig
    chooses = True

    def __init__(
        self,
        config: SelectorOperatorConfig,
        *,
        operators: Sequence[OperatorModule[Any]],
        rngs: nnx.Rngs | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(config, rngs=rngs, name=name)
        members = checked_members(self._label(), operators, record_by_record=True)
        if config.weights is not None and len(config.weights) != len(members):
            raise ValueError(
                f"weights of {self._label()} must have one entry for each of the {len(members)} "
                f"operators, got {len(config.weights)}"
            )
        self.weights = whole_weights(config.weights or (1.0,) * len(members))
        possible = sum(weight > 0 for weight in self.weights)
        if config.k > possible and not config.replace:
            raise ValueError(
                f"k of {self._label()} must be at most {possible}, the number of operators that "
                f"can be chosen, got {config.k}; or set replace=True"
            )
        self.hold(members)

    def run(self, data: PyTree, state: PyTree, draws: PyTree) -> tuple[PyTree, PyTree, Array]:
        words = randomness.random_words(draws["own"], (self.config.k,))
        numbers = drawn_numbers(words, self.weights, self.config.replace)
        return run_chosen(self, numbers, data, state, draws, replace=self.config.replace)

    def pass_through(self, batch: Batch) -> Batch:
        # Of operators that make records alike, any one that is chosen gives the form of training.
        member = self.operators[next(at for at, weight in enumerate(self.weights) if weight)]
        for _ in range(self.config.k):
            batch = member.pass_through(batch)
        rest = jax.vmap(self.rest_fields)(batch.data)
        return batch.replace(data=with_fields(batch.data, rest)) if rest else batch

    def output_spec(self, input_spec: PyTree) -> PyTree:
        """The spec of a record, whichever operators are chosen.

        Raises:
          ValueError: if it depends on which.
        """
        return spec_through(self, self.config.k, input_spec)
