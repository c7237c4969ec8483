"""Tests the spectra of sounds against scipy and arrays that librosa 0.11 computed.

librosa.npz holds, for x drawn from numpy's default_rng(0).normal(size=640), with n_fft=64,
hop_length=16 and pad_mode="constant": |librosa.stft(x)|, librosa.griffinlim(that, n_iter=n,
init=None) in float64, and librosa.filters.mel in float64.
"""

from __future__ import annotations

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import signal

from aejax import UserError, sound
from aejax.sound.companding import expand, mu_law
from aejax.sound.stft import window

LIBROSA = dict(np.load(pathlib.Path(__file__).parent / "librosa.npz", allow_pickle=False))
RANDOM = np.random.default_rng(1)


def test_stft_and_its_inverse_equal_scipys():
    """Fails for a symmetric window, for frames that do not begin half a frame early, and for an
    inverse that divides by the sum of windows instead of their squares.
    """
    x = RANDOM.normal(size=(2, 700))
    kwargs = {"nperseg": 64, "noverlap": 48, "boundary": "zeros", "padded": False}
    _, _, found = signal.stft(x, **kwargs)
    with jax.enable_x64(True):
        ours = np.asarray(sound.stft(jnp.asarray(x), 64, 16))
        back = np.asarray(sound.inverse_stft(jnp.asarray(ours + 0.1 * np.abs(ours)), 64, 16))
        exact = np.asarray(sound.inverse_stft(jnp.asarray(ours), 64, 16))
    scaled = np.swapaxes(found, -1, -2) * window(64).sum()
    # scipy leaves out frames that do not fit whole.
    np.testing.assert_allclose(ours[:, : scaled.shape[1]], scaled, atol=1e-9)
    np.testing.assert_allclose(exact, x[:, : exact.shape[1]], atol=1e-9)
    altered = np.swapaxes(ours + 0.1 * np.abs(ours), -1, -2) / window(64).sum()
    _, wanted = signal.istft(altered, nperseg=64, noverlap=48)
    np.testing.assert_allclose(back, wanted, atol=1e-9)


@pytest.mark.parametrize(("rate", "size", "bands"), [(8_000, 128, 12), (22_050, 256, 20)])
def test_mel_filters_equal_librosas(rate, size, bands):
    """Fails for HTK's scale, and for filters of equal height."""
    frozen = LIBROSA[f"mel_{rate}_{size}_{bands}"]
    np.testing.assert_allclose(sound.mel_filterbank(rate, size, bands), frozen, atol=1e-9)


def test_more_bands_than_the_frames_resolve_are_refused():
    with pytest.raises(UserError, match="too many"):
        sound.mel_filterbank(8_000, 64, 40)


@pytest.mark.parametrize("iterations", [1, 8])
def test_griffin_lim_equals_librosas(iterations):
    """Fails without momentum, and with momentum that is not divided by 1 + momentum."""
    with jax.enable_x64(True):
        magnitude = jnp.asarray(LIBROSA["magnitude"].T)
        found = sound.griffin_lim(magnitude, jnp.zeros_like(magnitude), 64, 16, iterations)
    np.testing.assert_allclose(found, LIBROSA[f"griffin_lim_{iterations}"], atol=1e-6)


def test_mu_law_is_inverted_and_is_finest_at_zero():
    x = jnp.linspace(-1.0, 1.0, 101)
    np.testing.assert_allclose(expand(mu_law(x)), x, atol=1e-5)
    steps = np.diff(expand(jnp.linspace(0.0, 1.0, 256)))
    assert steps.max() / steps[127] > 100
    assert mu_law(jnp.asarray(2.0)) == 1.0


MEL = sound.Mel(rate=8_000, size=256, hop=64, bands=20)
log_mel, apart = (
    jax.jit(MEL.log_mel),
    jax.jit(functools.partial(sound.stft_distance, sizes=(64, 32))),
)


def tone(frequency: float, samples: int = 4096) -> jax.Array:
    return 0.5 * jnp.sin(2.0 * np.pi * frequency * jnp.arange(samples) / 8_000)


def test_a_sound_survives_the_way_through_its_mel_spectrogram():
    """Fails if the magnitudes are not those of the bands, or lack the scale of the filters."""
    x = tone(440.0) + 0.2 * tone(1_500.0)
    wanted = log_mel(x)
    made = jax.jit(MEL.sound)(wanted, jax.random.key(0))
    assert made.shape == x.shape
    inner = slice(4, -4)
    assert np.mean(np.abs(log_mel(made) - wanted)[inner]) < 0.35
    assert np.mean(np.abs(np.log(MEL.floor) - wanted)[inner]) > 1.0  # silence


def test_padding_changes_no_figure():
    """Fails if frames or samples after the end are counted."""
    x, y = tone(300.0, 1024)[None], (0.9 * tone(320.0, 1024))[None]
    long = [jnp.pad(values, ((0, 0), (0, 1024))) for values in (x, y)]
    noise = jax.random.normal(jax.random.key(0), (1, 1024))
    long[1] = long[1].at[:, 1024:].set(noise)  # what a model makes after the end is not counted
    mask = (jnp.arange(2048) < 1024)[None].astype(jnp.float32)
    short = apart(x, y)
    np.testing.assert_allclose(apart(*long, mask), short, rtol=1e-5)
    assert apart(x, x) < 1e-3 < short
    np.testing.assert_allclose(log_mel(long[0])[:, :16], log_mel(x), atol=1e-5)
