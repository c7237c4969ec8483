"""Tests of the learner and its wrappers: steps, seeds, sweeps, chunks, averages, refusals."""

from __future__ import annotations

import dataclasses
import re
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

import aejax as ae
from aejax.training import wrappers
from aejax.training.gathering import gathered
from tests import kinds
from tests.kinds import KINDS, B

RATE = 3e-3


class TestStep:
    """One step function trains every kind of model; golden_test shows that all learn."""

    @pytest.mark.parametrize("kind", ["vae", "sae-topk"])
    def test_metrics_are_the_loss_the_gradient_norm_and_the_terms(self, kind):
        """Fails if terms are weighted, or if watched ones are added to the loss."""
        learner = kinds.learner(kind, tx=optax.sgd(1.0))
        state = kinds.begun(learner, kinds.batch())
        after, metrics = jax.jit(learner.step)(state, kinds.batch())
        objective = KINDS[kind].objective
        assert set(metrics) == {"loss", "grad_norm", *objective}
        assert all(value.shape == () for value in metrics.values())
        paid = sum(metrics[name] * w for name, (w, _) in objective.items() if w is not None)
        np.testing.assert_allclose(metrics["loss"], paid, rtol=1e-5)
        # With rate 1, gradient descent moves by the gradient.
        moved = jax.tree.map(jnp.subtract, state.params, after.params)
        norm = np.sqrt(sum(float(jnp.sum(jnp.square(m))) for m in jax.tree.leaves(moved)))
        np.testing.assert_allclose(metrics["grad_norm"], norm, rtol=1e-3)

    def test_evaluate_is_the_bound_of_the_draws_and_changes_nothing(self):
        """It equals log-mean-exp in numpy. Fails if draws are averaged, or share one key."""
        model, objective, options = KINDS["iwae"]
        learner = kinds.learner("iwae")
        start = kinds.begun(learner, kinds.batch())
        variables = learner.variables(start)
        key, batch = jax.random.key(5), kinds.batch()
        found = jax.jit(learner.evaluate)(variables, batch, key, jnp.asarray(3))

        @jax.jit
        def cost(key):
            bound = model.bind(variables)
            forward = bound(batch, key, 3)
            return sum(term(bound, forward) for _, term in objective.values())

        keys = jax.random.split(key, options["draws"])
        draws = [np.asarray(cost(one), np.float64) for one in keys]
        right = -np.log(np.mean(np.exp(-np.stack(draws)), axis=0)).mean()
        np.testing.assert_allclose(found["loss"], right, rtol=1e-5)
        assert set(found) == {"loss", *objective}

    def test_evaluate_of_members_is_that_of_each_alone(self):
        """It holds for a code with memory too. Fails if members share weights or settings."""
        model = kinds.dictionary(ae.TopK(128, 8))

        def build(weight):
            return ae.learner(model, ae.sparse(l1=weight), optax.sgd(0.1))

        weights = jnp.asarray([0.1, 2.0])
        many = kinds.compiled(ae.swept(build, weights))
        variables = many.variables(many.init(jax.random.key(0), kinds.batch()))
        key, step = jax.random.key(5), jnp.asarray(0)
        found = many.evaluate(variables, kinds.batch(), key, step)
        for i, weight in enumerate(weights):
            own = jax.tree.map(lambda leaf, i=i: leaf[i], variables)
            alone = jax.jit(build(weight).evaluate)(own, kinds.batch(), key, step)
            for name, value in alone.items():
                np.testing.assert_allclose(found[name][i], value, rtol=1e-5)
        assert found["loss"][0] != found["loss"][1]

    def test_the_noise_of_a_step_depends_on_key_and_step_alone(self):
        """Fails if the key is split from step to step, or is the same at every step."""
        learner = kinds.learner("vae", tx=optax.sgd(0.0))
        learner = learner._replace(step=jax.jit(learner.step))
        state = kinds.begun(learner, kinds.batch())
        losses = {}
        for t in (0, 1, 2):
            now = state._replace(step=jnp.asarray(t, jnp.int32))
            after, metrics = learner.step(now, kinds.batch())
            assert int(after.step) == t + 1
            assert kinds.raw(after.key) == kinds.raw(state.key)
            losses[t] = float(metrics["loss"])
        assert len(set(losses.values())) == 3
        walked = learner.step(learner.step(state, kinds.batch())[0], kinds.batch())[1]
        assert float(walked["loss"]) == losses[1]

    def test_weights_follow_their_schedule(self):
        beta = optax.linear_schedule(0.0, 1.0, 4)
        model = kinds.variational()
        learner = kinds.compiled(ae.learner(model, ae.elbo(beta=beta), optax.sgd(0.0)))
        state = kinds.begun(learner, kinds.batch())
        for t in range(5):
            state, metrics = learner.step(state, kinds.batch())
            expected = t / 4 * metrics["rate"] + metrics["distortion"]
            np.testing.assert_allclose(metrics["loss"], expected, rtol=1e-5)

    def test_one_trace_serves_every_step_and_count(self):
        """Fails if count, step or rows are constants of the program."""
        chex.clear_trace_counter()
        inner = ae.chunked(ae.seeds(ae.averaged(kinds.learner("vae")), 2), 5)
        traced = inner._replace(step=chex.assert_max_traces(inner.step, n=1))
        learner = kinds.compiled(traced)
        state = learner.init(jax.random.key(0), kinds.batch())
        for start, count in [(0, 5), (5, 3), (8, 1), (9, 5)]:
            chunk = kinds.source(start, 5, start + count, [0, 1])
            state, metrics = learner.step(state, chunk)
            assert int(state.step) == start + count
            assert np.all(np.asarray(metrics["loss"])[:, :count] > 0)
            assert np.all(np.asarray(metrics["loss"])[:, count:] == 0)
        single = kinds.learner("vae")
        step = jax.jit(chex.assert_max_traces(single.step, n=1))
        state = single.init(jax.random.key(0), kinds.batch())
        for t in range(3):
            state, _ = step(state, kinds.batch(t))

    def test_adding_a_watched_term_changes_no_bit(self):
        """Fails if watched terms have weight 0, or change the keys of others."""

        def restless(model, forward):
            noise = jax.random.normal(forward.key, forward.batch.x.shape[:1])
            return noise + jnp.sqrt(forward.code.z[:, 0] * 0)

        model, objective, _ = KINDS["vae"]
        more = ae.merge(ae.watch(first=restless), objective, ae.watch(e=ae.losses.squared_error))
        states = []
        for watched in (objective, more):
            base = ae.learner(model, watched, optax.adam(RATE))
            learner = kinds.compiled(ae.chunked(base, 20))
            state = learner.init(jax.random.key(0), kinds.batch())
            states.append(kinds.train(learner, state, 20)[0])
        assert kinds.raw(states[0]) == kinds.raw(states[1])

    def test_memory_is_that_of_the_last_batch(self):
        """Fails if memory is dropped, written twice in a step, or written by terms."""
        learner = kinds.learner("sae-topk", tx=optax.sgd(0.0))
        state = kinds.begun(learner, kinds.batch())
        model = KINDS["sae-topk"].model
        dense = jax.jit(lambda *given: model.apply(*given).code.dense())
        ages = np.zeros(128, np.int32)
        assert np.array_equal(state.memory["bottleneck"]["ages"]["age"], ages)
        step = jax.jit(learner.step)
        for t in range(8):
            code = dense(learner.variables(state), kinds.batch(t))
            state, metrics = step(state, kinds.batch(t))
            # Terms read the memory that the forward pass read.
            np.testing.assert_allclose(metrics["dead"], np.mean(ages > 5))
            ages = np.where(np.any(np.asarray(code) > 0, axis=0), 0, ages + 1)
            assert np.array_equal(state.memory["bottleneck"]["ages"]["age"], ages)
        assert ages.max() == 8

    def test_initialise_runs_in_order_before_the_optimiser_starts(self):
        seen = []

        def scale(factor):
            def change(variables, batch, key):
                seen.append((factor, batch.x.shape, kinds.raw(key)))
                params = jax.tree.map(lambda leaf: factor * leaf, variables["params"])
                return {**variables, "params": params}

            return change

        model, objective, _ = KINDS["sae-topk"]
        tx = optax.sgd(1.0, momentum=0.9)
        remember = optax.GradientTransformation(lambda params: params, tx.update)
        plain = ae.learner(model, objective, remember).init(jax.random.key(0), kinds.batch())
        learner = ae.learner(model, objective, remember, initialise=[scale(2.0), ae.tied])
        state = learner.init(jax.random.key(0), kinds.batch())
        np.testing.assert_array_equal(
            state.params["decoder"]["atoms"], 2 * plain.params["decoder"]["atoms"]
        )
        np.testing.assert_array_equal(
            state.params["bottleneck"]["encode"]["kernel"], state.params["decoder"]["atoms"].T
        )
        assert kinds.raw(state.opt) == kinds.raw(state.params)
        assert [entry[:2] for entry in seen] == [(2.0, (B, *kinds.EVENT))]
        ae.learner(model, objective, tx, initialise=[scale(1.0), scale(3.0)]).init(
            jax.random.key(0), kinds.batch()
        )
        assert seen[-1][2] != seen[-2][2]

    def test_base_rates_start_the_decoder_at_the_mean_of_the_data(self):
        """Fails without the clipping: the logit of a pixel that is always 0 is infinite."""
        mean = kinds.pixels().mean(axis=0)
        mean[0, 0] = 0.0
        start = ae.initialise.base_rates(mean)
        model, objective, _ = KINDS["vae"]
        learner = ae.learner(model, objective, optax.sgd(1.0), initialise=start)
        state = learner.init(jax.random.key(0), kinds.batch())
        bias = np.asarray(state.params["decoder"]["output"]["bias"], np.float64)
        np.testing.assert_allclose(1 / (1 + np.exp(-bias)), np.clip(mean.ravel(), 1e-3, 1), 1e-5)
        conv, objective, _ = KINDS["vae-conv"]
        learner = ae.learner(conv, objective, optax.sgd(1.0), initialise=start)
        with pytest.raises(ae.UserError, match=r"bias of 64 numbers, .* has one of 1 numbers"):
            jax.eval_shape(learner.init, jax.random.key(0), kinds.batch())


