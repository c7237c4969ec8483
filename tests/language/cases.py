"""Tiny random models, tokens, and a tokenizer of letters, for the tests of this folder."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from aejax.dictionaries.plain import Plain
from aejax.language.config import Config
from aejax.language.llama import Transformer
from aejax.language.weights import stacked

VOCABULARY, SIZE, LAYERS = 32, 16, 2
SIZES = {
    "vocabulary": VOCABULARY,
    "layers": LAYERS,
    "size": SIZE,
    "heads": 4,
    "kv_heads": 2,
    "head_size": 8,
    "hidden": 24,
    "context": 48,
}
# The options of Gemma 3 and Qwen's biases, so that every branch of the block is used.
EVERYTHING = Config(
    **SIZES,
    tied=False,
    query_bias=True,
    query_norm=True,
    post_norm=True,
    activation="gelu",
    embedding_scale=4.0,
    local=(True, False),
    window=4,
)


@functools.cache
def model(scan=False, config=EVERYTHING):
    """Makes a model in either form, and variables with the same values in both, without
    compiling.
    """
    made = Transformer(config)
    shapes = jax.eval_shape(made.init, jax.random.key(0), jnp.zeros((1, 2), jnp.int32))
    rng = np.random.default_rng(0)

    def drawn(shape):
        mean = float(shape.ndim == 1)  # norms and biases are near 1
        return jnp.asarray(mean + 0.6 * rng.standard_normal(shape.shape), jnp.float32)

    variables = jax.tree.map(drawn, shapes)
    return Transformer(config, scan=scan), stacked(variables) if scan else variables


def tokens(texts=3, length=9, seed=0):
    """Draws tokens, i32[texts, length]."""
    return np.random.default_rng(seed).integers(1, VOCABULARY, (texts, length)).astype(np.int32)


def dictionary(latents=24, size=SIZE, seed=0, **fields):
    """Makes a dictionary with random weights; its activation is relu by default."""
    rng = np.random.default_rng(seed)

    def drawn(*shape):
        return jnp.asarray(rng.standard_normal(shape), jnp.float32)

    own = {"activation": "relu", "b_enc": drawn(latents), **fields}
    return Plain(W_enc=drawn(size, latents), W_dec=drawn(latents, size), b_dec=drawn(size), **own)


class Letters:
    """A tokenizer with one token for each letter: a is 3, b is 4, BOS is 1."""

    bos = 1

    def encode_batch(self, texts):
        return [[3 + ord(letter) - ord("a") for letter in text] for text in texts]
