"""Compares SmolLM2-135M with recorded results of transformers, if its GGUF file is there.

    python -m experiments fetch-lm models && pytest -m slow tests/language/smollm2_test.py

The file is looked for in `models` in this repository, or in the folder that SMOLLM2_DIR names.
"""

import functools
import json
import os
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aejax import language as lm
from tests import kinds
from tests.language.parity import reference

FOLDER = pathlib.Path(os.environ.get("SMOLLM2_DIR", kinds.ROOT / "models"))
FILE = FOLDER / "SmolLM2-135M-Instruct.Q4_1.gguf"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not FILE.is_file(), reason=f"no {FILE.name}: python -m experiments fetch-lm models"
    ),
]
EXPECTED = np.load(reference.HERE / "smollm2.npz")
PROMPT = EXPECTED["ids"][0].tolist()


@functools.cache
def loaded():
    return lm.load(FILE)


def test_logits_and_residual_streams_are_those_of_transformers():
    """They agree within 5e-4 in float32, and 1e-3 relative. Fails with interleaved rotary pairs."""
    model, variables, _ = loaded()
    reads = tuple(f"resid_pre.{i}" for i in (1, 15, 29))
    logits = jax.jit(model.apply)(variables, np.asarray([PROMPT]))[0]
    np.testing.assert_allclose(logits[:, ::64], EXPECTED["logits"], atol=5e-4, rtol=0)
    np.testing.assert_array_equal(jnp.argmax(logits, axis=-1), EXPECTED["argmax"])
    seen = lm.reader(model, variables, reads)(np.asarray([PROMPT]))
    for i in (1, 15, 29):
        found, wanted = np.asarray(seen[f"resid_pre.{i}"]), EXPECTED[f"hidden_{i}"]
        apart = np.linalg.norm(found - wanted, axis=-1) / np.linalg.norm(wanted, axis=-1)
        assert apart.max() < 1e-3


@pytest.mark.parametrize("scan", [False, True])
def test_greedy_texts_are_those_of_transformers_cached_and_not(scan):
    model, variables, tokenizer = loaded()
    if scan:
        model, variables = model.clone(scan=True), lm.stacked(variables)
    prompts = [PROMPT, tokenizer.encode("Once upon a time there was a")]
    for side in ("left", "right"):
        made = lm.generate(model, variables, lm.padded(prompts, side), count=12)
        np.testing.assert_array_equal(made.tokens[0], EXPECTED["greedy"][0, len(PROMPT) :])
    text, apply = list(prompts[1]), jax.jit(model.apply)
    for _ in range(12):
        logits = apply(variables, *lm.padded([text, [0] * 24], "right"))
        text.append(int(jnp.argmax(logits[0, len(text) - 1])))
    np.testing.assert_array_equal(made.tokens[1], text[-12:])


def test_all_strings_tokenise_alike():
    tokenizer = loaded().tokenizer
    expected = json.loads(str(EXPECTED["tokens"]))
    for text, ids in zip(expected["samples"], expected["ids"], strict=True):
        assert tokenizer.encode(text) == ids
        assert tokenizer.decode(ids, special=True) == text


@pytest.mark.parametrize("scan", [False, True])
def test_an_edit_that_changes_nothing_changes_nothing_to_the_bit(scan):
    """It holds at the hooks of two blocks; also with JAX_DISABLE_MOST_OPTIMIZATIONS=0."""
    model, variables, _ = loaded()
    if scan:
        model, variables = model.clone(scan=True), lm.stacked(variables)
    run = jax.jit(lambda taps: model.apply(variables, np.asarray([PROMPT] * 2), taps=taps))
    clean = run(lm.Taps())
    hooks = [f"{name}.{i}" for i in (15, 29) for name in lm.HOOKS if name != "attn_pattern"]
    edits = {hook: lm.add(np.zeros(576)) for hook in hooks}
    np.testing.assert_array_equal(run(lm.Taps(edits)), clean)


def test_the_report_of_a_survey_finds_the_sink():
    """The residual stream of the first token reaches a norm of 22,516 by block 14."""
    model, variables, tokenizer = loaded()
    texts = ["The capital of France is Paris, and that of Italy is Rome."] * 8
    batches = lm.packs(tokenizer, texts, lm.Packing(16, together=False), 4)
    found = lm.survey(model, variables, batches)
    assert found.norms[14, 0] > 1e4
    assert found.sinks[0].position == 0
    # The texts are shorter than the rows, so the last positions hold no token and have no norm.
    assert np.nanmax(found.norms[14, 1:]) < 0.1 * found.norms[14, 0]


def test_the_readme_prints_a_steered_distribution(capsys, monkeypatch):
    readme = (kinds.ROOT / "aejax" / "language" / "README.md").read_text()
    block = next(b for b in re.findall(r"```python\n(.*?)```", readme, re.DOTALL) if "lm.add" in b)
    monkeypatch.setattr(lm, "load", lambda path: loaded())
    for code in (block, block.replace("20.0 *", "0.0 *")):
        exec(compile(code, "README.md", "exec"), {})
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 10
    assert lines[5].endswith("' Paris'")
    assert lines[:5] != lines[5:]