class TestSeeds:
    """n members side by side compute the same as n runs."""

    # TopK selects latents. Where two are equal to within rounding, runs diverge for good, and the
    # sooner, the faster they learn.
    @pytest.mark.parametrize(
        ("kind", "rate", "order"),
        [
            ("vae", 1e-3, "chunked(seeds)"),
            pytest.param("sae-topk", 1e-4, "seeds(chunked)", marks=pytest.mark.slow),
        ],
    )
    def test_each_of_4_members_is_its_solo_run(self, kind, rate, order):
        """Losses agree to 1e-4 over 60 steps. Fails if members share key, data or order."""
        steps, s = 60, 3
        base = kinds.learner(kind, rate)
        if order == "chunked(seeds)":
            together = kinds.compiled(ae.chunked(ae.seeds(base, 4), steps))
        else:
            together = kinds.compiled(ae.seeds(ae.chunked(base, steps), 4))
        numbers = list(range(s, s + 4))
        keys = jnp.stack([jax.random.key(i) for i in numbers])
        first = jax.tree.map(lambda *a: jnp.stack(a), *(kinds.batch(0, i) for i in numbers))
        state, losses = kinds.train(together, together.init(keys, first), steps, numbers)
        assert losses.shape == (4, steps)
        solo = kinds.compiled(ae.chunked(base, steps))
        for i, number in enumerate(numbers):
            start = solo.init(jax.random.key(number), kinds.batch(0, number))
            alone, expected = kinds.train(solo, start, steps, number)
            np.testing.assert_allclose(losses[i], expected, rtol=1e-4)
            assert kinds.raw(state.key[i]) == kinds.raw(alone.key)
        assert len({losses[i].tobytes() for i in range(4)}) == 4

    def test_one_key_stands_for_its_successors(self):
        """init(key(s)) makes the members that init(key(s + i)) makes. Fails with split(key, n)."""
        base = kinds.learner("vae")
        together = ae.seeds(base, 3).init(jax.random.key(5), kinds.batch())
        assert together.step.shape == ()
        for i in range(3):
            alone = base.init(jax.random.key(5 + i), kinds.batch())
            member = jax.tree.map(lambda a, i=i: a[i], together._replace(step=jnp.zeros(3)))
            chex.assert_trees_all_close(member.params, alone.params, rtol=1e-6)
            assert kinds.raw(member.key) == kinds.raw(alone.key)

    @pytest.mark.parametrize(
        ("kind", "n"),
        [("vae", 1), pytest.param("iwae", 3, marks=pytest.mark.slow), ("sae-topk", 3)],
    )
    def test_the_order_of_wrapping_does_not_matter(self, kind, n):
        """chunked(seeds) equals seeds(chunked), with averages inside; metrics are f32[S, T]."""
        base = ae.averaged(kinds.learner(kind))
        results = []
        for learner in (ae.chunked(ae.seeds(base, n), 6), ae.seeds(ae.chunked(base, 6), n)):
            assert (learner.seeds, learner.chunk) == (n, 6)
            learner = kinds.compiled(learner)  # noqa: PLW2901
            state = learner.init(jax.random.key(0), kinds.batch())
            state, metrics = learner.step(state, kinds.source(0, 6, 4, list(range(n))))
            assert {m.shape for m in metrics.values()} == {(n, 6)}
            results.append((state._replace(key=0), learner.variables(state), metrics))
        chex.assert_trees_all_close(*results, rtol=1e-4, atol=1e-6)

    @pytest.mark.parametrize("stacked", [False, True])
    def test_a_sweep_shares_one_stream(self, stacked):
        """Fails if shared data is mapped over. Batches stacked on the host give the same bits."""
        base = kinds.learner("sae-relu")
        chunk = kinds.source(0, 4, 4, 7)
        if stacked:
            arrays = chunk.arrays[chunk.rows]
            chunk = ae.Source(arrays, None, chunk.key, chunk.count, chunk.prepare)
        keys = jnp.stack([jax.random.key(i) for i in range(2)])
        results = []
        for learner in (
            ae.chunked(ae.seeds(base, 2, shared_data=True), 4),
            ae.seeds(ae.chunked(base, 4), 2, shared_data=True),
        ):
            assert learner.shared_data
            learner = kinds.compiled(learner)  # noqa: PLW2901
            state = learner.init(keys, kinds.batch(0, 7))
            results.append(np.asarray(learner.step(state, chunk)[1]["loss"]))
        solo = kinds.compiled(ae.chunked(base, 4))
        for i in range(2):
            _, expected = kinds.train(solo, solo.init(keys[i], kinds.batch(0, 7)), 4, 7)
            for losses in results:
                np.testing.assert_allclose(losses[i], expected, rtol=1e-5)

    @pytest.mark.parametrize(
        "order", ["chunked(seeds)", pytest.param("seeds(chunked)", marks=pytest.mark.slow)]
    )
    def test_streams_stacked_on_the_host_equal_gathered_ones(self, order):
        """Leaves are [S, T, B, ...]. Fails if S and T are swapped."""
        base = kinds.learner("vae")
        gathered = kinds.source(0, 4, 4, [0, 1])
        stacked = ae.Source(
            gathered.arrays[gathered.rows], None, gathered.key, gathered.count, gathered.prepare
        )
        assert stacked.arrays.shape == (2, 4, B, *kinds.EVENT)
        if order == "chunked(seeds)":
            learner = ae.chunked(ae.seeds(base, 2), 4)
        else:
            learner = ae.seeds(ae.chunked(base, 4), 2)
        state = learner.init(jax.random.key(0), kinds.batch())
        losses = [jax.jit(learner.step)(state, chunk)[1]["loss"] for chunk in (gathered, stacked)]
        np.testing.assert_allclose(*losses, rtol=1e-6)

    def test_variables_map_over_members(self):
        learner = ae.seeds(kinds.learner("sae-topk"), 2)
        variables = jax.eval_shape(
            lambda key, batch: learner.variables(learner.init(key, batch)),
            jax.random.key(0),
            kinds.batch(),
        )
        assert variables["params"]["decoder"]["atoms"].shape == (2, 128, 64)
        assert variables["memory"]["bottleneck"]["ages"]["age"].shape == (2, 128)


