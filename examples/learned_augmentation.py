# %% [markdown]
# # Learning a brightness and a rotation
#
# The numbers of an image operator become parameters with `learn`. Here two of them start at wrong
# values, and gradient descent finds the numbers with which a set of images was darkened and
# rotated, from the images alone. This takes some seconds on a CPU:
#
# ```
# python examples/learned_augmentation.py
# ```

# %%
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from datarax.operators.modality.image import (
    BrightnessOperator,
    BrightnessOperatorConfig,
    RotationOperator,
    RotationOperatorConfig,
)

FACTOR, DEGREES = 0.6, 12.0
STEPS = 120

# %% [markdown]
# ## Images and operators
#
# A rotation of smooth images changes every pixel a little, so the error has a useful gradient.


# %%
def blobs(number=8, size=24):
    """Smooth float images `(number, size, size, 1)`."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:size, :size] / size
    centres = rng.uniform(0.2, 0.8, (number, 3, 2))
    away = (y - centres[..., 0, None, None]) ** 2 + (x - centres[..., 1, None, None]) ** 2
    return np.exp(-away / 0.02).sum(axis=1)[..., None].astype(np.float32)


def operators(factor, degrees, *learn):
    """A brightness and a rotation; the numbers named in `learn` are parameters."""
    brightness = BrightnessOperatorConfig(factor=factor, learn=learn[:1])
    rotation = RotationOperatorConfig(degrees=degrees, learn=learn[1:])
    return BrightnessOperator(brightness), RotationOperator(rotation)


# %% [markdown]
# ## One step
#
# Operators are Flax NNX modules, so `nnx.value_and_grad` and an `nnx.Optimizer` take them as they
# are.


# %%
@nnx.jit
def step(brightness, rotation, optimizers, images, target):
    """One step of gradient descent on the squared error."""

    def loss(brightness, rotation):
        found = rotation(brightness({"image": images}))["image"]
        return jnp.mean((found - target) ** 2)

    value, gradients = nnx.value_and_grad(loss, argnums=(0, 1))(brightness, rotation)
    for optimizer, module, gradient in zip(
        optimizers, (brightness, rotation), gradients, strict=True
    ):
        optimizer.update(module, gradient)
    return value


# %% [markdown]
# ## Both numbers


# %%
def main():
    """Learns both numbers and returns them."""
    images = blobs()
    true_brightness, true_rotation = operators(FACTOR, DEGREES)
    target = true_rotation(true_brightness({"image": images}))["image"]
    brightness, rotation = operators(1.0, 0.0, "factor", "degrees")
    # A degree changes images less than a factor does, so its steps are larger.
    optimizers = nnx.List(
        [
            nnx.Optimizer(brightness, optax.adam(0.03), wrt=nnx.Param),
            nnx.Optimizer(rotation, optax.adam(0.5), wrt=nnx.Param),
        ]
    )
    for number in range(STEPS):
        loss = step(brightness, rotation, optimizers, images, target)
        if number % 20 == 0:
            print(f"step {number:3d}  squared error {float(loss):.2e}")
    factor, degrees = float(brightness.factor[...]), float(rotation.degrees[...])
    print(f"factor {factor:.3f} (true {FACTOR}), degrees {degrees:.2f} (true {DEGREES})")
    return factor, degrees


if __name__ == "__main__":
    factor, degrees = main()
