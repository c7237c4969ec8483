"""Tests of the loop: which steps it takes, what it yields, and that it never yields a bad state."""

import io
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import aejax as ae
from aejax.training.loop import NonFinite, loop
from aejax.types import Learner, Source, State


def start(members=()):
    return State(
        jnp.zeros((), jnp.int32), jax.random.key(0), {"w": jnp.zeros(members)}, {}, {"m": ()}
    )


class Numbers:
    """Batches that are their own number t, and that remember which sources were asked for."""

    def __init__(self):
        self.asked = []

    def __getitem__(self, t):
        return jnp.float32(t)

    def source(self, t, chunk, limit):
        self.asked.append((t, chunk, limit))
        steps = jnp.arange(t, t + chunk, dtype=jnp.float32)
        count = jnp.int32(min(chunk, limit - t))
        return Source(steps, None, jax.random.key(0), count, lambda key, x: x)


def one(state, x, bad_at=None, name="rate"):
    """A step in which w counts the steps, and the loss is the number of the batch."""
    value = x if bad_at is None else jnp.where(x == bad_at, jnp.nan, x)
    params = {"w": state.params["w"] + 1.0 + 0 * value}
    metrics = {"loss": value, "grad_norm": x, name: value, "distortion": x, "watched": x / 0}
    return state._replace(step=state.step + 1, params=params), metrics


def single(**options):
    return Learner(
        lambda key, batch: start(), lambda s, x: one(s, x, **options), None, lambda *_: {}
    )


def chunked(size, **options):
    return ae.compiled(ae.chunked(single(**options), size))


@pytest.mark.parametrize(("done", "steps"), [(0, 30), (5, 12)])
def test_a_call_ends_at_each_multiple_wherever_training_starts(done, steps):
    """Fails if a chunk goes from `done` to `done + T`, or if metrics are not cut to the call."""
    state = start()._replace(step=jnp.int32(done))
    batches = Numbers()
    found = [(int(s.step), m["loss"]) for s, m in loop(chunked(4), state, batches, steps)]
    first = done - done % 4 + 4
    assert [e for e, _ in found if e % 4 == 0] == list(range(first, steps + 1, 4))
    assert found[-1][0] == steps
    np.testing.assert_array_equal(np.concatenate([m for _, m in found]), np.arange(done, steps))
    # Each chunk's batches are asked for once, however many calls it takes.
    starts = list(range(done - done % 4, steps, 4))
    assert batches.asked == [(t, 4, min(t + 4, steps)) for t in starts]


def test_a_call_takes_what_fits_into_its_seconds(monkeypatch):
    """Checkpoints and signals wait for the end of a call.

    Fails if a call always takes a whole chunk, if the time of compiling counts, or if the number of
    steps never grows.
    """
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def step(state, data):
        count = int(data.count)
        # The first call compiles for a minute; a step takes half a second, and two from step 20 on.
        seconds = 2.0 if int(state.step) >= 20 else 0.5
        now[0] += count * seconds + (60.0 if int(state.step) == 0 else 0.0)
        return state._replace(step=state.step + count), {"loss": np.zeros(100)}

    learner = Learner(None, step, None, None, chunk=100)
    ends = [int(s.step) for s, _ in loop(learner, start(), Numbers(), 40)]
    # Two calls of one step, then 8 times as many, then 5 s / 0.5 s.
    assert ends[:4] == [1, 2, 10, 20]
    assert max(np.diff(ends[4:])) <= 2


def test_chunked_is_unchunked():
    """Fails if the last chunk runs in full; w counts the steps taken."""
    states = [
        list(loop(learner, start(), Numbers(), 10))[-1][0] for learner in (single(), chunked(4))
    ]
    assert [int(s.step) for s in states] == [10, 10]
    assert [float(s.params["w"]) for s in states] == [10.0, 10.0]


def test_metrics_of_one_step_have_one_entry():
    (_, metrics), *_ = loop(single(), start(), Numbers(), 3)
    assert metrics["loss"].shape == (1,)
    assert isinstance(metrics["loss"], np.ndarray)


def test_a_finished_state_yields_nothing():
    assert list(loop(chunked(4), start()._replace(step=jnp.int32(10)), Numbers(), 10)) == []


@pytest.mark.parametrize("steps", [0, -3])
def test_steps_below_one_are_refused_at_once(steps):
    """Fails if the check waits for the first iteration."""
    with pytest.raises(ae.UserError, match=f"steps is {steps}"):
        loop(chunked(4), start(), Numbers(), steps)


@pytest.mark.parametrize("learner", [single(bad_at=6), chunked(4, bad_at=6)])
def test_nan_is_reported_before_its_state_is_yielded(learner):
    """Fails if the check comes after the yield, or counts from the start of the chunk."""
    ends = []
    with pytest.raises(NonFinite, match="loss is NaN at step 6") as caught:
        ends.extend(int(state.step) for state, _ in loop(learner, start(), Numbers(), 10))
    assert max(ends) <= 6
    # `watched` is infinite from the first step on, which alone stops nothing.
    assert caught.value.terms == ["rate", "watched"]
    assert (caught.value.step, caught.value.seed) == (6, None)


