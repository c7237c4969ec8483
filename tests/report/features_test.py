"""Tests of the pages of latents: what they hold, what they refuse, and how a browser shows them.

The slow test drives Debian's Chromium by playwright, from a file and without a network. With
AEJAX_SCREENSHOTS set to a folder it leaves pictures there.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import shutil
import time

import numpy as np
import pytest

from aejax.errors import UserError
from aejax.evaluation.firings import firings
from aejax.evaluation.profiles import profiles
from aejax.report.features import Effects, Label, feature_record, read_labels, write_features

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync")
SYLLABLES = [a + b for a in "bdfgklmnprst" for b in ("a", "e", "i", "o", "u")]


def word(token: int) -> str:
    """Returns a made-up word; token 7 would end the script if it were not escaped."""
    if token == 7:
        return "</script><b>\u2028"
    return " " + SYLLABLES[token % 60] + SYLLABLES[token // 60 % 60]


def record(latents=40, rows=20, length=32, vocabulary=300):
    """Makes pages of latents, each of which is active at tokens of a few words."""
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, vocabulary, (rows, length))
    flat = tokens.reshape(-1)
    # Latent j is active at the words j, j + latents, ... and, weakly, at some others.
    codes = (flat[:, None] % latents == np.arange(latents)[None]) * (1.0 + rng.random(flat.size))[
        :, None
    ]
    codes += (rng.random(codes.shape) < 0.005) * 0.1
    codes[:, -1] = 0.0
    active = firings([codes])
    found = profiles(active, np.arange(flat.size) % length, rng.normal(size=(latents, 8)))
    effects = Effects(*rng.integers(0, vocabulary, (2, latents, 5)))
    labels = [Label(f"word: {word(j)}", "a rule", 0.9) for j in range(latents - 1)] + [None]
    probes = {"nn": rng.random(latents), "vb": np.arange(latents) / 8.0}
    made = feature_record(
        "Latents <of> a test", "about", tokens, word, active, found, effects, labels, probes
    )
    return made, tokens, codes


def test_the_pages_hold_each_latent(tmp_path):
    """Fails if a context's token, its activation or an activation beside it is another's."""
    made, tokens, codes = record()
    path = write_features(tmp_path / "features", made)
    read = json.loads((path.parent / "features.json").read_text())
    assert read == json.loads(json.dumps(made))
    codes = codes.reshape(*tokens.shape, -1)
    for latent in read["latents"]:
        j = latent["id"]
        assert latent["frequency"] == pytest.approx((codes[..., j] > 0).mean())
        for row, column, value, _, around in latent["contexts"]:
            assert value == pytest.approx(codes[row, column, j], rel=1e-3)
            assert read["words"][read["rows"][row][column]] == word(tokens[row, column])
            assert [column, value] in around
            for other, strength in around:
                assert strength == pytest.approx(codes[row, other, j], rel=1e-3)
    assert read["latents"][-1]["contexts"] == []
    assert read["latents"][-1]["label"] is None
    page = path.read_text()
    assert page.count("</script>") == 2  # a token's text does not end the data
    assert "Latents &lt;of&gt; a test" in page


def test_labels_are_read_from_a_file(tmp_path):
    path = tmp_path / "labels.json"
    path.write_text(json.dumps({"3": {"label": "colours", "words": [" red"]}, "4": {"label": "x"}}))
    found = read_labels(path, latents=5)
    assert found[3]["words"] == [" red"]
    with pytest.raises(UserError, match="names the latent '4', but the dictionary has 0 to 3"):
        read_labels(path, latents=4)
    with pytest.raises(UserError, match="there is no file of labels"):
        read_labels(tmp_path / "nowhere.json", 4)
    for wrong in ([], {"3": "colours"}, {"3": {"label": 1}}, {"3": {"label": "", "words": [1]}}):
        path.write_text(json.dumps(wrong))
        with pytest.raises(UserError, match=r"not of the form|not a JSON object"):
            read_labels(path, 5)


def test_what_does_not_fit_is_refused():
    _, tokens, codes = record(latents=6, rows=4)
    active = firings([codes])
    found = profiles(active, np.zeros(tokens.size, int), None)
    with pytest.raises(UserError, match="6 latents and 128 tokens"):
        feature_record("", "", tokens[:2], word, active, found)
    with pytest.raises(UserError, match="6 latents and 128 tokens"):
        feature_record("", "", tokens, word, active, found[:3])


@contextlib.contextmanager
def opened(path: pathlib.Path, suffix: str = ""):
    """Opens the page in a browser without a network; a script's error fails the test."""
    playwright = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("there is no Chromium")
    with playwright.sync_playwright() as tools:
        browser = tools.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        page = browser.new_context(offline=True, viewport={"width": 1280, "height": 860}).new_page()
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda message: errors.append(message.text))
        began = time.perf_counter()
        page.goto(path.resolve().as_uri() + suffix)
        page.wait_for_selector("html[data-ready]", timeout=60_000)
        page.seconds = time.perf_counter() - began
        yield page
        browser.close()
    assert errors == []


