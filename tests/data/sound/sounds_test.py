"""Tests how sounds are read, divided and padded, and what is said of bad files."""

from __future__ import annotations

import math
import os
import pathlib
import tarfile

import jax
import numpy as np
import pytest

import aejax as ae
from aejax import UserError
from aejax.data import changed
from aejax.data.sound import spoken_digit
from aejax.data.sound.changes import Companded, Duration, spectrograms
from aejax.sound import Mel
from tests.harm import little, needs_linux

soundfile = pytest.importorskip("soundfile")
pytest.importorskip("soxr")

MEL = Mel(rate=8_000, size=64, hop=16, bands=6)


def tone(samples: int, frequency: float = 440.0, rate: int = 8_000) -> np.ndarray:
    return (12_000 * np.sin(2 * math.pi * frequency * np.arange(samples) / rate)).astype(np.int16)


def write(path: pathlib.Path, samples: np.ndarray, rate: int = 8_000) -> pathlib.Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate, subtype="PCM_16")
    return path


@pytest.fixture
def folder(tmp_path):
    for i in range(12):
        kind = ("high", "low")[i % 2]
        suffix = ".flac" if i % 3 == 0 else ".wav"
        write(tmp_path / "sounds" / kind / f"{i}{suffix}", tone(100 + 10 * i, 200 + 100 * i))
    return tmp_path / "sounds"


def test_a_folder_is_read_without_loss_and_padded(folder):
    """Fails if samples are scaled or shifted, classes are mixed up, or the mask is off by one."""
    train, validation, test = ae.data.sounds(folder)
    assert (len(train), len(validation), len(test)) == (10, 1, 1)
    assert train.classes == ("high", "low")
    assert train.event == (210, 1)
    seen = 0
    for split in (train, validation, test):
        for sound, length, label in zip(
            split.arrays["sound"], split.arrays["length"], split.labels, strict=True
        ):
            i = (length - 100) // 10
            assert np.array_equal(sound[:length, 0], tone(100 + 10 * i, 200 + 100 * i))
            assert not sound[length:].any()
            assert label == i % 2
            seen += 1
    assert seen == 12
    batch = next(train.batches(10))
    np.testing.assert_allclose(batch.x[..., 0], train.arrays["sound"][..., 0] / 32768.0)
    assert np.array_equal(np.asarray(batch.mask).sum(axis=(1, 2)), train.arrays["length"])
    assert train.provenance()["rate"] == 8_000
    _, _, held = ae.data.sounds(folder, held_out="low", seconds=0.0125)
    assert set(held.labels) == {1}
    assert held.event == (100, 1)
    assert held.provenance()["cut"] == 12 - 1


def test_twice_the_padding_gives_the_same_figures(folder):
    """Fails if a spectrogram, mask or target depends on the padding within the recording."""
    batches = []
    for seconds in (210 / 8_000, 420 / 8_000):
        split, _, _ = ae.data.sounds(folder, seconds=seconds)
        views = spectrograms(split, MEL), changed(split, Companded(256), Duration())
        batches.append([jax.jit(view.prepare)(None, dict(view.arrays)) for view in views])
    for short, long in zip(*batches, strict=True):
        size = short.target.shape[1]
        shape = short.target.shape
        mask = np.broadcast_to(short.mask, shape)
        np.testing.assert_allclose(short.target * mask, long.target[:, :size] * mask, atol=1e-5)
        assert np.array_equal(mask, np.broadcast_to(long.mask, long.target.shape)[:, :size])
        assert not np.any(np.asarray(long.mask)[:, size:])
    likelihood = ae.likelihoods.Gaussian(1.0)
    nats = [
        likelihood.apply({}, 0.0 * b[0].target, b[0].target, b[0].mask, method="log_prob")
        for b in batches
    ]
    np.testing.assert_allclose(*nats, rtol=1e-5)


def test_another_rate_is_refused_or_resampled_and_recorded(folder):
    write(folder / "low" / "fast.wav", tone(1_600, 440.0, 16_000), 16_000)
    with pytest.raises(UserError, match=r"fast.wav has 16000 Hz, but .* has 8000"):
        ae.data.sounds(folder)
    train, validation, test = ae.data.sounds(folder, rate=8_000)
    assert train.provenance()["resampled from 16000 Hz"] == 1
    assert "soxr" in train.provenance()["resampler"]
    sounds = np.concatenate([s.arrays["sound"] for s in (train, validation, test)])
    lengths = np.concatenate([s.arrays["length"] for s in (train, validation, test)])
    resampled = sounds[lengths == 800][0, 100:700, 0].astype(float)
    np.testing.assert_allclose(resampled, tone(800)[100:700], atol=60)


