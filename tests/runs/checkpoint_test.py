"""Tests that a checkpoint is read back as it was written, or counts as damaged."""

import os
import resource
import shutil
import subprocess

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aejax.errors import UserError
from aejax.runs import checkpoint, manifest
from aejax.runs.leaves import Leaf, fill, host_leaves, kinds, misfit, nest, params_sha256, paths
from aejax.types import State
from tests.harm import needs_linux


def state(step, impl="threefry2x32", seeds=()):
    """Makes every kind of leaf: bfloat16, empty, bool, 0-d, typed key."""
    params = {
        "decoder": {"kernel": jnp.arange(6.0).reshape(2, 3) + step},
        "encoder": {"kernel": jnp.ones((3, 2), jnp.bfloat16) / 3, "none": jnp.zeros((0, 2))},
    }
    memory = {"age": jnp.array([True, False])}
    key = jax.random.key(step, impl=impl)
    return State(jnp.int32(step), key, params, memory, (jnp.int8(3), {"mu": jnp.ones(())}))


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "checkpoints"
    for step in (10, 20):
        checkpoint.write(place, step, host_leaves(state(step)), {"validation_loss": -step})
    return place


def contents(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def equal(a, b):
    assert kinds(a) == kinds(b)
    for path, leaf in host_leaves(a).items():
        assert leaf.record(path) == host_leaves(b)[path].record(path), path


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg"])
def test_a_state_comes_back_to_the_bit(tmp_path, impl):
    """Fails if typed keys come back as their data, or bfloat16 as float32."""
    before = state(7, impl)
    checkpoint.write(tmp_path, 7, host_leaves(before))
    found = checkpoint.newest(tmp_path)
    assert found is not None
    after = fill(state(0, impl), found.leaves)
    equal(after, before)
    assert jax.random.key_impl(after.key) == impl
    assert jax.tree.structure(after) == jax.tree.structure(before)


def test_leaves_go_where_the_template_is(tmp_path):
    """Fails if committed arrays come back uncommitted, or the other way round."""
    checkpoint.write(tmp_path, 7, host_leaves(state(7)))
    found = checkpoint.newest(tmp_path)
    assert found is not None
    device = jax.devices()[0]
    committed = jax.device_put(state(0), device)
    assert all(leaf.committed for leaf in jax.tree.leaves(fill(committed, found.leaves)))
    assert not any(leaf.committed for leaf in jax.tree.leaves(fill(state(0), found.leaves)))


def test_the_copy_outlives_donation():
    """Fails without `copy=True`: on a CPU the host's view is the buffer of the device."""
    step = jax.jit(lambda s: jax.tree.map(lambda x: x + 1, s), donate_argnums=0)
    params = step({"w": jnp.zeros((1000,))})
    leaves = host_leaves(params)
    params = step(params)
    jax.block_until_ready(step(params))
    np.testing.assert_array_equal(leaves["w"].array, np.ones(1000))
    assert leaves["w"].array.flags.owndata


def flipped(whole, position):
    return whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :]