def numbers(page) -> list[int]:
    """Returns the numbers of the latents in the list on the screen, from the top."""
    return page.eval_on_selector_all("#list a b", "all => all.map(b => Number(b.textContent))")


def picture(page, name: str) -> None:
    if folder := os.environ.get("AEJAX_SCREENSHOTS"):
        page.screenshot(path=str(pathlib.Path(folder) / f"{name}.png"))


@pytest.mark.slow
def test_thousands_of_latents_open_at_once(tmp_path):
    """4,608 latents on 65,536 tokens. Fails if the list draws all of them."""
    made, tokens, _ = record(latents=4_608, rows=512, length=128, vocabulary=3_500)
    path = write_features(tmp_path, made)
    with opened(path) as page:
        assert page.seconds < 3.0, page.seconds
        assert page.locator("#list a").count() < 60
        picture(page, "list")
        # Search: the latents that are active at a word come first.
        wanted = word(int(tokens[3, 3])).strip()
        page.fill("#search", wanted)
        first = numbers(page)[0]
        assert wanted in page.inner_text(f"#list a[href='#latent={first}']")
        # Open: the page of a latent, with its contexts.
        page.click(f"#list a[href='#latent={first}']")
        page.wait_for_selector("#page h2")
        assert page.inner_text("#page h2").startswith(f"Latent {first}: word: ")
        peak = page.inner_text("#page mark.peak >> nth=0").strip()
        contexts = made["latents"][first]["contexts"]
        assert peak == made["words"][made["rows"][contexts[0][0]][contexts[0][1]]].strip()
        picture(page, "latent")
        # A link to the nearest latent.
        near = made["latents"][first]["near"][0][0]
        page.click(f"#page a[href='#latent={near}'] >> nth=0")
        page.wait_for_function(f"document.querySelector('#page h2').textContent.includes('{near}')")
        page.go_back()
        page.wait_for_function(
            f"document.querySelector('#page h2').textContent.includes('{first}')"
        )
        # Scroll to the end, and sort by a probe.
        page.fill("#search", "")
        page.select_option("#sort", label="number")
        assert numbers(page)[:3] == [0, 1, 2]
        page.evaluate("document.getElementById('list').scrollTop = 1e9")
        page.wait_for_function("document.querySelector(\"#list a[href='#latent=4607']\")")
        assert page.locator("#list a").count() < 60
        page.select_option("#sort", label="probe: vb")
        assert numbers(page)[:2] == [4607, 4606]
        page.fill("#search", "no such token")
        assert "No latent matches" in page.inner_text("#list")
    with opened(path, "#latent=12") as page:
        assert page.inner_text("#page h2").startswith("Latent 12:")