class TestSwept:
    """Members with different settings equal the learners that each setting makes alone."""

    M, STEPS = 128, 60

    def one(self, bottleneck, l1=None):
        model = kinds.dictionary(bottleneck)
        single = ae.learner(model, ae.sparse(l1=l1), optax.adam(1e-4), initialise=ae.tied)
        return ae.chunked(single, self.STEPS)

    @pytest.mark.parametrize(
        "what", ["vae", pytest.param("topk", marks=pytest.mark.slow), "batchtopk"]
    )
    def test_each_member_is_its_solo_run(self, what):
        """With one key, losses agree to 1e-5 after a step and to 1e-4 over 60 steps.

        Fails if all members get the setting of the first. The second alone is compared.
        """

        def build(s):
            if what == "vae":
                objective, tx = ae.elbo(beta=s["beta"]), optax.adam(s["rate"])
                return ae.chunked(ae.learner(kinds.variational(), objective, tx), self.STEPS)
            if what == "topk":
                return self.one(ae.TopK(self.M, 8, active=s["k"]))
            return self.one(ae.BatchTopK(self.M, s["k"], slots=16))

        def alone(s):
            return self.one(ae.TopK(self.M, s["k"])) if what == "topk" else build(s)

        settings = {"k": jnp.asarray([3, 8])}
        if what == "vae":
            settings = {"beta": jnp.asarray([0.5, 4.0]), "rate": jnp.asarray([1e-3, 3e-4])}
        learner = kinds.compiled(ae.swept(build, settings))
        assert (learner.seeds, learner.chunk, learner.shared_data) == (2, self.STEPS, True)
        keys = jnp.stack([jax.random.key(3)] * 2)
        start = learner.init(keys, kinds.batch(0, 3))
        members = [jax.tree.map(lambda a, i=i: a[i], start._replace(step=keys)) for i in range(2)]
        members = [kinds.restored(one._replace(step=jnp.zeros((), jnp.int32))) for one in members]
        _, losses = kinds.train(learner, start, self.STEPS, 3)
        for i, state in list(enumerate(members))[1:]:
            solo = alone({name: values[i].item() for name, values in settings.items()})
            _, expected = kinds.train(kinds.compiled(solo), state, self.STEPS, 3)
            np.testing.assert_allclose(losses[i, 0], expected[0], rtol=1e-5)
            np.testing.assert_allclose(losses[i], expected, rtol=1e-4)

    @pytest.mark.parametrize(
        "what",
        [
            "std",
            "nats",
            *(pytest.param(name, marks=pytest.mark.slow) for name in ("start", "beta")),
        ],
    )
    def test_parts_whose_numbers_are_checked_can_be_swept(self, what):
        """Takes two steps.

        Fails if a check reads the value of a traced number, or uses math.log.
        """

        def build(s):
            model, objective, options = kinds.variational(), ae.elbo(), {}
            if what == "std":
                model = kinds.variational(ae.likelihoods.Gaussian(s))
            elif what == "start":
                model = kinds.variational(ae.likelihoods.LearnedGaussian(start=s))
            elif what == "nats":
                objective = ae.elbo(rate=ae.losses.free_bits(s))
            else:
                objective = ae.elbo(rate=ae.losses.rate())
                options = {"draws": 4, "bound": ae.bounds.ciwae(s)}
            return ae.learner(model, objective, optax.adam(1e-3), **options)

        def losses(learner, keys):
            state, found = learner.init(keys, kinds.batch()), []
            for t in range(2):
                state, metrics = jax.jit(learner.step)(state, kinds.batch(t))
                found.append(metrics["loss"])
            return np.stack(found, axis=-1)

        settings, key = jnp.asarray([0.3, 0.8]), jax.random.key(3)
        swept = losses(ae.swept(build, settings), jnp.stack([key] * 2))
        solo = [losses(build(setting.item()), key) for setting in settings]
        np.testing.assert_allclose(swept, solo, rtol=1e-5)
        assert np.all(np.abs(swept[0] - swept[1]) > 1e-3)

    def test_members_in_turn_are_members_side_by_side(self):
        """A CPU's loop equals the map of other platforms. Fails if members are swapped."""
        prices, results = jnp.asarray([0.01, 0.1, 0.3]), []
        for mapped in (wrappers._by_platform, wrappers._members):
            learner = wrappers._side_by_side(
                lambda l1: self.one(ae.ReLU(self.M), l1), prices, 3, True, mapped
            )
            state = learner.init(jax.random.key(3), kinds.batch(0, 3))
            state, losses = kinds.train(kinds.compiled(learner), state, 5, 3)
            assert state.step.shape == ()
            results.append(losses)
        assert results[0].shape == (3, 5)
        np.testing.assert_allclose(*results, rtol=1e-5)
        assert np.mean(np.abs(losses[0] - losses[1])) > 0.01 * np.mean(losses[0])

    def test_settings_that_are_no_arrays_of_one_length_are_refused(self):
        for settings in ({}, {"l1": 0.1}, {"l1": jnp.ones(2), "k": jnp.ones(3)}, jnp.ones(0)):
            with pytest.raises(ae.UserError, match="one value for each member"):
                ae.swept(lambda s: self.one(ae.ReLU(self.M)), settings)
        with pytest.raises(ae.UserError, match="seeds already"):
            ae.swept(lambda s: ae.seeds(self.one(ae.ReLU(self.M)), 2), jnp.ones(2))


