"""What an edit does to the texts of a language model, measured over many prompts.

    found = effect(model, variables, prompts, {"resid_post.15": add(8.0 * row)}, words, count=24)
    found.rate, found.perplexity

`words` marks the tokens of a class, such as the names of colours. An edit that changes how often
they are generated may also ruin the text. The perplexity of the text under the unedited model
measures that, and `at_perplexity` compares two edits at equal perplexity.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from aejax.errors import UserError
from aejax.language.generation import Choose, Sampling, generate, padded
from aejax.language.llama import Transformer
from aejax.language.taps import Edit, Taps, wrapped
from aejax.types import Array, Key, Variables


class Effect(NamedTuple):
    """The effect of an edit over N prompts."""

    kl: float  # nats, the mean KL(clean || edited) of the token that follows a prompt
    mass: float  # the mean probability of the class for that token, edited
    rate: float  # the share of the generated tokens that are of the class
    rate_error: float  # the standard error of `rate`, over prompts
    perplexity: float  # of the generated tokens under the unedited model


def effect(
    model: Transformer,
    variables: Variables,
    prompts: Sequence[Sequence[int]],
    edits: Mapping[str, Edit],
    words: np.ndarray,
    *,
    key: Key,
    count: int = 24,
    choose: Choose | None = None,
) -> Effect:
    """Measures an edit by each prompt's next token and by the texts that continue the prompts.

    Args:
      model: the transformer.
      variables: its variables.
      prompts: the tokens of each prompt, all of one length.
      edits: hook -> the edit that every pass applies there; {} measures the unedited model.
      words: bool[V], which tokens are of the class.
      key: the key of the draws; with the same key, edits differ by their effect alone.
      count: the number of tokens to generate for each prompt.
      choose: how a token is drawn; None: from the model's own distribution.

    Raises:
      UserError: if there is no prompt, prompts differ in length, or the class has another size.
    """
    lengths = {len(prompt) for prompt in prompts}
    if len(lengths) != 1 or 0 in lengths:
        raise UserError(
            f"the prompts have the lengths {sorted(lengths)}: give one or more, all equally long"
        )
    words = np.asarray(words, bool)
    if words.shape != (model.config.vocabulary,) or not words.any():
        raise UserError(
            f"the class of words has shape {words.shape} with {words.sum()} tokens: give one bool "
            f"for each of the {model.config.vocabulary} tokens, and let some be True"
        )
    given = padded([list(prompt) for prompt in prompts])
    taps = Taps(wrapped(edits))
    clean, edited = (_next(model, variables, given.tokens, t) for t in (Taps(), taps))
    kl = jnp.sum(jnp.exp(clean) * (clean - edited), axis=-1)
    mass = jnp.sum(jnp.exp(edited) * words[None], axis=-1)
    draw: Any = Sampling() if choose is None else choose
    made = generate(model, variables, given, key, count=count, choose=draw, edits=edits)
    nll = np.asarray(_losses(model, variables, jnp.concatenate([given.tokens, made.tokens], 1)))
    rates = words[np.asarray(made.tokens)].mean(axis=1)
    error = rates.std(ddof=1) / len(rates) ** 0.5 if len(rates) > 1 else 0.0
    perplexity = float(np.exp(nll[:, -count:].mean(dtype=np.float64)))
    return Effect(
        float(kl.mean()), float(mass.mean()), float(rates.mean()), float(error), perplexity
    )


def at_perplexity(curve: Sequence[Effect], perplexity: float) -> float:
    """Returns the rate of a class at a perplexity, interpolated along a curve of effects.

    Args:
      curve: the effects in the order of their strengths, the unedited model first.
      perplexity: the perplexity at which curves are compared.

    Returns:
      The rate at the first crossing of the perplexity; NaN if the curve stays below it.
    """
    for before, after in itertools.pairwise(curve):
        low, high = sorted((before.perplexity, after.perplexity))
        if low <= perplexity <= high:
            room = after.perplexity - before.perplexity
            share = (perplexity - before.perplexity) / room if room else 0.0
            return before.rate + share * (after.rate - before.rate)
    return float("nan")


@functools.partial(jax.jit, static_argnums=0)
def _next(model: Transformer, variables: Variables, tokens: Array, taps: Taps) -> Array:
    """Returns the log-probabilities of the token after each prompt, f32[N, V]."""
    passed: Any = model.apply(variables, tokens, taps=taps, method="hidden")
    logits: Any = model.apply(variables, passed.x[:, -1], method="head")
    return jax.nn.log_softmax(logits, axis=-1)


@functools.partial(jax.jit, static_argnums=0)
def _losses(model: Transformer, variables: Variables, tokens: Array) -> Array:
    """Returns the loss of each next token, f32[N, P - 1]."""
    logits: Any = model.apply(variables, tokens[:, :-1])
    log = jax.nn.log_softmax(logits, axis=-1)
    return -jnp.take_along_axis(log, tokens[:, 1:, None], axis=-1)[..., 0]
