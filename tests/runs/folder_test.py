"""Tests of a run's folder: which starts are refused, what is a warning, and full disks."""

import contextlib
import dataclasses
import json
import platform
import resource
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import aejax as ae
from aejax.errors import UserError
from aejax.runs import manifest, metrics, writer
from aejax.runs.environment import processor_of
from aejax.runs.run import Run
from aejax.training.loop import NonFinite
from aejax.types import State


@dataclasses.dataclass(frozen=True)
class Config:
    latents: int = 2
    rate: float = 0.1
    data_dir: str = "a"
    steps: int = 4


OBJECTIVE = ae.merge(
    ae.elbo(beta=optax.linear_schedule(0.0, 1.0, 10)), ae.watch(error=ae.losses.squared_error)
)


def state(step, width=3, impl="threefry2x32"):
    key = jax.random.key(0, impl=impl)
    return State(
        jnp.int32(step), key, {"encoder": {"kernel": jnp.full((width,), float(step))}}, {}, {}
    )


def steps(run, first, last, value=1.0, **figures):
    """Trains as a script does, with one step in each chunk."""
    for step in range(first, last):
        after = state(step + 1)
        run.log(after, {"loss": np.array([value + step]), "rate": np.array([0.5])})
        run.save(after, **figures)
        run._writer.wait()


def start(folder, config=None, like=(), until=2, **options):
    with Run(folder, config or Config(), checkpoint_seconds=0, **options) as run:
        begun = run.restore(state(0, *like))
        steps(run, int(begun.step), until)
    return int(begun.step)


def contents(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture
def folder(tmp_path):
    start(tmp_path / "run", objective=OBJECTIVE)
    return tmp_path / "run"


def test_lists_in_lists_are_no_record(folder):
    """Fails if a JSON file that is nested too deep raises RecursionError."""
    (folder / "config.json").write_text("[" * 100_000)
    with pytest.raises(UserError, match=r"config\.json cannot be read .*restore it or remove it"):
        start(folder)


def test_a_folder_goes_on_where_it_was(folder):
    assert start(folder, until=4) == 2
    assert start(folder, until=4) == 4
    assert [json.loads(x)["step"] for x in (folder / metrics.NAME).open()] == [0, 1, 2, 3]
    assert manifest.steps(folder / "checkpoints") == [4, 3, 2]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"config": Config(latents=8)}, "latents was 2 and is 8"),
        ({"config": Config(rate=0.2)}, "rate was 0.1 and is 0.2"),
        ({"config": Config(steps=3)}, "steps was 4 and is 3"),
        ({"config": {"latents": 2}}, "rate was 0.1 and is not there"),
        ({"objective": ae.elbo()}, r"objective.rate.weight was .*schedule.* and is 1.0"),
        ({"objective": ae.merge(OBJECTIVE, ae.watch(l0=ae.losses.l0))}, "objective.l0 was not"),
        ({"objective": {**OBJECTIVE, "error": (2.0, None)}}, "error.weight was 'watched' and is 2"),
        ({"like": (4,)}, r"params/encoder/kernel was .* float32\[3\] and is float32\[4\] in the"),
        ({"like": (3, "rbg")}, "prng was 'threefry2x32' and is 'rbg'"),
        ({"config": Config(data_dir="b")}, "data_dir was 'a'"),
    ],
)
def test_what_no_longer_fits_is_refused_by_name(folder, options, words):
    """Fails if a section of config.json is not compared, or is written before it is compared."""
    before = contents(folder)
    with pytest.raises(UserError, match=words):
        start(folder, **options)
    assert contents(folder) == before


def test_other_metrics_are_refused(folder):
    before = (folder / metrics.NAME).read_bytes()
    with (
        pytest.raises(UserError, match=r"metrics was \['loss', 'rate'\] and is \['loss'\]"),
        Run(folder, Config()) as run,
    ):
        run.log(run.restore(state(0)), {"loss": np.ones(1)})
    assert (folder / metrics.NAME).read_bytes() == before


def test_more_steps_go_on_and_a_result_of_fewer_is_none(folder):
    """Fails if result.json counts whatever its number of steps."""
    with Run(folder, Config(), checkpoint_seconds=0) as run:
        steps(run, int(run.restore(state(0)).step), 4)
        result = run.finish({"elbo": np.float32(1.5), "each": jnp.ones(2), "bad": np.nan}, state(4))
    assert result["steps"] == 4
    with Run(folder, Config()) as run:
        assert run.result == result
        assert run.result["bad"] == "NaN"
    with Run(folder, Config(steps=6), checkpoint_seconds=0) as run:
        assert run.result is None
        assert int(run.restore(state(0)).step) == 4
    assert json.loads((folder / "config.json").read_text())["config"]["steps"] == 6