class TestChunks:
    """The ends of chunks change no bit."""

    @pytest.mark.parametrize("kind", ["vae", "sae-topk"])
    def test_chunk_boundaries_do_not_change_bits(self, kind):
        """60 steps as 3 x 20, or as 25 + 25 + 10 with a restore between, give the same bytes."""
        base = ae.averaged(ae.seeds(kinds.learner(kind), 2))
        learners = {size: kinds.compiled(ae.chunked(base, size)) for size in (20, 25)}
        results = []
        for size, saves in [(20, False), (25, False), (20, True)]:
            learner = learners[size]
            state = learner.init(jax.random.key(0), kinds.batch())
            losses = np.zeros((2, 0), np.float32)
            for stop in (20, 40, 60) if saves else (60,):
                state, more = kinds.train(learner, state, stop, [0, 1])
                losses = np.concatenate([losses, more], axis=1)
                if saves:
                    state = kinds.restored(state)
            results.append((kinds.raw(state), losses.tobytes()))
        assert results[0] == results[1]
        assert results[0] == results[2]

    @pytest.mark.parametrize("kind", ["vae", "sae-relu"])
    def test_a_chunk_is_its_single_steps(self, kind):
        """Fails if batch i of a chunk, or its noise, is that of another step."""
        base, key = kinds.learner(kind), jax.random.key(0)

        def noisy(key, x):
            return ae.Batch(x, jax.random.bernoulli(key, 0.1 + 0.8 * x).astype(x.dtype))

        def chunk(start, room, stop):
            return dataclasses.replace(kinds.source(start, room, stop), prepare=noisy)

        state = base.init(key, kinds.batch())
        step = jax.jit(base.step)
        losses = []
        for t in range(6):
            data = noisy(jax.random.fold_in(key, t), kinds.batch(t).x)
            state, metrics = step(state, data)
            losses.append(float(metrics["loss"]))
        learner = kinds.compiled(ae.chunked(base, 4))
        chunked, together = learner.init(key, kinds.batch()), []
        for start, count in [(0, 4), (4, 2)]:
            chunked, metrics = learner.step(chunked, chunk(start, 4, start + count))
            together += metrics["loss"][:count].tolist()
        np.testing.assert_allclose(together, losses, rtol=1e-5)
        chex.assert_trees_all_close(chunked.params, state.params, rtol=1e-3, atol=1e-5)

    def test_a_source_gives_batch_i_the_noise_of_its_step(self):
        """Fails if the noise of the data depends on where a chunk starts."""

        def noisy(key, x):
            return ae.Batch(x, x + jax.random.normal(key, x.shape))

        def targets(start, room):
            chunk = kinds.source(start, room, start + room, [0, 1])
            chunk = ae.Source(chunk.arrays, chunk.rows, chunk.key, chunk.count, noisy)
            return [gathered(chunk, i, jnp.asarray(start + i)).target for i in range(room)]

        assert kinds.raw(targets(0, 6)[2:5]) == kinds.raw(targets(2, 3))
        both = targets(0, 1)[0]
        assert both.shape == (2, B, *kinds.EVENT)
        assert not np.array_equal(both[0], both[1])


