"""Tests of the page FAMILIES.md: every entry is traced, and trains behind `-m slow`."""

from __future__ import annotations

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import aejax as ae
from tests import kinds

PAGE = (kinds.ROOT / "aejax" / "FAMILIES.md").read_text()
START, *SECTIONS = re.split(r"^## ", PAGE, flags=re.MULTILINE)
ENTRIES = {section.split("\n", 1)[0].strip(): section for section in SECTIONS}
# What `pythae.models.__all__` exports at commit 014d0c2, without its base class, AutoModel and
# the configurations.
NAMES = """AE Adversarial_AE BetaTCVAE BetaVAE CIWAE DisentangledBetaVAE FactorVAE HRQVAE HVAE
INFOVAE_MMD IWAE MIWAE MSSSIM_VAE PIWAE PoincareVAE RAE_GP RAE_L2 RHVAE SVAE VAE VAEGAN VAE_IAF
VAE_LinNF VAMP VQVAE WAE_MMD""".split()  # noqa: SIM905
ABSENT = {"PoincareVAE", "RHVAE"}


def code(text: str) -> str:
    return "\n".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL))


def learner(name: str) -> tuple[ae.Learner, ae.Batch]:
    """Returns the learner of an entry, and a batch of pictures."""
    names: dict = {"__name__": "families"}
    for text in (START, ENTRIES[name]):
        exec(compile(code(text), name, "exec", dont_inherit=True), names)
    tx = names.get("tx", optax.adam(1e-3))
    found = ae.learner(names["model"], names["objective"], tx, **names.get("options", {}))
    x = np.random.default_rng(0).integers(0, 2, (8, *names["event"])).astype(np.float32)
    return found, ae.Batch(jnp.asarray(x), jnp.asarray(x))


def test_the_page_has_every_name_in_at_most_15_lines():
    assert list(ENTRIES) == NAMES
    assert {name for name in NAMES if not code(ENTRIES[name])} == ABSENT
    for name in NAMES:
        assert len(code(ENTRIES[name]).strip().splitlines()) <= 15


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ABSENT])
def test_each_entry_is_traced(name):
    """Fails if parts and terms do not fit, or if an entry lacks a loss."""
    own, batch = learner(name)
    # The start goes through the forward pass and through every term.
    assert jax.eval_shape(own.init, jax.random.key(0), batch).params


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NAMES if name not in ABSENT])
def test_each_entry_trains(name):
    """Three steps on one batch have finite losses and move the parameters."""
    own, batch = learner(name)
    state = jax.jit(own.init)(jax.random.key(0), batch)
    first, step = state.params, jax.jit(own.step)
    for _ in range(3):
        state, metrics = step(state, batch)
        assert np.isfinite(metrics["loss"])
    assert any(
        jax.tree.leaves(jax.tree.map(lambda a, b: bool(np.any(a != b)), first, state.params))
    )