def test_what_may_change_is_a_warning(folder):
    with pytest.warns(UserWarning, match="data_dir was 'a' and is 'b'"):
        start(folder, Config(data_dir="b"), may_change=("data_dir",))


def test_another_jax_or_device_is_a_warning(folder):
    path = folder / "environment.json"
    before = json.loads(path.read_text())
    before["versions"]["jax"] = "0.1"
    before["devices"]["kind"] = "abacus"
    path.write_text(json.dumps(before))
    with (
        pytest.warns(UserWarning, match=r"versions.jax was 0\.1 and is"),
        pytest.warns(UserWarning, match="devices was platform=cpu kind=abacus"),
    ):
        start(folder)
    assert json.loads(path.read_text())["earlier"][0]["versions"]["jax"] == "0.1"


def test_facts_stand_in_the_environment(folder):
    with Run(folder, Config()) as run:
        run.environment(data="ab12")
        run.restore(state(0))
        run.environment(test_key=7)
    found = json.loads((folder / "environment.json").read_text())
    assert (found["data"], found["test_key"]) == ("ab12", 7)
    assert found["versions"]["jax"] == jax.__version__
    with Run(folder, Config()) as run:
        run.environment(data="cd34")
        with pytest.warns(UserWarning, match="data was 'ab12' and is 'cd34'"):
            run.restore(state(0))


def test_one_process_at_a_time(folder):
    """Fails without flock, which the kernel releases when its holder ends."""
    with Run(folder, Config()), pytest.raises(UserError, match=r"another process writes .*run;"):
        start(folder)
    start(folder)


def test_folders_that_are_no_run(tmp_path):
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "mother.txt").write_text("Dear mother")
    with pytest.raises(UserError, match=r"letters is not the folder of a run \(it holds m"):
        start(tmp_path / "letters")
    with pytest.raises(UserError, match=r"cannot write .*mother.txt/run: Not a directory"):
        start(tmp_path / "letters" / "mother.txt" / "run")
    assert list(contents(tmp_path)) == [(tmp_path / "letters/mother.txt").relative_to(tmp_path)]


def test_a_start_that_fails_binds_nobody_to_its_config(tmp_path):
    """Fails if config.json is written before there is a state."""
    with pytest.raises(ZeroDivisionError), Run(tmp_path / "run", Config(latents=0)):
        raise ZeroDivisionError
    assert list((tmp_path / "run").iterdir()) == []
    start(tmp_path / "run", Config(latents=8))


def test_a_damaged_checkpoint_is_named_and_the_one_before_it_is_used(folder):
    """Fails if metrics are cut at the newest checkpoint, not at the restored one."""
    path = folder / "checkpoints/2/arrays/params.encoder.kernel/0"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.warns(UserWarning, match="checkpoints/2 is damaged"):
        assert start(folder, until=4) == 1
    assert [json.loads(x)["step"] for x in (folder / metrics.NAME).open()] == [0, 1, 2, 3]
    assert (folder / "checkpoints/damaged-2").exists()
    assert start(folder, until=4) == 4


def test_where_none_is_whole_nothing_is_touched(folder):
    for path in folder.glob("checkpoints/*/manifest.json"):
        path.write_text("{}")
    before = contents(folder)
    with (
        pytest.warns(UserWarning, match=r"manifest.json has changed since it was written"),
        pytest.raises(UserError, match="all checkpoints are damaged"),
    ):
        start(folder)
    assert contents(folder) == before


def test_half_a_line_is_dropped(folder):
    """Fails if the file is only appended to."""
    with (folder / metrics.NAME).open("a") as file:
        file.write('{"step": 2, "lo')
    start(folder, until=4)
    assert [json.loads(x)["step"] for x in (folder / metrics.NAME).open()] == [0, 1, 2, 3]


def test_a_loss_that_is_no_number_leaves_the_last_good_checkpoint(folder):

    def train():
        with Run(folder, Config(), checkpoint_seconds=0) as run:
            steps(run, int(run.restore(state(0)).step), 3)
            raise NonFinite(3, ["rate"], None, "loss", np.nan)

    with pytest.raises(NonFinite, match=r"at step 3 .*last good checkpoint is .*checkpoints/3"):
        train()
    assert manifest.steps(folder / "checkpoints")[0] == 3


