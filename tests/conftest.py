"""Settings of all tests: strict shapes, one CPU device, compiled programs kept on the disk."""

import gc
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
    # The older emitters of elementwise code compile in two thirds of the time of the newer ones,
    # and code that is not split between threads compiles in five sixths of the time. Later versions
    # of jaxlib do not have these flags, and end the process if they meet one.
    SETTINGS["XLA_FLAGS"] = (
        "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
    )
for name, value in SETTINGS.items():
    os.environ.setdefault(name, value)


@pytest.fixture
def key():
    import jax

    return jax.random.key(0)


@pytest.fixture(scope="session")
def digits(tmp_path_factory):
    """Returns a folder in which digits are prepared, which takes seconds."""
    from aejax.data import images

    folder = tmp_path_factory.mktemp("digits")
    images("digits", data_dir=folder)
    return folder


@pytest.fixture(scope="module")
def coarse():
    """Draws all pictures with fewer pixels, because drawing is most of the time of a report."""
    from aejax.report.drawing import style

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(style, "DPI", 30)
        yield


# The slowest files. The workers begin with them, so that none runs alone at the end.
LONGEST = (
    "training/learner_test.py",
    "contract_test.py",
    "experiments/commands_test.py",
    "losses/sparsity_test.py",
    "runs/run_test.py",
    "pairs_test.py",
    "training/compiled_test.py",
    "bottlenecks/levels_test.py",
)
# Compiled programs are kept for the next modules until a process holds this many bytes.
ROOM = 3 << 30


def pytest_collection_modifyitems(items):
    longest = [ROOT / "tests" / name for name in LONGEST]
    items.sort(key=lambda item: longest.index(item.path) if item.path in longest else len(longest))


def pytest_collection_finish():
    """Collects garbage less often, because tracing makes many objects, most of which stay."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


@pytest.fixture(autouse=True, scope="module")
def forget():
    """Frees compiled programs if they fill the memory: those of all modules take gigabytes."""
    yield
    if resident() > ROOM:
        import jax

        jax.clear_caches()


def resident() -> int:
    """Returns the bytes of memory that this process holds, or 0 if the system does not tell."""
    try:
        pages = pathlib.Path("/proc/self/statm").read_text().split()[1]
    except OSError:
        return 0
    return int(pages) * os.sysconf("SC_PAGE_SIZE")
