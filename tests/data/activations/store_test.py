"""Tests of the activation store: any producer writes it, tokens are filtered, damage is refused."""

import functools
import json
import os
import signal
import subprocess
import sys

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

import aejax as ae
from aejax.data.activations.filter import TokenFilter
from aejax.data.activations.store import activations
from aejax.data.activations.tokens import BLOCK
from aejax.data.activations.writer import ActivationWriter
from tests.kinds import ROOT

N, D = 2900, 6
X = np.random.default_rng(0).normal(size=(N, D)).astype(np.float32) + 3.0
X[:, 0] = np.arange(N)  # the first number of a token is its index
ABOUT = {"model": "none", "revision": "0"}


def write(folder, x=X, step=100, shard_tokens=700, **options):
    with ActivationWriter(folder, provenance=ABOUT, shard_tokens=shard_tokens, **options) as writer:
        for start in range(writer.appends * step, len(x), step):
            writer.append({"blocks.3/mlp": x[start : start + step]})
    return activations(folder)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return write(tmp_path_factory.mktemp("store"))


def files(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


class TestStore:
    def test_tokens_come_back_whatever_the_request(self, store):
        """Shards, blocks and requests end at different places.

        Fails if an offset is taken within a shard.
        """
        assert len(store.index.shards) == 5
        tokens = store.tokens("blocks.3/mlp")
        wanted = np.random.default_rng(1).integers(0, N, (7, 300))
        for reserved in (0, BLOCK, N):
            tokens.reserve(reserved)
            np.testing.assert_array_equal(tokens[wanted], X[wanted])
            np.testing.assert_array_equal(tokens[650:1700], X[650:1700])
        part = tokens.between(513, 2001)
        part.reserve(N)
        inside = np.random.default_rng(2).integers(0, 2001 - 513, 400)
        np.testing.assert_array_equal(part[inside], X[513:2001][inside])
        np.testing.assert_array_equal(np.asarray(part), X[513:2001])
        shard = store.folder / store.index.shards[2].files[0]
        mapped = np.memmap(shard, np.float32, "r").reshape(-1, D)
        np.testing.assert_array_equal(mapped, X[1400:2100])
        with pytest.raises(IndexError, match="of 1488"):
            part[np.array([1488])]

    @pytest.mark.parametrize(
        ("indices", "says"),
        [
            (X[:, 0] > 2000, r"ndarray of bool.*np.flatnonzero"),
            (1.7, "float of float64"),
            ((0, 1), "tuple of int64"),
        ],
    )
    def test_what_is_no_number_of_a_token(self, store, indices, says):
        """Fails if a mask is read as tokens 0 and 1, 1.7 as token 1, or an axis as tokens."""
        with pytest.raises(ae.UserError, match=says):
            store.tokens("blocks.3/mlp")[indices]

    def test_moments_are_those_of_numpy(self, store):
        """Fails if sums are float32, or if means of chunks are averaged without their weights."""
        assert "blocks.3/mlp float32" in repr(store)
        assert len(repr(store)) < 300  # without the moments
        x = X.astype(np.float64)
        moments = store.hook("blocks.3/mlp").moments
        np.testing.assert_allclose(moments.mean, x.mean(0), rtol=1e-12)
        assert moments.scale == pytest.approx(np.sqrt(x.var(0).mean()), rel=1e-12)
        assert moments.mean_norm == pytest.approx(np.linalg.norm(x, axis=1).mean(), rel=1e-12)
        gamma = np.linalg.norm(x.mean(0)) / np.sqrt(x.var(0).sum())
        assert moments.gamma == pytest.approx(gamma, rel=1e-12)

    @pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
    def test_any_producer(self, tmp_path, dtype):
        """numpy, JAX and a DLPack object can append. Fails if bfloat16 needs `__array__`."""

        # like torch's tensor: numpy has no bfloat16 of it, and it has gradients to detach
        class Tensor:
            def __init__(self, value):
                self.value = value

            def __array__(self, dtype=None, copy=None):
                raise TypeError("Got unsupported ScalarType BFloat16")

            def __dlpack__(self, **options):
                return self.value.__dlpack__(**options)

            def __dlpack_device__(self):
                return self.value.__dlpack_device__()

        x = X[:60, 1:].reshape(3, 20, D - 1)
        exact = x.astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
        made = {"numpy": exact, "jax": jnp.asarray(exact), "dlpack": Tensor(jnp.asarray(exact))}
        for name, values in made.items():
            with ActivationWriter(tmp_path / name, provenance=ABOUT) as writer:
                writer.append({"h": values})
            found = activations(tmp_path / name)
            assert found.hook("h").dtype == dtype
            np.testing.assert_array_equal(found.tokens("h")[0:60], exact.reshape(60, -1))
        split = found.split("h")
        assert next(split.batches(7)).x.dtype == jnp.float32

    def test_hooks_side_by_side(self, tmp_path):
        """A transcoder and a crosscoder.

        Fails if the target is x, or if hooks are stacked on axis 0.
        """
        with ActivationWriter(tmp_path, provenance=ABOUT) as writer:
            writer.append({"in": X, "out": X[:, ::-1] * 2.0, "wide": np.tile(X, 2)})
        found = activations(tmp_path)
        batch = next(found.split("in", "out").batches(5))
        np.testing.assert_array_equal(batch.x, X[:5])
        np.testing.assert_array_equal(batch.target, X[:5, ::-1] * 2.0)
        both = found.split(["in", "out"])
        assert both.event == (2, D)
        np.testing.assert_array_equal(next(both.batches(5)).x[:, 1], X[:5, ::-1] * 2.0)
        with pytest.raises(ae.UserError, match="different sizes"):
            found.split(["in", "wide"])
        with pytest.raises(ae.UserError, match=r"no hook 'up'.*in, out, wide"):
            found.split("up")

    def test_parts_are_apart(self, store):
        """Fails if the indices of a part start at the store's first token."""
        parts = store.splits("blocks.3/mlp", validation=100, test=0.1)
        seen = np.concatenate([b.x[:, 0] for part in parts for b in part.batches(512)])
        np.testing.assert_array_equal(seen, np.arange(N))
        assert [len(part) for part in parts] == [N - 390, 100, 290]
        assert len({part.fingerprint for part in parts}) == 3

    @pytest.mark.parametrize("share", [np.nan, np.inf, 1.5, 0, -1])
    def test_what_is_no_share(self, store, share):
        """Fails if an error of numpy is raised, or if a share of 1.5 is taken for 1 token."""
        for part in ("validation", "test"):
            with pytest.raises(ae.UserError, match=f"{part} is {share}: give a share"):
                store.splits("blocks.3/mlp", **{part: share})


class TestFilter:
    def test_sinks_are_dropped_and_counted(self, tmp_path):
        """Kept tokens equal numpy's.

        Fails if a token is counted for two reasons, or if the limit changes.
        """
        generator = np.random.default_rng(3)
        x = generator.normal(size=(2, 50, 20, D)).astype(np.float32)
        x[:, ::5, 7] *= 100.0
        mask = generator.random((2, 50, 20)) < 0.9
        chosen = TokenFilter(first_positions=2, norm_quantile=0.97)
        with ActivationWriter(tmp_path, provenance=ABOUT, filter=chosen) as writer:
            for values, kept in zip(x, mask, strict=True):
                writer.append({"h": values, "g": values[..., :2]}, mask=kept)
        kept = mask & (np.arange(20) >= 2)[None, None]
        norm = {"h": np.linalg.norm(x, axis=-1), "g": np.linalg.norm(x[..., :2], axis=-1)}
        sink = np.zeros_like(kept)
        for values in norm.values():
            sink |= values > np.quantile(values[0][kept[0]], 0.97)
        found = activations(tmp_path)
        np.testing.assert_array_equal(found.tokens("h")[:], x[kept & ~sink])
        expected = {"masked": (~mask).sum(), "position": (mask & ~kept).sum()}
        assert found.index.dropped == {**expected, "token": 0, "norm": (kept & sink).sum()}
        assert found.index.offered == mask.size
        assert (kept & sink).sum() > 20

    def test_what_a_filter_needs(self, tmp_path):
        """Fails if positions are guessed for [n, d], or if a quantile is measured on too few
        tokens.
        """
        writer = ActivationWriter(tmp_path, provenance=ABOUT, filter=TokenFilter(first_positions=1))
        with pytest.raises(ae.UserError, match="which first_positions needs"):
            writer.append({"h": X})
        writer.append({"h": X[:4]}, positions=[0, 1, 0, 1])
        writer.finish()
        assert list(activations(tmp_path).tokens("h")[:][:, 0]) == [1.0, 3.0]
        other = ActivationWriter(
            tmp_path / "b", provenance=ABOUT, filter=TokenFilter(norm_quantile=0.999)
        )
        with pytest.raises(ae.UserError, match="append at least 1000 at once"):
            other.append({"h": X[:999]})
        other.close()

    @pytest.mark.parametrize("bad", [np.nan, np.inf])
    def test_what_is_not_finite_is_no_sink(self, tmp_path, bad):
        """Fails if an infinity is dropped as a large norm, or if padding may not be infinite."""
        x, chosen = X[:100].copy(), TokenFilter(norm_quantile=0.9)
        x[3, 1] = bad
        with ActivationWriter(tmp_path, provenance=ABOUT, filter=chosen) as writer:
            for _ in range(2):
                with pytest.raises(
                    ae.UserError, match=r"token 3 of .*'h' holds NaN or an infinity"
                ):
                    writer.append({"h": x})
                writer.append({"h": x}, mask=np.arange(100) != 3)
        dropped = {"masked": 2, "position": 0, "token": 0, "norm": 20}
        assert activations(tmp_path).index.dropped == dropped


KILLED = """
import os, signal, sys
from tests.data.activations.store_test import ABOUT, X, ActivationWriter
writer = ActivationWriter(sys.argv[1], provenance=ABOUT, shard_tokens=700)
for i in range(writer.appends, int(sys.argv[2])):
    writer.append({"blocks.3/mlp": X[i * 100 : (i + 1) * 100]})
os.kill(os.getpid(), signal.SIGKILL)
"""


class TestWhole:
    def test_killed_and_continued_is_the_same_to_the_byte(self, tmp_path, store):
        """It is killed twice.

        Fails if appends of the lost shard count, or if moments are not saved.
        """
        for last in (9, 20):
            arguments = [sys.executable, "-c", KILLED, str(tmp_path), str(last)]
            ended = subprocess.run(arguments, cwd=ROOT, env=dict(os.environ), check=False)
            assert ended.returncode == -signal.SIGKILL
            says = f"{tmp_path.name} is half-written.* {last // 7 * 7} appends"
            with pytest.raises(ae.UserError, match=says):
                activations(tmp_path)
        write(tmp_path)
        assert files(tmp_path) == files(store.folder)

    def test_append_in_parts(self, tmp_path, store):
        """Appending to a finished store gives the store of one write, but for the shards' ends."""
        write(tmp_path, X[:1400])
        longer = write(tmp_path)
        assert len(longer) == N
        assert files(tmp_path) == files(store.folder)
        again = files(tmp_path)
        write(tmp_path)  # nothing is left to append
        assert files(tmp_path) == again

    def test_an_error_leaves_it_half_written(self, tmp_path):
        """Fails if the context manager finishes a store although its producer raised an error."""

        def produce():
            with ActivationWriter(tmp_path, provenance=ABOUT) as writer:
                writer.append({"h": X})
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            produce()
        with pytest.raises(ae.UserError, match="half-written"):
            activations(tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == ["index.json"]

    def test_one_writer_at_a_time(self, tmp_path):
        """Fails if the folder is not locked."""
        with ActivationWriter(tmp_path, provenance=ABOUT) as writer:
            with pytest.raises(ae.UserError, match="another process writes"):
                ActivationWriter(tmp_path, provenance=ABOUT)
            writer.append({"h": X})

    @pytest.mark.parametrize(
        ("change", "says"),
        [
            ({"provenance": {"model": "gpt2"}}, "begun with provenance"),
            ({"dtype": "bfloat16"}, "begun with dtype None"),
            ({"filter": TokenFilter(1)}, "begun with filter"),
            ({"shard_tokens": 5}, "begun with shard_tokens"),
        ],
    )
    def test_continued_otherwise(self, tmp_path, change, says):
        """Fails if the changed setting is not compared."""
        write(tmp_path, X[:100])
        with pytest.raises(ae.UserError, match=says):
            ActivationWriter(tmp_path, **{"provenance": ABOUT, "shard_tokens": 700, **change})

    @pytest.mark.parametrize(
        ("values", "says"),
        [
            ({"h": X[:3] * np.nan}, "token 0 of append 1, hook 'h' holds NaN"),
            ({"h": np.full((2, D), 1e39)}, "too large for float32"),
            ({"h": X[:3].astype(np.float16)}, "stored as float32, but float16"),
            ({"h": X[:3, :2]}, "has the hooks {'h': 2}, but the store has {'h': 6}"),
            ({"g": X[:3]}, "has the hooks {'g': 6}"),
            ({"h": X[:3].astype(int)}, "hook 'h' of append 1 has dtype int64 and shape"),
            ({"h": X[0]}, r"shape \(6,\): give floats"),
            ({"h": X[:3, :0]}, r"shape \(3, 0\): give floats"),
            (X, "give a mapping"),
            ({1: X[:3]}, "give a mapping from a hook's name"),
        ],
    )
    def test_bad_appends_store_nothing(self, tmp_path, values, says):
        """Fails if the check is left out, or if a bad append leaves something behind."""
        with ActivationWriter(tmp_path, provenance=ABOUT) as writer:
            writer.append({"h": X[:10]})
            with pytest.raises(ae.UserError, match=says):
                writer.append(values)
        np.testing.assert_array_equal(activations(tmp_path).tokens("h")[:], X[:10])

    @pytest.mark.parametrize(
        ("place", "says"),
        [
            ({"mask": np.full(3, np.nan)}, "the mask of .* has dtype float64: give bools"),
            ({"mask": [0, 1, 2]}, "the mask of .* has dtype int64"),
            ({"positions": [0.0, 1.7, 2.0]}, "the position of .* has dtype float64: give integers"),
        ],
    )
    def test_bad_places(self, tmp_path, place, says):
        """Fails if NaN counts as True in a mask, or if positions are rounded to integers."""
        with ActivationWriter(tmp_path, provenance=ABOUT) as writer:
            with pytest.raises(ae.UserError, match=says):
                writer.append({"h": X[:3]}, **place)
            writer.append({"h": X[:3]}, mask=[0, 1.0, True], positions=[0, 1, 2])
        np.testing.assert_array_equal(activations(tmp_path).tokens("h")[:], X[1:3])

    @pytest.mark.parametrize(
        ("place", "value", "says"),
        [
            (["format"], "aejax activations 2", "'format' of the index is 'aejax activations 2'"),
            (["complete"], "no", "'complete' of the index is 'no'"),
            (["tokens"], 2900.7, "'tokens' of the index is 2900.7"),
            (["tokens"], 2800, "'tokens' is 2800, but the shards that it lists have 2900"),
            (["appends"], "x", "'appends' of the index is 'x'"),
            (["appends"], True, "'appends' of the index is True"),
            (["offered"], 2901, "'offered' is 2901"),
            (["dropped"], None, "'dropped' of the index is None"),
            (["dropped"], {"masked": 0}, "'dropped' of the index is {'masked': 0, 'token': 0}"),
            (["limits"], [1], r"'limits' of the index is \[1\]"),
            (["limits"], {"g": 1.0}, r"'limits' has the hooks \['g'\]"),
            (["settings"], None, "'settings' of the index is None"),
            (["hooks"], [3], r"'hooks' of the index is \[3\]"),
            (["hooks", 0, "name"], None, "'name' of hook 0 is None"),
            (["hooks", 0, "shape"], [D, 0], rf"'shape' of hook 0 is \[{D}, 0\]"),
            (
                ["hooks", 0, "shape"],
                [D + 1],
                f"'mean' .* has {D} numbers, but its 'shape' is {D + 1}",
            ),
            (["hooks", 0, "dtype"], "int8", "'dtype' of hook 0 is 'int8'"),
            (["hooks", 0, "mean"], [np.nan] * D, "'mean' of hook 0 is .nan"),
            (["hooks", 0, "squares"], -5, "'squares' of hook 0 is -5"),
            (["hooks", 0, "norms"], np.nan, "'norms' of hook 0 is nan"),
            pytest.param(
                ["hooks", 0, "norms"], 10**400, "'norms' of hook 0 is a number of", id="vast"
            ),
            (["shards", 0, "tokens"], 0, "'tokens' of shard 0 is 0"),
            (["shards", 0, "files"], ["../elsewhere.bin"], "'files' of shard 0 is .*elsewhere"),
            (["shards", 0, "files"], [], "'files' or 'sha256' of shard 0 does not have one"),
            (["shards", 0, "sha256"], [5], r"'sha256' of shard 0 is \[5\]"),
        ],
    )
    def test_an_edited_index_is_named(self, tmp_path, place, value, says):
        """Fails if the edited field is not checked, or if an error of Python is raised."""
        write(tmp_path)
        file = tmp_path / "index.json"
        index = json.loads(file.read_text())
        *way, last = place
        inner = functools.reduce(lambda entry, name: entry[name], way, index)
        inner[last] = value
        file.write_text(json.dumps(index))
        with pytest.raises(ae.UserError, match=rf"index.json is damaged \({says}"):
            activations(tmp_path)

    @pytest.mark.parametrize(
        ("field", "value"),
        [("dtype", "bfloat16"), ("mean", [3.0] * D), ("squares", 2.0), ("norms", 2.0)],
    )
    def test_other_numbers_of_the_same_bytes(self, tmp_path, field, value):
        """Fails if `verify` compares only the hashes of the bytes."""
        write(tmp_path, dtype="float16").verify()
        file = tmp_path / "index.json"
        index = json.loads(file.read_text())
        index["hooks"][0][field] = value
        file.write_text(json.dumps(index))
        with pytest.raises(
            ae.UserError, match=rf"index.json is damaged .*'{field}'.*'blocks.3/mlp'"
        ):
            activations(tmp_path).verify()

    def test_damage_is_named(self, tmp_path):
        """Fails if sizes are not compared, or if `verify` does not read the bytes.

        Fails also if an index that is nested too deep raises RecursionError.
        """
        found = write(tmp_path)
        shard = tmp_path / found.index.shards[1].files[0]
        content = shard.read_bytes()
        shard.write_bytes(content[:-1])
        with pytest.raises(ae.UserError, match=f"{shard.name} has 16799 bytes instead of 16800"):
            activations(tmp_path)
        shard.write_bytes(content[:99] + bytes([content[99] ^ 1]) + content[100:])
        with pytest.raises(ae.UserError, match=f"{shard.name} is damaged"):
            activations(tmp_path).verify()
        shard.write_bytes(content)
        activations(tmp_path).verify()
        with pytest.raises(ae.UserError, match="holds no activation store"):
            activations(tmp_path / "none")
