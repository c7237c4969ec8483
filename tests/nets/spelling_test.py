"""Tests the net of the spelling of a prompt, and parts that read the prompt."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import aejax as ae
from aejax.data.text.tokens import PROMPT, prompts

NET = ae.nets.Spelling(4, 4096, (3, 4))


def runs(text: str, n: int) -> list[bytes]:
    """Returns the runs of n tokens of a text with a mark at its start, and its end."""
    marked = bytes([1, *(byte + 2 for byte in text.encode()), 1])
    return [marked[i : i + n] for i in range(len(marked) - n + 1)]


def fnv(tokens: bytes, start: int) -> int:
    """FNV-1a of 32 bits, from its definition."""
    found = (2_166_136_261 + start) % 2**32
    for token in tokens:
        found = (found ^ token) * 16_777_619 % 2**32
    return found


def test_it_is_the_mean_over_runs_plus_the_whole_text():
    """Fails if runs reach into padding, or the start is not marked."""
    texts = ["bank", "a", "river bank"]
    rows = jnp.asarray(prompts(texts))
    variables = jax.jit(NET.init)(jax.random.key(0), rows)
    found = jax.jit(NET.apply)(variables, rows)
    table = np.asarray(variables["params"]["embed"]["embedding"])
    for text, row in zip(texts, np.asarray(found), strict=True):
        places = [fnv(run, n) % 4096 for n in (3, 4) for run in runs(text, n)]
        whole = fnv(runs(text, len(text.encode()) + 2)[0], 0) % 4096
        mean = table[places].sum(axis=0) / max(len(places), 1)
        np.testing.assert_allclose(row, mean + table[whole], rtol=1e-5, atol=1e-6)
    longer = np.pad(np.asarray(rows), ((0, 0), (0, 7)))
    np.testing.assert_allclose(jax.jit(NET.apply)(variables, longer), found, rtol=1e-5, atol=1e-6)
    assert rows.shape == (3, PROMPT)


def test_a_prior_and_a_decoder_without_latents_read_the_prompt():
    """Fails if the prior ignores the prompt, or the latents reach `OfContext`."""
    rows = jnp.asarray(prompts(["bank", "tree"]))
    prior = ae.priors.Conditional((5,), net=NET)
    net = ae.nets.OfContext(ae.nets.Joined((NET,), ae.nets.MLP((), shape=(2, 3))))
    z = jnp.zeros((2, 3))

    @jax.jit
    def run(key):
        variables = prior.init(key, z, rows, method="log_prob")
        variables["params"]["output"]["kernel"] += 1.0  # it starts as the standard normal
        found = prior.apply(variables, z, rows, method="log_prob")
        given = net.init(key, z, rows)
        return found, net.apply(given, z, rows), net.apply(given, z + 1.0, rows)

    found, one, other = map(np.asarray, run(jax.random.key(0)))
    assert abs(found[0] - found[1]) > 1e-3
    np.testing.assert_array_equal(one, other)
    assert one.shape == (2, 2, 3)
    assert np.abs(one[0] - one[1]).max() > 1e-3


def test_wrong_settings_are_refused():
    with pytest.raises(ae.UserError, match="lengths of runs"):
        ae.nets.Spelling(4, lengths=(0,))
    with pytest.raises(ae.UserError, match="reads token ids"):
        NET.init(jax.random.key(0), jnp.zeros((2, 3)))
