"""A quantised autoencoder of the waveforms of spoken digits, with a prior learned over its codes.

    python -m experiments spoken-digit-wave --manual-dir FOLDER --seeds 3

FOLDER holds the Free Spoken Digit Dataset, 3,000 recordings of ten digits by six speakers. One-
dimensional convolutions encode a sound as one of 200 FSQ codes for every 128 samples. A transformer
learns the prior over the codes given digit, speaker and duration. The decoder draws the sound
sample by sample, as mu-law levels. `bits_per_sample` is an upper bound that includes the bits of
the codes under their prior.

A short run of one seed (`--steps 800 --batch 8 --chunk 100 --samples 20`, 8 minutes on 2 busy CPU
cores) has 5.35 bits per sample, of which 0.02 are for codes. The same decoder without latents has
5.49, a linear predictor of order 16 has 5.97 and a histogram 7.21. After so short a run most sounds
are not words: 13 % of the samples and 20 % of the reconstructions are recognised.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import optax

import aejax as ae
from aejax import evaluation
from aejax.data import Split, changed
from aejax.data.sound.changes import Companded, Duration
from aejax.sound import expand
from aejax.types import Array, Batch, Variables
from experiments.shared import mels, predictors, recognition, spoken, spoken_page
from experiments.shared.experiment import Experiment, Members, Models, Page, Splits
from experiments.shared.numbers import Count
from experiments.shared.place import Place, say
from experiments.shared.spoken import MEL
from experiments.shared.training import Job, Numbers
from experiments.shared.variational import SAMPLE_SEED, TEST_SEED

LEVELS = 256
HOP = 128  # number of samples for each code
SECONDS = 0.64  # 5,120 samples
CODES = (8, 5, 5)  # levels of each coordinate of a code


@dataclasses.dataclass(frozen=True)
class Config(Numbers):
    """The settings of the experiment; each of them is a flag of the command."""

    steps: Count = 6_000  # optimiser steps
    batch: Count = 12  # examples in a batch
    chunk: Count = 250  # steps in one compiled call
    channels: Count = 32  # channels of the autoregressive decoder
    reach: Count = 128  # number of previous samples from which the decoder predicts a sample
    conditioning: Count = 24  # size of the vector that the decoder reads for each code
    learning_rate: float = 3e-3  # learning rate of Adam, which falls to 0
    classifier_steps: Count = 600  # optimiser steps of each classifier
    samples: Count = 50  # samples drawn of each digit


def data(config: Config, place: Place) -> Splits:
    """Returns train, validation and test recordings."""
    return ae.data.sounds(
        "spoken_digit",
        seconds=SECONDS,
        data_dir=place.data_dir,
        manual_dir=place.manual_dir,
        prepared_only=place.prepared_only,
    )


def build(config: Config, event: tuple[int, ...]) -> dict[str, Job]:
    """Returns name -> `Job`: the autoencoder, its decoder without latents, and two classifiers."""
    frames = event[0] // HOP
    tx = optax.adam(optax.cosine_decay_schedule(config.learning_rate, config.steps))

    def likelihood(conditioning: int) -> ae.likelihoods.Wave:
        return ae.likelihoods.Wave(
            ae.likelihoods.LogisticMixture(4, LEVELS),
            HOP,
            conditioning,
            config.channels,
            config.reach,
        )

    wave = ae.Autoencoder(
        ae.nets.Standardised(ae.nets.WaveEncoder((8, 4, 4), (16, 32, 64)), 0.5, 0.1),
        ae.FiniteScalarQuantised(CODES, (frames,)),
        ae.nets.WaveDecoder(config.conditioning),
        ae.priors.Codes(math.prod(CODES)),
        likelihood(config.conditioning),
    )
    alone = ae.Autoencoder(
        ae.nets.MLP(()), ae.Point(1), ae.nets.MLP((), (frames, 1)), likelihood=likelihood(0)
    )
    own = {"average": 0.995, "view": view}
    return {
        "wave": Job(wave, ae.elbo(rate=ae.losses.rate()), tx, **own),
        "alone": Job(alone, ae.reconstruction(), tx, **own),
        **spoken.classifiers(MEL, config.classifier_steps),
    }


def view(split: Split) -> Split:
    """Returns a split of mu-law samples whose context is the digit, speaker and duration."""
    return changed(split, Companded(LEVELS), spoken.Given(), Duration())


def figures(config: Config, trained: Members, splits: Splits) -> Mapping[str, Any]:
    """Computes test results of the autoencoder for each seed, and of two predictors of samples."""
    rows = []
    for i in range(trained["wave"].seeds):
        say(f"seed {config.seed + i}: bits, samples and distances")
        members = {name: evaluation.member(done.variables, i) for name, done in trained.items()}
        rows.append(_measured(config, trained, members, splits))
    found = {name: np.asarray([row[name] for row in rows]) for name in rows[0]}
    train, test = (predictors.Levels.of(view(split)) for split in (splits[0], splits[2]))
    return {
        **found,
        "histogram": {"bits_per_sample": predictors.histogram(train, test)},
        "linear predictor of order 16": {"bits_per_sample": predictors.linear(train, test, 16)},
    }


def _measured(
    config: Config, trained: Members, members: dict[str, Variables], splits: Splits
) -> dict[str, float]:
    train, _, test = splits
    model, variables = trained["wave"].job.model, members["wave"]
    hearing = spoken.Hearing(
        MEL,
        *(recognition.reader(trained[n].job.model, members[n]) for n in ("digit", "speaker")),
    )
    seen = view(test)
    lengths = np.asarray(test.arrays["length"])
    per_sample = len(test) / lengths.sum() / math.log(2.0)
    bound = evaluation.means(
        evaluation.elbo(model, variables, seen, jax.random.key(TEST_SEED), batch=50)
    )
    alone = distortion(trained["alone"].job.model, members["alone"], seen)
    found = {
        "bits_per_sample": -float(bound["elbo"]) * per_sample,
        "bits_per_sample_of_codes": float(bound["rate"]) * per_sample,
        "bits_per_sample_without_latents": alone * per_sample,
        **spoken.accuracies(hearing, test),
    }
    asked = spoken.prompts(train, config.samples, test.event[0])
    drawn = sounds(model, variables, jax.random.key(SAMPLE_SEED), asked.context)
    found |= spoken.sampled(hearing, drawn, asked, test, train)
    batch = next(seen.batches(len(seen)))
    rebuilt = reconstructed(model, variables, jax.random.key(SAMPLE_SEED), batch)
    heard = hearing.heard(rebuilt, lengths)
    right = recognition.recognised(hearing.digit, heard, test.factors["digit"])
    found["reconstruction_recognised"] = float(right.mean())
    found["stft_distance"] = spoken.distance(mels.waves(test), rebuilt, lengths)
    return found


def distortion(model: Any, variables: Variables, split: Split) -> float:
    """Returns the mean of -log p(x | z) over a split, in nats per sound."""

    def run(bound: Any, batch: Batch) -> Array:
        return ae.losses.distortion(bound, bound(batch))

    step = jax.jit(lambda v, batch: model.apply(v, batch, method=run))
    return float(np.concatenate([step(variables, b) for b in split.batches(50)]).mean())


def sounds(model: Any, variables: Variables, key: Any, context: np.ndarray) -> np.ndarray:
    """Draws codes from the prior given the context, and sounds from them, f32[N, T] in [-1, 1]."""

    def run(bound: Any, key: Any, context: Array) -> Array:
        first, second = jax.random.split(key)
        prediction = bound.sample(first, context.shape[0], context)
        return expand(bound.likelihood.sample(second, prediction)[..., 0])

    step = jax.jit(lambda v, k, c: model.apply(v, k, c, method=run))
    parts = np.array_split(context, max(1, len(context) // 250))
    keys = jax.random.split(key, len(parts))
    return np.concatenate(
        [np.asarray(step(variables, k, part)) for k, part in zip(keys, parts, strict=True)]
    )


def reconstructed(model: Any, variables: Variables, key: Any, batch: Batch) -> np.ndarray:
    """Encodes sounds and draws sounds from their codes, f32[N, T] in [-1, 1]."""

    def run(bound: Any, key: Any, batch: Batch) -> Array:
        prediction = bound(batch).prediction
        return expand(bound.likelihood.sample(key, prediction)[..., 0])

    return np.asarray(
        jax.jit(lambda v, k, b: model.apply(v, k, b, method=run))(variables, key, batch)
    )


def page(config: Config, models: Models, splits: Splits) -> Page:
    """Builds the report page: samples of each digit, and recordings with reconstructions."""
    train, _, test = splits
    model, variables = models["wave"]
    asked = spoken.prompts(train, 2, test.event[0])
    drawn = sounds(model, variables, jax.random.key(SAMPLE_SEED), asked.context)
    shown = spoken.some(test, spoken.of_each_digit(test)[:4])
    rebuilt = reconstructed(
        model, variables, jax.random.key(SAMPLE_SEED), next(view(shown).batches(4))
    )
    kinds = {"recording": mels.waves(shown), "codes": rebuilt}
    sections = [
        spoken_page.samples(drawn, asked, MEL.rate),
        spoken_page.side_by_side(kinds, shown, MEL.rate),
    ]
    return Page("Waveforms of spoken digits", __doc__ or "", sections)


EXPERIMENT = Experiment(
    name="spoken-digit-wave", config=Config, data=data, build=build, figures=figures, page=page
)
