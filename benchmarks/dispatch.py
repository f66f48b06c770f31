"""What a call costs beside the work: operators on a batch of 8 images of 8 x 8 x 3."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
from harness import Call, Case, main

ROWS = 8


def images() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "image": rng.random((ROWS, 8, 8, 3), np.float32),
        "label": np.eye(10, dtype=np.float32)[rng.integers(0, 10, ROWS)],
    }


def device_batch():
    import jax

    from datarax.core.element_batch import Batch

    return jax.device_put(Batch.from_arrays(images()))


def noise_operator():
    """Adds uniform noise to every image: the smallest stochastic operator."""
    import jax
    from flax import nnx

    from datarax.core.config import OperatorConfig
    from datarax.core.operator import OperatorModule

    class Noise(OperatorModule):
        def generate_random_params(self, rng, data_shapes):
            return jax.random.uniform(rng, data_shapes["image"])

        def apply(self, data, state, metadata, random_params=None, stats=None):
            return {**data, "image": data["image"] + random_params}, state, metadata

    return Noise(OperatorConfig(stochastic=True), rngs=nnx.Rngs(0))


def noise_plain() -> Call:
    import jax

    batch, key = device_batch(), jax.random.key(0)

    @jax.jit
    def noise(batch, key):
        u = jax.random.uniform(key, batch["image"].shape)
        return batch.replace(data={**batch.data, "image": batch["image"] + u})

    return lambda: jax.block_until_ready(noise(batch, key))


def noise_ours() -> Call:
    import jax

    operator, batch = noise_operator(), device_batch()
    return lambda: jax.block_until_ready(operator(batch))


def noise_ours_indexed() -> Call:
    import jax

    index = jax.numpy.arange(ROWS, dtype="uint32")
    operator, batch = noise_operator(), device_batch().replace(record_index=index)
    return lambda: jax.block_until_ready(operator(batch))


def noise_nnx_jit() -> Call:
    import jax
    from flax import nnx

    operator, batch = noise_operator(), device_batch()
    run = nnx.jit(lambda operator, batch: operator(batch))
    return lambda: jax.block_until_ready(run(operator, batch))


def mix_operator(mode: str):
    from flax import nnx

    from datarax.operators.batch_mix_operator import BatchMixOperator, BatchMixOperatorConfig

    return BatchMixOperator(BatchMixOperatorConfig(mode=mode, alpha=1.0), rngs=nnx.Rngs(0))


def mix_plain(mode: str) -> Call:
    """The operator's own work as a pure function of the batch and its state, under plain jit."""
    import jax
    from flax import nnx

    operator, batch = mix_operator(mode), device_batch()
    graph, state = nnx.split(operator)

    @jax.jit
    def mix(state, batch):
        return nnx.merge(graph, state)(batch)

    return lambda: jax.block_until_ready(mix(state, batch))


def mix_ours(mode: str) -> Call:
    import jax

    operator, batch = mix_operator(mode), device_batch()
    return lambda: jax.block_until_ready(operator(batch))


def mix_nnx_jit(mode: str) -> Call:
    import jax
    from flax import nnx

    operator, batch = mix_operator(mode), device_batch()
    run = nnx.jit(lambda operator, batch: operator(batch))
    return lambda: jax.block_until_ready(run(operator, batch))


def mix_keras(mode: str) -> Call:
    import os

    os.environ["KERAS_BACKEND"] = "jax"
    import jax
    import keras

    layer = {"mixup": keras.layers.MixUp, "cutmix": keras.layers.CutMix}[mode](seed=0)
    data = jax.device_put({"images": images()["image"], "labels": images()["label"]})
    state = [variable.value for variable in layer.non_trainable_variables]
    mix = jax.jit(lambda state, data: layer.stateless_call([], state, data, training=True))
    return lambda: jax.block_until_ready(mix(state, data))


def timm_mixup() -> type:
    """The Mixup of timm, without the rest of timm, which needs torchvision."""
    package = importlib.util.find_spec("timm")
    if package is None or package.origin is None:
        raise ImportError("timm is not installed")
    spec = importlib.util.spec_from_file_location(
        "timm_mixup", Path(package.origin).parent / "data" / "mixup.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Mixup


def mix_timm(mode: str) -> Call:
    import torch

    alphas = {"mixup": (1.0, 0.0), "cutmix": (0.0, 1.0)}[mode]
    mix = timm_mixup()(mixup_alpha=alphas[0], cutmix_alpha=alphas[1], num_classes=10)
    x = torch.from_numpy(images()["image"]).permute(0, 3, 1, 2).contiguous()
    y = torch.from_numpy(images()["label"].argmax(1))
    return lambda: mix(x, y)


def for_mode(build: Callable[[str], Call], mode: str) -> Callable[[], Call]:
    return lambda: build(mode)


CASES = [
    Case(
        "noise (8, 8, 8, 3)",
        {
            "plain jit": noise_plain,
            "datarax op(batch)": noise_ours,
            "datarax op(batch), record_index": noise_ours_indexed,
            "nnx.jit over the operator": noise_nnx_jit,
        },
        reference="plain jit",
        calls=2000,
    ),
    *(
        Case(
            f"{mode} (8, 8, 8, 3)",
            {
                "plain jit": for_mode(mix_plain, mode),
                "datarax op(batch)": for_mode(mix_ours, mode),
                "nnx.jit over the operator": for_mode(mix_nnx_jit, mode),
                "keras, jit": for_mode(mix_keras, mode),
                "timm, in place": for_mode(mix_timm, mode),
            },
            reference="plain jit",
            calls=2000,
        )
        for mode in ("mixup", "cutmix")
    ),
]

if __name__ == "__main__":
    main(CASES)
