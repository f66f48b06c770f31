"""Every test runs on eight CPU devices and with strict dtype promotion."""

import os

# Read when JAX starts its backend; tests for one device take the first of the eight.
os.environ["XLA_FLAGS"] = " ".join(
    [os.environ.get("XLA_FLAGS", ""), "--xla_force_host_platform_device_count=8"]
)

import jax
import pytest

jax.config.update("jax_numpy_dtype_promotion", "strict")


@pytest.fixture(scope="module")
def quick_compiles(request):
    """For tests that do not depend on what XLA optimises, where compiling takes the most time.

    With `-m ""`, which runs the thorough cases too, they are compiled as users compile.
    """
    jax.config.update("jax_disable_most_optimizations", bool(request.config.option.markexpr))
    yield
    jax.config.update("jax_disable_most_optimizations", False)