class TestAveraged:
    """Evaluation uses a moving average, and training does not change."""

    def test_against_a_moving_average_in_numpy(self):
        """Fails if the average takes parameters from before the step, or has no warm-up."""
        decay = 0.6
        plain, learner = kinds.learner("vae", 1e-2), kinds.learner("vae", 1e-2)
        learner = ae.averaged(learner, decay)
        state, other = (x.init(jax.random.key(0), kinds.batch()) for x in (learner, plain))
        average = [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(state.params)]
        step, plain_step = jax.jit(learner.step), jax.jit(plain.step)
        for t in range(12):
            state, metrics = step(state, kinds.batch(t))
            other, expected = plain_step(other, kinds.batch(t))
            np.testing.assert_allclose(metrics["loss"], expected["loss"], rtol=1e-6)
            rate = min(decay, (1 + t) / (10 + t))
            new = [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(state.params)]
            average = [rate * a + (1 - rate) * p for a, p in zip(average, new, strict=True)]
        found = jax.tree.leaves(learner.variables(state)["params"])
        for ours, theirs in zip(found, average, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-7)
        trained = jax.tree.leaves(state.params)
        assert not any(np.array_equal(a, b) for a, b in zip(found, trained, strict=True))

    def test_memory_is_the_members_own(self):
        learner = ae.averaged(kinds.learner("sae-topk"))
        state = kinds.begun(learner, kinds.batch())
        state, _ = jax.jit(learner.step)(state, kinds.batch())
        assert kinds.raw(learner.variables(state)["memory"]) == kinds.raw(state.memory)


