"""Scores of generated sounds of spoken digits, by independent classifiers and by distances.

Classifiers of digit and speaker are trained on the spectrograms of real recordings alone. A model's
samples are turned into sounds first, and the classifiers read the spectrograms of these sounds.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import aejax as ae
from aejax.data import Split, changed
from aejax.data.sound import changes as sound_changes
from aejax.data.sound import spoken_digit
from aejax.data.split import fingerprint
from aejax.evaluation.generation import frechet_distance, spread
from aejax.sound import Mel, stft_distance
from aejax.types import Batch, Key
from experiments.shared import recognition
from experiments.shared.mels import SCALE, features_of, spectrograms, waves
from experiments.shared.training import Job

NAMES = spoken_digit.SPEAKERS  # the speakers, by index
DIGITS, SPEAKERS = 10, len(NAMES)
MEL = Mel(rate=8_000, size=512, hop=128, bands=40)  # how spectrograms of recordings are computed
PROMPT_SEED = 16  # seed of the digits, speakers and durations of samples


@dataclasses.dataclass(frozen=True)
class Column:
    """Sets the target to a known factor of each recording, i32[B], which a classifier predicts."""

    name: str  # the name of the factor: "digit" or "speaker"

    def __call__(self, key: Key | None, batch: Batch, arrays: Mapping[str, Any]) -> Batch:
        """Returns the batch with the factor as target, and without context and mask."""
        target = jnp.asarray(arrays[f"label_{self.name}"], jnp.int32)
        return batch._replace(target=target, context=None, mask=None)


@dataclasses.dataclass(frozen=True)
class Given:
    """Sets the context to digit and speaker, one-hot; a speaker held out of training is zeros."""

    held_out: int | None = None  # the index of that speaker

    def __call__(self, key: Key | None, batch: Batch, arrays: Mapping[str, Any]) -> Batch:
        """Returns the batch with digit and speaker, one-hot, as the context."""
        context = prompt(arrays["label_digit"], arrays["label_speaker"], self.held_out)
        return batch._replace(context=context)


def prompt(digit: Any, speaker: Any, held_out: int | None = None) -> jax.Array:
    """Returns the one-hot vectors of digits and speakers, f32[N, DIGITS + SPEAKERS]."""
    who = jax.nn.one_hot(speaker, SPEAKERS)
    if held_out is not None:
        who = jnp.where((jnp.asarray(speaker) == held_out)[:, None], 0.0, who)
    return jnp.concatenate([jax.nn.one_hot(digit, DIGITS), who], axis=-1)


def classifiers(mel: Mel, steps: int) -> dict[str, Job]:
    """Returns the jobs that train the classifiers "digit" and "speaker" on spectrograms."""
    jobs = {}
    for name, classes in (("digit", DIGITS), ("speaker", SPEAKERS)):
        job = recognition.job(classes, steps)
        scaled = ae.nets.Standardised(job.model.encoder, *SCALE)
        jobs[name] = job._replace(
            model=job.model.clone(encoder=scaled),
            view=lambda split, name=name: changed(
                sound_changes.spectrograms(split, mel), Column(name)
            ),
        )
    return jobs


class Prompts(NamedTuple):
    """What N samples are conditioned on: the digit, the speaker and the duration of each."""

    digit: np.ndarray  # i32[N]
    speaker: np.ndarray  # i32[N]
    length: np.ndarray  # i32[N], samples
    context: np.ndarray  # f32[N, DIGITS + SPEAKERS + 1], the context that the model receives


def prompts(train: Split, each: int, samples: int) -> Prompts:
    """Draws what samples are conditioned on: `each` digits, speakers and durations per digit.

    Each (digit, speaker, duration) is that of a train recording of the digit, drawn at random.

    Args:
      train: the train recordings.
      each: the number of samples of each digit.
      samples: the number of audio samples to which all recordings are padded. The context has the
        duration as a share of this number.
    """
    random = np.random.default_rng(PROMPT_SEED)
    digits = train.factors["digit"]
    rows = [random.choice(np.flatnonzero(digits == d), each) for d in range(DIGITS)]
    chosen = np.concatenate(rows)
    digit, speaker = digits[chosen], train.factors["speaker"][chosen]
    length = np.asarray(train.arrays["length"])[chosen]
    share = (length / samples).astype(np.float32)[:, None]
    context = np.concatenate([np.asarray(prompt(digit, speaker)), share], axis=1)
    return Prompts(digit, speaker, length, context)


class Hearing(NamedTuple):
    """The trained classifiers of digit and of speaker, for one seed."""

    mel: Mel
    digit: recognition.Classifier
    speaker: recognition.Classifier

    def heard(self, sounds: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """Computes the spectrograms of sounds f32[N, T] that the classifiers read."""
        return spectrograms(self.mel, sounds, lengths)


def of_each_digit(split: Split) -> np.ndarray:
    """Returns the index of one recording of each digit, i64[DIGITS], by different speakers."""
    digit, speaker = split.factors["digit"], split.factors["speaker"]
    there = np.unique(speaker)
    wanted = [(d, there[d % len(there)]) for d in range(DIGITS)]
    return np.asarray([np.flatnonzero((digit == d) & (speaker == s))[0] for d, s in wanted])


def some(split: Split, rows: np.ndarray) -> Split:
    """Returns a split of the recordings with the indices `rows`."""
    arrays = split.rows(rows)
    return dataclasses.replace(split, arrays=arrays, fingerprint=fingerprint(arrays))


def described(split: Split, i: int) -> str:
    """Returns a description of recording i, such as "7 by theo"."""
    return f"{split.factors['digit'][i]} by {NAMES[split.factors['speaker'][i]]}"


def accuracies(hearing: Hearing, test: Split) -> dict[str, float]:
    """Returns the accuracy of each classifier on real recordings, by the result's name."""
    real = hearing.heard(waves(test), test.arrays["length"])
    return {
        f"classifier_{name}_accuracy": float(
            recognition.recognised(getattr(hearing, name), real, test.factors[name]).mean()
        )
        for name in ("digit", "speaker")
    }


