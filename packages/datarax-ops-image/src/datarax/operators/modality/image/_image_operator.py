"""`ImageOperator`: the base of operators that pass a record's numbers to a function."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from typing import Any, TypeVar, overload

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Key, PyTree, UInt32

from datarax.core import randomness
from datarax.core.element_batch import Batch
from datarax.core.modality import FieldDomain, ModalityOperator, logger
from datarax.core.schedule import Probability, ScalarVariable
from datarax.operators.modality.image import _replay
from datarax.operators.modality.image._distributions import Distribution
from datarax.operators.modality.image._image_config import (
    ImageOperatorConfig as ImageOperatorConfig,
)
from datarax.operators.modality.image._number import named_words, rules_of
from datarax.operators.modality.image._replay import APPLIED

IMAGE = FieldDomain(
    "image",
    layouts=(("height", "width"), ("height", "width", "channel")),
    kinds=("integer", "float"),
)


ConfigT = TypeVar("ConfigT", bound=ImageOperatorConfig)


class ImageOperator(ModalityOperator[ConfigT]):
    """Base class of image operators: implement `transform_image`.

    Each record's numbers are drawn by the base and arrive by name, as scalars. Records that `prob`
    leaves out stay bit-identical and count as skipped.

    Args:
      config: the numbers.
      rngs: streams to derive its own from; needed if `config.stochastic`.
      name: its name in messages.

    Attributes:
      prob: the probability that a record is changed, a Variable: `op.prob = 0.5` compiles nothing
        again. None if the operator is not stochastic.

    Raises:
      TypeError: if `config` is not of the class's `config_class`.
      ValueError: if the operator is stochastic and `rngs` is None or lacks the stream.

    >>> from dataclasses import dataclass
    >>> import numpy as np
    >>> from datarax.operators.modality.image import ImageOperatorConfig, Number, number
    >>> @dataclass(frozen=True)
    ... class FadeConfig(ImageOperatorConfig):
    ...     strength: Number = number((0.5, 1), low=0, high=1)
    >>> class Fade(ImageOperator[FadeConfig]):
    ...     config_class = FadeConfig
    ...
    ...     def transform_image(self, image, strength):
    ...         return image * (1 - strength)
    >>> fade = Fade(FadeConfig(), rngs=nnx.Rngs(0))
    >>> images = np.ones((2, 4, 4), np.float32)
    >>> bool((fade({"image": images})["image"] <= 0.5).all())
    True
    >>> fade.replay({"image": images}, {"strength": np.float32([0, 1])})["image"][:, 0, 0].tolist()
    [1.0, 0.0]
    """

    config_class = ImageOperatorConfig
    domain = IMAGE
    # Fixed numbers need no draws.
    optional_randomness = True
    # Whether integers other than uint8 are images too, because no arithmetic is done on them.
    any_integer: bool = False
    # What to do with images whose channels come first.
    _channels_first_advice: str = "move them to the end, as with jnp.moveaxis(image, 0, -1)"

    def __init__(
        self, config: ConfigT, *, rngs: nnx.Rngs | None = None, name: str | None = None
    ) -> None:
        self._require_config(config)
        if rngs is None and config.random_because():
            raise ValueError(
                f"{type(self).__name__} is stochastic, because {config.random_because()} is drawn "
                "for each record, but rngs is None; pass rngs=nnx.Rngs(0), or fix it"
            )
        super().__init__(config, rngs=rngs, name=name)
        self.prob = Probability(config.prob, label="prob") if config.skips() else None
        for number in config.learn:
            setattr(self, number, nnx.Param(jnp.float32(getattr(config, number))))

    def __setattr__(self, name: str, value: Any) -> None:
        held = vars(self).get(name)
        if isinstance(held, ScalarVariable) and not isinstance(value, nnx.Variable):
            held.set_value(value)
        elif name == "prob" and "prob" in vars(self) and value is not None:
            raise ValueError(
                f"prob of {self._label()} cannot change, because it changes every record; make it "
                "with a prob below 1 where records can stay as they are"
            )
        else:
            super().__setattr__(name, value)

    def transform_image(self, image: Array, *args: Any, **numbers: Any) -> Array:
        """Transforms one record's image.

        Args:
          image: the image.
          *args: none; a subclass names its numbers instead.
          **numbers: the config's numbers, or what `draw` returned, by name.

        Returns:
          The transformed image. Of the same shape and dtype, unless `prob` is always 1.
        """
        raise NotImplementedError(f"{self._label()} must implement transform_image")

    def words(self) -> dict[str, tuple[int, ...]]:
        """How many random words `draw` needs of each record beside one for each number, by name."""
        return {}

    def draw(
        self, words: dict[str, UInt32[Array, "rows ..."]], shape: tuple[int, ...]
    ) -> dict[str, Array]:
        """Makes the numbers of a batch out of random words; a subclass may add some.

        Args:
          words: by name, uint32 `(rows,)` for each number of the config that is a distribution, and
            `(rows, ...)` for what `words` asks for.
          shape: of a record's image.

        Returns:
          By name, arrays `(rows, ...)`, of which `transform_image` gets one row.
        """
        rules = rules_of(self.config)
        return {
            name: rules[name].quantile(distribution, words[name])
            for name, distribution in self.config.distributions().items()
        }

    def generate_random_params(self, rng: Key[Array, ""], data_shapes: PyTree) -> PyTree:
        """Draws the numbers of a batch, and which records are changed at all.

        Args:
          rng: the key.
          data_shapes: like the batch's data, with a shape `(batch, ...)` for each array.

        Returns:
          What `draw` returns, and `applied`, bool `(batch,)`, unless all records are changed
          always.
        """
        rows, *shape = self._extract_field(data_shapes, self.config.field_key)
        shares = {**dict.fromkeys(self.config.distributions(), ()), **self.words()}
        if self.prob is None:
            return self.draw(named_words(rng, rows, shares), tuple(shape))
        words = named_words(rng, rows, {APPLIED: (), **shares})
        applied = randomness.coin(words.pop(APPLIED), jnp.asarray(self.prob.get_value()))
        return {**self.draw(words, tuple(shape)), APPLIED: applied}

    def applied_records(self, random_params: PyTree) -> Bool[Array, " batch"] | None:
        return None if random_params is None else random_params.get(APPLIED)

    def apply(
        self,
        data: PyTree,
        state: PyTree,
        metadata: Any,
        random_params: PyTree = None,
        stats: dict[str, Any] | None = None,
    ) -> tuple[PyTree, PyTree, Any]:
        """Transforms one record.

        Raises:
          KeyError: if a field is not there, listing those that are.
          TypeError: for an image or auxiliary field of a dtype that the operator does not take.
          ValueError: for a wrong rank or shape, a `target_key` or `info_key` that is there already,
            or a stochastic operator without `random_params`.
        """
        if self.stochastic:
            self.require_numbers(random_params)
        data = self.transform_record(data, random_params, stats)
        return data, self._with_info(state, random_params), metadata

    def require_numbers(self, random_params: PyTree) -> None:
        """Raises a ValueError unless there are numbers of a record."""
        if not isinstance(random_params, Mapping):
            raise ValueError(
                f"{self._label()} is stochastic and apply needs random_params, a dict of one "
                f"record's numbers, got {type(random_params).__name__}; take a record's entry of "
                "generate_random_params, or call the operator with a batch"
            )

    def transform_record(
        self, data: PyTree, random_params: PyTree, stats: dict[str, Any] | None
    ) -> PyTree:
        """One record's fields after `apply`, which leaves the numbers behind too."""
        random_params = self.completed(data, random_params)
        return super().apply(data, {}, None, random_params, stats)[0]

    def completed(self, data: PyTree, random_params: PyTree) -> PyTree:
        """The numbers of one record, where they depend on its other fields too.

        Args:
          data: the record's fields.
          random_params: what `draw` returned for it.

        Returns:
          What `transform_image` gets; by default `random_params`.
        """
        return random_params

    def transform_field(
        self, value: Array, random_params: PyTree, stats: dict[str, Any] | None
    ) -> Array:
        value = jnp.asarray(value)
        numbers = self.numbers(random_params)

        def change(image: Array) -> Array:
            return self._require_result("transform_image", self.transform_image(image, **numbers))

        return self.if_applied(random_params, change, value)

    def numbers(self, random_params: PyTree) -> dict[str, Any]:
        """One record's numbers by name: fixed, learned and drawn ones."""
        numbers = {}
        for name, rule in rules_of(self.config).items():
            value = getattr(self.config, name)
            if name in self.config.learn:
                numbers[name] = getattr(self, name).get_value()
            elif not isinstance(value, Distribution):
                numbers[name] = None if value is None else rule.fixed(value)
        drawn = dict(random_params or {})
        drawn.pop(APPLIED, None)
        return numbers | drawn

    def if_applied(self, random_params: PyTree, change: Any, value: PyTree) -> PyTree:
        """`change(value)` where the record is to be changed, else the value, bit-identical."""
        if not random_params or APPLIED not in random_params:
            return change(value)
        return jax.lax.cond(random_params[APPLIED], change, lambda value: value, value)

    def _check_domain(self, value: Any) -> None:
        super()._check_domain(value)
        shape = jnp.shape(value)
        if self.domain is IMAGE and len(shape) == 3 and shape[0] in (1, 3) and shape[2] > 4:
            _warn_of_channels_first(self.config.field_key, shape, self._channels_first_advice)
        if not self.config.validate_domain_constraints or self.any_integer:
            return
        if not jnp.issubdtype(value.dtype, jnp.floating) and value.dtype != jnp.uint8:
            raise TypeError(
                f"field {self.config.field_key!r} must be uint8 or float to be changed by "
                f"{self._label()}, got {value.dtype}; cast it first"
            )

    def at_rest(self, shape: tuple[int, ...]) -> dict[str, Any]:
        """The numbers in evaluation mode where every record is changed always (`config.always`).

        Args:
          shape: of a record's image.

        Returns:
          What `draw` returns, for one record.
        """
        return {}

    def pass_through(self, batch: Batch) -> Batch:
        """The batch as it is, with the field at `target_key`, and numbers that change nothing.

        Where every record is changed always, the numbers are those of `at_rest`.
        """
        if not self.config.always:
            batch = super().pass_through(batch)
        if not self.config.always and self.config.info_key is None:
            return batch
        spec = _replay.numbers_spec(self, batch)
        if self.config.always:
            shape = self._extract_field(batch.data, self.config.field_key).shape[1:]
            rest = self.at_rest(shape)
            numbers = jax.tree.map(
                lambda leaf, value: jnp.broadcast_to(jnp.asarray(value, leaf.dtype), leaf.shape),
                spec,
                {name: rest[name] for name in spec},
            )
            batch = batch.replace(data=_replay.transformed(self, batch.data, numbers))
        else:
            numbers = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), spec)
        return batch.replace(states=self._with_info(batch.states, numbers))

    def _mapped(self) -> AbstractContextManager[None]:
        """Where `transform_record` is mapped over records as the config's `batch_strategy` says."""
        return nullcontext()

    def _with_info(self, state: PyTree, random_params: PyTree) -> PyTree:
        if self.config.info_key is None:
            return state
        return _replay.with_info(self._label(), self.config.info_key, state, random_params)

    @overload
    def replay(self, batch: Batch, numbers: Mapping[str, Any]) -> Batch: ...

    @overload
    def replay(self, batch: Mapping[str, Any], numbers: Mapping[str, Any]) -> dict[str, Any]: ...

    def replay(
        self, batch: Batch | Mapping[str, Any], numbers: Mapping[str, Any]
    ) -> Batch | dict[str, Any]:
        """Transforms a batch with given numbers; draws and counts nothing.

        Args:
          batch: a `Batch`, or a dict of arrays `(batch, ...)`.
          numbers: what an earlier call left at `info_key`, or numbers of your own: by name, arrays
            `(batch, ...)`. `applied`, bool `(batch,)`, can be left out if all records are changed.

        Returns:
          The transformed batch, without the numbers; bit-identical to a call that draws them.

        Raises:
          KeyError: if a number is missing.
          TypeError: if a number's dtype is of another kind than that of what is drawn.
          ValueError: if there is a number that is never drawn, or one of another shape.
        """
        return _replay.replay(self, batch, numbers)


@lru_cache(64)
def _warn_of_channels_first(key: str, shape: tuple[int, ...], advice: str) -> None:
    """Once, because a batch follows the other."""
    logger.warning(
        "field %r of shape %s looks as if its channels came first, but its height is taken to be "
        "%d; if they do, %s",
        key,
        shape,
        shape[0],
        advice,
    )
