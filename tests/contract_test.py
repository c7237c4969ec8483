"""Tests one contract for every bottleneck, prior and likelihood; a new part adds a row."""

from __future__ import annotations

import functools
import itertools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import aejax as ae
from aejax.bottlenecks import GaussianCode, LevelsCode, Rows, Sparse
from aejax.contracts import NOTHING
from aejax.data.text.coding import Words
from aejax.dictionaries import plain as dictionary
from aejax.normal import LOG_2PI
from tests import kinds

B, D, L, M = 6, 8, 4, 32
DRAWS = 20_000


class Path(ae.Hamiltonian):
    """A Hamiltonian path under a joint density that stands in for that of a model."""

    def __call__(self, features, key, given=NOTHING):
        def log_joint(z):
            return -0.5 * jnp.sum(jnp.square(z) + jnp.square(z - features[:, :L]), axis=-1)

        return super().__call__(features, key, given._replace(log_joint=log_joint))


class Pursuit(ae.MatchingPursuit):
    """Matching pursuit beside the dictionary whose atoms it reads, which has atoms of norm 1."""

    def setup(self):
        super().setup()
        self.dictionary = ae.nets.Dictionary(D, norm=1.0)

    def __call__(self, features, key, given=NOTHING):
        return super().__call__(features, key, given._replace(decoder=self.dictionary))


def two_views(part: Any, latents: int) -> Any:
    """Returns a bottleneck of two views, to which the first and the last features belong."""

    class TwoViews(part):
        def __call__(self, features, key, given=NOTHING):
            there = jnp.ones(features.shape[:1])
            views = {"first": (features[:, :5], there), "last": (features[:, 3:], there)}
            return super().__call__(views, key, given)

    return TwoViews(latents)


