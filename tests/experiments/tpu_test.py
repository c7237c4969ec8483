"""Prices of programs: what is read in their text, and what the compiler of TPUs says of a step."""

import importlib.util
import json

import jax
import jax.numpy as jnp
import pytest

from experiments.shared import hlo
from tests import kinds

# What the compiler of libtpu 0.0.50 said, with a tenth to spare: GB, MiB of collectives and MiB of
# temp of a step with 256 inputs, 4,096 latents, 8 of them active, and batches of 512 on 16 chips.
HELD = {
    "topk": (0.081, 2.43, 2.8),
    "topk-auxk": (0.107, 5.2, 3.9),
}


def test_a_loop_counts_with_its_trips():
    """Fails if a body counts once, or if the length of a product's sum is left out."""

    def powers(x, kernel):
        return jax.lax.scan(lambda y, _: (jnp.tanh(y @ kernel), None), x, length=7)[0]

    x, kernel = jnp.ones((8, 16)), jnp.ones((16, 16))
    text = jax.jit(powers).lower(x, kernel).compile().as_text()
    assert hlo.loops(text) == [7]
    once, whole = hlo.counted(text, trips=False), hlo.counted(text)
    assert (once.flops, whole.flops) == (2 * 8 * 16 * 16, 7 * 2 * 8 * 16 * 16)
    assert once.bytes < whole.bytes <= 7 * once.bytes


PROGRAM = """
%large (a: f32[64]) -> f32[64] {
  %a = f32[64]{0} parameter(0)
  ROOT %sum = f32[64]{0} all-reduce(%a), channel_id=1, to_apply=%add
}

%small (b: f32[64]) -> f32[64] {
  %b = f32[64]{0} parameter(0)
  %half = f32[32]{0} slice(%b), slice={[0:32]}
  %also = f32[32]{0} all-reduce(%half), channel_id=2, to_apply=%add
  ROOT %top = f32[64]{0} custom-call(%b), custom_call_target="TopK"
}

ENTRY %main (c: f32[64], p: pred[]) -> f32[64] {
  %c = f32[64]{0} parameter(0)
  %p = pred[] parameter(1)
  %start = (f32[64]{0}, f32[128]{0:T(128)}) all-gather-start(%c), dimensions={0}
  %done = f32[128]{0} all-gather-done(%start)
  ROOT %or = f32[64]{0} conditional(%p, %c, %c), true_computation=%large, false_computation=%small
}
"""


def test_of_a_condition_the_largest_branch_counts():
    """Fails if branches are summed, or if a collective counts at its start and its end."""
    found = hlo.counted(PROGRAM)
    assert found.collectives == {"all-reduce": 256, "all-gather": 512}
    assert found.unpriced == {"TopK": 1}
    assert found.bytes == (256 + 256 + 512) + (256 + 768)


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None,
    reason="libtpu is not installed: pip install 'jax[tpu]'",
)
def test_a_small_step_costs_what_it_cost(tmp_path, monkeypatch):
    """Fails if a form moves more bytes, or gathers scores over the axis of latents."""
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    shape = ["--size", "256", "--latents", "4096", "--k", "8", "--batch", "512"]
    command = ["-m", "experiments", "bench-tpu", "--out", str(tmp_path), *shape, "--only", *HELD]
    kinds.output(kinds.python(*command), seconds=900)
    result = json.loads((tmp_path / "result.json").read_text())
    for name, held in HELD.items():
        row = result[f"{name}: data=4,model=4"]
        for column, limit in zip(("GB", "collectives_MiB", "temp_MiB"), held, strict=True):
            assert row[column]["mean"] <= limit, (name, column)


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is not None, reason="libtpu is installed")
def test_without_the_compiler_the_command_says_what_to_install(tmp_path):
    process = kinds.python("-m", "experiments", "bench-tpu", "--out", str(tmp_path))
    _, said = process.communicate(timeout=300)
    assert process.returncode == 2
    assert "libtpu, which holds the compiler of TPUs, is not installed: run pip install" in said
