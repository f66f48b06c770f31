"""MixUp and CutMix of the records in a batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Key, PyTree

from datarax.core.config import OperatorConfig, require_bools
from datarax.core.element_batch import Batch
from datarax.core.operator import OperatorModule, require_batch
from datarax.operators._mix import info, options, run
from datarax.operators._mix.cutmix import CutMix as CutMix
from datarax.operators._mix.fmix import FMix as FMix
from datarax.operators._mix.region import RegionSampler as RegionSampler
from datarax.operators._mix.resizemix import ResizeMix as ResizeMix
from datarax.operators._mix.schedule import Probability, Switch


@dataclass(frozen=True)
class BatchMixOperatorConfig(OperatorConfig):
    """Configuration of `BatchMixOperator`.

    Only the fields named here are touched; every other field of the batch, segmentation masks and
    integer companions included, passes through as it is. Name a mask in `paste_fields` if it shall
    get the same boxes as the image.

    Args:
      cacheable: refused if True: a remembered mix would repeat its randomness.
      batch_stats_fn: see `DataraxModuleConfig`; mixing reads no statistics.
      precomputed_stats: see `DataraxModuleConfig`; mixing reads no statistics.
      stochastic: must be True.
      stream_name: the random stream; None means the stream called "default".
      batch_strategy: "vmap" mixes all records at once, "scan" one after the other; see
        `OperatorConfig`.
      mode: "mixup", "cutmix", or "both": each draw is one or the other.
      alpha: α of λ ~ Beta(α, α), positive. In mode "both", of MixUp.
      data_field: the images, `(batch, height, width, channel)` or of any shape that has the
        `spatial_axes`; one name or a tuple of names, all with the same λ, partner and box. Floats,
        or integers of 8, 16 or 32 bits; the dtype is kept.
      label_field: the labels: float rows `(batch, classes)` (at least float32 comes out), or
        integers `(batch,)` with `num_classes`. A tuple of names for several; None for none.
      mix_fields: companions mixed like the images; without spatial axes of their own (regression
        targets), averaged with the labels' weights instead.
      paste_fields: companions of any dtype, such as segmentation masks, of which only CutMix boxes
        are pasted; MixUp leaves them as they are.
      cutmix_alpha: α of CutMix in mode "both"; None means 1.
      switch_prob: how likely a draw in mode "both" is CutMix; None means 0.5.
      learn_alpha: make log α of MixUp an `nnx.Param`, `op.log_alpha`, that starts at `alpha` and
        gets gradients through images and labels.
      granularity: "batch" draws one λ and one box a batch (or group); "record" draws them for each
        record.
      prob: how likely a draw mixes at all; the start value of `op.prob`.
      cutmix_minmax: fractions (low, high) between which each side of a CutMix box is uniform, in
        place of Beta-distributed areas.
      box_placement: "inside" puts boxes wholly inside the image, every place equally likely;
        "clipped" draws the centre from all pixels and clips what sticks out.
      sampler: what draws the pasted regions in place of CutMix boxes: `ResizeMix(...)`, `FMix(...)`
        or a `RegionSampler` of your own; `cutmix_alpha` (`alpha` in mode "cutmix") is its α.
      spatial_axes: axes on which boxes are cut, ascending, batch being axis 0: (2, 3) for channels
        first, (1,) for audio, (1, 2, 3) for volumes.
      num_classes: how many classes integer labels have; they become one-hot float32.
      label_smoothing: ε; labels become (1 − ε) y + ε / K before they are mixed, unmixed ones too.
      smooth_multi_hot: smooth float labels whose rows do not sum to 1 instead of refusing them.
      mix_group_size: mix only inside groups of so many consecutive rows, each with randomness of
        its own, so that the result does not depend on the batch size and a batch sharded at group
        boundaries is mixed without moving images between devices. None mixes a sharded batch as a
        whole, for which every device gets a copy of all images.
      mix_info: leave `lam`, `partner` and `box` (or `mask`, with a sampler of masks) of each record
        in `batch.states["mix_info"]`.

    Raises:
      TypeError: for an option of the wrong type.
      ValueError: for an option out of range, or one without effect in this mode.

    >>> BatchMixOperatorConfig(mode="cutmix", alpha=1.0, stream_name="cutmix").label_field
    'label'
    """

    stochastic: bool = True
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
    num_classes: int | None = None
    label_smoothing: float = 0.0
    smooth_multi_hot: bool = False
    mix_group_size: int | None = None
    mix_info: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        name = type(self).__name__
        if not self.stochastic:
            raise ValueError(
                f"{name}.stochastic must be True, because mixing always draws random numbers; "
                "leave it out, and set op.enabled to False for evaluation"
            )
        require_bools(self, "learn_alpha", "smooth_multi_hot", "mix_info")
        options.check_draws(self, name)
        options.check_roles(self, name)
        options.check_labels(self, name)

    def data_fields(self) -> tuple[str, ...]:
        """Names of the images."""
        return options.names(self.data_field)

    def label_fields(self) -> tuple[str, ...]:
        """Names of the labels."""
        return options.names(self.label_field)

    def roles(self) -> dict[str, tuple[str, ...]]:
        """Names of all fields that are read, by the option that names them."""
        return {
            "data_field": self.data_fields(),
            "label_field": self.label_fields(),
            "mix_fields": self.mix_fields,
            "paste_fields": self.paste_fields,
        }


class BatchMixOperator(OperatorModule):
    """Mixes records of a batch in pairs: MixUp (λ x + (1 − λ) y) and CutMix (a box of y in x).

    A record's partner is the next one round a random circle of all valid records (of its group).
    Rows that are padding take no part and come out bit for bit; with fewer than two valid rows
    nothing is mixed. λ = 1 gives a record back exactly, whatever its partner holds. `uint8` images
    stay `uint8`: the integer nearest to the exact value. The label's weights in CutMix are the
    exact fractions of pixels.

    Args:
      config: what to mix and how.
      rngs: streams to derive its own from.
      name: what to call it in messages.

    Attributes:
      prob: how likely a draw mixes; `op.prob.set_value(0.5)` compiles nothing again.
      log_alpha: with `learn_alpha`, log α as an `nnx.Param`; None otherwise.
      enabled: whether anything is mixed or smoothed; `op.enabled.set_value(False)` for evaluation.

    Raises:
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

    per_record_params = False

    def __init__(
        self,
        config: BatchMixOperatorConfig,
        *,
        rngs: nnx.Rngs | None = None,
        name: str | None = None,
    ) -> None:
        if not isinstance(config, BatchMixOperatorConfig):
            raise TypeError(
                f"config of {type(self).__name__} must be a BatchMixOperatorConfig, "
                f"got {type(config).__name__}"
            )
        super().__init__(config, rngs=rngs, name=name)
        self.config: BatchMixOperatorConfig = config
        self.prob = Probability(Probability.checked(config.prob))
        self.enabled = Switch(Switch.checked(True))
        log_alpha = jnp.asarray(np.log(np.float32(config.alpha)))
        self.log_alpha = nnx.Param(log_alpha) if config.learn_alpha else None

    def _check_values(self, batch: Batch) -> None:
        run.check_label_values(self._label(), self.config, batch)

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
        """Returns a single record unchanged, since it has nobody to be mixed with."""
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
          ValueError: if shapes do not fit; if class numbers have no `num_classes`; if labels that
            can be read are out of range (others become NaN); or if the stream cannot advance.
        """
        require_batch(self, batch)
        self._check_values(batch)
        setup = run.setup(self._label(), self.config, batch)
        base = self._base_key()
        valid = jnp.asarray(batch.valid_mask)
        with self._random_params(batch) as key:
            plan = run.plan(
                run.group_keys(key, base, batch, setup),
                valid,
                setup,
                self.prob.get_value(),
                self.enabled.get_value(),
                None if self.log_alpha is None else jnp.exp(self.log_alpha.get_value()),
            )
            mixed = run.mix(batch.data, valid, plan, setup, self.enabled.get_value())
        self.count_operations(valid, applied=plan.lam < 1)
        out = batch.replace(data={**batch.data, **mixed})
        if not self.config.mix_info:
            return out
        states = info.with_info(self._label(), batch.states, plan, setup.layout)
        return out.replace(states=states)

    def replay(self, batch: Batch, mix_info: Mapping[str, Array]) -> Batch:
        """Mixes a batch just as an earlier call did; draws and counts nothing.

        Args:
          batch: the batch that was mixed, or another of its size.
          mix_info: `mixed.states["mix_info"]` of that call, with `lam` `(batch,)`, `partner`
            `(batch,)` and `box` `(batch, 2 * axes)` or `mask` `(batch, *sizes)`.

        Returns:
          The mixed batch, bit for bit that of the call, without `mix_info`.

        Raises:
          KeyError: if a field or an entry is missing.
          TypeError: if a dtype does not fit, or `batch` is not a `Batch`.
          ValueError: if a shape does not fit.
        """
        require_batch(self, batch)
        setup = run.setup(self._label(), self.config, batch)
        plan = info.plan_of(self._label(), mix_info, len(batch), setup.layout)
        valid = jnp.asarray(batch.valid_mask)
        mixed = run.mix(batch.data, valid, plan, setup, self.enabled.get_value())
        return batch.replace(data={**batch.data, **mixed})

    def output_spec(self, input_spec: PyTree) -> PyTree:
        """The spec of a mixed record: labels become rows of classes, of at least float32."""
        return run.output_spec(self._label(), self.config, input_spec)

    def get_output_structure(
        self, sample_data: PyTree, sample_state: PyTree
    ) -> tuple[PyTree, PyTree]:
        data, state = super().get_output_structure(sample_data, sample_state)
        if self.config.mix_info:
            batch = Batch.from_arrays(jax.tree.map(lambda leaf: leaf[None], sample_data))
            layout = run.setup(self._label(), self.config, batch).layout
            state = {**state, info.INFO: dict.fromkeys(info.names(layout))}
        return data, state
