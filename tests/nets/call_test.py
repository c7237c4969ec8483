"""Networks from outside: plain Linen modules, BatchNorm, Dropout, spectral norm and NNX modules."""

from __future__ import annotations

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from flax import nnx

import aejax as ae
from aejax import evaluation
from aejax.runs.load import load
from aejax.variables import get
from tests import kinds
from tests.kinds import B

STEPS = 4
MOMENTUM = 0.9


# Without a bias, whose gradient ahead of a BatchNorm is rounding alone, which Adam would follow.
DENSE = nn.Dense(64, use_bias=False)


def flat(x):
    return x.reshape((x.shape[0], -1))


def pictures(z):
    return z.reshape((-1, *kinds.EVENT))


def normed() -> nn.Module:
    """The first layer sees x itself, so that numpy can follow its running averages."""
    return nn.Sequential([flat, nn.BatchNorm(momentum=MOMENTUM), nn.Dense(16), nn.relu])


def variational(encoder=None, decoder=None, **options) -> ae.Autoencoder:
    return ae.Autoencoder(
        encoder or normed(),
        ae.Gaussian(4),
        decoder or nn.Sequential([DENSE, nn.BatchNorm(momentum=MOMENTUM), pictures]),
        ae.priors.Standard(),
        ae.likelihoods.Bernoulli(),
        **options,
    )


def learner(model, draws: int = 1) -> ae.Learner:
    bound = ae.bounds.mean if draws == 1 else ae.bounds.iwae
    return ae.learner(
        model, ae.elbo(rate=ae.losses.rate()), optax.adam(1e-2), draws=draws, bound=bound
    )


def trained(model, draws: int = 1, steps: int = STEPS) -> ae.State:
    chunk = kinds.compiled(ae.chunked(learner(model, draws), steps))
    return kinds.train(chunk, chunk.init(jax.random.key(0), kinds.batch()), steps)[0]


class Flagged(nn.Module):
    """A net as Flax's guides write it, with a flag of its own and the wrong default."""

    @nn.compact
    def __call__(self, x, train: bool = False):
        hidden = nn.BatchNorm(use_running_average=not train, momentum=MOMENTUM)(flat(x))
        return nn.Dropout(0.5)(nn.Dense(16)(hidden), deterministic=not train)


class Asking(nn.Module):
    """A net that asks itself whether it trains, and counts its training steps in its memory."""

    @nn.compact
    def __call__(self, x):
        average = not ae.nets.training(self)
        count = self.variable("memory", "count", lambda: jnp.zeros((), jnp.int32))
        if not average:
            count.value += 1
        return nn.Dense(16)(nn.BatchNorm(use_running_average=average, momentum=MOMENTUM)(flat(x)))


class Blocks(nn.Module):
    """BatchNorm below a module of its own, under remat, without any flag."""

    @nn.compact
    def __call__(self, x):
        norm = nn.BatchNorm(momentum=MOMENTUM)
        return nn.remat(Asking)()(x) + nn.Sequential([norm, nn.Dense(16)])(flat(x))


class Noting(ae.contracts.VectorBottleneck):
    """A Gaussian bottleneck whose memory holds the last z of training."""

    @nn.compact
    def __call__(self, features, key, given=ae.contracts.NOTHING):
        code = ae.Gaussian(self.latents)(features, key, given)
        last = self.variable("memory", "z", jnp.zeros, code.z.shape)
        if self.is_mutable_collection("memory") and not self.is_initializing():
            last.value = code.z
        return code


