"""`ProbabilisticOperator`: an operator for some of the records."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, PyTree

from datarax.core import randomness
from datarax.core.config import OperatorConfig
from datarax.core.operator import OperatorModule
from datarax.core.schedule import Probability
from datarax.operators._branches import choose, require_alike
from datarax.operators._composition import Composition, family, passed_record, run_member
from datarax.operators._members import checked_member

UNCHANGED = "a record left as it is"


@dataclass(frozen=True)
class ProbabilisticOperatorConfig(OperatorConfig):
    """Configuration of `ProbabilisticOperator`, which is always stochastic.

    Args:
      probability: that a record goes through the operator, from 0 to 1.
      stochastic: always True.
      batch_strategy: makes no difference; records go one by one.
      cacheable, batch_stats_fn, precomputed_stats, stream_name: see `OperatorConfig`.

    Raises:
      TypeError: if `probability` is True or False.
      ValueError: if it is not a number from 0 to 1.

    >>> ProbabilisticOperatorConfig(probability=0.1).probability
    0.1
    """

    probability: float = field(default=0.5, kw_only=True)

    def __post_init__(self) -> None:
        object.__setattr__(self, "stochastic", True)
        super().__post_init__()
        label = f"{type(self).__name__}.probability"
        if isinstance(self.probability, bool):
            raise TypeError(f"{label} must be a number from 0 to 1, got {self.probability}")
        Probability.checked(label, self.probability)
        object.__setattr__(self, "probability", float(self.probability))


class ProbabilisticOperator(Composition[ProbabilisticOperatorConfig]):
    """Sends each record through an operator with a given probability.

    Each record is decided for itself, and the operator runs for those alone that go through it; the
    others are as in its evaluation mode, with the fields that it writes beside the image. The
    probability is a Variable: `op.probability.set_value(0.3)`, or `op.probability = 0.3`, compiles
    nothing again. Records that do not go through count as skipped. In evaluation mode all pass
    through.

    Args:
      config: the probability.
      operator: what the records go through; it keeps their fields, shapes and dtypes.
      rngs: where the decisions are drawn from; the operator has streams of its own.
      name: its name in messages.

    Raises:
      TypeError: if `operator` is not an operator.
      ValueError: if it works on whole batches, or `rngs` lacks the stream. When called: if it makes
        records of another form.

    >>> import numpy as np
    >>> from datarax.operators import MapOperator, MapOperatorConfig
    >>> negate = MapOperator(MapOperatorConfig(fields=("x",)), fn=jnp.negative)
    >>> config = ProbabilisticOperatorConfig(probability=0.5)
    >>> op = ProbabilisticOperator(config, operator=negate, rngs=nnx.Rngs(0))
    >>> out = op({"x": np.ones(1000, np.float32)})["x"]
    >>> 400 < int((out == -1).sum()) < 600
    True
    """

    config_class = ProbabilisticOperatorConfig
    chooses = True

    def __init__(
        self,
        config: ProbabilisticOperatorConfig,
        *,
        operator: OperatorModule[Any],
        rngs: nnx.Rngs | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(config, rngs=rngs, name=name)
        self.probability = Probability(config.probability, label="probability")
        self.hold([checked_member(self._label(), "operator", operator, [], record_by_record=True)])

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "probability" and not isinstance(value, nnx.Variable):
            self.probability.set_value(value)
        else:
            super().__setattr__(name, value)

    def run(self, data: PyTree, state: PyTree, draws: PyTree) -> tuple[PyTree, PyTree, Array]:
        (member,) = self.operators
        nobody = jnp.zeros((len(family(member)), 2), jnp.uint32)

        def skip(record: Any, draws: Any) -> Any:
            data, state = passed_record(member, record["data"], record["state"])
            return {"data": data, "state": state}, nobody

        def apply(record: Any, draws: Any) -> Any:
            (keys,) = draws["operators"]
            data, state, marks = run_member(member, record["data"], record["state"], keys)
            return {"data": data, "state": state}, marks

        word = randomness.random_words(draws["own"], ())
        chosen = randomness.coin(word, jnp.asarray(self.probability.get_value()))
        branches = {UNCHANGED: skip, f"operator {member._label()}": apply}
        record = {"data": data, "state": state}
        record, marks = choose(self._label(), chosen.astype(jnp.int32), branches, record, draws)
        own = jnp.stack([chosen, ~chosen]).astype(jnp.uint32)
        return record["data"], record["state"], jnp.concatenate([own[None], marks])

    def output_spec(self, input_spec: PyTree) -> PyTree:
        """The spec of a record, whether it goes through the operator or not.

        Raises:
          ValueError: if it depends on that.
        """
        (member,) = self.operators
        left, _ = jax.eval_shape(partial(passed_record, member), input_spec, {})
        names = [UNCHANGED, f"operator {member._label()}"]
        require_alike(self._label(), names, [left, member.output_spec(input_spec)])
        return left