BOTTLENECKS = {
    "Point": ae.Point(L),
    "Gaussian": ae.Gaussian(L),
    "VectorQuantised": ae.VectorQuantised(M, 3, (2, 2)),
    "ResidualQuantised": ae.ResidualQuantised(M, 3, 2, (2, 2)),
    "FiniteScalarQuantised": ae.FiniteScalarQuantised((8, 5), (3, 1)),
    "GumbelSoftmax": ae.GumbelSoftmax(3, 5, temperature=0.7),
    "ReLU": ae.ReLU(M),
    "ReLU-bfloat16": ae.ReLU(M, dtype=jnp.bfloat16),
    "TopK": ae.TopK(M, 3),
    "TopK-bfloat16": ae.TopK(M, 3, dtype=jnp.bfloat16),
    "AbsTopK": ae.AbsTopK(M, 3),
    "BatchTopK": ae.BatchTopK(M, 3),
    "Gated": ae.Gated(M),
    "JumpReLU": ae.JumpReLU(M),
    "AnnealedReLU": ae.AnnealedReLU(M),
    "JumpReLU-steered": ae.JumpReLU(M, l0=3.0, to_input=True),
    "MatchingPursuit": Pursuit(M, residual_threshold=0.5),
    "SpatialGaussian": ae.SpatialGaussian((2,), L // 2),
    "FullGaussian": ae.FullGaussian(L),
    "NormalisedGaussian": ae.NormalisedGaussian(L, gamma=0.7),
    "VonMisesFisher": ae.VonMisesFisher(L),
    "ProductOfExperts": two_views(ae.ProductOfExperts, L),
    "MixtureOfExperts": two_views(ae.MixtureOfExperts, L),
    "Hamiltonian": Path(L, steps=2, size=0.3),
    "Planar": ae.Planar(L, flows=2),
    "InverseAutoregressive": ae.InverseAutoregressive(L, flows=2, widths=(12,)),
    "Sylvester": ae.Sylvester(L, columns=2, flows=2),
    "Levels": ae.Levels((L, 3), (ae.nets.MLP((), (2 * L,)), ae.nets.MLP((9,), (6,)))),
    "UpwardLevels": ae.UpwardLevels((3, L), (ae.nets.MLP((9,), (6,)),)),
}
# In training, their codes depend on the rest of the batch.
COUPLED = (ae.BatchTopK, ae.NormalisedGaussian)
# Their log q can stop the gradient of its parameters, except through z.
STICKING = (
    ae.Gaussian,
    ae.SpatialGaussian,
    ae.FullGaussian,
    ae.NormalisedGaussian,
    ae.VonMisesFisher,
    ae.ProductOfExperts,
    ae.MixtureOfExperts,
)
# Their draws are no smooth function of as many normals; tests of their own have quadratures.
REJECTING = (ae.VonMisesFisher, ae.MixtureOfExperts, ae.Hamiltonian)


EVENT = (3, 2)
random = np.random.default_rng(0)


def stand_in(batch: ae.Batch) -> GaussianCode:
    """Makes a posterior of width L without a model, from the first numbers of x."""
    x = batch.x.reshape((batch.x.shape[0], -1))[:, :L]
    return GaussianCode(x, x, 0.3 * x - 0.2)


class Prior(NamedTuple):
    """A prior, and what it needs besides the latents."""

    module: Any
    posterior: Any = None  # a stand-in for the model's posterior; sampling then needs the encoder
    context: bool = False
    shape: Any = (L,)  # the shape of a latent, L numbers in all


def stand_in_levels(batch: ae.Batch) -> LevelsCode:
    """Makes a stand-in of two levels, each of half the width."""
    code = stand_in(batch)
    levels = zip(*(jnp.split(leaf, 2, axis=-1) for leaf in code), strict=True)
    return LevelsCode(tuple(GaussianCode(*level) for level in levels), code.z)


HALVES = ((L // 2,), (L // 2,))
# tanh bounds the means, so that the wide normal which proposes latents covers the levels.
below = ae.nets.MLP((4,), (L,), jnp.tanh)
vamp = ae.priors.Vamp(EVENT, pseudo_inputs=5, spread=1.0, bounds=None)
PRIORS = {
    "Standard": Prior(ae.priors.Standard()),
    "Mixture": Prior(ae.priors.Mixture(3)),
    "FullMixture": Prior(ae.priors.FullMixture(3)),
    "Vamp": Prior(vamp, posterior=stand_in),
    "Flow": Prior(ae.priors.Flow(3, (8,))),
    "Flow-conditional": Prior(ae.priors.Flow(3, (8,)), context=True),
    "Conditional": Prior(ae.priors.Conditional((8,)), context=True),
    "Levels-standard": Prior(ae.priors.Levels((below,)), shape=HALVES),
    "Levels-vamp": Prior(ae.priors.Levels((below,), vamp), stand_in_levels, shape=HALVES),
    "Ladder": Prior(
        ae.priors.Ladder(ae.nets.LadderTrunk(((1, 1), (1, 1)), 6, L // 2, 1)), shape=HALVES
    ),
}


def fitting(row: Prior, event: Any) -> Any:
    """Returns the prior for examples of a shape, which is also that of its pseudo-inputs."""
    if row.posterior is None:
        return row.module
    fitted = vamp.clone(event=event)
    return fitted if row.module is vamp else row.module.clone(top=fitted)


def normals(key: jax.Array, n: int, shape: Any) -> Any:
    """Draws standard normal latents, of one shape or of one for each level."""
    if isinstance(shape[0], int):
        return jax.random.normal(key, (n, *shape))
    keys = jax.random.split(key, len(shape))
    return tuple(normals(key, n, part) for key, part in zip(keys, shape, strict=True))


def joined(latent: Any) -> np.ndarray:
    """Concatenates all levels of a latent, f64[n, L]."""
    return np.concatenate([np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(latent)], 1)


def contexts(size: int, needed: bool = True) -> jax.Array | None:
    """Returns the same one-hot label for all, f32[size, 3], or None if none is needed."""
    return jnp.broadcast_to(jnp.asarray([[0.0, 1.0, 0.0]]), (size, 3)) if needed else None


class Explained(NamedTuple):
    """A likelihood, and targets in its support."""

    likelihood: Any
    target: np.ndarray  # [B, *event]
    values: Any = ()  # all values of an element; (): any real number
    exact: bool = True  # whether the mean is exact and no estimate


REAL = random.normal(size=(B, *EVENT)).astype(np.float32)
BINARY = (REAL > 0).astype(np.float32)
LEVELS = random.integers(0, 5, (B, *EVENT)).astype(np.int32)
COUNTS = np.random.default_rng(3).integers(0, 3, (B, 2)).astype(np.float32)
TEXTS = np.int32(
    [[2, 3, 1, 0], [1, 0, 0, 0], [3, 3, 3, 2], [2, 1, 0, 0], [3, 2, 2, 1], [3, 1, 0, 0]]
)
# No value is in the middle, where the later channels do not depend on it.
COLOURS = random.choice(np.float32([0.0, 0.25, 0.75, 1.0]), (B, 2, 1, 3))
GRID = np.linspace(0.0, 1.0, 5)
LIKELIHOODS = {
    "Bernoulli": Explained(ae.likelihoods.Bernoulli(), BINARY, (0, 1)),
    "Gaussian": Explained(ae.likelihoods.Gaussian(0.7), REAL),
    "LearnedGaussian": Explained(ae.likelihoods.LearnedGaussian(floor=0.1, start=0.5), REAL),
    "HeteroscedasticGaussian": Explained(ae.likelihoods.HeteroscedasticGaussian(0.1), REAL),
    "Standardised": Explained(
        ae.likelihoods.Standardised(ae.likelihoods.LearnedGaussian(0.1, 0.5), 0.5, 2.0), REAL
    ),
    "StudentT": Explained(ae.likelihoods.StudentT(7.0, floor=0.1, start=0.4), REAL),
    "Poisson": Explained(ae.likelihoods.Poisson(), COUNTS, range(80)),
    "NegativeBinomial": Explained(ae.likelihoods.NegativeBinomial(4.0), COUNTS, range(120)),
    "ZeroInflated-Poisson": Explained(
        ae.likelihoods.ZeroInflated(ae.likelihoods.Poisson()), COUNTS, range(80)
    ),
    "ZeroInflated-NegativeBinomial": Explained(
        ae.likelihoods.ZeroInflated(ae.likelihoods.NegativeBinomial(3.0)), COUNTS, range(120)
    ),
    "Categorical": Explained(ae.likelihoods.Categorical(5), LEVELS, range(5)),
    "DiscretisedLogistic": Explained(
        ae.likelihoods.DiscretisedLogistic(levels=5), (LEVELS / 4).astype(np.float32), GRID
    ),
    "LogisticMixture": Explained(
        ae.likelihoods.LogisticMixture(2, levels=5), (LEVELS / 4).astype(np.float32), GRID
    ),
    "ColourLogisticMixture": Explained(
        ae.likelihoods.ColourLogisticMixture(2, levels=5), COLOURS, GRID, exact=False
    ),
    "Text": Explained(
        ae.likelihoods.Text(Words(("a",)), ae.nets.CausalTransformer(4, 1, 2), 4, prefix=2),
        TEXTS,
        range(4),
        exact=False,
    ),
    "Wave": Explained(
        ae.likelihoods.Wave(
            ae.likelihoods.LogisticMixture(2, levels=5),
            hop=2,
            conditioning=2,
            channels=3,
            reach=3,
            layers=1,
        ),
        random.choice(np.float32(GRID), (B, 4, 1)),
        GRID,
        exact=False,
    ),
    "PixelCNN": Explained(
        ae.likelihoods.PixelCNN(
            ae.likelihoods.Bernoulli(), conditioning=2, channels=3, layers=1, kernel=3
        ),
        BINARY[:, :2, :, None],
        (0, 1),
        exact=False,
    ),
}


def features(seed: int = 1, size: int = B) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=(size, D)), jnp.float32)


def moved(variables: Any, far: float = 0.3) -> Any:
    """Changes the parameters from their start, at which many are zero."""
    generator = np.random.default_rng(9)
    return jax.tree.map(
        lambda leaf: leaf + far * generator.normal(size=leaf.shape).astype(np.float32), variables
    )


def close(left: Any, right: Any, rtol: float = 1e-5, atol: float = 1e-6) -> None:
    assert jax.tree.structure(left) == jax.tree.structure(right)
    for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=atol)


def is_drawn(code: Any) -> bool:
    """Returns whether a code has a density and is real, so that its draws differ."""
    return hasattr(code, "log_q") and not jnp.issubdtype(
        jax.tree.leaves(code.latent)[0].dtype, jnp.integer
    )


def equal(left: Any, right: Any) -> bool:
    leaves = zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True)
    return all(np.array_equal(a, b) for a, b in leaves)


@functools.cache
def started(name: str, seed: int = 0) -> tuple[Any, Any]:
    """Returns a bottleneck's variables near its start, and the code that they give."""
    module = BOTTLENECKS[name]

    variables = kinds.numbers(
        jax.eval_shape(module.init, jax.random.key(0), features(), None), seed
    )
    variables = jax.tree.map(lambda leaf: 0.5 * leaf + 0.1, variables)
    return variables, jax.jit(module.apply)(variables, features(), None)


def compiled(module: Any) -> Any:
    """Returns `apply`, compiled once for each method, set of mutable collections and shape."""

    @functools.cache
    def program(method: str | None, mutable: Any) -> Any:
        return jax.jit(functools.partial(module.apply, method=method, mutable=mutable))

    def apply(variables: Any, *values: Any, method: str | None = None, mutable: Any = False) -> Any:
        return program(method, mutable)(variables, *values)

    return apply


class Compiled(NamedTuple):
    """A bottleneck and its `apply`, compiled as whole programs, which takes less time."""

    module: Any
    variables: Any
    apply: Any


# They take long to compile, and have tests of their own in tests/bottlenecks.
LONG_BOTTLENECKS = (
    "ResidualQuantised",
    "SpatialGaussian",
    "VonMisesFisher",
    "MixtureOfExperts",
    "Hamiltonian",
)


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(row, id=name, marks=[pytest.mark.slow] * (name in LONG_BOTTLENECKS))
        for name, row in BOTTLENECKS.items()
    ],
)
def bottleneck(request):
    module = request.param
    # The sparse codes have the same shapes, and share the small programs that draw them.
    init = module.init if isinstance(module, Sparse) else jax.jit(module.init)
    variables = init(jax.random.key(0), features(), None)
    return Compiled(module, variables, compiled(module))