VAE = KINDS["vae"].model
TX = optax.sgd(0.1)
STICK = ae.elbo(rate=ae.losses.rate(stick=True))
RBG = "rbg"


def traced(learner: ae.Learner, key: jax.Array | None = None) -> Any:
    """The shapes of a state: what does not fit raises without a compiled program."""
    return jax.eval_shape(learner.init, jax.random.key(0) if key is None else key, kinds.batch())


def narrow() -> Any:
    model = ae.Autoencoder(
        ae.nets.MLP((8,)),
        ae.Gaussian(2),
        ae.nets.MLP((8,), shape=(7, 8, 1)),
        ae.priors.Standard(),
        ae.likelihoods.Bernoulli(),
    )
    return traced(ae.learner(model, ae.elbo(), TX))


def start(model: ae.Autoencoder, objective: ae.Objective) -> Any:
    return traced(ae.learner(model, objective, TX))


def rbg(learner: ae.Learner) -> Any:
    return traced(learner, jax.random.key(0, impl="rbg"))


REFUSALS = {
    "no draw": (lambda: ae.learner(VAE, ae.elbo(), TX, draws=0), "draws is 0"),
    "iwae with a closed kl": (
        lambda: ae.learner(VAE, ae.elbo(), TX, draws=5, bound=ae.bounds.iwae),
        "the term 'rate' is an expectation in closed form",
    ),
    "iwae that sticks": (
        lambda: ae.learner(VAE, STICK, TX, draws=2, bound=ae.bounds.iwae),
        "the term 'rate' sticks the landing, which biases the gradient of this bound with 2 draws",
    ),
    "averaged chunks": (
        lambda: ae.averaged(ae.chunked(kinds.learner("vae"), 2)),
        "chunked(averaged(learner))",
    ),
    "decay": (lambda: ae.averaged(kinds.learner("vae"), 1.0), "decay is 1.0"),
    "no member": (lambda: ae.seeds(kinds.learner("vae"), 0), "seeds is 0"),
    "seeds twice": (lambda: ae.seeds(ae.seeds(kinds.learner("vae"), 2), 2), "has seeds already"),
    "no term": (lambda: ae.learner(VAE, {}, TX), "the objective has no term"),
    "no weight": (
        lambda: ae.learner(VAE, {"a": ae.losses.squared_error}, TX),  # type: ignore[dict-item]
        "the term 'a' of the objective has no weight: give it as (1.0, term)",
    ),
    "no optimiser": (
        lambda: ae.learner(VAE, ae.elbo(), 1e-3),
        "tx is 0.001, which is not an optimiser",
    ),  # type: ignore[arg-type]
    "another event": (
        lambda: start(
            VAE.clone(prior=ae.priors.Vamp((28, 28, 1), 5)), ae.elbo(rate=ae.losses.rate())
        ),
        "the prior Vamp has pseudo-inputs of shape (28, 28, 1), but x has shape (8, 8, 1)",
    ),
    "no step": (lambda: ae.chunked(kinds.learner("vae"), 0), "chunk is 0"),
    "chunks twice": (
        lambda: ae.chunked(ae.chunked(kinds.learner("vae"), 2), 2),
        "is chunked already",
    ),
    "rbg seeds": (lambda: rbg(ae.seeds(kinds.learner("vae"), 2)), "rbg"),
    "rbg draws": (lambda: rbg(kinds.learner("iwae")), "rbg keys give all 5 draws"),
    "no prior": (
        lambda: start(kinds.plain(), ae.elbo()),
        "the rate needs a prior, but this model has none",
    ),
    "no latents": (
        lambda: start(kinds.variational(latents=0), ae.elbo()),
        "the bottleneck Gaussian has latents of shape (0,)",
    ),
    "half a latent": (
        lambda: start(kinds.variational(latents=2.5), ae.elbo()),  # pyright: ignore[reportArgumentType]
        "the bottleneck Gaussian has latents of shape (2.5,)",
    ),
    "shape": (narrow, "MLP returns shape (32, 7, 8, 1), but Bernoulli needs (32, 8, 8, 1)"),
}


