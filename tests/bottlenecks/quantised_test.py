"""Tests of vector quantisation and finite scalar quantisation, against loops in numpy."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import aejax as ae
from aejax import losses
from aejax.bottlenecks.vector import nearest
from tests import kinds

CODES, SIZE, POSITIONS = 5, 3, (2, 2)
KEY = jax.random.key(1)


def values(seed, rows=6):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(rows, 7)), jnp.float32)


def start(**options):
    module = ae.VectorQuantised(CODES, SIZE, POSITIONS, **options)
    return module, module.init(jax.random.key(0), values(0), None)


def train(module, variables, seed, key=KEY):
    code, changed = module.apply(variables, values(seed), key, mutable=["memory"])
    return code, {**variables, **changed}


def test_codes_are_the_nearest_vectors():
    """Codes equal those of a loop. Fails if the vectors' norm is left out, or argmax is taken."""
    generator = np.random.default_rng(0)
    vectors, codebook = generator.normal(size=(9, 4, SIZE)), generator.normal(size=(40, SIZE)) * 2
    distances = np.square(vectors[:, :, None] - codebook).sum(-1)
    found = nearest(jnp.asarray(vectors, jnp.float32), jnp.asarray(codebook, jnp.float32))
    assert np.array_equal(found, distances.argmin(-1))


def test_the_decoder_sees_rows_of_the_codebook_and_the_encoder_its_gradient():
    """z is a row of the codebook, and its gradient passes straight through, to the bit.

    Fails if z is the encoded vector, or if the encoder gets no gradient.
    """
    module, variables = start()
    _, variables = train(module, variables, 0)
    code = module.apply(variables, values(1), KEY)
    codebook = np.asarray(module.apply(variables, method="codebook"))
    assert np.array_equal(code.z, codebook[np.asarray(code.indices)])
    weight = jnp.arange(3.0)[None, None, None]

    def cost(encoded_only):
        def of(variables):
            code = module.apply(variables, values(1), KEY)
            return jnp.sum(weight * (code.encoded if encoded_only else code.z))

        return jax.grad(lambda p: of({**variables, "params": p}))(variables["params"])

    for a, b in zip(jax.tree.leaves(cost(True)), jax.tree.leaves(cost(False)), strict=True):
        assert np.array_equal(a, b)
        assert np.any(a)


