"""Tests of losses with replaced values: they are those of the model with the edit itself."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aejax.errors import UserError
from aejax.language.edits import zero
from aejax.language.packing import Packed
from aejax.language.splicing import replace
from aejax.language.taps import Taps
from aejax.language.token_losses import spliced, token_losses, unless
from tests.language import cases

HOOK = "resid_post.0"
TOKENS = cases.tokens()
POSITION = np.array([[*range(9)], [*range(9)], [0, 1, 2, 3, 4, 5, -1, -1, -1]], np.int32)


def test_losses_are_those_of_the_edited_model():
    """Fails if the KL is that of the other direction, if a target is off by one, or if padding
    counts.
    """
    model, variables = cases.model(scan=True)
    plain = cases.dictionary(activation="topk", k=5)
    half = unless(spliced(plain, HOOK), HOOK, first_positions=2)
    means = {
        "same": lambda seen: seen[HOOK],
        "zero": lambda seen: jnp.zeros_like(seen[HOOK]),
        "dictionary": spliced(plain, HOOK),
        "late": half,
        "never": unless(spliced(plain, HOOK), HOOK, limit=0.0),
    }
    batch = Packed(TOKENS, POSITION, POSITION)
    found = token_losses(model, variables, [batch, batch], HOOK, means)
    run = jax.jit(lambda taps: model.apply(variables, TOKENS, POSITION, taps=taps))
    logs = {
        name: jax.nn.log_softmax(run(Taps(edits))[:, :-1])
        for name, edits in {
            "clean": {},
            "zero": {HOOK: zero()},
            "dictionary": {HOOK: replace(plain)},
        }.items()
    }
    np.testing.assert_array_equal(found.position[:3] < 0, POSITION[:, 1:] < 0)
    there = POSITION[:, 1:] >= 0
    for name, log in logs.items():
        wanted = -np.take_along_axis(np.asarray(log), TOKENS[:, 1:, None], axis=2)[..., 0]
        np.testing.assert_allclose(found.nll[name][:3][there], wanted[there], atol=1e-5)
        np.testing.assert_array_equal(found.nll[name][:3][there], found.nll[name][3:][there])
        if name != "clean":
            kl = np.sum(np.exp(logs["clean"]) * (logs["clean"] - log), axis=-1)
            np.testing.assert_allclose(found.kl[name][:3][there], kl[there], atol=1e-4)
    for name in ("same", "never"):
        np.testing.assert_array_equal(found.nll[name][:3][there], found.nll["clean"][:3][there])
        np.testing.assert_array_equal(found.kl[name][:3][there], 0.0)
    np.testing.assert_array_equal(found.nll["late"][:2, :2], found.nll["clean"][:2, :2])
    assert np.all(found.kl["late"][:2, 3:] > 1e-4)


def test_what_cannot_be_measured_is_refused():
    model, variables = cases.model(scan=True)
    with pytest.raises(UserError, match="no batch"):
        token_losses(model, variables, [], HOOK, {})
