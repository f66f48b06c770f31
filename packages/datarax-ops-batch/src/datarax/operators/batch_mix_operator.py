"""MixUp and CutMix of the records in a batch."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Key, PyTree

from datarax.core.config import Exact, OperatorConfig, require_bools
from datarax.core.element_batch import Batch
from datarax.core.operator import OperatorModule, require_batch
from datarax.core.schedule import Probability, Switch
from datarax.operators._mix import info, labels, notices, options, run
from datarax.operators._mix.cutmix import CutMix as CutMix
from datarax.operators._mix.fmix import FMix as FMix
from datarax.operators._mix.plan import MixPlan, PlanKeys
from datarax.operators._mix.region import RegionSampler as RegionSampler
from datarax.operators._mix.resizemix import ResizeMix as ResizeMix

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class BatchMixOperatorConfig(OperatorConfig):
    """Configuration of `BatchMixOperator`.

    Only the fields named here are touched; every other field of the batch, segmentation masks and
    integer fields included, passes through as it is. Name a mask in `paste_fields` if it is to
    get the same boxes as the image.

    Every option is given by name. Fields are named by dotted path: `"inputs.image"` is
    `data["inputs"]["image"]`.

    Args:
      mode: "mixup", "cutmix", or "both": each draw is one or the other.
      alpha: α of λ ~ Beta(α, α), positive. In mode "both", of MixUp.
      data_field: the images, `(batch, height, width, channel)` or of any shape that has the
        `spatial_axes`; one name or a tuple of names, all with the same λ, partner and box. Floats,
        or integers of 8, 16 or 32 bits; the dtype is kept.
      label_field: the labels: rows of weights `(batch, classes)`, floats (at least float32 comes
        out) or integers or bools (float32 comes out), or class numbers, integers `(batch,)` or
        `(batch, 1)`, with `num_classes`. A tuple of names for several; None for none.
      mix_fields: fields mixed like the images; without spatial axes of their own (regression
        targets, embeddings of a text), averaged with the labels' weights instead.
      paste_fields: fields of any dtype, such as segmentation masks, of which only CutMix boxes
        are pasted. MixUp leaves them as they are: in mode "both", rows that are blended keep
        their own mask, which then fits one of the two images only.
      cutmix_alpha: α of CutMix in mode "both"; None means 1.
      switch_prob: the probability that a draw in mode "both" is CutMix; None means 0.5.
      learn_alpha: make log α of MixUp an `nnx.Param`, `op.log_alpha`, that starts at `alpha` and
        gets gradients through images and labels.
      granularity: "batch" draws one λ and one box a batch (or group); "record" draws them for each
        record. If the batch has a `record_index`, λ, box, switch and chance of a row are then a
        function of its record, epoch and view, and only the partner depends on the batch.
      prob: the probability that a draw mixes at all; the start value of `op.prob`.
      cutmix_minmax: fractions (low, high) between which each side of a CutMix box is uniform, in
        place of Beta-distributed areas.
      box_placement: "inside" puts boxes completely inside the image, all places equally likely;
        "clipped" draws the centre from all pixels and clips the box at the border.
      sampler: what draws the pasted regions instead of CutMix boxes: `ResizeMix(...)`, `FMix(...)`
        or your own `RegionSampler`; `cutmix_alpha` (`alpha` in mode "cutmix") is its α.
      spatial_axes: axes on which boxes are cut, ascending, batch being axis 0: (2, 3) for channels
        first, (1,) for audio, (1, 2, 3) for volumes.
      num_classes: how many classes there are; class numbers become one-hot float32. One that does
        not exist is an error wherever the host can read it; elsewhere its row becomes NaN. For
        several labels one number for all, or a dict of numbers by label field, kept as a tuple in
        their order; None stands for labels that are rows of weights.
      label_smoothing: ε; labels become (1 − ε) y + ε / K before they are mixed, unmixed ones too.
      smooth_multi_hot: smooth float labels whose rows do not sum to 1 instead of refusing them.
      checkify: check class numbers inside your own `jax.jit` too, where
        `jax.experimental.checkify.checkify` brings the error out. Calls outside of it take
        some 0.1 ms longer.
      mix_group_size: mix only inside groups of so many consecutive rows, each with randomness of
        its own, so that the result does not depend on the batch size and a batch sharded at group
        boundaries is mixed without moving images between devices. None mixes a sharded batch as a
        whole, for which every device gets a copy of all images.
      mix_info: leave `lam`, `partner` and `box` (or `mask`, with a sampler of masks) of each record
        in `batch.states["mix_info"]`.
      field_axes: the spatial axes of fields beside the first image where these cannot be told from
        shapes, by field, batch being axis 0 and negative ones counted from the end: a dict such as
        `{"masks": (-2, -1)}`, kept as pairs; `()` for one of `mix_fields` that has none. Fields
        that are not named have the image's sizes on its own axes, else on their last, else on their
        first: masks `(batch, masks, height, width)` beside images, or one mask for all frames.
      ignore_index: the class number that stands for no class, such as 255 or -100: its row becomes
        zeros, which count for nothing in a cross-entropy, smoothed or not.
      stream_name: the random stream; one called "default" serves if `rngs` lacks it.
      stochastic: must be True.
      cacheable: refused if True: a remembered mix would repeat its randomness.
      batch_stats_fn: see `datarax.core.config.OperatorConfig`; mixing reads no statistics.
      precomputed_stats: see `datarax.core.config.OperatorConfig`; mixing reads no statistics.
      batch_strategy: see `datarax.core.config.OperatorConfig`.

    Raises:
      TypeError: for an option of the wrong type.
      ValueError: for an option out of range, or one without effect in this mode.

    >>> BatchMixOperatorConfig(mode="cutmix", alpha=1.0).stream_name
    'batch_mix'
    """

    stochastic: bool = True
    stream_name: str | None = "batch_mix"
    _: KW_ONLY
    mode: Literal["mixup", "cutmix", "both"] = "mixup"
    alpha: float = 1.0
    data_field: str | tuple[str, ...] = "image"
    label_field: str | tuple[str, ...] | None = "label"
    mix_fields: tuple[str, ...] = ()
    paste_fields: tuple[str, ...] = ()
    cutmix_alpha: float | None = None
    switch_prob: float | None = None
    learn_alpha: bool = False
    granularity: Literal["batch", "record"] = "batch"
    prob: float = 1.0
    cutmix_minmax: tuple[float, float] | None = None
    box_placement: Literal["inside", "clipped"] = "inside"
    sampler: RegionSampler | None = None
    spatial_axes: tuple[int, ...] = (1, 2)
    num_classes: int | Mapping[str, int | None] | tuple[int | None, ...] | None = None
    label_smoothing: float = 0.0
    smooth_multi_hot: bool = False
    checkify: bool = False
    mix_group_size: int | None = None
    mix_info: bool = False
    field_axes: Mapping[str, tuple[int, ...]] | tuple[tuple[str, tuple[int, ...]], ...] = ()
    ignore_index: int | None = None

    def __post_init__(self) -> None:
        name = type(self).__name__
        if isinstance(self.cacheable, str):
            raise TypeError(
                f"{name} takes its options by name; write {name}(mode={self.cacheable!r}, ...)"
            )
        if not self.stochastic:
            raise ValueError(
                f"{name}.stochastic must be True, because mixing always draws random numbers; "
                "leave it out, and call op.eval() for evaluation"
            )
        super().__post_init__()
        require_bools(self, "learn_alpha", "smooth_multi_hot", "checkify", "mix_info")
        options.check_roles(self, name)
        axes = options.axes_by_field(name, self.field_axes)
        object.__setattr__(self, "field_axes", axes)
        classes = options.classes_by_label(name, self.num_classes, self.label_fields())
        object.__setattr__(self, "num_classes", classes)
        options.check_draws(self, name)
        options.check_labels(self, name)

    def data_fields(self) -> tuple[str, ...]:
        """Names of the images."""
        return options.names(self.data_field)

    def label_fields(self) -> tuple[str, ...]:
        """Names of the labels."""
        return options.names(self.label_field)

    def classes(self) -> tuple[int | None, ...]:
        """How many classes each label has; None where that is not said."""
        if isinstance(self.num_classes, tuple):
            return self.num_classes
        assert not isinstance(self.num_classes, Mapping)
        return (self.num_classes,) * len(self.label_fields())

    def roles(self) -> dict[str, tuple[str, ...]]:
        """Names of all fields that are read, by the option that names them."""
        return {
            "data_field": self.data_fields(),
            "label_field": self.label_fields(),
            "mix_fields": self.mix_fields,
            "paste_fields": self.paste_fields,
        }


class BatchMixOperator(OperatorModule[BatchMixOperatorConfig]):
    """Mixes records of a batch in pairs: MixUp (λ x + (1 − λ) y) and CutMix (a box of y in x).

    A record's partner is the next one on a random circle of all records (of its group). Padded rows
    stay bit-identical; with fewer than two records nothing is mixed. λ = 1 gives a record back
    exactly, whatever its partner holds. `uint8` images stay `uint8`: the integer nearest to the
    exact value. The label's weights in CutMix are the exact fractions of pixels.

    Args:
      config: what to mix and how.
      rngs: streams to derive its own from, "batch_mix" or "default"; they advance.
      name: its name in messages.

    Attributes:
      prob: the probability that a draw mixes; `op.prob.set_value(0.5)` compiles nothing again.
      log_alpha: with `learn_alpha`, log α as an `nnx.Param`; None otherwise.
      enabled: whether anything is mixed or smoothed, a Variable that a schedule can set. For
        evaluation, `op.eval()` does what setting it to False does.

    Raises:
      TypeError: if `config` is not a `BatchMixOperatorConfig`.
      ValueError: if `rngs` lacks the stream.

    References:
      MixUp: Zhang et al. 2018, https://arxiv.org/abs/1710.09412, equation 1.
      CutMix: Yun et al. 2019, https://arxiv.org/abs/1905.04899, equations 1 and 2.

    >>> import numpy as np
    >>> images = np.stack([np.zeros((4, 4, 3), np.float32), np.ones((4, 4, 3), np.float32)])
    >>> batch = Batch.from_arrays({"image": images, "label": np.eye(2, dtype=np.float32)})
    >>> op = BatchMixOperator(BatchMixOperatorConfig(mode="mixup", alpha=0.4), rngs=nnx.Rngs(0))
    >>> mixed = op(batch)
    >>> bool(np.allclose(mixed["image"][:, 0, 0, 0], mixed["label"][:, 1]))
    True
    """

    config_class = BatchMixOperatorConfig
    per_record_params = False

    def __init__(
        self,
        config: BatchMixOperatorConfig,
        *,
        rngs: nnx.Rngs | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(config, rngs=rngs, name=name)
        self.prob = Probability(config.prob, label="prob")
        self.enabled = Switch(True, label="enabled")
        log_alpha = jnp.asarray(np.log(np.float32(config.alpha)))
        self.log_alpha = nnx.Param(log_alpha) if config.learn_alpha else None
        if config.mode == "both" and config.paste_fields:
            logger.info(
                "%s pastes %s where it draws CutMix and leaves them as they are where it draws "
                "MixUp, so that they fit one of the two images only; for segmentation use mode "
                "'cutmix'",
                self._label(),
                list(config.paste_fields),
            )

    def __setattr__(self, name: str, value: Any) -> None:
        variable = vars(self).get(name) if name in ("prob", "enabled") else None
        if isinstance(variable, nnx.Variable) and not isinstance(value, nnx.Variable):
            variable.set_value(value)
        else:
            super().__setattr__(name, value)

    def _check_values(self, batch: Batch) -> None:
        labels.check_values(self._label(), self.config, batch)
        notices.tell_lone_rows(self, batch)

    def _checked_fields(self) -> tuple[str, ...]:
        return self.config.label_fields() if labels.are_checked(self.config) else ()

    def generate_random_params(self, rng: Key[Array, ""], data_shapes: PyTree) -> Key[Array, ""]:
        """Returns the key itself: what is drawn from it depends on which rows are valid."""
        return rng

    def apply(
        self,
        data: PyTree,
        state: PyTree,
        metadata: Any,
        random_params: PyTree = None,
        stats: dict[str, Any] | None = None,
    ) -> tuple[PyTree, PyTree, Any]:
        """Returns a single record unchanged: it has no partner."""
        return data, state, metadata

    def apply_batch(self, batch: Batch, stats: dict[str, Any] | None = None) -> Batch:
        """Mixes a batch.

        Args:
          batch: the records.
          stats: not used; mixing needs no statistics.

        Returns:
          The batch with mixed fields; the rest of it are the same objects.

        Raises:
          KeyError: if a field is missing, listing those there are.
          TypeError: if a field's dtype cannot be mixed, or `batch` is not a `Batch`.
          ValueError: if shapes do not fit; if class numbers have no `num_classes`; if a class that
            can be read does not exist (others become NaN); or if the stream cannot advance.
        """
        require_batch(self, batch)
        labels.check_values(self._label(), self.config, batch, traced=False)
        if self._passes_through():
            return self._passed_through(batch)
        setup = run.setup(self._label(), self.config, batch.data, batch.batch_size)
        valid = jnp.asarray(batch.valid_mask)
        with self._plan_keys(batch, setup) as keys:
            plan = run.plan(
                keys,
                valid,
                Exact(setup),
                self.prob.get_value(),
                self.enabled.get_value(),
                None if self.log_alpha is None else jnp.exp(self.log_alpha.get_value()),
            )
            mixed = run.mix(batch.data, valid, plan, setup, self.enabled.get_value())
        self.count_operations(valid, applied=plan.lam < 1)
        return self._with_info(batch.replace(data=mixed), plan, setup)

    @contextmanager
    def _plan_keys(self, batch: Batch, setup: run.Setup) -> Iterator[PlanKeys]:
        if batch.record_index is None:
            with self._call_key() as key:
                yield run.call_keys(key, batch.batch_size, setup)
        else:
            yield run.record_plan_keys(self._base_key(), batch, setup)

    def _with_info(self, out: Batch, plan: MixPlan, setup: run.Setup) -> Batch:
        if not self.config.mix_info:
            return out
        return out.replace(states=info.with_info(self._label(), out.states, plan, setup.layout))

    def pass_through(self, batch: Batch) -> Batch:
        """The batch with labels in the form that mixing gives them, neither mixed nor smoothed."""
        setup = run.setup(self._label(), self.config, batch.data, batch.batch_size)
        data = run.plain_labels(batch.data, jnp.asarray(batch.valid_mask), setup)
        plan = info.unmixed(batch.batch_size, setup)
        return self._with_info(batch.replace(data=data), plan, setup)

    def replay(self, batch: Batch, mix_info: Mapping[str, Array]) -> Batch:
        """Mixes a batch just as an earlier call did; draws and counts nothing.

        Args:
          batch: the batch that was mixed, or another of its size.
          mix_info: `mixed.states["mix_info"]` of that call, with `lam` `(batch,)`, `partner`
            `(batch,)` and `box` `(batch, 2 * axes)` or `mask` `(batch, *sizes)`.

        Returns:
          The mixed batch, bit-identical to that of the call, without `mix_info`.

        Raises:
          KeyError: if a field is missing.
          TypeError: if a dtype does not fit, or `batch` is not a `Batch`.
          ValueError: if a shape does not fit.
        """
        require_batch(self, batch)
        setup = run.setup(self._label(), self.config, batch.data, batch.batch_size)
        # Who calls with arrays of the host wants them on a device.
        with jax.transfer_guard("allow"):
            plan = info.plan_of(self._label(), mix_info, batch.valid_mask, setup)
            valid = jnp.asarray(batch.valid_mask)
            mixed = run.mix(batch.data, valid, plan, setup, self.enabled.get_value())
        return batch.replace(data=mixed)

    def output_spec(self, input_spec: PyTree) -> PyTree:
        """The spec of a mixed record: labels become rows of classes, of at least float32."""
        return run.output_spec(self._label(), self.config, input_spec)

    def get_output_structure(
        self, sample_data: PyTree, sample_state: PyTree
    ) -> tuple[PyTree, PyTree]:
        data, state = super().get_output_structure(sample_data, sample_state)
        if self.config.mix_info:
            spec = jax.tree.map(
                lambda leaf: jax.ShapeDtypeStruct((1, *leaf.shape), leaf.dtype), sample_data
            )
            layout = run.setup(self._label(), self.config, spec, 1).layout
            state = {**state, info.INFO: dict.fromkeys(info.names(layout))}
        return data, state
