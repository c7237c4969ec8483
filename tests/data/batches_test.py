"""Tests of batches: the order of examples, their noise, and the batches in a Source."""

import dataclasses

import jax
import numpy as np
import pytest

from aejax.data import Batches, arrays
from aejax.data.order import permutation, stream
from aejax.data.splitting import splits
from aejax.errors import UserError
from aejax.training.gathering import gathered

N = 23
# The orders of 8 examples for seed 0 and epoch 0, and for seed 1 and epoch 2.
KNOWN = ([1, 4, 5, 6, 2, 0, 3, 7], [2, 0, 5, 7, 1, 6, 4, 3])


@pytest.fixture(scope="module")
def split():
    """Makes a split whose pixels are drawn at each step; their number is odd, so words are cut."""
    image = (np.arange(N * 15) % 256).astype(np.uint8).reshape(N, 5, 3, 1)
    parts = [{"image": image, "label": np.arange(N, dtype=np.int32)}] * 3
    return splits("toy", parts, field="image", scale=255.0, binarise="dynamic")[0]


@pytest.fixture(scope="module")
def numbered():
    """Makes a split in which x is the number of the example."""
    x = np.arange(40, dtype=np.float32)[:, None]
    return arrays(x, validation=5, test=5)[0]


def equal(a, b):
    np.testing.assert_array_equal(np.asarray(a.x), np.asarray(b.x))
    np.testing.assert_array_equal(np.asarray(a.target), np.asarray(b.target))


class TestOrder:
    def test_each_epoch_is_a_permutation_of_its_own(self):
        """Fails if the epoch is not part of the seed sequence."""
        epochs = [permutation(N, 3, epoch) for epoch in range(4)]
        for order in epochs:
            np.testing.assert_array_equal(np.sort(order), np.arange(N))
        assert len({tuple(order) for order in epochs}) == 4

    def test_known_order(self):
        """Fails if the generator changes, which would change the bits of every resumed run."""
        np.testing.assert_array_equal(permutation(8, 0, 0), KNOWN[0])
        np.testing.assert_array_equal(permutation(8, 1, 2), KNOWN[1])

    def test_orders_are_uniform(self):
        """Each example is first about equally often. Fails if words are sorted as 8 bits."""
        first = [permutation(4, seed, 0)[0] for seed in range(2_000)]
        counts = np.bincount(first, minlength=4)
        # For Binomial(2000, 1/4) five standard deviations are 97.
        assert np.abs(counts - 500).max() < 97

    def test_stream_concatenates_epochs(self):
        """Fails if a piece that spans two epochs starts the second one again, or loses its rest."""
        whole = np.concatenate([permutation(N, 5, epoch) for epoch in range(4)])
        for start, count in [(0, N), (7, 40), (N - 1, 2), (N, 1), (2 * N, 2 * N)]:
            np.testing.assert_array_equal(stream(N, 5, start, count), whole[start : start + count])


class TestBatches:
    def test_no_example_is_dropped(self, numbered):
        """3 batches of 10 are an epoch of 30; a batch of 7 does not divide 30, and no example is
        lost.
        """
        for size in (10, 7):
            batches = Batches(numbered, size)
            seen = np.concatenate([batches[t].x[:, 0] for t in range(30)])[: 7 * 30]
            for epoch in seen.reshape(-1, 30):
                np.testing.assert_array_equal(
                    np.sort(epoch), np.asarray(numbered.arrays["x"][:, 0])
                )

    def test_noise_is_of_the_step_and_not_of_the_run(self, split):
        """Fails if the step is not folded in, or if the data uses the key of the run."""
        batches = Batches(split, N, seed=4)
        # The examples are the same at every step, so all differences are noise.
        same = dataclasses.replace(split, arrays={"image": np.full((N, 5, 3, 1), 128, np.uint8)})
        steady = Batches(same, N, seed=4)
        assert not np.array_equal(steady[0].x, steady[1].x)
        assert not np.array_equal(
            jax.random.key_data(batches.key), jax.random.key_data(jax.random.key(4))
        )

    def test_sharding_decides_where_resident_data_is(self, numbered):
        """Fails if the sharding is not passed to device_put."""
        mesh = jax.sharding.Mesh(np.asarray(jax.devices()[:1]), ("data",))
        sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
        source = Batches(numbered, 4, sharding=sharding).source(0, 2)
        assert source.arrays["x"].sharding == sharding

    @pytest.mark.parametrize(
        ("change", "says"),
        [
            ({"size": 0}, "batch size is 0"),
            ({"size": 24}, "batch size 24 is larger than toy/train, which has 23"),
            ({"seed": -1}, "seed is -1"),
            ({"seeds": 0}, "seeds is 0"),
            ({"size": 5, "process": (0, 2)}, "not a multiple of the number of processes, 2"),
            ({"split": (1, 2, 3)}, "needs one Split, not a tuple"),
        ],
    )
    def test_bad_input_is_one_sentence(self, split, change, says):
        """Fails if one of the checks of __post_init__ is left out."""
        with pytest.raises(UserError, match=says):
            Batches(**{"split": split, "size": 4, **change})

    def test_bad_steps(self, split):
        """Fails if a chunk of 0 steps, or step -1, is accepted."""
        with pytest.raises(UserError, match="chunk is 0"):
            Batches(split, 4).source(0, 0)
        with pytest.raises(UserError, match="batch number is -1"):
            Batches(split, 4)[-1]


