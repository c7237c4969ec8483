"""Tests that a run's folder may be edited, damaged or somebody else's: nothing is lost or believed.

Whatever its files hold, opening it ends well or with one sentence, and nothing outside is touched.
"""

import json
import os
import random
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import aejax as ae
from aejax import report
from aejax.errors import UserError
from aejax.runs import checkpoint, manifest, metrics
from aejax.runs.folder import RESULT
from aejax.runs.leaves import host_leaves
from aejax.runs.metrics import DAMAGED, NAME, MetricsFile
from aejax.runs.run import Run
from aejax.types import State
from tests.harm import little, needs_linux


def state(step):
    return State(jnp.int32(step), jax.random.key(0), {"kernel": jnp.full(3, float(step))}, {}, {})


def train(folder, until, finish=True):
    """Trains from where the folder is; returns the step of the start, or the result."""
    with Run(folder, {"steps": 6}, checkpoint_seconds=0) as run:
        if run.result is not None:
            return run.result
        begun = run.restore(state(0))
        for step in range(int(begun.step), until):
            run.log(state(step + 1), {"loss": np.array([0.5 * step])})
            run.save(state(step + 1))
            run._writer.wait()
        if until == 6 and finish:
            run.finish({"elbo": 1.0}, state(6))
    return int(begun.step)


def line(step, **more):
    return json.dumps({"step": step, "time": 1.0, "loss": 0.5 * step, **more}).encode() + b"\n"


def logged(folder):
    return [json.loads(one)["step"] for one in (folder / NAME).open()]


# What a line in the middle became -> the steps before the restored one that are left.
REST = [step for step in range(37) if step != 5]
LINES = {
    "blank": (b"\n", REST),
    "NUL": (bytes(30) + b"\n", REST),
    "half": (line(5)[:20] + b"\n", REST),
    "joined to the next": (line(5)[:20], [step for step in REST if step != 6]),
    "no object": (b"[5]\n", REST),
    "without a step": (b'{"loss": 1}\n', REST),
    "a vast step": (b'{"step": 1' + b"0" * 30 + b"}\n", REST),
    "a step of later": (line(50), REST),
    "nested deep": (b"[" * 9_000 + b"]" * 9_000 + b"\n", REST),
    "twice": (line(5) + line(5), list(range(37))),
    "an earlier step": (line(4), REST),
    "not UTF-8": (b'{"step": 5, "\xff\xfe": 1}\n', REST),
}


@pytest.mark.parametrize("how", LINES)
def test_a_bad_line_does_not_take_those_after_it(tmp_path, how):
    """40 lines, a checkpoint at step 37. Fails if the file is cut at the first bad line."""
    damaged, left = LINES[how]
    lines = [line(step) for step in range(40)]
    lines[5] = damaged
    (tmp_path / NAME).write_bytes(b"".join(lines))
    file = MetricsFile(tmp_path / NAME)
    with pytest.warns(UserWarning, match=rf"1 damaged lines, which were moved to {DAMAGED}"):
        file.resume(37)
    file.append(37, {"loss": np.zeros(2)})
    file.close()
    assert logged(tmp_path) == [*left, 37, 38]
    aside = (tmp_path / DAMAGED).read_bytes()
    assert aside in b"".join(lines)
    assert aside


def test_a_missing_line_or_a_missing_end_costs_nothing_else(tmp_path):
    """Fails if steps must follow each other, or if a whole last line needs its end."""
    lines = [line(step) for step in range(6) if step != 2]
    (tmp_path / NAME).write_bytes(b"".join(lines)[:-1])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        MetricsFile(tmp_path / NAME).resume(9)
    assert logged(tmp_path) == [0, 1, 3, 4, 5]


def test_lines_of_a_run_without_damage_are_cut_in_place(tmp_path):
    """Fails if the file is written anew at each start, or if the lines of later steps stay."""
    (tmp_path / NAME).write_bytes(b"".join(line(step) for step in range(9)) + b'{"step": 9, "lo')
    inode = (tmp_path / NAME).stat().st_ino
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        MetricsFile(tmp_path / NAME).resume(4)
    assert logged(tmp_path) == [0, 1, 2, 3]
    assert (tmp_path / NAME).stat().st_ino == inode
    assert not (tmp_path / DAMAGED).exists()