@pytest.mark.parametrize(("act", "said"), REFUSALS.values(), ids=REFUSALS.keys())
def test_refusals_are_one_sentence(act, said):
    with pytest.raises(ae.UserError, match=re.escape(said)) as caught:
        act()
    assert "\n" not in str(caught.value)


def test_what_is_refused_for_many_draws_is_fine_for_one():
    """Sticking the landing is unbiased for one draw, and rbg keys work without vmap."""
    ae.learner(VAE, STICK, TX)
    rbg(kinds.learner("vae"))


def test_a_term_that_does_not_fit_the_code_is_named_at_init():
    learner = ae.learner(VAE, ae.merge(ae.elbo(), ae.watch(sparsity=ae.losses.l0)), TX)
    said = "'sparsity' reads code.l0, which a GaussianCode does not have (its fields: z, mean,"
    with pytest.raises(ae.UserError, match=re.escape(said)):
        traced(learner)


# Tests of bounds over draws, on a tiny model whose gradient can be averaged over many keys.


class Labelled(NamedTuple):
    """A Gaussian code with an integer field, whose cotangent is float0."""

    z: jax.Array
    mean: jax.Array
    log_std: jax.Array
    sign: jax.Array  # i32[B, L]

    @property
    def latent(self):
        return self.z

    def log_q(self, stick=False):
        return ae.bottlenecks.GaussianCode(self.z, self.mean, self.log_std).log_q(stick)


class LabelledGaussian(ae.contracts.Bottleneck):
    latents: int = 2
    shape = (2,)

    @nn.compact
    def __call__(self, features, key, given=ae.contracts.NOTHING):
        code = ae.Gaussian(self.latents, name="gaussian")(features, key)
        return Labelled(*code, jnp.sign(code.z).astype(jnp.int32))


def tiny(bottleneck=None) -> ae.Autoencoder:
    return ae.Autoencoder(
        ae.nets.MLP((3,), activation=jnp.tanh),
        bottleneck or ae.Gaussian(2),
        ae.nets.MLP((3,), shape=(6,), activation=jnp.tanh),
        ae.priors.Standard(),
        ae.likelihoods.Bernoulli(),
    )


def points() -> ae.Batch:
    x = jnp.asarray([[1, 0, 1, 1, 0, 1], [0, 0, 1, 0, 1, 1]], jnp.float32)
    return ae.Batch(x, x)


def gradient(objective, options, bottleneck=None):
    """Returns a function from a key to the gradient, which a step of descent with rate 1
    subtracts.
    """
    learner = ae.learner(tiny(bottleneck), objective, optax.sgd(1.0), **options)
    state = kinds.begun(learner, points())
    params = state.params

    def one(key):
        after, metrics = learner.step(state._replace(key=key), points())
        return jax.tree.map(jnp.subtract, params, after.params), metrics

    return jax.jit(one)


SAMPLED, STUCK = ae.losses.rate(), ae.losses.rate(stick=True)
K = 6


def options(bound):
    return {"draws": K, "bound": bound}


IWAE = (ae.elbo(rate=SAMPLED), options(ae.bounds.iwae))
DREG = (ae.elbo(rate=STUCK), options(kinds.dreg["bound"]))


def moments(case, n=5000):
    """Returns mean and standard error of the gradient over keys, one flat vector for each part."""

    @kinds.optimised
    def all_keys(keys):
        grads, _ = jax.lax.map(gradient(*case), keys, batch_size=500)
        return {
            part: jnp.concatenate([leaf.reshape(n, -1) for leaf in jax.tree.leaves(tree)], axis=1)
            for part, tree in grads.items()
        }

    return {
        name: np.asarray(grads, np.float64)
        for name, grads in all_keys(jax.random.split(jax.random.key(9), n)).items()
    }


def deviation(one, other):
    """Returns z-scores of the difference in mean along fixed directions and along the mean
    itself.
    """
    generator = np.random.default_rng(0)
    directions = [one.mean(0), *generator.normal(size=(4, one.shape[1]))]
    scores = []
    for direction in directions:
        a, b = one @ direction, other @ direction
        spread = ((a.var() + b.var()) / len(a)) ** 0.5
        scores.append(abs(a.mean() - b.mean()) / spread)
    return np.array(scores)


