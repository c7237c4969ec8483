"""Tests of the shuffling of a store: every token once an epoch, batch t a function of (seed, t)."""

import math

import jax
import numpy as np
import optax
import pytest

import aejax as ae
from aejax.data.activations import TokenBatches, activations
from aejax.data.activations.order import pool_tokens, stream
from aejax.data.activations.tokens import BLOCK, Tokens
from aejax.data.activations.writer import ActivationWriter
from aejax.training.gathering import gathered

N, D, HOOK = 2900, 6, "blocks.3/mlp"
X = np.random.default_rng(0).normal(size=(N, D)).astype(np.float32)
X[:, 0] = np.arange(N)  # the first number of a token is its index
# The last five tokens of epoch 0 and the first ones of epoch 1, for N 1000, seed 7, pools of 512.
KNOWN = [884, 463, 501, 460, 924, 515, 187, 95, 77, 546]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("store")
    with ActivationWriter(folder, provenance={}, shard_tokens=700) as writer:
        for start in range(0, N, 100):
            writer.append({HOOK: X[start : start + 100]})
    return activations(folder)


class TestOrder:
    @pytest.mark.parametrize("tokens", [1, 255, 256, 257, 1000, 1024, 5000])
    @pytest.mark.parametrize("pool", [1, 512, 700, 10**6])
    def test_every_token_once_an_epoch(self, tokens, pool):
        """Pieces have any size.

        Fails if the start of a pool is computed as if no block were short.
        """
        step = 1 + tokens // 9
        pieces = [stream(tokens, 3, p, step, pool) for p in range(0, 3 * tokens, step)]
        whole = np.concatenate(pieces)[: 3 * tokens].reshape(3, tokens)
        np.testing.assert_array_equal(np.sort(whole, axis=1), np.tile(np.arange(tokens), (3, 1)))
        np.testing.assert_array_equal(stream(tokens, 3, 0, 3 * tokens, pool), whole.reshape(-1))
        if tokens > 255:
            assert not np.array_equal(whole[0], whole[1])
            assert not np.array_equal(whole[0], stream(tokens, 4, 0, tokens, pool))

    def test_known_order(self):
        """Fails if the generator or its streams change, which would change every resumed run."""
        found = stream(1000, 7, 995, 10, 512)
        np.testing.assert_array_equal(found, KNOWN)

    def test_pools_hold_whole_blocks_from_everywhere(self):
        """A pool has its stated number of tokens. Fails if the blocks of a pool are neighbours."""
        tokens, pool = 100 * BLOCK, 10 * BLOCK
        assert pool_tokens(tokens, pool + 5) == pool
        assert pool_tokens(tokens, 10**9) == tokens
        epoch = stream(tokens, 0, 0, tokens, pool).reshape(10, pool)
        blocks = np.sort(epoch // BLOCK, axis=1)[:, ::BLOCK]
        np.testing.assert_array_equal(np.sort(blocks.reshape(-1)), np.arange(100))
        assert (np.ptp(blocks, axis=1) > 40).all()

    def test_a_pool_is_shuffled_uniformly(self):
        """Each place of a pool gets a uniform token.

        Fails if tokens keep the order of the blocks. The mean of 400 uniform numbers is within five
        standard deviations of the middle.
        """
        first = np.array([stream(1024, seed, 0, 1, 1024)[0] for seed in range(400)])
        assert abs(first.mean() - 511.5) < 5 * 1024 / math.sqrt(12 * 400)
        epoch = stream(1024, 0, 0, 1024, 1024)
        assert abs(np.corrcoef(epoch, np.arange(1024))[0, 1]) < 5 / math.sqrt(1024)


class TestBatches:
    @pytest.mark.parametrize("seeds", [None, 2])
    def test_a_source_is_its_batches(self, store, seeds):
        """Fails if data on the device and data on the disk are shuffled differently."""
        split = store.split(HOOK, stop=2500)
        options = {"size": 48, "seed": 5, "seeds": seeds, "pool": 512}
        held = TokenBatches(split, **options)
        read = TokenBatches(split, **options, resident_limit=0)
        a, b = held.source(50, 4), read.source(50, 4)
        assert a.rows is not None
        assert b.rows is None
        for i in range(4):
            for batch in (
                held[50 + i],
                read[50 + i],
                gathered(a, i, 50 + i),
                gathered(b, i, 50 + i),
            ):
                found = np.asarray(batch.x)
                np.testing.assert_array_equal(found, X[held.rows(50 + i, 1)[..., 0, :]])
        assert read.provenance()["pool_tokens"] == 512

    def test_blocks_in_use_alone_are_mapped(self, store):
        """Fails if blocks stay mapped after use, so that the whole store would be mapped."""
        split = store.split(HOOK)
        batches = TokenBatches(split, 64, pool=512, resident_limit=0)
        tokens = split.arrays[HOOK]
        assert isinstance(tokens, Tokens)
        for t in range(90):
            batches.source(t, 1, 90)
            with tokens._lock:  # the next chunk is read meanwhile
                assert len(tokens._maps) <= 5

    def test_the_loop_trains_on_a_store(self, store):
        """A continued run has the same bits, and data on the device gives the same losses to
        rounding.

        Fails if the order depends on where the data is, or on the step at which training began.
        """
        split = store.split(HOOK)
        model = ae.Autoencoder(ae.nets.Identity(), ae.TopK(12, 3), ae.nets.Dictionary(D))
        learner = ae.learner(model, ae.sparse(), optax.sgd(1e-9), initialise=ae.tied)
        learner = ae.compiled(ae.chunked(learner, 8))

        def losses(limit, *stops):
            batches = TokenBatches(split, 32, pool=512, resident_limit=limit)
            now, seen = learner.init(jax.random.key(0), batches[0]), []
            for stop in stops:
                fresh = TokenBatches(split, 32, pool=512, resident_limit=limit)
                for state, metrics in ae.loop(learner, now, fresh, stop, progress=False):
                    seen.append(metrics["loss"])
                    now = state
            return np.concatenate(seen)

        whole = losses(0, 40)
        assert whole.shape == (40,)
        np.testing.assert_array_equal(losses(0, 20, 40), whole)
        np.testing.assert_allclose(losses(2**30, 40), whole, rtol=1e-5)
        assert np.ptp(whole) > 1e4

    def test_a_pool_of_nothing_is_refused(self, store):
        with pytest.raises(ae.UserError, match="pool is 0"):
            TokenBatches(store.split(HOOK), size=32, pool=0)