def test_metrics_that_are_a_link_are_not_written(tmp_path):
    """Fails if the link is followed: the file elsewhere would be cut."""
    (tmp_path / "elsewhere").write_bytes(line(0) + line(1))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / NAME).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=r"cannot write .*metrics.jsonl"):
        MetricsFile(tmp_path / "run" / NAME).resume(1)
    assert (tmp_path / "elsewhere").read_bytes() == line(0) + line(1)


def test_checkpoints_that_are_a_link_are_not_touched(tmp_path):
    """Fails if what looks like a leftover elsewhere is removed, or a checkpoint written there."""
    train(tmp_path / "run", 1)
    place, elsewhere = tmp_path / "run" / "checkpoints", tmp_path / "elsewhere"
    place.rename(elsewhere)
    (elsewhere / ".3.tmp").mkdir()
    place.symlink_to(elsewhere)
    with pytest.raises(UserError, match="checkpoints is a link to another folder"):
        train(tmp_path / "run", 2)
    assert {path.name for path in elsewhere.iterdir()} == {"1", ".3.tmp"}


@needs_linux
def test_metrics_without_the_end_of_a_line_are_not_read(tmp_path):
    """8 GiB of zeros that take no room on the disk. Fails if a line may have any length."""
    (tmp_path / NAME).touch()
    os.truncate(tmp_path / NAME, 2**33)
    with little():
        for read in (MetricsFile(tmp_path / NAME).resume, lambda _: metrics.read(tmp_path)):
            with pytest.raises(UserError, match="it has a line of more than 16,777,216 bytes"):
                read(3)


RESULTS = {
    "by hand": {"steps": 6},
    "of other parameters": {"steps": 6, "params_sha256": "0" * 64},
}


@pytest.mark.parametrize("how", RESULTS)
def test_a_result_without_the_hash_of_the_parameters_is_not_believed(tmp_path, how):
    """Fails if the number of steps is enough."""
    train(tmp_path / "a", 6)
    wanted = json.loads((tmp_path / "a" / RESULT).read_text())
    train(tmp_path / "b", 3)
    (tmp_path / "b" / RESULT).write_text(json.dumps(RESULTS[how]))
    with pytest.warns(UserWarning, match=r"result.json is not believed, because its params_sha256"):
        assert train(tmp_path / "b", 6) == 3
    assert json.loads((tmp_path / "b" / RESULT).read_text()) == wanted
    assert train(tmp_path / "b", 6) == wanted


def test_a_result_without_a_state_has_the_hash_of_the_newest_checkpoint(tmp_path):
    """Fails if such a run is trained again at each start."""
    with Run(tmp_path, {"steps": 6}, checkpoint_seconds=0) as run:
        run.restore(state(0))
        run.save(state(6))
        found = run.finish({"elbo": 1.0})
    assert train(tmp_path, 6) == found


def test_a_folder_with_another_digit_in_its_name_is_no_checkpoint(tmp_path):
    """Fails with `isdigit`, for which a superscript is a digit that `int` does not know."""
    train(tmp_path, 2)
    for name in ("²", "٣", "1" * 400):
        try:
            (tmp_path / "checkpoints" / name).mkdir()
        except OSError:  # the last name is too long for a file system
            continue
    assert manifest.steps(tmp_path / "checkpoints") == [2, 1]
    assert train(tmp_path, 3) == 2


def rewritten(place, change):
    """Changes a checkpoint's files, and its manifest with the right hash of its own."""
    checkpoint.write(place, 7, host_leaves({"params": {"w": jnp.ones((2, 3))}}))
    found = manifest.read_manifest(place / "7")
    change(place / "7", found)
    (place / "7" / manifest.MANIFEST).write_bytes(manifest.encode(found))
    return place


ARRAY = "arrays/params.w"


def edited(old, new):
    """Returns a change of the file that describes an array, whose hash the manifest then has."""

    def change(place, found):
        path = place / ARRAY / ".zarray"
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))
        found["files"][f"{ARRAY}/.zarray"] = checkpoint.file_sha256(path)

    return change


def listed(name):
    return lambda place, found: found["files"].update({name: "0" * 64})


def linked(target):
    def change(place, found):
        (place / ARRAY / "1").symlink_to(target)
        found["files"][f"{ARRAY}/1"] = "0" * 64

    return change


def vast(place, found):
    """Describes the array as a tebibyte of zeros, to us and to orbax."""
    edited('"chunks":[2,3]', '"chunks":[1048576,262144]')(place, found)
    edited('"shape":[2,3]', '"shape":[1048576,262144]')(place, found)
    found["leaves"]["params/w"]["shape"] = [2**20, 2**18]