@pytest.mark.parametrize("seeds", [None, 3])
@pytest.mark.parametrize("limit", [2**30, 0], ids=["resident", "stacked"])
class TestSource:
    def test_agrees_with_getitem_bit_for_bit(self, split, seeds, limit):
        """It holds compiled and not. Fails if the key's step is i rather than t + i."""
        batches = Batches(split, 6, seed=2, seeds=seeds, resident_limit=limit)
        source = batches.source(5, 4)
        assert (source.rows is None) == (limit == 0)
        gather = jax.jit(gathered)
        for i in range(4):
            equal(batches[5 + i], gathered(source, i, 5 + i))
            equal(batches[5 + i], gather(source, i, 5 + i))

    def test_members_have_the_streams_of_their_seeds(self, split, seeds, limit):
        """Fails if members share rows or keys."""
        if seeds is None:
            pytest.skip("one stream has no members")
        together = Batches(split, 6, seed=2, seeds=seeds, resident_limit=limit)
        source = together.source(1, 3)
        for member in range(seeds):
            alone = Batches(split, 6, seed=2 + member)
            np.testing.assert_array_equal(together.rows(1, 3)[member], alone.rows(1, 3))
            for i in range(3):
                np.testing.assert_array_equal(gathered(source, i, 1 + i).x[member], alone[1 + i].x)

    def test_chunks_in_any_order(self, split, seeds, limit):
        """A chunk that was read ahead is used only if it is the one asked for."""
        batches = Batches(split, 6, seeds=seeds, resident_limit=limit)
        for t, chunk in [(0, 3), (3, 3), (6, 2), (0, 3), (3, 2)]:
            equal(gathered(batches.source(t, chunk), 1, t + 1), batches[t + 1])

    def test_count_stops_at_the_limit(self, split, seeds, limit):
        """Fails if the count is always the chunk's. Shapes stay, so nothing compiles again."""
        batches = Batches(split, 6, seeds=seeds, resident_limit=limit)
        counts = [int(batches.source(t, 4, limit=10).count) for t in (0, 4, 8, 12)]
        assert counts == [4, 4, 2, 0]
        whole, last = batches.source(0, 4, limit=10), batches.source(8, 4, limit=10)
        assert jax.tree.map(np.shape, whole) == jax.tree.map(np.shape, last)


def test_resident_arrays_are_handed_over_again(split):
    """Each call returns the same arrays. Fails if data is copied to the device on each call."""
    batches = Batches(split, 6)
    first, second = batches.source(0, 2), batches.source(2, 2)
    assert all(a is b for a, b in zip(first.arrays.values(), second.arrays.values(), strict=True))


@pytest.mark.parametrize("seeds", [None, 2])
def test_processes_load_contiguous_slices(split, seeds):
    """Fails if slices are interleaved, or if the batch is not divided."""
    batches = Batches(split, 6, seeds=seeds)
    whole = split.rows(batches.rows(2, 3))["image"]
    pieces = [
        dataclasses.replace(batches, process=(i, 3)).source(2, 3).arrays["image"] for i in range(3)
    ]
    assert pieces[0].shape[-4] == 2
    np.testing.assert_array_equal(np.concatenate(pieces, axis=-4), whole)


def broken(t, chunk):
    raise OSError("the disk is gone")


def test_a_failed_read_is_raised_where_it_is_asked_for(split):
    """An error while reading ahead is raised later. Fails if the thread swallows it."""
    batches = Batches(split, 6, resident_limit=0)
    batches.source(0, 2)
    batches._ahead.read = broken
    batches.source(2, 2)  # was read ahead before
    with pytest.raises(OSError, match="disk"):
        batches.source(4, 2)