def bad(folder: pathlib.Path, kind: str) -> pathlib.Path:
    path = folder / "low" / "bad.wav"
    if kind == "stereo":
        return write(path, np.stack([tone(100), tone(100)], axis=1))
    if kind == "empty":
        return write(path, tone(0))
    if kind == "silent":
        return write(path, np.zeros(100, np.int16))
    whole = write(path, tone(100)).read_bytes()
    if kind == "flac":
        path.unlink()
        path = write(folder / "low" / "bad.flac", tone(20_000) + np.int16(7))
        whole = path.read_bytes()
    path.write_bytes(
        {"noise": b"no sound at all", "nothing": b""}.get(kind, whole[: len(whole) // 2])
    )
    return path


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("stereo", "has 2 channels"),
        ("empty", "holds no samples"),
        ("silent", "nothing but silence"),
        ("cut", "is cut off after"),
        ("flac", "bad.flac"),
        ("noise", "cannot be read as a sound"),
        ("nothing", "cannot be read as a sound"),
    ],
)
def test_a_bad_file_is_named(folder, kind, said):
    path = bad(folder, kind)
    with pytest.raises(UserError, match=said) as raised:
        ae.data.sounds(folder)
    assert path.name in str(raised.value)
    if kind == "stereo":
        train, _, _ = ae.data.sounds(folder, mix=True)
        assert train.provenance()["mixed to one channel"] == 1


def test_folders_without_sounds_and_unknown_names_are_refused(tmp_path):
    for name, said in (
        ("speech", "unknown data set"),
        (tmp_path / "none", "there is no folder"),
        (tmp_path, "holds no sounds"),
    ):
        with pytest.raises(UserError, match=said):
            ae.data.sounds(name)
    pictures, _, _ = ae.data.arrays(np.zeros((20, 8, 1), np.float32))
    with pytest.raises(UserError, match="are no sounds"):
        next(changed(pictures, Duration()).batches(4))
    with pytest.raises(UserError, match="are no sounds"):
        spectrograms(pictures, MEL)


def test_spoken_digit_is_prepared_once_and_divided_by_recording_and_by_speaker(tmp_path):
    """Fails if a recording stands in two parts, or a held-out speaker is in train."""
    data, manual = tmp_path / "data", tmp_path / "files"
    with pytest.raises(UserError, match="give its folder by --manual-dir"):
        ae.data.sounds("spoken_digit", data_dir=data)
    for digit in (0, 7):
        for speaker in ("george", "theo"):
            for number in (0, 5, 10, 11):
                name = f"{digit}_{speaker}_{number}.wav"
                write(tmp_path / "recordings" / name, tone(50 + number, 100.0 * (1 + digit)))
    manual.mkdir()
    with pytest.raises(UserError, match="nor a tar archive"):
        ae.data.sounds("spoken_digit", data_dir=data, manual_dir=manual)
    with tarfile.open(manual / "recordings.tar.xz", "w:xz") as archive:
        archive.add(tmp_path / "recordings", "recordings")
    train, validation, test = ae.data.sounds("spoken_digit", data_dir=data, manual_dir=manual)
    assert [len(s) for s in (train, validation, test)] == [8, 4, 4]
    assert set(test.factors["number"]) == {0}
    assert set(validation.factors["number"]) == {5}
    parts = ae.data.sounds("spoken_digit", data_dir=data, held_out="theo")
    for part, name in zip(parts, ("george", "george", "theo"), strict=True):
        assert {spoken_digit.SPEAKERS[i] for i in part.factors["speaker"]} == {name}
    assert np.array_equal(test.labels, test.factors["digit"])
    assert not list(data.glob(".preparing-*"))
    with pytest.raises(UserError, match="has 8000 Hz"):
        ae.data.sounds("spoken_digit", data_dir=data, rate=16_000)
    with pytest.raises(UserError, match="no 'anna' to hold out"):
        ae.data.sounds("spoken_digit", data_dir=data, held_out="anna")


def test_the_spectral_term_is_zero_for_the_target_itself_and_ignores_padding(folder):
    split, _, _ = ae.data.sounds(folder)
    batch = next(split.batches(4))
    term = ae.losses.spectral((64, 32))
    model = ae.Autoencoder(ae.nets.Identity(), ae.Point(1), ae.nets.MLP((), shape=(210, 1)))

    @jax.jit
    def distance(prediction):
        return term(model, ae.Forward(batch, None, None, prediction, 0, None))

    assert np.all(distance(batch.x) < 1e-3)
    noise = jax.random.normal(jax.random.key(0), batch.x.shape)
    after = batch.x + noise * (1.0 - batch.mask)
    np.testing.assert_allclose(distance(after), distance(batch.x), atol=1e-3)
    assert np.all(distance(batch.x + 0.1 * noise) > 0.3)


@needs_linux
def test_a_rate_that_makes_much_of_little(tmp_path):
    """12,000 samples at 1 Hz would be 576 million. Fails if they are resampled unasked."""
    write(tmp_path / "a.wav", tone(12_000), rate=1)
    with (
        little(),
        pytest.raises(UserError, match=r"a\.wav has 12,000 samples at 1 Hz"),
    ):
        ae.data.sounds(tmp_path, rate=48_000)


@needs_linux
def test_a_file_of_zeros_that_takes_no_room(tmp_path):
    """Fails if a file is read before its size is looked at."""
    write(tmp_path / "a.wav", tone(100))
    os.truncate(tmp_path / "a.wav", 2**33)
    with little(), pytest.raises(UserError, match=r"a\.wav cannot be read .it has 8,589,934,592"):
        ae.data.sounds(tmp_path)