def test_the_codebook_is_a_moving_average():
    """The codebook equals a loop in numpy, after a first batch that sets it.

    Fails if the batch's mean is averaged instead of its sum, or if decay and 1 - decay are swapped.
    """
    decay = 0.8
    module, variables = start(decay=decay, restart=0.0, window=2)
    _, variables = train(module, variables, 0)
    memory = variables["memory"]
    counts, sums = (np.asarray(memory[n], np.float64) for n in ("counts", "sums"))
    chosen, last = np.zeros(CODES), np.zeros(CODES)
    for t in range(1, 6):
        before = variables
        code, variables = train(module, variables, t)
        # The forward pass used the codebook from before this batch.
        assert np.array_equal(code.z, module.apply(before, code.indices, method="lift"))
        counts, sums = decay * counts, decay * sums
        rows = np.asarray(code.encoded).reshape(-1, SIZE)
        for row, index in zip(rows, np.asarray(code.indices).ravel(), strict=True):
            counts[index] += 1 - decay
            sums[index] += (1 - decay) * row
            chosen[index] += 1
        if t % 2 == 1:  # the window of two steps is complete; the first batch chose no code
            last, chosen = chosen, np.zeros(CODES)
        np.testing.assert_allclose(variables["memory"]["counts"], counts, rtol=1e-5)
        np.testing.assert_allclose(variables["memory"]["sums"], sums, rtol=1e-4, atol=1e-5)
        codebook = module.apply(variables, method="codebook")
        np.testing.assert_allclose(codebook, sums / counts[:, None], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(module.apply(variables, method="usage"), last)


def test_dead_vectors_restart_at_encoded_ones():
    """Fails if a dead vector stays, a used one moves, or the limit is not relative to even use."""
    module, variables = start(restart=0.1, decay=0.5)
    _, variables = train(module, variables, 0)
    memory = dict(variables["memory"])
    # Vector 3 is far from all inputs and was not chosen for long. Half of its count of 0.3 is left,
    # which is less than a tenth of the 4.8 rows per vector at even use.
    memory["sums"] = memory["sums"].at[3].set(1e3)
    memory["counts"] = memory["counts"].at[3].set(0.3)
    code, after = train(module, {**variables, "memory": memory}, 1)
    assert not np.any(np.asarray(code.indices) == 3)
    codebook = np.asarray(module.apply(after, method="codebook"))
    rows = np.asarray(code.encoded).reshape(-1, SIZE)
    assert np.min(np.abs(rows - codebook[3]).sum(1)) < 1e-5
    used = np.unique(code.indices)
    assert np.min(np.abs(rows[None] - codebook[used][:, None]).sum(-1)) > 1e-3
    # The key chooses the row at which it restarts.
    others = {
        float(
            train(module, {**variables, "memory": memory}, 1, jax.random.key(k))[1]["memory"][
                "sums"
            ][3, 0]
        )
        for k in range(5)
    }
    assert len(others) > 1


def test_a_restarted_vector_has_as_long_as_one_of_even_use():
    """It is dead again after 4 steps, since 0.5^4 is the first power below a tenth.

    Fails if a restart counts for less than even use: the vector would be dead again one step later,
    whether it is chosen or not.
    """
    module, variables = start(restart=0.1, decay=0.5)
    _, variables = train(module, variables, 0)  # all vectors start at these inputs
    begun = np.asarray(module.apply(variables, method="codebook"))
    # inputs that are encoded as zeros, which always choose the same vector
    zeros = jnp.zeros((6, 7))
    silent = np.arange(CODES) != np.argmin(np.square(begun).sum(1))
    step = jax.jit(lambda v: module.apply(v, zeros, KEY, mutable=["memory"])[1])
    for t in range(1, 5):
        variables = {**variables, **step(variables)}
        codebook = np.asarray(module.apply(variables, method="codebook"))
        expected = begun if t < 4 else np.zeros_like(begun)
        np.testing.assert_allclose(codebook[silent], expected[silent], rtol=1e-5)


def test_the_first_batch_sets_all_vectors():
    """Fails if a new codebook stays at zero, or if an evaluation changes it."""
    module, variables = start()
    assert not np.any(module.apply(variables, values(0), KEY).z)
    code, variables = train(module, variables, 0)
    rows = np.asarray(code.encoded).reshape(-1, SIZE)
    codebook = np.asarray(module.apply(variables, method="codebook"))
    assert len(np.unique(codebook.round(5), axis=0)) == CODES
    for row in codebook:
        assert np.min(np.abs(rows - row).sum(1)) < 1e-5


def test_features_that_stand_at_positions_are_projected_one_by_one():
    module = ae.VectorQuantised(CODES, SIZE, POSITIONS)
    image = jnp.asarray(np.random.default_rng(0).normal(size=(4, 2, 2, 6)), jnp.float32)
    variables = module.init(jax.random.key(0), image, None)
    assert variables["params"]["encode"]["dense"]["kernel"].shape == (6, SIZE)
    before = module.apply(variables, image, None).encoded
    after = module.apply(variables, image.at[:, 0, 1].add(1.0), None).encoded
    assert np.array_equal(np.argwhere(np.any(np.asarray(before != after), axis=(0, 3))), [[0, 1]])


def test_commitment_is_a_pull_on_the_encoder_alone():
    """Fails if the term trains the codebook, or takes the mean over positions."""
    module, variables = start()
    _, variables = train(module, variables, 0)
    code = module.apply(variables, values(1), KEY)
    forward = ae.Forward(ae.Batch(values(1), values(1)), None, code, None, jnp.zeros(()), None)
    found = losses.commitment(None, forward)
    expected = np.square(np.asarray(code.encoded) - np.asarray(code.z)).sum((1, 2, 3))
    np.testing.assert_allclose(found, expected, rtol=1e-5)

    def term(encoded, z):
        changed = forward._replace(code=code._replace(encoded=encoded, z=z))
        return jnp.sum(losses.commitment(None, changed))

    pull, other = jax.grad(term, (0, 1))(code.encoded, code.z)
    np.testing.assert_allclose(pull, 2 * (code.encoded - code.z), rtol=1e-5)
    assert not np.any(other)


def test_a_vq_vae_trains_and_reports_its_usage():
    """It trains with one draw and with two; the memory of draw 0 is kept."""
    model = ae.Autoencoder(
        ae.nets.MLP((16,)),
        ae.VectorQuantised(8, 4, (3,), window=20),
        ae.nets.MLP((16,), shape=kinds.EVENT),
        likelihood=ae.likelihoods.Bernoulli(),
    )
    watched = ae.watch(used=losses.codes_used, perplexity=losses.perplexity)
    objective = ae.merge(ae.reconstruction(), {"commitment": (0.25, losses.commitment)}, watched)
    learner = ae.chunked(ae.learner(model, objective, optax.adam(3e-3)), 150)
    state = jax.jit(learner.init)(jax.random.key(0), kinds.batch())
    state, metrics = jax.jit(learner.step)(state, kinds.source(0, 150, 150))
    losses_ = np.asarray(metrics["distortion"])
    assert losses_[-20:].mean() < 0.75 * losses_[:5].mean()
    counts = np.asarray(state.memory["bottleneck"]["last"])
    assert counts.sum() == 20 * kinds.B * 3
    used, perplexity = (np.asarray(metrics[n]) for n in ("used", "perplexity"))
    assert np.all(used[:20] == 0)
    share = counts / counts.sum()
    share = share[share > 0]
    # The last step's usage is that of a window which ends one step earlier and differs little.
    assert used[-1] > 0.5
    assert 1 < perplexity[-1] <= 8
    assert np.exp(-np.sum(share * np.log(share))) == pytest.approx(perplexity[-1], rel=0.2)


@pytest.mark.parametrize(
    "options",
    [{"decay": 1.5}, {"decay": 1.0}, {"restart": -1}, {"window": 0}, {"codes": 0}, {"size": 0}],
)
def test_numbers_of_a_codebook_that_cannot_be_are_refused(options):
    """Fails if wrong numbers are accepted, or raise an error of numpy."""
    (name,) = options
    module = ae.VectorQuantised(**{"codes": CODES, "size": SIZE, **options})
    with pytest.raises(ae.UserError, match=f"VectorQuantised has {name} = "):
        module.init(jax.random.key(0), values(0), None)


def test_what_counts_or_numbers_codes_asks_for_such_a_part():
    """Fails if usage is asked of a part without a codebook, or real latents pass for indices."""
    lattice = ae.bottlenecks.FiniteScalarQuantised((5, 4))
    for part, name in ((lattice, "FiniteScalarQuantised"), (ae.Gaussian(2), "Gaussian")):
        for term in (losses.codes_used, losses.perplexity):
            with pytest.raises(ae.UserError, match=f"{name} does not count"):
                term(ae.Autoencoder(ae.nets.Identity(), part, ae.nets.Identity()), None)
    for part in (lattice, ae.VectorQuantised(CODES, SIZE)):
        variables = part.init(jax.random.key(0), values(0), None)
        with pytest.raises(ae.UserError, match="indices of codes, but these have dtype float32"):
            part.apply(variables, jnp.zeros((2, 1)), method="lift")


@pytest.mark.parametrize("levels", [(), (5, 1), (1001,)])
def test_numbers_of_levels_that_cannot_be_are_refused(levels):
    """Fails if 1001 levels are accepted, which round to 1003 values, or 1, a division by zero."""
    with pytest.raises(ae.UserError, match="2 to 1000 levels"):
        ae.bottlenecks.FiniteScalarQuantised(levels).init(jax.random.key(0), values(0), None)


@pytest.mark.parametrize("levels", [(1000,) * 4, (8,) * 12, (2,) * 31])
def test_more_codes_than_an_index_can_number_are_refused(levels):
    """Fails if indices overflow: they would then name points that no input was rounded to."""
    with pytest.raises(ae.UserError, match="at most 2147483647 codes"):
        ae.bottlenecks.FiniteScalarQuantised(levels).init(jax.random.key(0), values(0), None)


@pytest.mark.parametrize("levels", [(2,), (3, 4), (8, 5, 5)])
def test_every_point_of_the_lattice_is_reached_and_numbered_once(levels):
    """Points equal all combinations of levels, in order.

    Fails if an even number of levels is off by half a level.
    """
    module = ae.bottlenecks.FiniteScalarQuantised(levels)
    variables = module.init(jax.random.key(0), values(0), None)
    numbers = jnp.arange(module.codes)[:, None]
    points = np.asarray(module.apply(variables, numbers, method="lift"))[:, 0]
    grids = [(np.arange(n) - n // 2) / (n // 2) for n in levels]
    expected = np.asarray(list(itertools.product(*reversed(grids))))[:, ::-1]
    np.testing.assert_allclose(points, expected, rtol=1e-6)
    # Inputs in a wide range reach every point, and a code's number gives its point.
    wide = jnp.asarray(np.random.default_rng(1).normal(size=(20_000, 7)) * 2, jnp.float32)
    code = module.apply(variables, wide, None)
    assert set(np.unique(code.indices)) == set(range(module.codes))
    assert np.array_equal(code.z[:, 0], points[np.asarray(code.indices)[:, 0]])


def test_lattice_points_are_the_nearest_and_the_gradient_is_tanhs():
    """Fails if the offset is not undone, so that zero features land half a level away.

    Fails also if the slope of an even number of levels lacks the shift.
    """
    module = ae.bottlenecks.FiniteScalarQuantised((5, 4))
    zeros = jnp.zeros((1, 7))
    variables = module.init(jax.random.key(0), zeros, None)
    assert not np.any(module.apply(variables, zeros, None).z)
    kernel = jnp.zeros((7, 2)).at[0, 0].set(1.0).at[1, 1].set(1.0)
    variables = {"params": {"encode": {"dense": {"kernel": kernel, "bias": jnp.zeros(2)}}}}
    line = np.linspace(-3, 3, 101)
    inputs = jnp.asarray(np.stack([line, line] + [0 * line] * 5, 1), jnp.float32)
    found = np.asarray(module.apply(variables, inputs, None).z)[:, 0]
    np.testing.assert_allclose(found[:, 0], np.round(np.tanh(line) * 2 * 1.001) / 2, atol=1e-6)
    even = np.tanh(line + np.arctanh(0.5 / (1.5 * 1.001))) * 1.5 * 1.001 - 0.5
    np.testing.assert_allclose(found[:, 1], np.round(even) / 2, atol=1e-6)
    slope = jax.grad(lambda x: jnp.sum(module.apply(variables, x, None).z))(inputs)
    np.testing.assert_allclose(slope[:, 0], 1.001 * (1 - np.tanh(line) ** 2), rtol=1e-4, atol=1e-6)
    shifted = np.tanh(line + np.arctanh(0.5 / (1.5 * 1.001)))
    expected = 1.5 * 1.001 / 2 * (1 - shifted**2)
    np.testing.assert_allclose(slope[:, 1], expected, rtol=1e-4, atol=1e-6)