class TestDraws:
    """Tests of K draws under a bound."""

    @pytest.mark.slow
    def test_dreg_has_the_gradient_of_iwae_in_expectation(self):
        """They agree within 3 standard errors.

        Fails without the regrade of gradients, with w in place of w squared, if the rate does not
        stick the landing, or if the regrade divides by B instead of normalising.
        """
        one, other = moments(IWAE), moments(DREG)
        assert set(one) == {"encoder", "bottleneck", "decoder"}
        for part in one:
            assert np.max(deviation(one[part], other[part])) < 3, part
        # The test has the power to see the bias of what is refused without a regrade.
        untapped = ae.Bound(ae.bounds.iwae.reduce, lambda w, _: w)
        biased = moments((ae.elbo(rate=STUCK), options(untapped)))
        assert np.max(deviation(one["encoder"], biased["encoder"])) > 10

    def test_the_decoder_gradient_of_dreg_is_that_of_iwae_draw_by_draw(self):
        """Fails if the regrade changes gradients that do not pass through the codes, or the
        loss.
        """
        left, right = gradient(*IWAE), gradient(*DREG)
        for i in range(3):
            one, iwae = left(jax.random.key(i))
            other, dreg = right(jax.random.key(i))
            np.testing.assert_allclose(iwae["loss"], dreg["loss"], rtol=1e-6)
            chex.assert_trees_all_close(one["decoder"], other["decoder"], rtol=1e-4, atol=1e-6)

    def test_a_regraded_bound_leaves_penalties_alone(self):
        """Fails if a penalty's gradient through the codes is multiplied by w as well."""
        penalty = {"penalty": (0.7, ae.losses.squared_error)}
        key = jax.random.key(4)
        objective, choice = DREG
        alone, _ = gradient(objective, choice)(key)
        both, _ = gradient(ae.merge(objective, penalty), choice)(key)
        only, _ = gradient(penalty, options(ae.bounds.mean))(key)
        found = jax.tree.map(jnp.subtract, both, alone)
        chex.assert_trees_all_close(found, only, rtol=1e-3, atol=1e-4)

    def test_integers_in_a_code_survive_the_tap(self):
        """Their cotangents are float0. Fails if every leaf is rescaled."""
        objective, choice = DREG
        labelled, _ = gradient(objective, choice, LabelledGaussian())(jax.random.key(1))
        assert np.all(np.isfinite(labelled["encoder"]["hidden_0"]["kernel"]))

        def sign(model, forward):
            return jnp.sum(forward.code.sign, axis=-1).astype(jnp.float32)

        objective = ae.merge(objective, ae.watch(sign=sign))
        _, metrics = gradient(objective, choice, LabelledGaussian())(jax.random.key(1))
        assert -2 <= float(metrics["sign"]) <= 2

    @pytest.mark.slow
    def test_the_mean_over_draws_lowers_the_variance_alone(self):
        """Independent draws divide the variance by K. Fails if all draws share one key."""
        one = moments((ae.elbo(rate=SAMPLED), {}), 4000)["encoder"]
        many = moments((ae.elbo(rate=SAMPLED), options(ae.bounds.mean)), 4000)["encoder"]
        assert np.max(deviation(one, many)) < 3
        np.testing.assert_allclose(one.var(0).sum() / many.var(0).sum(), K, rtol=0.15)

    @pytest.mark.slow
    def test_more_draws_tighten_the_bound(self):
        """The mean loss falls with K towards -log p(x). Fails if log K is left out.

        tests/bounds_test.py compares the loss of 1 and 3 draws with quadrature.
        """
        losses = []
        for draws in (1, 4, 16):
            bound = ae.bounds.mean if draws == 1 else ae.bounds.iwae
            case = gradient(ae.elbo(rate=SAMPLED), {"draws": draws, "bound": bound})
            keys = jax.random.split(jax.random.key(3), 2000)
            each = kinds.optimised(lambda keys, case=case: jax.lax.map(case, keys, batch_size=500))
            _, metrics = each(keys)
            losses.append(np.asarray(metrics["loss"], np.float64))
        means = [loss.mean() for loss in losses]
        spread = [loss.std() / 2000**0.5 for loss in losses]
        assert means[1] < means[0] - 3 * (spread[0] + spread[1])
        assert means[2] < means[1] - 3 * (spread[1] + spread[2])

    def test_the_memory_of_draw_0_is_kept(self):
        """Fails if ages of K draws are averaged or stacked."""
        model, objective, _ = KINDS["sae-topk"]
        states = []
        for draws in (1, 3):
            learner = ae.learner(model, objective, TX, draws=draws)
            state = kinds.begun(learner, kinds.batch())
            states.append(jax.jit(learner.step)(state, kinds.batch())[0])
        assert kinds.raw(states[0].memory) == kinds.raw(states[1].memory)
        chex.assert_trees_all_close(states[0].params, states[1].params, rtol=1e-4, atol=1e-6)