class TestBatchNorm:
    @pytest.mark.parametrize(
        ("encoder", "draws"),
        [
            (normed(), 3),
            pytest.param(Flagged(), 1, marks=pytest.mark.slow),
            pytest.param(Blocks(), 1, marks=pytest.mark.slow),
            pytest.param(normed(), 1, marks=pytest.mark.slow),
            pytest.param(Asking(), 1, marks=pytest.mark.slow),
        ],
    )
    def test_running_averages_are_those_of_numpy(self, encoder, draws):
        """The encoder runs once a step, also with 3 draws. Fails if it runs at each, or at init."""
        state = trained(variational(encoder), draws)
        memory = state.memory["@batch_stats"]["encoder"]
        counts = jax.tree.leaves(state.memory.get("encoder", {}))
        assert all(count == STEPS for count in counts)
        assert len(counts) == isinstance(encoder, Asking | Blocks)
        found = jax.tree.leaves_with_path(memory)
        mean, var = np.zeros(64), np.ones(64)
        for t in range(STEPS):
            x = flat(np.asarray(kinds.batch(t).x, np.float64))
            mean = MOMENTUM * mean + (1 - MOMENTUM) * x.mean(0)
            var = MOMENTUM * var + (1 - MOMENTUM) * x.var(0)
        right = {"mean": mean, "var": var}
        assert len(found) == 2 * (1 + isinstance(encoder, Blocks))
        for path, leaf in found:
            np.testing.assert_allclose(leaf, right[path[-1].key], atol=1e-6)

    @pytest.mark.slow
    def test_with_several_draws_the_decoder_keeps_that_of_draw_0(self):
        """Against the codes of the step's own keys. Fails if draws are averaged, or the last."""
        model = variational()
        one = kinds.compiled(learner(model, draws=3))
        state = one.init(jax.random.key(0), kinds.batch())
        after, _ = one.step(state, kinds.batch())
        key = jax.random.split(jax.random.fold_in(state.key, 0), 3)[0]
        # In training the encoder normalises by the batch, which the affine layer here repeats.
        x = flat(kinds.batch().x)
        params = state.params["encoder"]
        scaled = (x - x.mean(0, keepdims=True)) / jnp.sqrt(x.var(0, keepdims=True) + 1e-5)
        dense = params["layers_2"]
        features = nn.relu(scaled @ dense["kernel"] + dense["bias"][None])
        variables = one.variables(state)
        z = model.bind(variables).code(kinds.batch(), features, key).z
        hidden = z @ state.params["decoder"]["layers_0"]["kernel"]
        found = after.memory["@batch_stats"]["decoder"]["layers_1"]["mean"]
        np.testing.assert_allclose(found, (1 - MOMENTUM) * hidden.mean(0), atol=1e-5)

    def test_with_several_draws_the_bottleneck_keeps_that_of_draw_0(self):
        """Against the code of the step's first key. Fails if the last draw's memory is kept."""
        x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 3)), jnp.float32)
        model = ae.Autoencoder(
            ae.nets.MLP(()),
            Noting(2),
            ae.nets.MLP((), shape=(3,)),
            ae.priors.Standard(),
            ae.likelihoods.Gaussian(),
        )
        one = learner(model, draws=3)
        state = kinds.begun(one, ae.Batch(x, x))
        after, _ = jax.jit(one.step)(state, ae.Batch(x, x))
        bound = model.bind(one.variables(state))
        key = jax.random.split(jax.random.fold_in(state.key, 0), 3)[0]
        right = bound.code(ae.Batch(x, x), bound.features(ae.Batch(x, x)), key).z
        np.testing.assert_allclose(after.memory["bottleneck"]["z"], right, atol=1e-6)

    def test_evaluation_uses_the_running_averages(self):
        """Each example alone as in a batch; fails if evaluation normalises by the batch."""
        model = variational()
        state = trained(model)
        variables = learner(model).variables(state)
        x = kinds.batch(9).x
        encode = jax.jit(lambda x: model.apply(variables, ae.Batch(x, x), method="encode"))
        encoded, alone = encode(x), [encode(x[:1]), encode(x[1:2])]
        np.testing.assert_allclose(np.concatenate(alone), encoded[:2], atol=1e-6)
        _, _, test = ae.data.arrays(np.asarray(x), test=8)
        found = evaluation.nll(model, variables, test, jax.random.key(1), draws=8)
        assert np.isfinite(found.nll).all()

    @pytest.mark.slow
    def test_wrappers_compute_what_single_steps_do(self):
        """Seeds, averages and chunks to 1e-6, running averages included."""
        model = variational()
        one = kinds.compiled(learner(model))
        state = one.init(jax.random.key(1), kinds.batch())
        for t in range(STEPS):
            state, _ = one.step(state, kinds.batch(t, seed=1))
        many = kinds.compiled(ae.chunked(ae.seeds(ae.averaged(one, 0.9), 2), STEPS))
        start = many.init(jax.random.key(0), kinds.batch())
        found, _ = kinds.train(many, start, STEPS, [0, 1])
        member = jax.tree.map(lambda leaf: leaf[1], (found.params, found.memory))
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6),
            member,
            (state.params, state.memory),
        )
        averaged = many.variables(found)
        right = get(state.memory, ("@batch_stats", "encoder", "layers_1", "mean"))
        kept = averaged["batch_stats"]["encoder"]["layers_1"]["mean"][1]
        np.testing.assert_allclose(kept, right, atol=1e-6)

    def test_a_killed_run_resumes_to_the_bit(self, tmp_path):
        """Also `load`, with all parts and with one. Fails if running averages stay at home."""
        model = variational()
        chunk = kinds.compiled(ae.chunked(learner(model), 2))
        straight = kinds.train(chunk, chunk.init(jax.random.key(0), kinds.batch()), 6)[0]
        for stop in (4, 6):
            with ae.Run(tmp_path / "run", {"steps": 6}) as run:
                state = run.restore(chunk.init(jax.random.key(0), kinds.batch()))
                assert int(state.step) == (0 if stop == 4 else 4)
                state = kinds.train(chunk, state, stop)[0]
                run.save(state)
        assert kinds.raw(state) == kinds.raw(straight)
        variables = load(tmp_path / "run", model=model).variables
        assert kinds.raw(variables) == kinds.raw(chunk.variables(straight))
        decoder = load(tmp_path / "run", model=model, parts=("decoder",)).variables
        assert set(decoder["batch_stats"]) == set(decoder["params"]) == {"decoder"}


