"""Report sections that play sounds, for the experiments on spoken digits."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from aejax.data import Split
from aejax.report import Clip, Section
from experiments.shared import spoken


def clip(name: str, caption: str, samples: np.ndarray, length: int, rate: int) -> Clip:
    """Returns a player for the report page, which plays the first `length` samples of a sound.

    Args:
      name: the name of its sound file, without the ending.
      caption: the text beside the player.
      samples: the sound, f[T], in [-1, 1].
      length: the number of samples to play.
      rate: the number of samples in a second.
    """
    return Clip(name, caption, np.asarray(samples)[: int(length)], rate)


def samples(sounds: np.ndarray, asked: spoken.Prompts, rate: int) -> Section:
    """Builds the report section that plays samples of given digits, speakers and durations.

    Args:
      sounds: the samples, f[N, T].
      asked: the digit, the speaker and the duration that each of them was conditioned on.
      rate: the number of audio samples in a second.
    """
    clips = [
        clip(
            f"sample-{i}",
            f"{asked.digit[i]} by {spoken.NAMES[asked.speaker[i]]}",
            sounds[i],
            asked.length[i],
            rate,
        )
        for i in range(len(sounds))
    ]
    text = "Each sound is drawn from the prior given a digit, a speaker and a duration."
    return Section("Draws given digit and speaker", text, clips=clips)


def side_by_side(
    kinds: Mapping[str, np.ndarray], shown: Split, rate: int, rows: int = 4
) -> Section:
    """Builds the report section that plays test recordings and each model's reconstructions.

    Args:
      kinds: name of a model -> its reconstructions f32[N, T]; the first entry is the recordings.
      shown: the split of these N recordings.
      rate: the number of samples in a second.
      rows: the number of recordings that are shown.
    """
    clips = [
        clip(
            f"rebuilt-{i}-{k}",
            f"{spoken.described(shown, i)}: {name}",
            sounds[i],
            shown.arrays["length"][i],
            rate,
        )
        for i in range(rows)
        for k, (name, sounds) in enumerate(kinds.items())
    ]
    return Section("Test recordings, rebuilt", "The first of each row is real.", clips=clips)