DAMAGE = {
    "first byte": lambda whole: flipped(whole, 0),
    "middle byte": lambda whole: flipped(whole, len(whole) // 2),
    "last byte": lambda whole: flipped(whole, len(whole) - 1),
    "truncated": lambda whole: whole[:-1],
    "empty": lambda whole: b"",
    "missing": None,
}


@pytest.mark.parametrize("how", DAMAGE)
def test_damage_to_any_file_is_noticed(folder, how):
    """Fails for arrays/*/0 without the sha256 of files and leaves, since orbax does not check
    them.
    """
    names = contents(folder / "20")
    assert len(names) > 15  # two files for each leaf, orbax's own, and the manifest
    for name, whole in names.items():
        path = folder / "20" / name
        if (damage := DAMAGE[how]) is None:
            path.unlink()
        else:
            path.write_bytes(damage(whole))
        with pytest.warns(UserWarning, match=f"20 is damaged: .*{path.name}"):
            found = checkpoint.newest(folder)
        assert found is not None
        assert found.step == 10
        path.write_bytes(whole)
    equal(fill(state(0), checkpoint.read(folder, 20).leaves), state(20))


def test_leaf_hashes_alone_notice_a_changed_array(folder):
    """Fails if `read` trusts the files' hashes: here array and manifest of files agree."""
    place = folder / "20"
    record = manifest.read_manifest(place)
    record["leaves"]["params/decoder/kernel"]["sha256"] = "0" * 64
    (place / manifest.MANIFEST).write_bytes(manifest.encode(record))
    with pytest.raises(manifest.Damaged, match="leaf params/decoder/kernel"):
        checkpoint.read(folder, 20)


def test_none_whole_is_an_error_that_touches_nothing(folder):
    for step in (10, 20):
        path = folder / str(step) / "manifest.json"
        path.write_bytes(flipped(path.read_bytes(), 5))
    before = contents(folder)
    with (
        pytest.warns(UserWarning, match="is damaged"),
        pytest.raises(UserError, match=r"checkpoints are damaged .*20 is damaged.*10 is damaged"),
    ):
        checkpoint.newest(folder)
    assert contents(folder) == before


def test_part_of_a_state_though_the_rest_is_gone(folder):
    """Fails if `read` checks the files of leaves that were not asked for."""
    for path in (folder / "20" / "arrays").glob("params.encoder*"):
        shutil.rmtree(path)
    part = checkpoint.newest(folder, lambda path: path.startswith("params/decoder/"))
    kernel = "params/decoder/kernel"
    assert part.step == 20
    assert {path for path in part.leaves if path.startswith(kernel)} == {kernel}
    assert all(path.startswith("params/decoder/") for path in part.leaves)
    np.testing.assert_array_equal(part.leaves[kernel].array, state(20).params["decoder"]["kernel"])
    with pytest.warns(UserWarning, match="20 is damaged: arrays/params.encoder"):
        assert checkpoint.newest(folder, lambda path: path.startswith("params/")).step == 10


def test_the_newest_and_the_best_stay(tmp_path):
    """Fails if the best is the newest one, or the one with the largest value."""
    for step, figure in [(1, 3.0), (2, 1.0), (3, 2.0), (4, 2.5), (5, 2.1)]:
        checkpoint.write(tmp_path, step, host_leaves(state(step)), {"validation_loss": figure})
        manifest.prune(tmp_path, 2, "validation_loss")
    assert manifest.steps(tmp_path) == [5, 4, 2]
    assert manifest.best_figure(tmp_path, "validation_loss") == (2, 1.0)
    manifest.prune(tmp_path, 2)
    assert manifest.steps(tmp_path) == [5, 4]


def test_a_write_that_fails_leaves_the_others(folder):
    """Fails if the hidden folder stays, or gets its final name before the commit."""
    before = contents(folder)

    def full():
        raise OSError(28, "No space left on device")

    with pytest.raises(UserError, match=r"cannot write .*checkpoints: No space left on device"):
        checkpoint.write(folder, 30, host_leaves(state(30)), before_commit=full)
    assert contents(folder) == before
    assert manifest.steps(folder) == [20, 10]


def test_a_full_disk_is_named_and_leaves_the_others(folder):
    """Fails if an error of tensorstore is not distinguished from our own."""
    before = contents(folder)
    noise = {"params/kernel": Leaf(np.random.default_rng(0).random(9_000))}
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    # no file may grow beyond this size
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, limit[1]))
    try:
        with pytest.raises(UserError, match=r"cannot write .*checkpoints: File too large"):
            checkpoint.write(folder, 30, noise)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert contents(folder) == before


def test_a_disk_without_room_is_named_before_anything_is_written(folder, monkeypatch, capfd):
    """Fails if orbax's threads find the full disk, since they print tracebacks."""
    before = contents(folder)
    little = shutil.disk_usage(folder)._replace(free=10_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: little)
    with pytest.raises(UserError, match=r"cannot write .*checkpoints: No space left on device"):
        checkpoint.write(folder, 30, {"params/kernel": Leaf(np.ones(3_000))})
    assert contents(folder) == before
    assert capfd.readouterr().err == ""