class TestDropout:
    def test_there_is_noise_in_training_and_none_in_evaluation(self):
        """The decoder drops half of its features: differently each step and draw."""
        decoder = nn.Sequential([nn.Dropout(0.5), nn.Dense(64), pictures])
        model = variational(nn.Sequential([flat, nn.Dense(16)]), decoder)
        one = kinds.compiled(learner(model))
        state = one.init(jax.random.key(0), kinds.batch())
        assert state.memory == {}
        later = state._replace(step=state.step + 1)
        losses = [one.step(s, kinds.batch())[1]["distortion"] for s in (state, state, later)]
        assert losses[0] == losses[1] != losses[2]
        key, step = jax.random.key(5), jnp.asarray(0)
        without = variational(
            nn.Sequential([flat, nn.Dense(16)]),
            nn.Sequential([lambda z: z, nn.Dense(64), pictures]),
        )
        found = one.evaluate(one.variables(state), kinds.batch(), key, step)
        evaluate = kinds.compiled(learner(without)).evaluate
        right = evaluate(one.variables(state), kinds.batch(), key, step)
        assert found["loss"] == right["loss"]

    def test_draws_drop_different_units(self):
        """The difference of two draws' masks. Fails if the draws share the step's key."""

        class Mask(nn.Module):
            @nn.compact
            def __call__(self, z):
                return pictures(nn.Dropout(0.5)(jnp.ones((z.shape[0], 64))))

        terms = {"mask": (1.0, ae.losses.ratio()(lambda model, f: flat(f.prediction).sum(-1)))}
        difference = ae.Bound(lambda cost: jnp.abs(cost[0] - cost[1]))
        one = kinds.compiled(
            ae.learner(
                variational(decoder=Mask()), terms, optax.sgd(0.0), draws=2, bound=difference
            )
        )
        _, metrics = one.step(one.init(jax.random.key(0), kinds.batch()), kinds.batch())
        assert metrics["loss"] > 1.0


