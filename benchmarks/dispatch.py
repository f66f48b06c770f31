"""What a call costs beside the work: operators on a batch of 8 images of 8 x 8 x 3."""

from __future__ import annotations

from collections.abc import Callable

import mix
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


def noise_ours_dict() -> Call:
    """The same arrays without a `Batch`: what it costs more is the price of a plain dict."""
    import jax

    operator, batch = noise_operator(), dict(device_batch().data)
    return lambda: jax.block_until_ready(operator(batch))


def noise_ours_dict_masked() -> Call:
    import jax

    operator, batch = noise_operator(), device_batch().as_dict()
    return lambda: jax.block_until_ready(operator(batch))


def noise_ours_key() -> Call:
    import jax

    operator, batch, key = noise_operator(), device_batch(), jax.random.key(0)
    return lambda: jax.block_until_ready(operator(batch, key=key))


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


def mix_ours_dict(mode: str) -> Call:
    import jax

    operator, batch = mix_operator(mode), dict(device_batch().data)
    return lambda: jax.block_until_ready(operator(batch))


def mix_ours_key(mode: str) -> Call:
    import jax

    operator, batch, key = mix_operator(mode), device_batch(), jax.random.key(0)
    return lambda: jax.block_until_ready(operator(batch, key=key))


def mix_nnx_jit(mode: str) -> Call:
    import jax
    from flax import nnx

    operator, batch = mix_operator(mode), device_batch()
    run = nnx.jit(lambda operator, batch: operator(batch))
    return lambda: jax.block_until_ready(run(operator, batch))


def for_mode(build: Callable[[str], Call], mode: str) -> Callable[[], Call]:
    return lambda: build(mode)


def peers(mode: str) -> dict[str, Callable[[], Call]]:
    """The peers of `mix.py`, on the batch of this benchmark."""
    work = mix.Workload(mode, ROWS, 8, "float32")
    names = ("monolith, nnx.jit", "keras, jit", "timm, in place", "kornia", "numpy")
    return {name: lambda make=mix.CONTENDERS[name]: make(work) for name in names}


CASES = [
    Case(
        "noise (8, 8, 8, 3)",
        {
            "plain jit": noise_plain,
            "datarax op(batch)": noise_ours,
            "datarax op(batch), record_index": noise_ours_indexed,
            "datarax op(dict)": noise_ours_dict,
            "datarax op(dict), valid_mask": noise_ours_dict_masked,
            "datarax op(batch, key=)": noise_ours_key,
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
                "datarax op(dict)": for_mode(mix_ours_dict, mode),
                "datarax op(batch, key=)": for_mode(mix_ours_key, mode),
                "nnx.jit over the operator": for_mode(mix_nnx_jit, mode),
                **peers(mode),
            },
            reference="plain jit",
            calls=2000,
        )
        for mode in ("mixup", "cutmix")
    ),
]

if __name__ == "__main__":
    main(CASES)