def sampled(
    hearing: Hearing, sounds: np.ndarray, asked: Prompts, real: Split, other: Split
) -> dict[str, float]:
    """Computes scores of samples: recognition, diversity, and distance from real recordings.

    Args:
      hearing: the classifiers.
      sounds: the samples, f32[N, T].
      asked: the digit, the speaker and the duration that each of them was conditioned on.
      real: real recordings that no model was trained on.
      other: other real recordings, whose distance to `real` is shown beside that of the samples.
    """
    spectra = hearing.heard(sounds, asked.length)
    right = recognition.recognised(hearing.digit, spectra, asked.digit)
    named = recognition.recognised(hearing.speaker, spectra, asked.speaker)
    found = {"recognised": float(right.mean()), "speaker_recognised": float(named.mean())}
    each = [right[asked.digit == d].mean() for d in range(DIGITS)]
    found["recognised_least"] = float(min(each))
    truth = hearing.heard(waves(real), real.arrays["length"])
    own, true = (features_of(hearing.digit, x) for x in (spectra, truth))
    labels = real.factors["digit"]
    inside = [
        [spread(x[y == d]) for d in range(DIGITS)] for x, y in ((own, asked.digit), (true, labels))
    ]
    found["spread_of_real"] = float(np.mean(inside[0]) / np.mean(inside[1]))
    random = np.random.default_rng(PROMPT_SEED)
    some = random.permutation(len(own))[: len(true)]
    found["classifier_frechet"] = frechet_distance(true, own[some])
    rows = random.permutation(len(other))[: len(true)]
    second = features_of(
        hearing.digit, hearing.heard(waves(other)[rows], other.arrays["length"][rows])
    )
    return {**found, "classifier_frechet_real": frechet_distance(true, second)}


def distance(first: np.ndarray, second: np.ndarray, lengths: np.ndarray) -> float:
    """Returns the mean multi-resolution STFT distance between two arrays of sounds f32[N, T]."""

    def run(x: Any, y: Any, length: Any) -> Any:
        mask = (jnp.arange(x.shape[1])[None] < length[:, None]).astype(jnp.float32)
        return stft_distance(x, y, mask)

    step, found = jax.jit(run), []
    for start in range(0, len(first), 100):
        part = slice(start, start + 100)
        found.append(np.asarray(step(first[part], second[part], lengths[part])))
    return float(np.concatenate(found).mean())
