"""Tests that a folder of sounds trains by one command, whose page plays (slow)."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest

from experiments import __main__ as commands

soundfile = pytest.importorskip("soundfile")
pytest.importorskip("soxr")


@pytest.mark.slow
def test_a_folder_of_sounds_trains_and_its_page_plays(tmp_path, capsys):
    """Some files have another rate, and some have two channels."""
    for i in range(30):
        rate = (8_000, 16_000)[i % 2]
        tone = 0.3 * np.sin(2 * math.pi * (200 + 40 * i) * np.arange(rate // 4) / rate)
        path = tmp_path / "tones" / ("high" if i > 14 else "low") / f"{i}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, np.stack([tone, tone], axis=1) if i == 7 else tone, rate)
    out = tmp_path / "run"
    flags = ["--rate", "8000", "--seconds", "0.25", "--steps", "6", "--chunk", "3"]
    flags += ["--width", "4", "--latents", "3", "--batch", "8", "--out", str(out)]
    command = ["sounds-vae", "--dataset", str(tmp_path / "tones"), *flags]
    assert commands.main(command) == 2
    assert "7.wav has 2 channels: give mix=True (--mix)" in capsys.readouterr().err
    assert not out.exists()
    assert commands.main([*command, "--mix"]) == 0
    page = (out / "report.html").read_text()
    files = list((out / "sounds").glob("*.wav"))
    assert len(files) == len(re.findall("<audio controls", page)) >= 10
    samples, rate = soundfile.read(files[0])
    assert rate == 8_000
    assert np.any(samples)
    assert commands.main(["sounds-vae", "--dataset", "", "--out", str(tmp_path / "none")]) == 2
    assert "give it by --dataset" in capsys.readouterr().err
    assert commands.main(["digits-vae", "--out", str(out), "--data-dir", str(tmp_path)]) == 2
    assert "sounds-vae" in capsys.readouterr().err