def test_what_killed_writers_left_is_no_checkpoint(folder):
    shutil.copytree(folder / "20", folder / ".30.tmp")
    shutil.copytree(folder / "20", folder / ".5.old")
    (folder / ".one.of.mine").mkdir()
    assert manifest.steps(folder) == [20, 10]
    manifest.clean(folder)
    assert sorted(p.name for p in folder.iterdir()) == [".one.of.mine", "10", "20"]


def test_misfit_names_the_leaf():
    tree = kinds(state(0))
    assert tree["params/encoder/kernel"] == ["bfloat16", 3, 2]
    assert misfit(tree, tree) is None
    assert misfit(kinds(state(0, "rbg")), tree) == (
        "key was recorded as key<threefry2x32>[] and is key<rbg>[] in the code"
    )
    fewer = {path: kind for path, kind in tree.items() if path != "opt/0"}
    assert misfit(fewer, tree) == "opt/0 was recorded, but the code has no such array"
    assert misfit(tree, fewer) == "the code has an array opt/0, which was not recorded"


def test_the_hash_of_parameters_sees_path_shape_and_bytes():
    """Fails if only the bytes are hashed."""
    trees = [
        {"a": jnp.zeros((2, 3))},
        {"b": jnp.zeros((2, 3))},
        {"a": jnp.zeros((3, 2))},
        {"a": jnp.zeros((2, 3), jnp.int32)},
        {"a": jnp.zeros((2, 3)).at[1, 2].set(-0.0)},
    ]
    assert len({params_sha256(tree) for tree in trees}) == len(trees)
    assert params_sha256({"a": np.zeros((2, 3), np.float32)}) == params_sha256(trees[0])


def test_paths_and_back():
    tree = {"params": {"a": {"b": 1}, "c": 2}}
    assert paths(tree) == {"params/a/b": 1, "params/c": 2}
    assert nest(paths(tree)) == tree


@needs_linux
@pytest.mark.parametrize("few", [4, 12])
def test_too_few_files_that_may_be_open_print_no_traceback(folder, capfd, few):
    """Fails if a thread of orbax prints or logs the error that is raised anyhow."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    here = max(map(int, os.listdir("/proc/self/fd")))
    held = [os.dup(0)]
    while held[-1] < here:  # numbers that are free below would be used first
        held.append(os.dup(0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (held[-1] + 1 + few, before[1]))
    try:
        with pytest.raises(UserError, match="Too many open files"):
            checkpoint.write(folder, 30, {f"params/{i}": Leaf(np.ones(3)) for i in range(9)})
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        for descriptor in held:
            os.close(descriptor)
    assert manifest.steps(folder) == [20, 10]
    assert "Traceback" not in capfd.readouterr().err


@pytest.fixture
def disk(tmp_path, request):
    """Returns a folder on a small file system of its own, whose size is the parameter."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = shutil.which("mount")
    command = [str(mount), "-t", "tmpfs", "-o", f"size={request.param}k", "none", str(place)]
    if mount is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("a small file system can be made by root only")
    yield place
    subprocess.run(["umount", str(place)], check=True)  # noqa: S607


@pytest.mark.parametrize("disk", [400, 900, 1_400], indirect=True)
def test_a_disk_of_this_size_is_filled_without_a_traceback(disk, capfd):
    """Fails if a thread of orbax prints the error that is raised anyhow, or if files stay.

    The arrays do not compress, and are written until there is no room.
    """
    whole = np.random.default_rng(0)

    def fill():
        for step in range(99):
            leaves = {f"params/{i}": Leaf(whole.random(3_000)) for i in range(6)}
            checkpoint.write(disk, step, leaves)

    with pytest.raises(UserError, match=r"cannot write .*: No space left on device"):
        fill()
    steps = manifest.steps(disk)
    assert steps == list(range(len(steps)))[::-1]
    assert steps
    assert {path.name for path in disk.iterdir()} == {str(step) for step in steps}
    assert capfd.readouterr().err == ""
