"""Stores that know their tokens: columns beside activations, filters by them, exact moments."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import aejax as ae
from aejax.data.activations import ActivationWriter, TokenBatches, TokenFilter, activations

B, P, D = 6, 40, 5
random = np.random.default_rng(0)
X = (random.normal(size=(4, B, P, D)) * 3.0 + 10.0).astype(np.float32)
IDS = random.integers(0, 9, (4, B, P))
TEXTS = np.arange(4 * B).reshape(4, B)
ABOUT = {"model": "none"}


def write(folder, appends=4, **options):
    with ActivationWriter(folder, provenance=ABOUT, shard_tokens=500, **options) as writer:
        for i in range(writer.appends, appends):
            columns = {"token": IDS[i], "document": TEXTS[i]}
            writer.append({"in": X[i], "out": 0.05 * X[i, ..., ::-1]}, columns=columns)
    return activations(folder)


def flat(values):
    return values.reshape(-1, *values.shape[3:])


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return write(tmp_path_factory.mktemp("columns"))


def test_columns_come_back_token_by_token(store, tmp_path):
    """Over shards, with the positions. Fails if a document's number is that of its first token, or
    if a column is dropped by a filter that its tokens pass."""
    documents = np.repeat(TEXTS.reshape(-1), P)
    positions = np.tile(np.arange(P), 4 * B)
    np.testing.assert_array_equal(store.column("token"), flat(IDS))
    np.testing.assert_array_equal(store.column("document"), documents)
    np.testing.assert_array_equal(store.column("position"), positions)
    np.testing.assert_allclose(store.norms("in"), np.linalg.norm(flat(X), axis=1), rtol=1e-6)
    store.verify()
    kept = write(tmp_path, filter=TokenFilter(first_positions=2, tokens=(3, 7)))
    inside = (positions >= 2) & ~np.isin(flat(IDS), (3, 7))
    np.testing.assert_array_equal(kept.tokens("in")[:], flat(X)[inside])
    np.testing.assert_array_equal(kept.column("document"), documents[inside])
    dropped = kept.index.dropped
    assert dropped["position"] == 4 * B * 2
    assert dropped["token"] == np.isin(flat(IDS)[positions >= 2], (3, 7)).sum()
    with pytest.raises(ae.UserError, match=r"no column 'text' .*token, document, position"):
        store.column("text")


def test_norms_above_a_multiple_of_the_median_are_dropped(tmp_path):
    """Fails if the median is that of another append, or the mean."""
    x = X[0].reshape(-1, D).copy()
    x[::7] *= 50.0
    with ActivationWriter(tmp_path, provenance=ABOUT, filter=TokenFilter(norm_median=10)) as writer:
        writer.append({"h": x})
        writer.append({"h": 11.0 * x[1:2] * np.median(np.linalg.norm(x, axis=1)) / 20.0})
    assert writer.index.dropped["norm"] == len(x[::7]) + 1
    assert writer.index.limits["h"] == pytest.approx(10 * np.median(np.linalg.norm(x, axis=1)))
    with pytest.raises(ae.UserError, match=r"norm_median is 0\.5"):
        TokenFilter(norm_median=0.5)


def test_every_append_needs_the_same_columns(tmp_path):
    """Fails if a column that is left out once moves all later tokens."""
    with ActivationWriter(tmp_path / "a", provenance=ABOUT) as writer:
        writer.append({"h": X[0]}, columns={"token": IDS[0]})
        with pytest.raises(ae.UserError, match=r"append 1 has the columns \[\], but the store"):
            writer.append({"h": X[1]})
    with ActivationWriter(tmp_path / "b", provenance=ABOUT) as writer:
        with pytest.raises(ae.UserError, match="the token of append 0 has dtype float64"):
            writer.append({"h": X[0]}, columns={"token": IDS[0] * 0.5})
        with pytest.raises(ae.UserError, match="that 32 bits cannot hold"):
            writer.append({"h": X[0]}, columns={"token": IDS[0] + 2**33})
        with pytest.raises(ae.UserError, match="the token of append 0 has shape"):
            writer.append({"h": X[0]}, columns={"token": IDS[0][:, :3]})
        writer.append({"h": X[0]})
    some = TokenFilter(tokens=(1,))
    with ActivationWriter(tmp_path / "c", provenance=ABOUT, filter=some) as writer:
        with pytest.raises(ae.UserError, match="needs: give columns"):
            writer.append({"h": X[0]})
        writer.append({"h": X[0]}, columns={"token": IDS[0]})


def test_a_writer_goes_on_where_it_stopped(tmp_path, store):
    """To the byte. Fails if a partial column is kept, or counted as a hook."""
    writer = ActivationWriter(tmp_path, provenance=ABOUT, shard_tokens=500)
    for i in range(4):
        columns = {"token": IDS[i], "document": TEXTS[i]}
        writer.append({"in": X[i], "out": 0.05 * X[i, ..., ::-1]}, columns=columns)
    assert writer.appends == 3  # the last append is in no shard yet
    writer.close()
    write(tmp_path)
    for path in store.folder.iterdir():
        assert (tmp_path / path.name).read_bytes() == path.read_bytes(), path.name


def test_a_split_of_some_tokens_is_read_and_shuffled_as_a_whole_one(store):
    """Fails if a row's number is that of the store, or the parts overlap."""
    where = (store.column("position") > 0) & (store.column("document") % 2 == 0)
    rows = flat(X)[where]
    train, validation, test = store.splits("in", where=where, validation=30, test=40)
    assert [len(part) for part in (train, validation, test)] == [len(rows) - 70, 30, 40]
    np.testing.assert_array_equal(next(test.batches(40)).x, rows[-40:])
    resident = TokenBatches(train, size=32, seed=1)
    streamed = TokenBatches(train, size=32, seed=1, resident_limit=0)
    seen = np.concatenate([np.asarray(resident[t].x) for t in range(len(train) // 32)])
    np.testing.assert_array_equal(streamed[3].x, resident[3].x)
    assert len(np.unique(seen, axis=0)) == len(seen)
    assert np.isin(seen.view("V20"), rows.view("V20")).all()
    arrays = resident.source(0, 2).arrays["in"]
    np.testing.assert_array_equal(arrays, rows[: len(train)])
    assert train.fingerprint != store.splits("in", validation=30, test=40)[0].fingerprint
    with pytest.raises(ae.UserError, match=r"give one bool for each of the 960 tokens"):
        store.split("in", where=np.arange(3))


def dictionary(layers=2):
    scale = ae.nets.Scale
    return ae.Autoencoder(scale(), ae.TopK(12, 3), ae.nets.Dictionary((layers, D), scale=scale()))


def test_standardised_starts_from_the_exact_moments_of_the_store(store, tmp_path):
    """Of each layer. Fails if the first batch's are taken, or a hook that is twenty times smaller
    shares the scale of the other."""
    train, _, _ = store.splits(("in", "out"))
    batch = next(train.batches(16))
    x = np.stack([flat(X), 0.05 * flat(X[..., ::-1])], axis=1).astype(np.float64)
    model = dictionary()
    variables = model.init(jax.random.key(0), batch)
    found = ae.standardised(train)(variables, batch, jax.random.key(0))["memory"]["encoder"]
    mean = x.mean(0)
    root = np.sqrt(np.square(x - mean).mean((0, 2)))
    np.testing.assert_allclose(found["mean"], mean.reshape(-1), rtol=1e-6)
    np.testing.assert_allclose(found["inverse"], np.repeat(root, D), rtol=1e-6)
    np.testing.assert_allclose(found["factor"], 1.0 / np.repeat(root, D), rtol=1e-6)
    whole = ae.Batch(jnp.asarray(x, jnp.float32), jnp.asarray(x, jnp.float32))
    for how in ({}, {"layers": False}, {"centre": False}, {"form": ae.initialise.unscaled}):
        one = ae.standardised(train, **how)(variables, batch, None)["memory"]["encoder"]
        other = ae.standardised(whole, **how)(variables, batch, None)["memory"]["encoder"]
        for name, value in other.items():
            np.testing.assert_allclose(one[name], value, rtol=2e-4, atol=1e-5, err_msg=name)
    # Some tokens, and a split of arrays: computed over all of their examples.
    where = store.column("position") > 3
    some = store.split(("in", "out"), where=where).moments["x"]
    np.testing.assert_allclose([m.mean for m in some], x[where].mean(0), rtol=1e-6)
    held = ae.data.arrays(flat(X), validation=1, test=1)[0]
    np.testing.assert_allclose(
        held.moments["target"][0].mean, held.arrays["x"].mean(0, dtype=np.float64), rtol=1e-6
    )
    with pytest.raises(ae.UserError, match="the scaling expected_norm cannot be computed"):
        ae.standardised(train, ae.initialise.expected_norm)


def test_skip_transcoders_are_trained_straight_from_a_store(store):
    """Fails if the context is left out, or is the target."""
    train, _, _ = store.splits("in", "out", context="in")
    batch = TokenBatches(train, size=16, seed=0)[0]
    np.testing.assert_array_equal(batch.context, batch.x)
    scale = ae.nets.Scale
    decoder = ae.nets.Dictionary(D, scale=scale(), skip=scale())
    model = ae.Autoencoder(scale(), ae.TopK(8, 2), decoder)
    learner = ae.learner(model, ae.sparse(), optax.adam(1e-2), initialise=ae.standardised(train))
    state = jax.jit(learner.init)(jax.random.key(0), batch)
    step, losses = jax.jit(learner.step), []
    for t in range(60):
        state, metrics = step(state, TokenBatches(train, size=64, seed=0)[t])
        losses.append(float(metrics["error"]))
    assert losses[-1] < 0.3 * losses[0]  # out is a linear map of in


def test_a_transcoder_that_subtracts_its_outputs_bias_is_refused(store):
    """Square or not. Fails if the bias of the output is subtracted from another hook in silence."""
    train, _, _ = store.splits("in", "out")
    batches = TokenBatches(train, size=16, seed=0)
    made = ae.Autoencoder(
        ae.nets.Identity(), ae.TopK(8, 2, subtract_bias=True), ae.nets.Dictionary(D)
    )
    learner = ae.learner(made, ae.sparse(), optax.adam(1e-2))
    learner = learner._replace(step=jax.jit(learner.step))
    state = jax.jit(learner.init)(jax.random.key(0), batches[0])
    with pytest.raises(ae.UserError, match="bottleneck of a transcoder subtract_bias=False"):
        ae.loop(learner, state, batches, steps=2)
    next(ae.loop(learner, state, TokenBatches(store.split("in"), size=16), steps=2, progress=False))
    wide = made.clone(decoder=ae.nets.Dictionary(D + 2))
    with pytest.raises(ae.UserError, match="an input has 5 values and the decoder's bias 7"):
        wide.init(jax.random.key(0), ae.Batch(X[0, 0], X[0, 0]))
