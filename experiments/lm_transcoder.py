"""Transcoders of a language model's MLP: sparse codes that replace it, and the loss this costs.

    python -m experiments fetch-lm models
    python -m experiments lm-transcoder --model models/SmolLM2-135M-Instruct.Q4_1.gguf \\
        --manual-dir PATH

It collects what the MLP of one layer reads and writes, trains a transcoder and a skip transcoder
(which adds a linear map from the MLP's input) that predict the MLP's output from its input, and
measures how much of the model's cross-entropy and KL divergence is recovered if they replace the
MLP, against ablations of the MLP's output. For comparison, the best linear map and an untrained
transcoder are measured too.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import aejax as ae
from aejax import recipes
from aejax.errors import UserError
from experiments.shared import inside, inside_page, lm
from experiments.shared.codes import job
from experiments.shared.experiment import Experiment, Members, Models, Page, Splits
from experiments.shared.place import Place
from experiments.shared.training import Job


@dataclasses.dataclass(frozen=True)
class Config(lm.LanguageNumbers):
    """The settings of the experiment; each is a flag of the command."""

    layer: int = 15  # the layer whose MLP is replaced, from 0


def hooks(config: Config) -> inside.Hooks:
    """Returns the hooks before and after the MLP."""
    if config.layer < 0:
        raise UserError(f"--layer is {config.layer}: give 0 or more")
    return inside.Hooks(f"mlp_in.{config.layer}", f"mlp_out.{config.layer}")


def data(config: Config, place: Place) -> Splits:
    """Checks the settings, and returns the activations as splits, after collecting them if needed.

    The settings are checked first, because collecting takes long.
    """
    build(config, (1,))
    reads, writes = hooks(config)
    return lm.data(config, place, reads, writes, context=reads)


def build(config: Config, event: tuple[int, ...]) -> dict[str, Job]:
    """Returns name of a transcoder -> its `Job` (a model and its training)."""
    lm.check_sizes(config)
    how: dict[str, Any] = {"l0": float(config.l0), "steps": config.steps}
    return {
        "transcoder": job(recipes.transcoder(event, config.latents, **how)),
        "skip-transcoder": job(recipes.skip_transcoder(event, config.latents, **how)),
    }


def figures(config: Config, trained: Members, splits: Splits) -> Mapping[str, Any]:
    """Computes the test results of both transcoders and of what they are compared with."""
    found = inside.readings(trained, splits[0], hooks(config))
    return inside.judged(config, found, splits, hooks(config))


def page(config: Config, models: Models, splits: Splits) -> Page:
    """Builds the report page, which shows how often latents are active."""
    title = f"Transcoders of the MLP of layer {config.layer}"
    return Page(title, __doc__ or "", [inside_page.frequencies(models, splits[2])])


EXPERIMENT = Experiment(
    name="lm-transcoder",
    config=Config,
    data=data,
    build=build,
    figures=figures,
    page=page,
    findings=inside_page.findings,
    curves=inside_page.curves,
    rules=ae.dictionary_rules,
)