class TestBottleneck:
    """Tests of bottlenecks, which map features to a code."""

    def test_codes_have_a_row_an_example_in_float32(self, bottleneck):
        _, variables, apply = bottleneck
        code = apply(variables, features(), jax.random.key(1))
        for leaf in jax.tree.leaves(code):
            assert leaf.shape[0] == B
            assert leaf.dtype in (jnp.float32, jnp.int32)
        if hasattr(code, "log_q"):
            assert code.log_q().shape == (B,)
            assert np.all(np.isfinite(code.log_q()))

    def test_shape_latent_and_lift_agree(self, bottleneck):
        """Fails if shape lacks an axis, or if lift changes what the decoder sees."""
        module, variables, apply = bottleneck
        code = apply(variables, features(), jax.random.key(1))
        latent = code.latent.dense() if isinstance(code.latent, Rows) else code.latent
        levels = latent if isinstance(latent, tuple) else (latent,)
        shapes = module.shape if isinstance(latent, tuple) else (module.shape,)
        assert [leaf.shape for leaf in levels] == [(B, *shape) for shape in shapes]
        close(apply(variables, code.latent, method="lift"), code.z)

    def test_without_a_key_there_is_no_noise(self, bottleneck):
        """Fails if key=None uses a fixed key when the code is random."""
        _, variables, apply = bottleneck
        first, second = (apply(variables, features(), None) for _ in range(2))
        assert equal(first, second)
        if is_drawn(first):
            draws = [apply(variables, features(), jax.random.key(i)) for i in (1, 1, 2)]
            assert equal(draws[0], draws[1])
            assert not equal(draws[0].z, draws[2].z)
            assert not equal(draws[0].z, first.z)
            assert equal(first.latent, getattr(first, "mean", first.latent))

    def test_log_q_is_the_density_of_the_draws(self, bottleneck, monkeypatch):
        """It is log N(noise) - log |det dz / dnoise|, with the Jacobian by autodiff.

        Fails if a step's log-determinant is left out or has another sign, if a triangular matrix is
        transposed, or if a level's log q is counted twice.
        """
        module, variables, apply = bottleneck
        if not is_drawn(apply(variables, features(), None)) or isinstance(module, REJECTING):
            return
        # at larger values, float32 does not distinguish a level from its mean
        variables = moved(variables, 0.1)

        def drawn(noise, values):
            pool = iter(noise)

            def normal(key, shape, dtype=None):
                return jnp.stack(list(itertools.islice(pool, math.prod(shape)))).reshape(shape)

            with monkeypatch.context() as patch:
                patch.setattr(jax.random, "normal", normal)
                code = module.apply(variables, values[None], jax.random.key(0))
            assert next(pool, None) is None
            return jnp.concatenate(jax.tree.leaves(code.latent), axis=1)[0], code.log_q()[0]

        size = (B, sum(jax.tree.leaves(module.shape)))
        noise = np.random.default_rng(3).normal(size=size).astype(np.float32)
        slopes, found = jax.jit(jax.vmap(jax.jacfwd(drawn, has_aux=True)))(noise, 0.5 * features())
        expected = (
            -0.5 * np.sum(np.square(noise) + LOG_2PI, axis=1)
            - np.linalg.slogdet(np.float64(slopes))[1]
        )
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-3)

    def test_sticking_hides_all_but_the_path_through_z(self, bottleneck):
        """It does so, or is refused.

        Fails if a parameter of q keeps its gradient, or z loses its own.
        """
        module, variables, apply = bottleneck
        code = apply(variables, features(), jax.random.key(1))
        if not is_drawn(code):
            return

        if not isinstance(module, STICKING):
            with pytest.raises(ae.UserError, match=r"sticks? the landing"):
                code.log_q(True)
            return

        def gradient(stick):
            return jax.grad(lambda code: jnp.sum(code.log_q(stick)))(code)

        stuck, free = gradient(True), gradient(False)
        assert np.any(stuck.z)
        assert equal(stuck.z, free.z)
        for left, all_ in zip(stuck[1:], free[1:], strict=True):
            assert not np.any(left)
            assert np.any(all_)

    @pytest.mark.slow
    def test_jit_equals_no_jit(self, bottleneck):
        module, variables, apply = bottleneck
        for key in (None, jax.random.key(1)):
            plain = module.apply(variables, features(), key)
            close(apply(variables, features(), key), plain)

    @pytest.mark.slow
    def test_jit_equals_no_jit_in_training(self, bottleneck):
        module, variables, _ = bottleneck

        def trained(values):
            return module.apply(variables, values, jax.random.key(1), mutable=["memory"])

        close(jax.jit(trained)(features()), trained(features()))

    def test_a_permuted_batch_gives_permuted_codes(self, bottleneck):
        """Fails if a bottleneck uses statistics of the batch."""
        _, variables, apply = bottleneck
        order = np.random.default_rng(2).permutation(B)
        code = apply(variables, features(), None)
        permuted = apply(variables, features()[order], None)
        close(permuted, jax.tree.map(lambda leaf: leaf[order], code))
        assert not equal(permuted, code)

    def test_the_gradient_reaches_the_features(self, bottleneck):
        """Fails if z is under a stop_gradient."""
        _, variables, apply = bottleneck

        def cost(values):
            z = apply(variables, values, jax.random.key(1)).z
            leaves = [leaf for leaf in jax.tree.leaves(z) if leaf.dtype == jnp.float32]
            # The loss is not z alone: a codebook that no batch has set yet leaves z at zero.
            return sum(jnp.sum(jnp.square(1.0 + leaf)) for leaf in leaves)

        gradient = jax.jit(jax.grad(cost))(features())
        assert np.all(np.any(np.asarray(gradient) != 0, axis=1))

    def test_memory_is_written_in_training_alone(self, bottleneck):
        """Fails if ages grow at initialisation, or are kept from one pass to the next."""
        module, variables, apply = bottleneck
        memory = variables.get("memory", {})
        for leaf in jax.tree.leaves(memory):
            assert not np.any(leaf)
        few, mutable = features(size=1), ("params", "memory")
        assert np.array_equal(few, features()[:1])
        frozen = apply(variables, features(), None)
        trained, changed = apply(variables, few, None, mutable=mutable)
        if not isinstance(module, COUPLED):
            close(trained, jax.tree.map(lambda leaf: leaf[:1], frozen))
        _, again = apply({**variables, **changed}, few, None, mutable=mutable)
        assert equal(again["params"], variables["params"])
        if memory:
            assert not equal(changed["memory"], memory)
            assert not equal(again["memory"], changed["memory"])
        else:
            assert "memory" not in changed

    def test_ages_count_the_batches_since_a_latent_was_active(self, bottleneck):
        """Fails if ages count examples or start at 1, or if slots of value zero count as active."""
        module, variables, apply = bottleneck
        if not isinstance(module, Sparse):
            assert not hasattr(apply(variables, features(), None), "l0")
            return
        ages = np.zeros(M, np.int32)
        for t in range(5):
            # Small batches with one direction leave some latents inactive.
            values = features(seed=t, size=1) * (0.0 if t == 4 else 1.0)
            code, changed = apply(variables, values, None, mutable=("params", "memory"))
            variables = {**variables, **changed}
            active = np.any(np.asarray(code.dense()) != 0, axis=0)
            ages = np.where(active, 0, ages + 1)
            assert np.array_equal(variables["memory"]["ages"]["age"], ages)
        assert ages.max() == 5
        assert ages.min() == 1

    def test_a_sparse_code_agrees_with_its_dense_form(self, bottleneck):
        """It agrees with plain weights too.

        Fails if l0 counts slots of zero, or if k is off by one.
        """
        module, variables, apply = bottleneck
        for mutable in (False, "memory"):
            result = apply(variables, features(), None, mutable=mutable)
            code = result[0] if mutable else result
            if not isinstance(module, Sparse):
                assert not hasattr(code, "l0")
                return
            dense = np.asarray(code.dense())
            assert dense.shape == (B, M)
            assert np.array_equal(code.l0, (dense != 0).sum(1))
            assert np.array_equal(code.used(), (dense != 0).any(0))
            np.testing.assert_allclose(code.magnitude(), np.abs(dense).sum(1), rtol=1e-5)
            weights = jnp.arange(1.0, M + 1)
            weighted = np.abs(dense) @ np.asarray(weights)
            np.testing.assert_allclose(code.magnitude(weights), weighted, rtol=1e-5)
            if mutable and isinstance(module, COUPLED):
                continue
            params, norms = variables["params"], jnp.ones(M)
            fields = module.plain(params, variables.get("memory", {}), norms)
            atoms = params["dictionary"]["atoms"] if module.tied else jnp.eye(M)
            kernel = atoms.T if module.tied else params["encode"]["kernel"]
            plain = dictionary.Plain(
                W_enc=kernel, W_dec=atoms, b_dec=jnp.zeros(atoms.shape[1]), **fields
            )
            if module.dtype is None:
                expected = dictionary.encode(plain, features())
                np.testing.assert_allclose(dense, expected, rtol=1e-4, atol=1e-6)
                model, own = ae.unfold(plain)
                again = model.apply(own, ae.Batch(features(), features()), method="posterior")
                np.testing.assert_allclose(dense, again.dense(), rtol=1e-4, atol=1e-6)


