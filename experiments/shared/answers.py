"""Draws several answers to each of some prompts, and measures how various and usual they are."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from aejax import language as lm
from aejax.data import Split
from aejax.data.text.coding import decode
from aejax.data.text.pairs import prompts_of
from aejax.data.text.tokens import prompts
from aejax.errors import UserError
from aejax.evaluation import texts as measures
from aejax.evaluation.batches import Static
from aejax.report import Picture, Section
from aejax.report.drawing.style import LIGHT, WIDTH, Theme, canvas, legend, panel, title
from aejax.types import Array, Key, Variables
from experiments.shared import texts

MEASURES = ("distinct_2", "self_bleu", "coverage", "coverage_of_train")
GRID = 50  # the number of perplexities at which two curves are compared


class Asked(NamedTuple):
    """Prompts with several known answers, and answers to other prompts."""

    prompts: list[str]
    known: list[list[list[str]]]  # the words of the known answers to each prompt
    others: list[list[str]]  # the words of answers to other prompts


def asked(split: Split, count: int, others: int) -> Asked:
    """Returns the first `count` prompts of a split with two or more answers, in a fixed shuffle.

    Raises:
      UserError: if no prompt has two answers, or there are too few answers to other prompts.
    """
    known: dict[str, list[list[str]]] = {}
    answers = texts.words(texts.contents(split))
    for prompt, answer in zip(prompts_of(split), answers, strict=True):
        if answer not in known.setdefault(prompt, []):
            known[prompt].append(answer)
    order = np.random.default_rng(0).permutation(len(known))
    shuffled = [list(known)[i] for i in order]
    chosen = [prompt for prompt in shuffled if len(known[prompt]) > 1][:count]
    rest = [known[prompt][0] for prompt in shuffled if prompt not in chosen][:others]
    if not chosen or not rest:
        raise UserError(
            f"{split.name} has {len(chosen)} prompts with two answers or more, and {len(rest)} "
            "others: give more prompts, of which some have several answers"
        )
    return Asked(chosen, [known[prompt] for prompt in chosen], rest)


def answers(
    model: Any,
    variables: Variables,
    key: Key,
    given: Sequence[str],
    count: int,
    choose: Any = jax.random.categorical,
) -> list[list[str]]:
    """Draws `count` answers to each prompt, each from a latent of its own given the prompt.

    Args:
      model: a model of answers whose context is the bytes of the prompt.
      variables: its variables.
      key: the key of the draws.
      given: the prompts.
      count: the number of answers to each.
      choose: the function by which a token is drawn, as in `likelihoods.Text.drawn`.
    """
    context = np.repeat(prompts(given), count, axis=0)
    rows = np.asarray(_drawn(Static(model), choose, variables, key, context))
    found = decode(model.likelihood.text_coding(), rows)
    return [found[i : i + count] for i in range(0, len(found), count)]


@functools.partial(jax.jit, static_argnums=(0, 1))
def _drawn(static: Static, choose: Any, variables: Variables, key: Key, context: Array) -> Array:
    bound = static.model.bind(variables)
    first, second = jax.random.split(key)
    prediction = bound.sample(first, len(context), jnp.asarray(context))
    return bound.likelihood.drawn(prediction, second, choose)


def ways(temperatures: Sequence[float], shares: Sequence[float]) -> dict[str, Any]:
    """Returns name -> the function that draws a token: temperatures, and nucleus sampling.

    Raises:
      UserError: if there is no temperature or share, or one is out of range.
    """
    if not temperatures or not shares:
        raise UserError("--temperatures or --shares is empty: give one number or more of each")
    warm = {f"temperature {t:g}": lm.Sampling(t) for t in temperatures}
    return warm | {f"top-p {p:g}": lm.Sampling(1.0, top_p=p) for p in shares}


def measured(found: Sequence[Sequence[str]], given: Asked, judge: texts.Judge) -> dict[str, float]:
    """Measures the answers to each prompt: usual ones, different ones, and those that are known.

    Distinct-2 and self-BLEU are of the answers to one prompt, and are averaged over prompts.
    """
    each = [texts.words(some) for some in found]
    spoken = [text for some in each for text in some if text]
    long = [some for some in each if any(len(text) > 1 for text in some)]
    return {
        "sample_perplexity": judge.model.perplexity(spoken) if spoken else float("nan"),
        "distinct_2": _mean([measures.distinct(some, 2) for some in long]),
        "self_bleu": _mean([measures.self_bleu(some) for some in each]),
        "coverage": covered(found, given),
    }


def covered(found: Sequence[Sequence[str]], given: Asked) -> float:
    """Returns the mean share of a prompt's known answers that the found ones express."""
    pairs = zip(found, given.known, strict=True)
    return _mean([measures.coverage(texts.words(f), known, given.others) for f, known in pairs])


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else float("nan")


def at_equal_perplexity(
    one: Sequence[Mapping[str, float]], other: Sequence[Mapping[str, float]]
) -> dict[str, float]:
    """Returns the mean difference of each measure between two curves over the log perplexity.

    The curves are interpolated linearly between their points, and are compared where both are
    defined; NaN if that is nowhere.
    """
    curves = [_by_perplexity(rows) for rows in (one, other)]
    low = max(float(np.log(rows[0]["sample_perplexity"])) for rows in curves)
    high = min(float(np.log(rows[-1]["sample_perplexity"])) for rows in curves)
    if not low < high:
        return dict.fromkeys(MEASURES, float("nan"))
    grid = np.linspace(low, high, GRID)
    found = {}
    for name in MEASURES:
        first, second = (
            np.interp(
                grid,
                [np.log(row["sample_perplexity"]) for row in rows],
                [row[name] for row in rows],
            )
            for rows in curves
        )
        found[name] = float(np.mean(first - second))
    return found


def _by_perplexity(rows: Sequence[Mapping[str, float]]) -> list[Mapping[str, float]]:
    return sorted(rows, key=lambda row: row["sample_perplexity"])


def curves_section(groups: Mapping[str, Sequence[Mapping[str, float]]]) -> Section:
    """Builds the section with a plot of each measure over the perplexity, a line for each group."""
    pictures = [
        Picture(
            name.replace("_", "-"),
            f"{name.replace('_', ' ')} of ten answers, over their perplexity under n-grams.",
            functools.partial(_plot, groups, name),
        )
        for name in MEASURES
    ]
    text = "Each point is one temperature, or one share of nucleus sampling. Answers at the left "
    text += "are usual, and those at the right are unusual."
    return Section("Variety over perplexity", text, pictures)


def _plot(
    groups: Mapping[str, Sequence[Mapping[str, float]]], name: str, theme: Theme = LIGHT
) -> Any:
    figure = canvas(WIDTH, 2.9, theme)
    axes = panel(figure, (0.62, 0.12, 0.5, 0.38), theme)
    for (label, rows), colour in zip(groups.items(), theme.series, strict=False):
        line = _by_perplexity(rows)
        x, y = ([row[key] for row in line] for key in ("sample_perplexity", name))
        axes.plot(x, y, color=colour, lw=1.5, label=label, marker="o", ms=4)
    axes.set_xscale("log")
    axes.grid(axis="y", color=theme.rule, lw=0.6)
    axes.set_xlabel("perplexity under n-grams", color=theme.muted)
    title(axes, name.replace("_", " "), theme)
    legend(axes, theme, loc="best")
    return figure