CHECKPOINTS = {
    "a file elsewhere": (listed("/etc/hostname"), "names the file '/etc/hostname'"),
    "a file above": (listed("arrays/../../../x"), "which is not in arrays/"),
    "a device": (listed("/dev/zero"), "names the file '/dev/zero'"),
    "a link": (linked("/etc/hostname"), f"{ARRAY}/1 is a link"),
    "a link without an end": (linked("/dev/zero"), f"{ARRAY}/1 is a link"),
    "a tebibyte": (vast, r"needs at least 1,024\.0 GiB of memory, but there is"),
    "another shape": (edited('"shape":[2,3]', '"shape":[9000000,30000]'), "another shape than"),
    "vast chunks": (edited('"chunks":[2,3]', '"chunks":[9000000,30000]'), "or larger chunks"),
    "an unknown dtype": (edited('"<f4"', '"<q9"'), "arrays cannot be read"),
    "no JSON": (edited('{"chunks"', '{{"chunks"'), r"\.zarray cannot be read"),
    "no shape": (
        lambda place, found: found["leaves"]["params/w"].pop("shape"),
        "'leaves' of manifest.json is",
    ),
    "files of null": (lambda place, found: found.update(files=None), "'files' of manifest.json"),
    "no step": (lambda place, found: found.pop("step"), "'step' of manifest.json is None"),
}


@needs_linux
@pytest.mark.parametrize("how", CHECKPOINTS)
def test_a_manifest_with_a_right_hash_may_still_lie(tmp_path, how):
    """Fails if the check that the message names is left out."""
    change, says = CHECKPOINTS[how]
    place = rewritten(tmp_path, change)
    with little(), pytest.raises(manifest.Damaged, match=says):
        checkpoint.read(place, 7)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A run of a model that `load` can rebuild."""
    folder = tmp_path_factory.mktemp("small")
    model = ae.Autoencoder(ae.nets.MLP((3,)), ae.Point(2), ae.nets.MLP((3,), shape=(4,)))
    x = jnp.ones((2, 4))
    params = model.init(jax.random.key(0), ae.Batch(x, x))["params"]
    begun = State(jnp.int32(1), jax.random.key(0), params, {}, {})
    with Run(folder, {"steps": 1, "name": "a"}, model=model) as run:
        run.restore(begun._replace(step=jnp.int32(0)))
        run.log(begun, {"loss": np.ones(1)})
        run.save(begun)
        run.finish({"loss": 1.0}, begun)
    return folder


# What a field may become, whatever it was.
VALUES = (None, [], {}, 3, -1, 10**40, "x", "NaN", [None], {"a": {}}, True, [[]], "\ud800", "\n")


def places(data, path=()):
    """Yields the way to every entry of nested lists and objects."""
    yield path
    inner = data.items() if isinstance(data, dict) else enumerate(data)
    for name, value in inner if isinstance(data, dict | list) else ():
        if isinstance(value, dict | list):
            yield from places(value, (*path, name))
        else:
            yield (*path, name)


def change(data, chance):
    """Returns JSON in which one entry is removed, or replaced by one of VALUES."""
    data = json.loads(json.dumps(data))
    way = chance.choice([path for path in places(data) if path])
    outer = data
    for name in way[:-1]:
        outer = outer[name]
    if chance.random() < 0.2:
        del outer[way[-1]]
    else:
        outer[way[-1]] = chance.choice(VALUES)
    return data


def attempt(act):
    """Runs a function that may raise nothing but UserError, whose message is one line."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            act()
        except UserError as error:
            said = str(error)
        else:
            said = ""
    assert "\n" not in said


@pytest.mark.parametrize("count", [40, pytest.param(1_000, marks=pytest.mark.slow)])
def test_hand_edits_end_well_or_in_one_sentence(small, count):
    """Fails with a TypeError or KeyError if a field is used before it was checked."""
    chance = random.Random(0)

    def start():
        model = ae.load(small).model
        with Run(small, {"steps": 1, "name": "a"}, model=model) as run:
            return run.result

    readers = {
        "config.json": lambda: (ae.load(small, seed=chance.choice([None, 0])), start()),
        "environment.json": start,
        "result.json": start,
        NAME: lambda: (metrics.read(small), report.history(small)),
    }
    for name, read in readers.items():
        whole = (small / name).read_text()
        for _ in range(count // len(readers)):
            (small / name).write_text(json.dumps(change(json.loads(whole), chance)))
            attempt(read)
        (small / name).write_text(whole)
