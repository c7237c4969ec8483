"""Signal processing of sounds: spectra, mel bands, phases, and companding, as pure functions."""

from aejax.sound.companding import expand, mu_law
from aejax.sound.distance import stft_distance
from aejax.sound.griffin_lim import griffin_lim
from aejax.sound.mel import Mel, mel_filterbank
from aejax.sound.stft import inverse_stft, stft

__all__ = [
    "Mel",
    "expand",
    "griffin_lim",
    "inverse_stft",
    "mel_filterbank",
    "mu_law",
    "stft",
    "stft_distance",
]
