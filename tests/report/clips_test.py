"""Tests of the sounds of a report page: files, players, and a player in a real browser."""

from __future__ import annotations

import base64
import io
import re
import shutil
import wave

import numpy as np
import pytest

from aejax import UserError, report
from aejax.report.clips import spectrogram, wav

RATE = 8_000
TONE = 0.5 * np.sin(2 * np.pi * 1_000 * np.arange(4_000) / RATE)
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


def clip(name="tone", caption="a <b>tone</b>"):
    return report.Clip(name, caption, TONE, RATE)


def written(folder):
    return report.write(folder, "sounds", [report.Section("Heard", "One.", clips=[clip()])])


def samples(content):
    with wave.open(io.BytesIO(content)) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, RATE)
        return np.frombuffer(file.readframes(file.getnframes()), "<i2")


def test_the_page_holds_the_sound_that_the_file_does(tmp_path):
    """Fails if samples are scaled, wrap around where they are too loud, or link to a file."""
    page = written(tmp_path).read_text()
    held = re.findall(r'<audio controls[^>]*src="data:audio/wav;base64,([^"]*)"', page)
    assert len(held) == 1
    content = base64.b64decode(held[0])
    assert (tmp_path / "sounds" / "tone.wav").read_bytes() == content
    np.testing.assert_allclose(samples(content) / 32767.0, TONE, atol=1e-4)
    loud = samples(wav(clip()._replace(samples=4.0 * TONE)))
    assert loud.max() == 32767
    assert loud[np.argmax(TONE)] == 32767
    assert "a &lt;b&gt;tone" in page
    assert "<script" not in page


def test_a_spectrogram_shows_a_tone_at_its_height():
    """1 kHz of 4 kHz: the brightest row lies in the lower half. Fails if it is upside down."""
    from matplotlib.image import imread

    picture, width, height = spectrogram(clip())
    pixels = imread(io.BytesIO(picture))[..., :3].sum(axis=2)
    brightest = pixels[:, pixels.shape[1] // 2].argmax() / len(pixels)
    assert 0.5 < brightest < 0.75
    assert width == 2 * pixels.shape[1]
    assert height == 80


def test_two_sounds_of_one_name_are_refused_before_anything_is_written(tmp_path):
    section = report.Section("Heard", clips=[clip(), clip()])
    with pytest.raises(UserError, match="sounds are named 'tone'"):
        report.write(tmp_path / "run", "sounds", [section])
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_player_plays_in_a_browser(tmp_path):
    """Fails if the browser cannot decode the sound, or the clock of the player stands still."""
    playwright = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("there is no Chromium")
    flags = ["--no-sandbox", "--disable-gpu", "--autoplay-policy=no-user-gesture-required"]
    with playwright.sync_playwright() as tools:
        browser = tools.chromium.launch(executable_path=CHROMIUM, args=flags)
        page = browser.new_context(offline=True).new_page()
        page.goto(written(tmp_path).resolve().as_uri())
        page.wait_for_function("document.querySelector('audio').readyState >= 1")
        assert page.evaluate("document.querySelector('audio').duration") == pytest.approx(0.5)
        page.evaluate("document.querySelector('audio').play()")
        page.wait_for_function("document.querySelector('audio').ended")
        assert page.evaluate("document.querySelector('audio').error") is None
        assert page.evaluate("document.querySelector('audio').currentTime") == pytest.approx(0.5)
        browser.close()
