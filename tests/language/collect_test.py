"""Tests of packing, of collecting into a store, and of training on live activations."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import aejax as ae
from aejax.bottlenecks.sparse.plain import Source
from aejax.data.activations import TokenBatches, TokenFilter, activations
from aejax.errors import UserError
from aejax.language.live import live
from aejax.language.load import fingerprint
from aejax.language.packing import Packed, Packing, packs
from aejax.language.reading import collect, reader
from aejax.language.trained import check_model, load_dictionary
from tests.language import cases

TEXTS = ["abcde", "", "fghijklmnop", "qrs", *("abcdefghij" * 3 for _ in range(40))]
HOOKS = ("resid_post.0", "mlp_out.1")


@functools.cache
def read():
    """Makes one reader for all tests, so that it is compiled once."""
    return reader(*cases.model(scan=True), HOOKS)


def packed(packing=None, rows=4, start=0, texts=TEXTS):
    return packs(cases.Letters(), texts, packing or Packing(8), rows, start)


def letters(row):
    return "".join(chr(ord("a") + t - 3) if t > 1 else "^" for t in row if t)


def test_texts_are_packed_one_after_the_other():
    found = list(packed(texts=TEXTS[:4]))
    assert [letters(row) for row in found[0].tokens] == ["abcdefgh", "ijklmnop", "qrs", ""]
    np.testing.assert_array_equal(found[0].text[0], [0] * 5 + [2] * 3)
    np.testing.assert_array_equal(found[0].position[2], [0, 1, 2, -1, -1, -1, -1, -1])
    with_bos = next(packed(Packing(8, bos=True), texts=TEXTS[:4]))
    assert [letters(row) for row in with_bos.tokens] == ["^abcde^f", "ghijklmn", "op^qrs", ""]


def test_a_row_holds_one_text_alone():
    """Fails if the rest of a long text is lost."""
    found = next(packed(Packing(8, together=False), texts=TEXTS[:4]))
    assert [letters(row) for row in found.tokens] == ["abcde", "fghijklm", "nop", "qrs"]


@pytest.mark.parametrize("together", [False, True])
def test_batches_may_begin_anywhere(together):
    packing = Packing(8, together=together, bos=True)
    whole = list(packed(packing))
    for a, b in zip(whole[3:], packed(packing, start=3), strict=True):
        for x, y in zip(a, b, strict=True):
            np.testing.assert_array_equal(x, y)


def test_what_cannot_be_packed_is_refused():
    with pytest.raises(UserError, match="the corpus is empty"):
        list(packed(texts=["", ""]))
    with pytest.raises(UserError, match="length is 1"):
        Packing(1)
    letters = cases.Letters()
    letters.bos = None
    with pytest.raises(UserError, match="no BOS"):
        list(packs(letters, ["a"], Packing(8, bos=True), 2))


class Killed(Exception):
    pass


def test_a_killed_collection_goes_on_and_ends_with_the_same_content(tmp_path):
    """Fails if a batch is lost or repeated, or if a hook gets the rows of another."""
    how = {
        "provenance": {"model": "tiny"},
        "filter": TokenFilter(first_positions=1),
        "shard_tokens": 60,
    }
    index = collect(read(), lambda start: packed(start=start), tmp_path / "whole", **how)

    def stop(done):
        if done == 17:
            raise Killed

    with pytest.raises(Killed):
        collect(read(), lambda s: packed(start=s), tmp_path / "cut", progress=stop, **how)
    begun = []

    def again(start):
        begun.append(start)
        return packed(start=start)

    assert collect(read(), again, tmp_path / "cut", **how).shards == index.shards
    assert 0 < begun[0] < 17
    assert collect(read(), again, tmp_path / "cut", **how).shards == index.shards
    assert len(begun) == 1  # a finished store is not changed
    store = activations(tmp_path / "cut")
    batch = next(packed())
    wanted = read()(batch.tokens, batch.position)
    for hook in HOOKS:
        np.testing.assert_array_equal(
            store.tokens(hook).read(0, 28), np.asarray(wanted[hook])[:, 1:].reshape(28, -1)
        )
    with pytest.raises(UserError, match="begun with provenance"):
        collect(read(), again, tmp_path / "cut", **{**how, "provenance": {"model": "other"}})


def test_a_collection_that_cannot_begin_leaves_nothing(tmp_path):
    long = Packed(*[np.zeros((2, 49), np.int32)] * 3)
    with pytest.raises(UserError, match=r"texts of 49 tokens are longer than .* 48"):
        collect(read(), lambda start: [long], tmp_path / "store", provenance={})
    assert not list(tmp_path.iterdir())


def test_live_batches_are_those_of_a_store_and_functions_of_seed_and_t(tmp_path):
    """They agree to the bit, whichever batch comes first.

    Fails if rows are put into wrong places.
    """
    hooks, weights = ("resid_post.0", "mlp_out.1"), tmp_path / "model.gguf"
    weights.write_bytes(b"weights")
    about = {"model": {"sha256": fingerprint(weights)}}
    split = live(read(), packed(), *hooks, provenance=about, first_positions=1, passes=4)
    collect(
        read(),
        lambda start: packed(start=start),
        tmp_path / "store",
        provenance=about,
        filter=TokenFilter(first_positions=1),
    )
    stored = activations(tmp_path / "store").split(*hooks)
    assert len(split) == len(stored)
    how = {"size": 64, "seed": 3, "pool": 512, "resident_limit": 0}
    fresh, there = TokenBatches(split, **how), TokenBatches(stored, **how)
    for t in (7, 0, 30, 7):
        for a, b in zip(fresh[t][:2], there[t][:2], strict=True):
            np.testing.assert_array_equal(a, b)
    # The steps of a chunk, as a training loop gets them.
    chunks = [batches.source(4, 4).arrays for batches in (fresh, there)]
    jax.tree.map(np.testing.assert_array_equal, *chunks)
    model = ae.Autoencoder(ae.nets.Identity(), ae.TopK(24, 4), ae.nets.Dictionary(cases.SIZE))
    learner = ae.learner(model, ae.sparse(), optax.adam(1e-3))
    state = jax.jit(learner.init)(jax.random.key(0), fresh[0])
    atoms = np.asarray(state.params["decoder"]["atoms"])
    # The run of such a transcoder knows its hooks and its model.
    for data in (split.provenance(), [stored.provenance()]):
        with ae.Run(tmp_path / f"run-{type(data).__name__}", {"steps": 8}, model=model) as run:
            run.restore(state)
            run.environment(data=data)
            run.save(state)
        found = load_dictionary(run.folder)
        np.testing.assert_array_equal(found.W_dec, atoms)
        assert found.source == Source(about["model"]["sha256"], *hooks)
    check_model(found, weights)
    weights.write_bytes(b"other weights")
    with pytest.raises(UserError, match=r"trained on another model than .*model\.gguf \(sha256"):
        check_model(found, weights)
    check_model(found._replace(source=None), weights)
    with pytest.raises(UserError, match="holds one model, not several seeds: leave out seed=0"):
        load_dictionary(run.folder, 0)
    # A run of two dictionaries opens by a seed only; the second one has twice the weights.
    pair = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), state)._replace(step=state.step)
    pair = pair._replace(params=jax.tree.map(lambda a: jnp.stack([a, 2 * a]), state.params))
    with ae.Run(tmp_path / "pair", {"steps": 8}, model=model) as run:
        run.restore(pair)
        run.save(pair)
    with pytest.raises(UserError, match=r"has 2 dictionaries, .* choose one by a seed from 0"):
        load_dictionary(run.folder)
    np.testing.assert_array_equal(load_dictionary(run.folder, 1).W_dec, 2 * atoms)


def test_what_cannot_be_read_live_is_refused():
    with pytest.raises(UserError, match=r"'resid_pre.1' is not read: .*resid_post.0 are"):
        live(read(), packed(), "resid_pre.1", provenance={})
    with pytest.raises(UserError, match="no token is left"):
        live(read(), packed(), "mlp_out.1", provenance={}, first_positions=8)
