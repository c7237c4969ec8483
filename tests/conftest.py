"""How tests run: strict shapes, one CPU device, compiled programs kept in an ignored folder."""

import os
import pathlib
from importlib.metadata import version

import pytest

ROOT = pathlib.Path(__file__).parent.parent

# Set before jax is imported, and in the environment, so that subprocesses run the same way. A
# value from outside wins.
SETTINGS = {
    "JAX_PLATFORMS": "cpu",
    "JAX_NUMPY_RANK_PROMOTION": "raise",
    "JAX_COMPILATION_CACHE_DIR": str(ROOT / ".cache" / "jax"),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "0",
    # Most of a test is compiling: machine code of the first draft takes two thirds of the time.
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
}
if version("jaxlib").startswith("0.10."):
    # The older emitters of elementwise code compile in two thirds of the newer ones' time. Later
    # versions of jaxlib have no such flag, and end the process where they meet it.
    SETTINGS["XLA_FLAGS"] = "--xla_cpu_use_fusion_emitters=false"
for name, value in SETTINGS.items():
    os.environ.setdefault(name, value)


@pytest.fixture
def key():
    import jax

    return jax.random.key(0)


@pytest.fixture(autouse=True, scope="module")
def forget():
    """Compiled programs go with their module: those of a whole run take gigabytes."""
    yield
    import jax

    jax.clear_caches()
