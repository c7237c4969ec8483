"""A variational autoencoder of the mel spectrograms of a folder of sounds.

    python -m experiments sounds-vae --dataset FOLDER --rate 16000 --mix

FOLDER holds .wav or .flac files. Its subfolders, if there are any, are classes, on which the model
is conditioned. Sounds longer than `--seconds` are cut. The model is also conditioned on the
duration of a sound.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import optax

import aejax as ae
from aejax import evaluation
from aejax.data import Split, changes
from aejax.errors import UserError
from aejax.evaluation.examples import varied
from aejax.report import Clip, Section
from aejax.sound import Mel
from aejax.sound.mel import frame_size
from experiments.shared import mels
from experiments.shared.experiment import Experiment, Members, Models, Page, Splits
from experiments.shared.numbers import Count
from experiments.shared.place import Place
from experiments.shared.training import Job, Numbers
from experiments.shared.variational import SAMPLE_SEED, TEST_SEED

SHOWN = 8  # number of sounds in each section of the report page
PATH = 5  # number of points of the interpolation, including both ends


@dataclasses.dataclass(frozen=True)
class Config(Numbers):
    """The settings of the experiment; each of them is a flag of the command."""

    dataset: str = ""  # path of a folder of sounds
    steps: Count = 2_000  # optimiser steps
    batch: Count = 16  # examples in a batch
    chunk: Count = 250  # steps in one compiled call
    rate: Count = 16_000  # sampling rate in hertz that all sounds are converted to
    seconds: float = 1.024  # length to which sounds are padded or cut
    mix: bool = False  # average the channels of files that have several
    width: Count = 16  # channels of the first convolution
    latents: Count = 16  # number of latents
    learning_rate: float = 2e-3  # learning rate of Adam, which falls to 0
    warmup: int = 300  # steps over which the weight of the rate grows from 0


def spectrogram(rate: int) -> Mel:
    """Returns the settings of a mel spectrogram: 40 bands, and a hop of a quarter of a frame."""
    size = frame_size(rate)
    return Mel(rate, size, size // 4, bands=40)


def data(config: Config, place: Place) -> Splits:
    """Returns train, validation and test sounds."""
    if not config.dataset:
        raise UserError("sounds-vae needs a folder of sounds: give it by --dataset")
    return ae.data.sounds(
        pathlib.Path(config.dataset),
        rate=config.rate,
        seconds=config.seconds,
        mix=config.mix,
        prepared_only=place.prepared_only,
    )


def view(config: Config, split: Split) -> Split:
    """Returns a split of spectrograms; its context is the class, if any, and the duration."""
    classes = len(split.classes)
    given = (changes.Labels(classes),) if classes else ()
    return mels.view(spectrogram(config.rate), *given)(split)


def build(config: Config, event: tuple[int, ...]) -> dict[str, Job]:
    """Returns {"vae": the `Job`, that is the autoencoder and its training}."""
    if not config.seconds > 0:
        raise UserError(f"--seconds is {config.seconds}: give a time above 0")
    mel = spectrogram(config.rate)
    sizes = mels.Sizes(-(-event[0] // mel.hop), mel.bands, config.width, config.latents)
    beta = optax.linear_schedule(0.0, 1.0, max(config.warmup, 1))
    schedule = optax.cosine_decay_schedule(config.learning_rate, config.steps)
    return {
        "vae": Job(
            mels.vae(sizes),
            mels.objective(beta),
            optax.adam(schedule),
            average=0.998,
            view=lambda split: view(config, split),
        )
    }


def figures(config: Config, trained: Members, splits: Splits) -> Mapping[str, Any]:
    """Computes the ELBO, the NLL, active units and the mean square error on the test split."""
    done, key = trained["vae"], jax.random.key(TEST_SEED)
    model, test = done.job.model, done.job.view(splits[2])

    def own(variables: Any) -> dict[str, Any]:
        error = evaluation.means(evaluation.reconstruction(model, variables, test))
        return {
            **evaluation.means(evaluation.elbo(model, variables, test, key, draws=10)),
            **evaluation.means(evaluation.nll(model, variables, test, key, draws=100)),
            "active_units": evaluation.active_units(model, variables, test).count,
            "mean_square_error": error["mean_square"],
        }

    return evaluation.over_seeds(own, done.variables, done.seeds)


def page(config: Config, models: Models, splits: Splits) -> Page:
    """Builds the report page: samples, test sounds with reconstructions, and an interpolation."""
    model, variables = models["vae"]
    train, _, test = splits
    mel, rate = spectrogram(config.rate), config.rate
    shown = test.take(len(test))
    rows = varied(test.labels, SHOWN, len(test))
    batch = next(view(config, shown).batches(len(shown)))
    batch = jax.tree.map(lambda a: np.asarray(a)[rows], batch)
    lengths = np.asarray(test.arrays["length"])[rows]
    names = [_named(test, i) for i in rows]
    real = mels.waves(test)[rows]
    rebuilt = mels.sounds(mel, evaluation.decoding.reconstruct(model, variables, batch), lengths)
    ceiling = mels.sounds(mel, batch.x, lengths)
    drawn = mels.means(model, variables, jax.random.key(SAMPLE_SEED), batch.context)
    clips: dict[str, list[Clip]] = {"drawn": [], "rebuilt": [], "path": []}
    for i, made in enumerate(mels.sounds(mel, drawn, lengths)):
        clips["drawn"].append(Clip(f"drawn-{i}", names[i], made[: lengths[i]], rate))
    for i, name in enumerate(names):
        kinds = (("recording", real), ("Griffin-Lim of its mel", ceiling), ("VAE", rebuilt))
        for k, (kind, sounds) in enumerate(kinds):
            caption = f"{name}: {kind}"
            clips["rebuilt"].append(
                Clip(f"rebuilt-{i}-{k}", caption, sounds[i, : lengths[i]], rate)
            )
    if len(rows) > 1:
        clips["path"] = _path(model, variables, batch, mel, lengths, names)
    sections = [
        Section("Samples", "Each has the duration of a test sound.", clips=clips["drawn"]),
        Section(
            "Reconstructions",
            "Of each three clips, the first is the recording.",
            clips=clips["rebuilt"],
        ),
        Section(
            "Between two sounds",
            "Codes are interpolated along a straight line.",
            clips=clips["path"],
        ),
    ]
    title = f"Sounds of {train.name.rpartition('/')[0]}"
    return Page(title, __doc__ or "", [section for section in sections if section.clips])


def _path(
    model: Any, variables: Any, batch: ae.Batch, mel: Mel, lengths: np.ndarray, names: list[str]
) -> list[Clip]:
    """Returns players for the page: an interpolation from the first test sound to the second."""
    shares = np.linspace(0.0, 1.0, PATH)
    first, second = (jax.tree.map(lambda a, i=i: a[i : i + 1], batch) for i in (0, 1))
    size = np.round((1 - shares) * lengths[0] + shares * lengths[1]).astype(np.int32)
    made = mels.sounds(mel, mels.between(model, variables, first, second, shares)[0], size)
    return [
        Clip(
            f"path-{k}",
            f"{100 * share:.0f} % of the way from {names[0]} to {names[1]}",
            made[k, : size[k]],
            mel.rate,
        )
        for k, share in enumerate(shares)
    ]


def _named(split: Split, i: int) -> str:
    label = "" if split.labels is None else f" ({split.classes[split.labels[i]]})"
    return f"test sound {i}{label}"


EXPERIMENT = Experiment(
    name="sounds-vae",
    config=Config,
    data=data,
    build=build,
    figures=figures,
    page=page,
    sound=lambda config: spectrogram(config.rate),
)
