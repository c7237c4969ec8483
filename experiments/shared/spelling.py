"""The first-letter task: words, the question for their first letters, and the model's answers."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from aejax import language as lm
from aejax.errors import UserError
from aejax.types import Array, Variables

LETTERS = "abcdefghijklmnopqrstuvwxyz"
QUESTION = " has the first letter:"
SHOWN = 3  # the first words of a row are examples for the model; its answers for them do not count
BATCH = 16  # rows in one forward pass


class Spelled(NamedTuple):
    """The activations at N words, and how often the model knows the first letter of a word."""

    x: np.ndarray  # f32[N, D], the activations at the words
    letters: np.ndarray  # i32[N], from 0 for a
    accuracy: float  # the share of words whose letter is the likeliest of the 26 answers
    words: int  # the number of answers that count: those after the first SHOWN of each row


def spelled(
    model: lm.Transformer,
    variables: Variables,
    tokenizer: lm.Tokenizer,
    hook: str,
    count: int,
    length: int,
    seed: int = 0,
) -> Spelled:
    """Asks a language model for the first letters of random words, each of which is one token.

    A row of tokens contains several words, each followed by the question and the right answer, as
    in "cat has the first letter: C". The earlier words of a row are examples for the later ones.

    Args:
      model: the transformer.
      variables: its variables.
      tokenizer: its tokenizer.
      hook: the hook whose values are read at the words.
      count: the number of words.
      length: the number of tokens in a row.
      seed: the seed of the choice of words.

    Raises:
      UserError: if the vocabulary has too few words, or a letter is not one token.
    """
    question, end = tokenizer.encode(QUESTION), tokenizer.encode("\n")
    answers = [tokenizer.encode(f" {letter.upper()}") for letter in LETTERS]
    if any(len(ids) != 1 for ids in answers):
        raise UserError(
            "the tokenizer does not have one token for each capital letter, which the first-letter "
            "task needs: use another model, or leave the task out by --words 0"
        )
    known = words(tokenizer)
    if len(known) < count:
        raise UserError(
            f"the first-letter task needs {count} words of one token, but the vocabulary has "
            f"{len(known)}: give at most this number by --words"
        )
    chosen = np.random.default_rng(seed).permutation(len(known))[:count]
    size = 2 + len(question) + len(end)
    each = length // size
    rows = -(-count // each)
    tokens = np.zeros((-(-rows // BATCH) * BATCH, length), np.int32)
    position = np.full_like(tokens, -1)
    where, asked, letters = [], [], []
    for i, number in enumerate(chosen):
        row, start = i // each, (i % each) * size
        token, letter = known[number]
        tokens[row, start : start + size] = [token, *question, *answers[letter], *end]
        position[row, : start + size] = np.arange(start + size)
        where.append((row, start))
        asked.append((row, start + len(question), i % each >= SHOWN))
        letters.append(letter)
    run = _runner(model, hook, np.array([ids[0] for ids in answers]))
    seen = [
        jax.device_get(run(variables, tokens[i : i + BATCH], position[i : i + BATCH]))
        for i in range(0, len(tokens), BATCH)
    ]
    x, said = (np.concatenate(parts) for parts in zip(*seen, strict=True))
    rows_, columns = np.array(where).T
    questions = np.array(asked)
    right = said[questions[:, 0], questions[:, 1]] == np.array(letters)
    counts = questions[:, 2] > 0
    accuracy = float(right[counts].mean()) if counts.any() else float("nan")
    return Spelled(x[rows_, columns], np.array(letters, np.int32), accuracy, int(counts.sum()))


def words(tokenizer: lm.Tokenizer) -> list[tuple[int, int]]:
    """Returns (token, index of its first letter) for all tokens that are a lower-case word."""
    found = []
    for token in range(tokenizer.size):
        text = tokenizer.token(token)
        word = text[1:]
        plain = word.isascii() and word.isalpha() and word.islower()
        if text[:1] == " " and len(word) > 2 and plain:
            found.append((token, LETTERS.index(word[0])))
    return found


def _runner(model: lm.Transformer, hook: str, answers: np.ndarray) -> Any:
    """Returns a compiled function that reads a hook and the model's answers.

    It maps (variables, tokens i32[B, P], position i32[B, P]) to the values at the hook,
    f32[B, P, D], and the index of the letter that most likely follows each token, i32[B, P].
    """

    @jax.jit
    def run(variables: Variables, tokens: Array, position: Array) -> tuple[Array, Array]:
        taps = lm.Taps(reads=(hook,))
        passed: Any = model.apply(variables, tokens, position, taps=taps, method="hidden")
        logits: Any = model.apply(variables, passed.x, method="head")
        return passed.seen[hook], jnp.argmax(logits[..., answers], axis=-1)

    return run