def test_the_seed_is_named():
    """Fails if step and seed are swapped."""

    def step(state, data):
        loss = jnp.zeros((3, 4)).at[2, 1].set(jnp.inf)
        return state._replace(step=state.step + data.count), {"loss": loss, "rate": loss}

    learner = Learner(None, step, None, None, seeds=3, chunk=4)
    batches = Numbers()
    batches.seed = 10  # the seed of the first member
    with pytest.raises(NonFinite, match=r"infinite at step 1 \(term 'rate', seed 12\)"):
        list(loop(learner, start((3,)), batches, 8))


def test_a_gradient_that_is_no_number_stops_the_run():
    """Fails if only the loss is checked: the next state would be bad."""

    def step(state, data):
        return state._replace(step=state.step + 1), {"loss": jnp.ones(()), "grad_norm": jnp.nan}

    with pytest.raises(NonFinite, match="gradient's norm is NaN at step 0"):
        list(loop(Learner(None, step, None, None), start(), Numbers(), 2))


class Terminal(io.StringIO):
    """A stream that a person sees."""

    def isatty(self):
        return True


def test_the_bar_is_drawn_where_somebody_sees_it(monkeypatch):
    """Fails if isatty or progress=False is ignored."""
    shown = {}
    for name, stream, progress in [
        ("terminal", Terminal(), None),
        ("unwanted", Terminal(), False),
        ("file", io.StringIO(), True),
    ]:
        monkeypatch.setattr(sys, "stderr", stream)
        list(loop(chunked(4), start(), Numbers(), 10, progress=progress))
        shown[name] = stream.getvalue()
    assert "10/10" in shown["terminal"]
    assert "loss 9" in shown["terminal"]
    assert "steps/s" in shown["terminal"]
    assert shown["unwanted"] == shown["file"] == ""


def test_members_see_streams_of_their_own():
    """Fails if all members get the batches of member 0."""
    train, _, _ = ae.data.arrays(np.arange(80, dtype=np.float32).reshape(40, 2))
    batches = ae.data.Batches(train, size=4, seed=3)
    seen = []

    def step(state, source):
        seen.append(np.asarray(source.rows))
        metrics = {"loss": jnp.zeros((2, 5))}
        return state._replace(step=state.step + source.count), metrics

    list(loop(Learner(None, step, None, None, seeds=2, chunk=5), start((2,)), batches, 5))
    alone = [ae.data.Batches(train, size=4, seed=3 + i).rows(0, 5) for i in range(2)]
    np.testing.assert_array_equal(seen[0], np.stack(alone))

    seen.clear()
    list(loop(Learner(None, step, None, None, 2, 5, True), start((2,)), batches, 5))
    np.testing.assert_array_equal(seen[0], alone[0])


@pytest.mark.parametrize(
    ("x", "said"),
    [
        (np.full((40, 6), 1.5, np.float32), r"holds 1\.5, outside \[0, 1\]"),
        (np.full((40, 6), 16, np.uint8), r"holds 16, outside \[0, 1\]"),
        (np.full((40, 6), -1, np.int32), r"holds -1, outside \[0, 1\]"),
    ],
)
def test_targets_that_the_likelihood_cannot_explain_are_named(x, said):
    """Fails if the learner loses its likelihood's support, or if the loop does not check it.

    Fails also if any array of bytes is taken for pictures, whose bytes are scaled to [0, 1].
    """
    train = ae.data.arrays(x, validation=1, test=1)[0]
    model = ae.Autoencoder(
        ae.nets.MLP((4,)),
        ae.Gaussian(2),
        ae.nets.MLP((4,), shape=(6,)),
        ae.priors.Standard(),
        ae.likelihoods.Bernoulli(),
    )
    learner = ae.learner(model, ae.elbo(), optax.sgd(0.1))
    batches = ae.data.Batches(train, 4)
    state = learner.init(jax.random.key(0), batches[0])
    with pytest.raises(ae.UserError, match=said):
        ae.loop(learner, state, batches, 3)
    free = learner._replace(support=None)
    assert next(ae.loop(free, state, batches, 3))[1]["loss"].shape == (1,)


@pytest.mark.parametrize("wrap", [lambda learner: learner, lambda learner: ae.chunked(learner, 5)])
def test_a_split_in_place_of_batches_is_refused(wrap):
    """Fails if the error is raised only when a batch is asked for."""
    train = ae.data.arrays(np.zeros((8, 2), np.float32), validation=1, test=1)[0]
    with pytest.raises(ae.UserError, match="got a Split as its batches"):
        loop(wrap(single()), start(), train, 3)
