"""Report sections that describe stored activations of a language model.

Read these sections before you train a dictionary on the activations.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from aejax.data.activations.index import Index
from aejax.language.survey import SINK, Survey
from aejax.report.drawing.heat import heat
from aejax.report.page import Picture, Section, Table

SHOWN = 12  # the largest number of attention sinks in the table


def activation_sections(survey: Survey, index: Index, word: Callable[[int], str]) -> list[Section]:
    """Builds the sections on norms, attention sinks, layers and the activation store.

    Args:
      survey: the statistics of the model's residual stream.
      index: the index of the activation store, with the mean and scale of its activations.
      word: a function that returns the text of a token index.
    """
    return [_norms(survey), _sinks(survey, word), _layers(survey), _store(index)]


def _norms(survey: Survey) -> Section:
    positions = survey.norms.shape[1]
    early = [0, 1, 2, 3, *(p for p in (7, 15, 31, 63, 127, 255) if p < positions)]
    rows = [
        (layer, *(f"{survey.norms[layer, p]:.4g}" for p in early if p < positions))
        for layer in range(len(survey.norms))
    ]
    return Section(
        "Norms by layer and position",
        f"The mean norm of the residual stream after each block, over {survey.tokens:,} tokens.",
        [
            Picture(
                "norms",
                "Mean norm of the residual stream, by layer and by position in the row. A bright "
                "column is an attention sink: its tokens would dominate a squared error.",
                lambda theme: heat(survey.norms, "norm of resid_post", "layer", "position", theme),
            )
        ],
        Table(("layer", *(f"position {p}" for p in early if p < positions)), rows),
    )


def _sinks(survey: Survey, word: Callable[[int], str]) -> Section:
    rows = [
        (repr(word(s.token)), s.position, s.count, f"{s.ratio:.1f}") for s in survey.sinks[:SHOWN]
    ]
    most = survey.share[survey.layer]
    text = (
        f"A token counts as a sink if its norm is above {SINK:g} times its layer's median norm. At "
        f"layer {survey.layer}, which has the most sinks, they are {most:.2%} of the tokens."
    )
    if not rows:
        return Section("Attention sinks", text + " There are no sinks.")
    header = ("token", "position", "times", "norm / median")
    return Section("Attention sinks", text, table=Table(header, rows))


def _layers(survey: Survey) -> Section:
    rows = [
        (
            layer,
            f"{survey.median[layer]:.4g}",
            f"{np.nanmax(survey.norms[layer]):.4g}",
            f"{survey.share[layer]:.2%}",
            f"{survey.gamma[layer]:.3f}",
            f"{survey.kurtosis[layer]:.2f}",
        )
        for layer in range(len(survey.norms))
    ]
    header = ("layer", "median norm", "largest at a position", "sinks", "gamma", "kurtosis")
    return Section(
        "Layers",
        "gamma is ||mean|| / ||std||: if it is large, subtract the mean before training. Kurtosis "
        "is the mean over dimensions of E(x - mean)^4 / var^2, which is 3 for a Gaussian; it is "
        "large if a few dimensions have outliers. Both leave sinks out.",
        table=Table(header, rows),
    )


def _store(index: Index) -> Section:
    rows = [
        (
            hook.name,
            hook.size,
            hook.dtype,
            f"{hook.moments.mean_norm:.4g}",
            f"{hook.moments.scale:.4g}",
            f"{hook.moments.gamma:.3f}",
        )
        for hook in index.hooks
    ]
    left_out = ", ".join(f"{count:,} by {reason}" for reason, count in index.dropped.items())
    return Section(
        "The store",
        f"The store holds {index.tokens:,} of {index.offered:,} tokens in {len(index.shards)} "
        f"shards; {left_out} were left out. Scale is the root mean square of an element's "
        "deviation from its mean.",
        table=Table(("hook", "size", "dtype", "mean norm", "scale", "gamma"), rows),
    )
