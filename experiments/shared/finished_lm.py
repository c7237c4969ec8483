"""Opens a finished run of a dictionary of a language model, together with that model."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any, NamedTuple

import aejax as ae
from aejax import language as lm
from aejax.data.data_dir import check_trusted
from aejax.data.text import NAMED
from aejax.errors import UserError
from experiments.shared.experiment import named, recorded
from experiments.shared.lm import LanguageNumbers


class Opened(NamedTuple):
    """A dictionary, the language model that it was trained on, and the settings of the run."""

    dictionary: ae.dictionary.Plain
    model: lm.Transformer
    variables: Any
    tokenizer: lm.Tokenizer
    config: Any  # the experiment's config
    experiment: Any
    reads: str  # the hook whose values the dictionary encodes
    writes: str  # the hook whose values it reconstructs


def open_dictionary(
    run: pathlib.Path, model: pathlib.Path | None = None, seed: int = 0, own: bool = False
) -> Opened:
    """Opens a run of lm-sae or lm-transcoder, or the folder of one of its dictionaries.

    Args:
      run: the folder, such as runs/lm-sae or runs/lm-sae/batchtopk.
      model: the language model's file or folder; None: the one that the run used.
      seed: the index of the dictionary if several seeds were trained.
      own: whether the run is the user's own, so that the paths in its config.json are followed.

    Raises:
      UserError: if another experiment wrote the run, or if the language model is missing or not
        the one that the dictionary was trained on.
    """
    experiment = named(run)
    if not issubclass(experiment.config, LanguageNumbers):
        raise UserError(
            f"{run} is a run of {experiment.name}: give the folder of a run of lm-sae or "
            "lm-transcoder"
        )
    config = recorded(run, experiment)
    for name in config.corpora:
        check_trusted(name, name not in NAMED and not own)
    if model is not None:
        config = dataclasses.replace(config, model=str(model))
    else:
        check_trusted(config.model, not own)
    dictionary = lm.load_dictionary(run, seed)
    if dictionary.source is None or dictionary.source.reads is None:
        raise UserError(f"{run} does not record the hook that its dictionary reads: train it again")
    lm.check_model(dictionary, config.model)
    reads = dictionary.source.reads
    return Opened(
        dictionary,
        *lm.load(config.model),
        config,
        experiment,
        reads,
        dictionary.source.writes or reads,
    )
