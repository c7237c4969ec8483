"""Settings of all tests: strict shapes, one CPU device, compiled programs kept on the disk."""

import os
import pathlib
from importlib.metadata import version

import pytest

ROOT = pathlib.Path(__file__).parent.parent

# These are set before jax is imported, and in the environment, so that subprocesses run the same
# way. A value that is already set is kept.
SETTINGS = {
    "JAX_PLATFORMS": "cpu",
    "JAX_NUMPY_RANK_PROMOTION": "raise",
    "JAX_COMPILATION_CACHE_DIR": str(ROOT / ".cache" / "jax"),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "0",
    # Tests spend most of their time compiling; code without optimisation takes two thirds of it.
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
}
if version("jaxlib").startswith("0.10."):
    # The older emitters of elementwise code compile in two thirds of the time of the newer ones.
    # Later versions of jaxlib do not have this flag, and end the process if they meet it.
    SETTINGS["XLA_FLAGS"] = "--xla_cpu_use_fusion_emitters=false"
for name, value in SETTINGS.items():
    os.environ.setdefault(name, value)


@pytest.fixture
def key():
    import jax

    return jax.random.key(0)


@pytest.fixture(autouse=True, scope="module")
def forget():
    """Frees compiled programs after each module: those of all modules together take gigabytes."""
    yield
    import jax

    jax.clear_caches()