@pytest.mark.slow
def test_spectral_norm_finds_the_largest_singular_value():
    """Power iteration over the steps, against numpy. Fails if its vectors never move."""
    encoder = nn.Sequential([flat, nn.SpectralNorm(nn.Dense(16))])
    one = ae.learner(variational(encoder), ae.elbo(), optax.sgd(0.0))
    chunk = kinds.compiled(ae.chunked(one, 60))
    state = kinds.train(chunk, chunk.init(jax.random.key(0), kinds.batch()), 60)[0]
    stats = state.memory["@batch_stats"]["encoder"]["layers_1"]
    kernel = state.params["encoder"]["layers_1"]["layer_instance"]["kernel"]
    largest = np.linalg.svd(np.asarray(kernel), compute_uv=False)[0]
    sigma = next(leaf for path, leaf in jax.tree.leaves_with_path(stats) if "sigma" in str(path))
    np.testing.assert_allclose(sigma, largest, rtol=1e-3)


class Encoder(nnx.Module):
    """An NNX network with parameters, running averages and noise."""

    def __init__(self, width: int, *, rngs: nnx.Rngs):
        self.norm = nnx.BatchNorm(64, momentum=MOMENTUM, rngs=rngs)
        self.dense = nnx.Linear(64, width, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x):
        return self.dropout(self.dense(self.norm(flat(x))))


class TestNNX:
    def test_a_bridged_module_trains(self):
        """Its parameters change, its averages are numpy's, its noise is that of the step."""
        model = variational(nnx.bridge.to_linen(Encoder, 16))
        one = kinds.compiled(learner(model))
        start = one.init(jax.random.key(0), kinds.batch())
        state = trained(model)
        moved = np.abs(
            state.params["encoder"]["dense"]["kernel"] - start.params["encoder"]["dense"]["kernel"]
        )
        assert moved.max() > 1e-3
        mean = np.zeros(64)
        for t in range(STEPS):
            x = flat(np.asarray(kinds.batch(t).x, np.float64))
            mean = MOMENTUM * mean + (1 - MOMENTUM) * x.mean(0)
        np.testing.assert_allclose(
            state.memory["@batch_stats"]["encoder"]["norm"]["mean"], mean, atol=1e-6
        )
        later = start._replace(step=start.step + 1)
        losses = [one.step(s, kinds.batch())[1]["distortion"] for s in (start, start, later)]
        assert losses[0] == losses[1] != losses[2]
        variables, x = one.variables(state), kinds.batch(9).x
        encode = jax.jit(lambda x: model.apply(variables, ae.Batch(x, x), method="encode"))
        np.testing.assert_allclose(encode(x)[:8], encode(x[:8]), atol=1e-6)

    def test_an_object_is_refused(self):
        """Flax would keep its parameters constant without a word."""
        module = Encoder(16, rngs=nnx.Rngs(0))
        for encoder in (module, nn.Sequential([module, nn.Dense(16)])):
            with pytest.raises(ae.UserError, match=re.escape("to_linen(Encoder, ...)")):
                variational(encoder)
        with pytest.raises(ae.UserError, match=re.escape("the parts of this model holds")):
            variational(parts={"critic": module})


def test_a_context_reaches_the_nets_that_take_one():
    """One by name, one by place, a Sequential by its first layer. Fails if all get it, or none."""

    class ByPlace(nn.Module):
        @nn.compact
        def __call__(self, x, label):
            return flat(x)[:, :2] + label

    x, context = jnp.ones((B, *kinds.EVENT)), jnp.ones((B, 2))

    class ByName(nn.Module):
        @nn.compact
        def __call__(self, x, train=False, context=None):
            assert train is False
            return flat(x)[:, :2] + context

    for net, width in (
        (ae.nets.MLP((4,)), 66),
        (nn.Sequential([ae.nets.MLP((4,)), nn.relu]), 66),
        (ByPlace(), None),
        (ByName(), None),
        (nn.Sequential([flat, nn.Dense(3)]), 64),
    ):
        model = ae.Autoencoder(net, ae.Point(2), ae.nets.MLP((), shape=kinds.EVENT))
        shapes = jax.eval_shape(model.init, jax.random.key(0), ae.Batch(x, x, context))
        params = shapes["params"].get("encoder", {})
        kernels = [leaf for leaf in jax.tree.leaves(params) if leaf.ndim == 2]
        assert [kernel.shape[0] for kernel in kernels] == ([] if width is None else [width])