@pytest.fixture(scope="module", params=PRIORS.values(), ids=PRIORS.keys())
def prior(request):
    """Returns a call (method, values, ...) of a prior whose parameters are not those of the
    start.
    """
    module, posterior, context, shape = request.param
    z = normals(jax.random.key(0), B, shape)
    init = functools.partial(module.init, posterior=posterior, method="log_prob")
    shapes = jax.eval_shape(init, jax.random.key(0), z, contexts(B, context))
    variables = moved(kinds.numbers(shapes) if shapes else {})

    def plain(method, *values):
        # The first arguments are latents for log_prob, the code for kl, and key, n and shape for
        # sample.
        size = values[1] if method == "sample" else jax.tree.leaves(values)[0].shape[0]
        label = contexts(size, context)
        values = (*values, shape) if method == "sample" else values
        return module.apply(variables, *values, label, posterior, method=method)

    program = jax.jit(plain, static_argnums=(0, 2))

    def call(*arguments):
        return program(*arguments)

    call.plain, call.shape = plain, shape
    return call


class TestPrior:
    """Tests of priors, from which latents are drawn."""

    def test_log_prob_and_its_gradient(self, prior):
        z = normals(jax.random.key(3), B, prior.shape)

        def log_prob(z):
            return prior("log_prob", z)

        value = log_prob(z)
        assert value.shape == (B,)
        assert value.dtype == jnp.float32
        order = np.random.default_rng(2).permutation(B)
        close(log_prob(jax.tree.map(lambda leaf: leaf[order], z)), value[order])
        gradient = jax.jit(jax.grad(lambda z: jnp.sum(log_prob(z))))(z)
        for leaf in jax.tree.leaves(gradient):
            assert np.all(np.any(np.asarray(leaf) != 0, axis=1))

    @pytest.mark.slow
    def test_jit_equals_no_jit(self, prior):
        z = normals(jax.random.key(3), B, prior.shape)
        close(prior.plain("log_prob", z), prior("log_prob", z))

    def test_samples_have_the_density_that_log_prob_gives(self, prior):
        """Importance weights of a wide normal average to one; fails if the density is not
        normalised.

        log_prob and all moments up to the second, under a window that leaves out far tails, have
        the mean over samples that these weights give. Fails if sample draws from another density:
        with twice the deviation, with components chosen evenly, or with one noise for all levels.
        """

        def log_prob(z):
            return np.asarray(prior("log_prob", z), np.float64)

        def figures(z):
            z = joined(z)
            window = np.exp(-np.sum(np.square(z), axis=1, keepdims=True) / 8.0)
            products = z[:, :, None] * z[:, None]
            return window * np.concatenate([products.reshape(DRAWS, -1), z], axis=1)

        key = jax.random.key(5)
        samples = prior("sample", key, DRAWS)
        standard = normals(jax.random.key(6), DRAWS, prior.shape)
        wide = jax.tree.map(lambda leaf: 2.0 * leaf, standard)
        assert jax.tree.map(jnp.shape, samples) == jax.tree.map(jnp.shape, wide)
        assert equal(samples, prior("sample", key, DRAWS))
        proposal = -0.5 * np.sum(np.square(joined(standard)) + np.log(2 * np.pi * 4.0), axis=1)
        density = log_prob(wide)
        weights = np.exp(density - proposal)
        assert abs(weights.mean() - 1) < 4 * weights.std() / DRAWS**0.5
        weighed = np.column_stack([density, figures(wide)]) * weights[:, None]
        drawn = np.column_stack([log_prob(samples), figures(samples)])
        spread = ((weighed.var(0) + drawn.var(0)) / DRAWS) ** 0.5
        assert np.all(np.abs(weighed.mean(0) - drawn.mean(0)) < 4 * spread)

    def test_the_closed_kl_is_the_mean_of_the_sampled_rate(self, prior):
        """Fails if log_std is taken for the log variance, or if L is summed twice."""
        weights, code = started("Gaussian", 1)
        bottleneck = BOTTLENECKS["Gaussian"]
        kl = prior("kl", code)
        if kl is None:
            return
        assert kl.shape == (B, L)
        assert np.all(np.asarray(kl) >= 0)

        def rate(key):
            drawn = bottleneck.apply(weights, features(), key)
            return drawn.log_q() - prior("log_prob", drawn.latent)

        rates = jax.jit(jax.vmap(rate))(jax.random.split(jax.random.key(2), DRAWS))
        rates = np.asarray(rates, np.float64)
        spread = rates.std(0) / DRAWS**0.5
        assert np.all(np.abs(rates.mean(0) - kl.sum(1)) < 4 * spread)

    @pytest.mark.parametrize("bottleneck", ["Point", "FullGaussian", "Planar"])
    def test_a_code_that_is_no_diagonal_gaussian_has_no_closed_kl(self, prior, bottleneck):
        """Fails if a code of another distribution has fields mean and log_std."""
        _, code = started(bottleneck)
        assert prior.plain("kl", code) is None


