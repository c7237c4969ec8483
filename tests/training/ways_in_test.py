"""Tests of early stopping, plateaus, epochs, gradient accumulation, loggers and best states."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import aejax as ae
from aejax.runs import loggers, metrics
from tests import kinds

KEY = jax.random.key(0)
TRAIN = ae.data.splits(kinds.pixels(), None)[0]


def batches(size=32):
    return ae.data.Batches(TRAIN, size)


def test_patience_stops_and_the_best_state_is_loaded(tmp_path):
    """A figure that rises after its third measurement, in a run that is resumed once in between."""
    learner = kinds.compiled(kinds.learner("plain"))
    values, kept = [3.0, 2.0, 1.0, 1.5, 1.2, 1.1, 0.5], {}
    for first, last in ((0, 4), (4, 6)):
        with ae.Run(tmp_path, {"steps": 7}, best="nll", checkpoint_seconds=0.0) as run:
            state = run.restore(learner.init(KEY, batches()[0]))
            patience = ae.Patience(3, past=run.figures("nll"))
            assert int(state.step) == first
            for state, found in ae.loop(learner, state, batches(), 7, stop=patience):  # noqa: B020
                step = int(state.step)
                figures = {"nll": values[step - 1]}
                patience.see(figures["nll"])
                run.log(state, found, figures)
                run.save(state, figures)
                kept[step] = kinds.raw(learner.variables(state))
                if step == last == 4:
                    break
    assert step == 6  # 1.5, 1.2 and 1.1 brought no new least value
    best = ae.load(tmp_path, model=kinds.plain(), best=True)
    assert kinds.raw(best.variables) == kept[3]
    newest = ae.load(tmp_path, model=kinds.plain())
    assert kinds.raw(newest.variables) == kept[6]
    with pytest.raises(ae.UserError, match=r"no checkpoint of .* has the validation result 'elbo'"):
        ae.load(tmp_path, model=kinds.plain(), best="elbo")


def test_a_plateau_lowers_the_rate():
    """As the transformation alone does for the logged losses, which go up and down.

    Fails if the loss does not reach the transformation.
    """
    plateau = optax.contrib.reduce_on_plateau(factor=0.5, patience=1, rtol=1e-6)
    tx = optax.chain(optax.sgd(0.0), plateau)
    learner = kinds.compiled(ae.chunked(kinds.learner("plain", tx=tx), 6))
    state = learner.init(KEY, kinds.batch())
    state, found = learner.step(state, kinds.source(0, 6, 6))
    alone, right = plateau.init({}), []
    for loss in found["loss"]:
        alone = plateau.update({}, alone, value=loss)[1]
        right.append(float(alone.scale))
    np.testing.assert_array_equal(found["plateau_scale"], right)
    assert len(set(right)) > 2  # neither always lowered nor never
    assert float(found["plateau_scale"][-1]) == float(optax.tree.get(state.opt, "scale"))


@pytest.mark.slow
def test_a_line_search_sees_the_loss():
    """L-BFGS lowers the loss of one batch at every step, by more than a tenth in 5."""
    learner = kinds.compiled(kinds.learner("plain", tx=optax.lbfgs()))
    state, losses = learner.init(KEY, kinds.batch()), []
    for _ in range(5):
        state, found = learner.step(state, kinds.batch())
        losses.append(float(found["loss"]))
    assert (np.diff(losses) < 0).all()
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.parametrize(
    "tx",
    [
        # It says that it takes further arguments, and takes none.
        optax.contrib.sam(optax.sgd(0.1), optax.sgd(0.1)),
        # It hands the loss to the optimiser within it, which needs it.
        optax.MultiSteps(optax.chain(optax.sgd(0.1), optax.contrib.reduce_on_plateau()), 2),
    ],
    ids=["sam", "plateau of accumulated steps"],
)
def test_the_loss_is_given_to_those_who_take_it(tx):
    learner = kinds.learner("plain", tx=tx)
    state = jax.eval_shape(learner.init, KEY, kinds.batch())
    jax.eval_shape(learner.step, state, kinds.batch())


@pytest.mark.slow
def test_the_learning_rate_stands_in_the_metrics():
    schedule = optax.linear_schedule(1e-2, 0.0, 10)
    tx = optax.inject_hyperparams(optax.adam)(schedule)
    learner = kinds.compiled(ae.seeds(kinds.learner("plain", tx=tx), 2, shared_data=True))
    state = learner.init(KEY, kinds.batch())
    for t in range(3):
        state, found = learner.step(state, kinds.batch())
        np.testing.assert_allclose(found["learning_rate"], [schedule(t)] * 2, rtol=1e-5)


def test_accumulated_gradients_are_those_of_the_whole_batch():
    """Two halves of a batch, then one step; fails if the halves each take a step."""
    x = kinds.pixels(32)
    whole = ae.learner(kinds.plain(), ae.reconstruction(), optax.sgd(1.0))
    parts = ae.learner(
        kinds.plain(), ae.reconstruction(), optax.MultiSteps(optax.sgd(1.0), every_k_schedule=2)
    )
    start = whole.init(KEY, kinds.batch())
    right = jax.jit(whole.step)(start, ae.Batch(x, x))[0]
    state, step = parts.init(KEY, kinds.batch()), jax.jit(parts.step)
    for half in (x[:16], x[16:]):
        state, _ = step(state, ae.Batch(half, half))
    for a, b in zip(jax.tree.leaves(state.params), jax.tree.leaves(right.params), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_epochs_are_steps():
    given = batches(30)
    assert given.steps(2) == 18  # 512 examples of 256, in batches of 30
    assert given.epoch(18) == pytest.approx(540 / 256)
    learner = kinds.compiled(kinds.learner("plain"))
    state = learner.init(KEY, given[0])
    taken = [
        (int(after.step), m["epoch"]) for after, m in ae.loop(learner, state, given, epochs=0.3)
    ]
    assert taken[-1][0] == 3
    np.testing.assert_allclose(np.concatenate([m for _, m in taken]), 30 / 256 * np.arange(1, 4))
    with pytest.raises(ae.UserError, match="give one of the two"):
        ae.loop(learner, state, given, 3, epochs=1)


def test_columns_in_their_own_units_train():
    """Deviations 10, 30 and 100, without Standardised, to the order of the data's entropy, 12 nats.

    Without the bound of the log deviations the first loss is above 1e16 or infinite. If the
    likelihood starts from a deviation of 1, the loss is 1,600 after as many steps.
    """
    random, sizes = np.random.default_rng(0), np.array([10.0, 30.0, 100.0])
    shared, own = random.normal(size=(2_000, 1)), random.normal(size=(2_000, 3))
    train = ae.data.splits((0.95**0.5 * shared + 0.05**0.5 * own) * sizes, None)[0]
    model = kinds.variational(ae.likelihoods.LearnedGaussian(), event=(3,))
    steps = 1_000
    learner = ae.compiled(ae.chunked(ae.learner(model, ae.elbo(), optax.adam(1e-3)), steps))
    given = ae.data.Batches(train, 100)
    state, found = learner.init(KEY, given[0]), []
    for _, seen in ae.loop(learner, state, given, steps):
        found.append(seen["loss"])
    losses = np.concatenate(found)
    assert np.isfinite(losses).all()
    assert losses[0] < 1e7
    assert np.mean(losses[-100:]) < 300


def test_an_error_at_step_0_tells_of_the_scale():
    """Columns so large that the gradient overflows."""
    x = np.random.default_rng(0).normal(size=(64, 3)) * [10, 30, 1e15]
    train = ae.data.splits(x, None)[0]
    model = kinds.variational(ae.likelihoods.LearnedGaussian(), event=(3,))
    learner = kinds.compiled(ae.learner(model, ae.elbo(), optax.adam(1e-3)))
    given = ae.data.Batches(train, 32)
    said = r"at step 0 .*: x holds numbers up to \S+, .* standardise them"
    with pytest.raises(ae.NonFinite, match=said):
        next(ae.loop(learner, learner.init(KEY, given[0]), given, 3))


def test_an_error_tells_of_nan_in_the_batch():
    """Fails if the learning rate is blamed, or the rows of the first batch are looked at."""
    learner = kinds.compiled(ae.chunked(kinds.learner("plain"), 6))
    good, bad = (np.array(kinds.batch(t).x) for t in (0, 1))
    bad[3, 0, 0] = np.nan
    data = ae.Source(
        jnp.stack([good, bad, *[good] * 4]), None, KEY, jnp.asarray(6, jnp.int32), kinds.as_batch
    )

    class Given:
        def source(self, t, chunk, limit):
            return data

    state = learner.init(KEY, kinds.batch())
    with pytest.raises(ae.NonFinite, match=r"at step 1 .*: row 3 of x in that step's batch holds"):
        for _ in ae.loop(learner, state, Given(), 6):
            pass


def test_a_stream_outside_the_support_is_refused():
    """Fails if a Bernoulli trains on 9."""
    stream = ae.data.Stream(lambda: iter(9 * kinds.pixels(4)), 4, 2)
    state = ae.State(np.int32(0), KEY, {}, {}, ())
    for wrap in (lambda learner: learner, lambda learner: ae.chunked(learner, 2)):
        with pytest.raises(ae.UserError, match="example 0 of the stream's first batch holds 9"):
            next(ae.loop(wrap(kinds.learner("plain")), state, stream, 1))


def test_a_learner_takes_an_array():
    """An array is both x and target, as in evaluations."""
    learner, x = kinds.learner("plain"), jnp.asarray(kinds.pixels(4))
    state = jax.eval_shape(learner.init, KEY, x)
    assert state == jax.eval_shape(learner.init, KEY, ae.Batch(x, x))
    assert jax.eval_shape(learner.step, state, x)[0].params == state.params
    many = ae.seeds(learner, 2)
    state = jax.eval_shape(many.init, KEY, x)
    assert jax.eval_shape(many.step, state, jnp.stack([x, x]))[0].params == state.params


@pytest.mark.slow
def test_loggers_see_the_lines_of_the_metrics(tmp_path):
    """Names and numbers of metrics.jsonl, seeds apart. Fails if figures or the step are lost."""
    seen = []
    learner = kinds.compiled(ae.chunked(ae.seeds(kinds.learner("plain"), 2), 3))
    with ae.Run(
        tmp_path, {"steps": 3}, loggers=[lambda step, values: seen.append((step, values))]
    ) as run:
        state = run.restore(learner.init(KEY, batches()[0]))
        for after, found in ae.loop(learner, state, batches(), 3):
            run.log(after, found, {"nll": 5.0})
    lines = metrics.read(tmp_path)
    assert [step for step, _ in seen] == [0, 1, 2]
    np.testing.assert_allclose([v["loss"] for _, v in seen], lines["loss"], rtol=1e-6)
    np.testing.assert_allclose(lines["epoch"], 32 / 256 * np.arange(1, 4))
    assert seen[2][1]["nll"] == 5.0
    named = loggers.flat({"loss": np.arange(2.0), "kl": np.ones((2, 1)), "nll": np.float64(3)})
    assert named == {"loss/0": 0.0, "loss/1": 1.0, "kl/0/0": 1.0, "kl/1/0": 1.0, "nll": 3.0}


def test_tensorboard_reads_what_a_run_has_logged(tmp_path):
    """TensorBoard's own reader finds each metric of each seed at its step."""
    pytest.importorskip("tensorboardX")
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    logger = loggers.TensorBoard(tmp_path / "events")
    learner = ae.compiled(ae.chunked(ae.seeds(kinds.learner("plain"), 2), 3))
    with ae.Run(tmp_path / "run", {"steps": 3}, loggers=[logger]) as run:
        state = run.restore(learner.init(KEY, batches()[0]))
        for after, found in ae.loop(learner, state, batches(), 3):
            run.log(after, found, {"nll": 5.0})
    logger.writer.close()
    read = events.EventAccumulator(str(tmp_path / "events")).Reload()
    lines = metrics.read(tmp_path / "run")
    for seed in (0, 1):
        curve = read.Scalars(f"loss/{seed}")
        assert [point.step for point in curve] == [0, 1, 2]
        np.testing.assert_allclose([p.value for p in curve], lines["loss"][:, seed], rtol=1e-6)
    assert [point.value for point in read.Scalars("nll")][-1] == 5.0
    assert [point.value for point in read.Scalars("epoch")] == [0.125, 0.25, 0.375]


def test_weights_and_biases_logs_offline(tmp_path):
    pytest.importorskip("wandb")
    logger = loggers.WeightsAndBiases("test", dir=str(tmp_path), settings={"silent": True})
    logger(3, {"loss": np.float64(1.5)})
    logger.run.finish()
    (file,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    assert b"loss" in file.read_bytes()


def test_metrics_of_jnp_are_taken(tmp_path):
    """A value of the device is a number for a logger too."""
    assert loggers.flat({"loss": jnp.float32(2)}) == {"loss": 2.0}