def test_parameters_that_are_no_numbers_are_not_saved(tmp_path):
    """Fails if only the loss is checked, which is finite until the next step."""
    bad = state(1)._replace(params={"kernel": jnp.array([1.0, np.nan])})

    def train():
        with Run(tmp_path, Config(), checkpoint_seconds=0) as run:
            run.save(run.restore(bad))

    with pytest.raises(UserError, match="params/kernel holds NaN or infinity after step 0"):
        train()
    assert manifest.steps(tmp_path / "checkpoints") == []


def test_the_best_is_kept(tmp_path, monkeypatch):
    """Fails if metrics are not written, or if the time alone decides."""
    monkeypatch.setattr(writer, "BEST_SECONDS", 0.0)
    with Run(tmp_path, Config(steps=9), best="loss", keep=2, checkpoint_seconds=1e9) as run:
        run.restore(state(0))
        for step, loss in enumerate([3.0, np.array([0.5, 1.5]), 2.0, 4.0]):
            run.save(state(step + 1), figures={"loss": loss})
            run._writer.wait()
        assert run._writer.step == 2
        for step in (5, 6, 7):
            run._writer.start(state(step), {})
    assert manifest.steps(tmp_path / "checkpoints") == [7, 6, 2]
    assert manifest.best_figure(tmp_path / "checkpoints", "loss") == (2, 1.0)


def test_the_best_is_kept_though_it_comes_at_once_after_another(tmp_path):
    """Fails if a best state that comes within two seconds of a checkpoint is dropped."""
    with Run(tmp_path, Config(steps=9), best="loss", keep=1, checkpoint_seconds=1e9) as run:
        run.restore(state(0))
        for step, loss in enumerate([3.0, 2.0, 1.0, 4.0]):
            run.save(state(step + 1), figures={"loss": loss})
        run._writer.start(state(8), {})
    assert manifest.steps(tmp_path / "checkpoints") == [8, 3]
    assert manifest.best_figure(tmp_path / "checkpoints", "loss") == (3, 1.0)


@contextlib.contextmanager
def full_disk():
    """Limits files to 300 bytes, so that a write fails in the middle, as on a full disk.

    It covers a few lines only, since what pytest writes to a file would fail too.
    """
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_leaves_whole_files(tmp_path):
    """Fails if the written part of a line stays, or the hidden folder of a checkpoint."""
    file = metrics.MetricsFile(tmp_path / metrics.NAME)
    file.resume(0)
    file.append(0, {"loss": np.ones(2)})
    whole = (tmp_path / metrics.NAME).read_bytes()
    refused = pytest.raises(UserError, match=r"cannot write .*metrics.jsonl: File too large")
    with refused, full_disk():
        file.append(2, {"loss": np.ones(9)})
    assert (tmp_path / metrics.NAME).read_bytes() == whole
    run = Run(tmp_path / "run", Config())
    with pytest.raises(UserError, match=r"cannot write .*config.json"), full_disk(), run:
        run.restore(state(0))
    assert list((tmp_path / "run").iterdir()) == []


def test_a_trace_is_written(tmp_path):
    program = f"""
import numpy as np, jax.numpy as jnp, jax
from aejax.runs.run import Run
from aejax.types import State
def state(step):
    return State(jnp.int32(step), jax.random.key(0), {{}}, {{}}, {{}})
with Run({str(tmp_path / "run")!r}, {{"steps": 9}}, profile=True) as run:
    run.restore(state(0))
    for step in range(3):
        run.log(state(step + 1), {{"loss": np.ones(1)}})
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
    assert list((tmp_path / "run" / "profile").rglob("*.xplane.pb"))


@pytest.mark.parametrize(
    ("cpuinfo", "name"),
    [
        ("processor : 0\nmodel name\t: X9\nflags\t\t: sse avx avx2 avx512f\n", "X9, AVX-512"),
        (
            "model name : X9: 2 GHz\nflags : avx2 avx\n\nmodel name : Y\nflags : amx_tile\n",
            "X9: 2 GHz, AVX2",
        ),
        ("processor : 0\nFeatures : fp asimd crc32\n", f"{platform.machine()}, NEON"),
        ("", platform.machine()),
    ],
)
def test_a_processor_has_its_name_and_its_fastest_vector_unit(cpuinfo, name):
    """Fails if the slowest unit is named, or the last processor, or a name is cut at a colon."""
    assert processor_of(cpuinfo) == name