# Draws by gammas take long to compile, and tests/likelihoods has these densities by scipy.
LONG_LIKELIHOODS = (
    "NegativeBinomial",
    "StudentT",
    "ZeroInflated-NegativeBinomial",
    "ZeroInflated-Poisson",
)


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(row, id=name, marks=[pytest.mark.slow] * (name in LONG_LIKELIHOODS))
        for name, row in LIKELIHOODS.items()
    ],
)
def explained(request):
    likelihood, target = request.param.likelihood, jnp.asarray(request.param.target)
    prediction = jnp.asarray(
        np.random.default_rng(4).normal(size=(B, *likelihood.shape(target.shape[1:]))), jnp.float32
    )
    init = functools.partial(likelihood.init, method="log_prob")
    shapes = jax.eval_shape(init, jax.random.key(0), prediction, target)
    variables = kinds.numbers(shapes) if shapes else {}

    @functools.partial(jax.jit, static_argnums=0)
    def call(method, *arguments):
        return likelihood.apply(variables, *arguments, method=method)

    return request.param, call, prediction, target


class TestLikelihood:
    """Tests of likelihoods, by which predictions explain targets."""

    def test_log_prob_has_a_value_an_example(self, explained):
        _, call, prediction, target = explained
        value = call("log_prob", prediction, target)
        assert value.shape == (B,)
        assert value.dtype == jnp.float32
        order = np.random.default_rng(2).permutation(B)
        close(call("log_prob", prediction[order], target[order]), value[order])

    @pytest.mark.slow
    def test_jit_equals_no_jit(self, explained):
        _, call, prediction, target = explained
        value = call("log_prob", prediction, target)
        close(call.__wrapped__("log_prob", prediction, target), value)

    def test_the_gradient_reaches_every_number_of_the_prediction(self, explained):
        _, call, prediction, target = explained
        gradient = jax.jit(jax.grad(lambda p: jnp.sum(call("log_prob", p, target))))(prediction)
        assert np.all(np.asarray(gradient) != 0)

    def test_a_mask_takes_elements_out_of_the_sum(self, explained):
        """Fails if the mask is not multiplied in, or only after the sum."""
        _, call, prediction, target = explained
        whole = call("log_prob", prediction, target)
        close(call("log_prob", prediction, target, jnp.ones_like(target)), whole)
        close(call("log_prob", prediction, target, jnp.zeros_like(target)), jnp.zeros(B))
        first = jnp.zeros_like(target).at[:, 0].set(1)
        parts = [call("log_prob", prediction, target, m) for m in (first, 1.0 - first)]
        close(sum(parts), whole, rtol=1e-4)
        changed = target.at[:, 1:].set(target[:, ::-1][:, 1:])
        close(call("log_prob", prediction, changed, first), parts[0])
        # One mask serves all examples, and one has a row for each; both are broadcast.
        close(call("log_prob", prediction, target, first[:1]), parts[0])

    def test_all_targets_together_have_the_probability_one(self, explained):
        """Fails if the ends of a grid have no tails, or if a mixture's weights do not sum to one.

        For real numbers, the density of the first element is integrated while the others are
        masked.
        """
        row, call, prediction, target = explained
        event = target.shape[1:]
        if len(row.values):
            every = np.array(list(itertools.product(row.values, repeat=math.prod(event))))
            step, mask = 1.0, None
        else:
            line = np.linspace(-30.0, 30.0, 20_001)
            every, step = np.zeros((len(line), math.prod(event))), line[1] - line[0]
            every[:, 0] = line
            mask = jnp.zeros((1, *event)).at[(0,) * target.ndim].set(1.0)
        every = jnp.asarray(every.reshape((-1, *event)), target.dtype)
        alike = jnp.broadcast_to(prediction[:1], (len(every), *prediction.shape[1:]))
        log_prob = jax.jit(lambda *arrays: call("log_prob", *arrays))(alike, every, mask)
        density = np.exp(np.float64(log_prob))
        assert density.sum() * step == pytest.approx(1.0, abs=2e-4)

    def test_samples_have_the_shape_support_and_mean_that_are_claimed(self, explained):
        """Fails if sample reads logits as probabilities, or a standard deviation as a variance."""
        row, call, prediction, target = explained
        keys = jax.random.split(jax.random.key(7), 4000)
        draw = jax.jit(jax.vmap(lambda k: call("sample", k, prediction)))
        samples = np.asarray(draw(keys))
        assert samples.shape == (4000, *target.shape)
        assert samples.dtype == target.dtype
        assert equal(call("sample", keys[0], prediction), call("sample", keys[0], prediction))
        if row.likelihood.support is not None:
            low, high = row.likelihood.support[:2]
            assert samples.min() >= low
            assert samples.max() <= high
            assert set(np.unique(np.asarray(target))) <= set(np.unique(samples))
        mean = np.asarray(call("mean", prediction))
        assert mean.shape == target.shape
        if row.exact:
            spread = samples.std(0) / 4000**0.5
            assert np.max(np.abs(samples.mean(0) - mean) / spread) < 4.5
        # The mean score of samples under log_prob is zero.
        score = jax.grad(lambda p, t: jnp.sum(call("log_prob", p, t)))
        scores = jax.jit(jax.vmap(score, in_axes=(None, 0)))(prediction, samples)
        scores = np.asarray(scores, np.float64)
        assert np.max(np.abs(scores.mean(0)) / (scores.std(0) / 4000**0.5)) < 4.5

    def test_samples_are_as_wide_as_the_density_says(self, explained):
        """The variance of the score is the Fisher information (Bartlett).

        Fails if samples have another width.
        """
        _, call, prediction, _ = explained

        def log_prob(p, t):
            return jnp.sum(call("log_prob", p[None], t[None]))

        one = prediction[0]
        some = np.eye(one.size, dtype=np.float32)[:: max(one.size // 12, 1)]

        @jax.jit
        @jax.vmap
        def score_and_curvature(k):
            target = call("sample", k, prediction)[0]
            score = functools.partial(jax.grad(log_prob), t=target)

            def along(direction):
                slope, change = jax.jvp(score, (one,), (direction.reshape(one.shape),))
                return jnp.sum(slope.ravel() * direction), jnp.sum(change.ravel() * direction)

            return jax.vmap(along)(some)

        found = score_and_curvature(jax.random.split(jax.random.key(8), 4000))
        slope, curvature = (np.asarray(each, np.float64) for each in found)
        difference = np.square(slope) + curvature
        spread = difference.std(0) / 4000**0.5
        assert np.all(np.abs(difference.mean(0)) <= 4.5 * spread)


# Each prior and each likelihood occurs: the shorter list is repeated.
GENERATORS = [
    (list(PRIORS)[i % len(PRIORS)], list(LIKELIHOODS)[i % len(LIKELIHOODS)])
    for i in range(max(len(PRIORS), len(LIKELIHOODS)))
]


@pytest.mark.parametrize(("prior", "likelihood"), GENERATORS)
def test_generation_needs_no_encoder(prior, likelihood):
    """Fails if sampling reads parameters of encoder or posterior, which are deleted first.

    The exception is a prior made of posteriors.
    """
    row, (likelihood, target, *_) = PRIORS[prior], LIKELIHOODS[likelihood]
    event = target.shape[1:]
    shape = likelihood.shape(event)
    module = fitting(row, event)
    bottleneck, decoder = ae.Gaussian(L), ae.nets.MLP((8,), shape)
    if row.shape is HALVES:
        heads = (ae.nets.MLP((), (L,)), ae.nets.MLP((8,), (L,)))
        bottleneck = ae.Levels((L // 2, L // 2), heads)
        # The decoder sees both levels, or the last state of the ladder's trunk.
        count = 1 if isinstance(module, ae.priors.Ladder) else 2
        decoder = ae.nets.Joined((None,) * count, decoder)
    model = ae.Autoencoder(ae.nets.MLP((8,)), bottleneck, decoder, module, likelihood)
    target = jnp.asarray(target)
    batch = ae.Batch(target.astype(jnp.float32), target, contexts(B, row.context))
    learner = ae.learner(model, ae.elbo(rate=ae.losses.rate()), optax.sgd(0.0))
    params = jax.eval_shape(learner.init, jax.random.key(0), batch).params
    few = {k: v for k, v in params.items() if k not in ("encoder", "bottleneck")}
    assert {"encoder", "bottleneck"} == set(params) - set(few)
    label = contexts(5, row.context)

    def drawn(params, key):
        bound = model.bind({"params": params})
        prediction = bound.sample(key, 5, label)
        return prediction, bound.mean(prediction)

    # What is missing shows in the trace: nothing is compiled.
    given = few if row.posterior is None else params
    prediction, mean = jax.eval_shape(drawn, given, jax.random.key(1))
    assert prediction.shape == (5, *shape)
    assert mean.shape == (5, *event)


@pytest.mark.parametrize("n", [0, -1])
def test_a_sample_of_less_than_one_is_refused(n):
    """Fails if the number reaches the shape of a draw."""
    model = ae.Autoencoder(
        ae.nets.Identity(), ae.Gaussian(L), ae.nets.MLP((), (D,)), ae.priors.Standard()
    )
    variables = model.init(jax.random.key(0), ae.Batch(features(), features()))
    with pytest.raises(ae.UserError, match=f"sample was asked for n = {n} draws: give 1 or more"):
        model.bind(variables).sample(jax.random.key(1), n)


@pytest.mark.parametrize("bottleneck", [ae.Point(L), ae.TopK(M, 3)], ids=["Point", "TopK"])
def test_a_model_without_a_prior_says_why_it_cannot_sample(bottleneck):
    model = ae.Autoencoder(ae.nets.Identity(), bottleneck, ae.nets.Dictionary(D))
    variables = model.init(jax.random.key(0), ae.Batch(features(), features()))
    with pytest.raises(ae.UserError, match="no prior"):
        model.apply(variables, jax.random.key(1), 2, method="sample")


# One for each kind of code: the model does not know more of a bottleneck.
PARTED = ("Gaussian", "VectorQuantised", "TopK", "BatchTopK", "Levels")


@pytest.mark.parametrize(
    "name", [n if n in PARTED else pytest.param(n, marks=pytest.mark.slow) for n in BOTTLENECKS]
)
def test_a_model_is_its_three_parts(name):
    """model(batch, key) = explain(code(features)); the learner maps the last two over draws."""
    bottleneck = BOTTLENECKS[name]
    sparse = isinstance(bottleneck, Sparse)
    decoder = ae.nets.Dictionary(D) if sparse else ae.nets.MLP((), shape=(D,))
    if isinstance(bottleneck, ae.Levels):
        decoder = ae.nets.Joined((None, None), decoder)
    model = ae.Autoencoder(ae.nets.MLP((8,)), bottleneck, decoder)
    batch = ae.Batch(features(), features())
    variables = kinds.numbers(jax.eval_shape(model.init, jax.random.key(0), batch))

    @jax.jit
    def both(batch, key):
        bound = model.bind(variables)
        h, pairs = bound.features(batch), []
        for one in (None, key):
            parts = bound.explain(batch, h, bound.code(batch, h, one, 3), 3, one)
            pairs.append((bound(batch, one, 3), parts))
        return pairs, bound.encode(batch)

    pairs, encoded = both(batch, jax.random.key(1))
    for whole, parts in pairs:
        close((whole.code, whole.prediction), (parts.code, parts.prediction))
        assert whole.prediction.shape == (B, D)
        assert int(whole.step) == 3
    close(encoded, pairs[0][0].code.latent)
