"""A page with a decoder, driven in a browser from a file without a network.

    python -m experiments fetch-onnxruntime-web ort-web
    ONNXRUNTIME_WEB=ort-web pytest -m slow tests/interop/page_test.py

It needs the extra onnx, playwright and a Chromium.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import re
import shutil
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import aejax as ae
from aejax import interop
from aejax.files import with_policy
from aejax.interop.programs import web
from aejax.sound import Mel, griffin_lim
from tests import kinds

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync")
X = np.random.default_rng(0).random((40, *kinds.EVENT)).astype(np.float32)
BATCH = ae.Batch(jnp.asarray(X), jnp.asarray(X))


@pytest.fixture
def runtime() -> pathlib.Path:
    folder = os.environ.get("ONNXRUNTIME_WEB")
    if folder is None:
        pytest.skip("ONNXRUNTIME_WEB names no folder with the files of onnxruntime-web")
    pytest.importorskip("jax2onnx")
    return pathlib.Path(folder)


@contextlib.contextmanager
def opened(path: pathlib.Path) -> Iterator:
    """The page in a browser that has no network; a script's error fails the test."""
    playwright = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("there is no Chromium")
    with playwright.sync_playwright() as tools:
        browser = tools.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        page = browser.new_context(offline=True).new_page()
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda message: errors.append(message.text))
        page.goto(path.resolve().as_uri())
        page.wait_for_selector("html[data-ready=yes]", timeout=120_000)
        yield page
        browser.close()
    assert errors == []


def decoded(page, z: np.ndarray) -> np.ndarray:
    """What the page computes from latents f32[B, L]."""
    run = "async z => Array.from((await window.page.run(Float32Array.from(z))).mean)"
    return np.asarray(page.evaluate(run, z.ravel().tolist()), np.float32)


def test_the_page_needs_no_script_or_style_but_its_own():
    """Fails if an element has a style or a handler, which the policy would forbid."""
    template = pathlib.Path(web.__file__).with_name("page.html").read_text()
    found = with_policy(template, template, "'wasm-unsafe-eval' blob:", blobs=True)
    (policy,) = re.findall('content="(default-src[^"]*)"', found)
    assert "unsafe-inline" not in policy
    assert policy.count("'sha256-") == 2  # a style and a module
    markup = re.sub("(?s)<(script|style).*?</", "", template)
    assert not re.search(r"<[^>]*\s(style|on[a-z]+)=", markup)


@pytest.mark.slow
def test_sliders_samples_and_paths(runtime, tmp_path):
    """A decoder of 1.7 MB. Fails if the page's decoder is another, or a control moves nothing."""
    model = kinds.variational(event=(28, 28, 1), latents=16, width=512)
    x = np.random.default_rng(0).random((40, 28, 28, 1)).astype(np.float32)
    batch = ae.Batch(jnp.asarray(x), jnp.asarray(x))
    variables = jax.jit(model.init)(jax.random.key(0), batch, jax.random.key(1))
    page = interop.Page(runtime, "Pictures", names=("first", "second"))
    path = interop.export(model, variables, tmp_path / "a.html", example=batch, page=page)[0]
    assert path.stat().st_size < 9e6
    with opened(path) as page:
        z = np.random.default_rng(1).standard_normal((3, 16)).astype(np.float32)
        bound = model.bind(variables)
        np.testing.assert_allclose(
            decoded(page, z), np.ravel(bound.mean(bound.decode(z))), atol=1e-5
        )
        assert page.evaluate("window.page.milliseconds") < 500
        before = page.evaluate("Array.from(window.page.mean)")
        slide = "s => {s.value = s.max; s.dispatchEvent(new Event('input'));}"
        page.eval_on_selector("#controls input", slide)
        changed = "b => window.page.mean.some((v, i) => Math.abs(v - b[i]) > 1e-3)"
        page.wait_for_function(changed, arg=before)
        for control in ("#sample", "#hundred"):
            page.click(control)
        page.eval_on_selector("#share", slide)
        second = np.asarray(bound.encode(batch))[1:2]
        wanted = np.ravel(bound.mean(bound.decode(second))).tolist()
        same = "w => window.page.mean.every((v, i) => Math.abs(v - w[i]) < 1e-4)"
        page.wait_for_function(same, arg=wanted)
        assert page.inner_text("#from").split("\n")[:2] == ["first", "second"]


@pytest.mark.slow
def test_switches_of_a_sparse_code(runtime, tmp_path):
    model = kinds.scaled(ae.TopK(32, 3))
    variables = jax.jit(model.init)(jax.random.key(0), BATCH, jax.random.key(1))
    page = interop.Page(runtime)
    path = interop.export(model, variables, tmp_path / "a.html", example=BATCH, page=page)[0]
    with opened(path) as page:
        first = np.asarray(model.apply(variables, BATCH).code.dense())[0]
        strongest = int(np.argmax(first))
        assert page.get_attribute("#controls input", "id") == f"latent-{strongest}"
        page.click("#controls input")
        off = first * (np.arange(32) != strongest)
        wanted = np.ravel(model.bind(variables).decode(off[None])).tolist()
        same = "w => window.page.mean.every((v, i) => Math.abs(v - w[i]) < 1e-4)"
        page.wait_for_function(same, arg=wanted)


@pytest.mark.slow
def test_a_sound_is_played(runtime, tmp_path):
    """The player holds a WAV file of as many samples as the decoder computes."""
    model = kinds.variational(ae.likelihoods.Gaussian(0.1), event=(800,))
    x = jnp.asarray(np.random.default_rng(0).standard_normal((8, 800)), jnp.float32)
    batch = ae.Batch(x, x)
    variables = jax.jit(model.init)(jax.random.key(0), batch, jax.random.key(1))
    page = interop.Page(runtime, sound=8_000)
    path = interop.export(model, variables, tmp_path / "a.html", example=batch, page=page)[0]
    with opened(path) as page:
        page.wait_for_function("document.getElementById('player').duration > 0")
        seconds = page.evaluate("document.getElementById('player').duration")
        np.testing.assert_allclose(seconds, 0.1, atol=0.01)


@pytest.mark.slow
def test_a_spectrogram_is_heard_in_its_context(runtime, tmp_path):
    """The sound is that of Mel. Fails if the page leaves out the context, or mirrors the bands."""
    mel = Mel(rate=8_000, size=64, hop=16, bands=8)
    event = (12, 8, 1)
    model = ae.Autoencoder(
        ae.nets.MLP((16,)),
        ae.Gaussian(3),
        ae.nets.MLP((16,), shape=event),
        ae.priors.Conditional((8,)),
        ae.likelihoods.Gaussian(0.1),
    )
    x = jnp.asarray(np.random.default_rng(0).normal(-3, 1, (8, *event)), jnp.float32)
    batch = ae.Batch(x, x, jax.nn.one_hot(jnp.arange(8) % 2, 2))

    def touched(module):
        latent = module(batch, jax.random.key(1)).code.latent
        return module.prior.log_prob(latent, batch.context, module.posterior)

    variables = jax.jit(lambda: model.init(jax.random.key(0), method=touched))()
    page = interop.Page(runtime, sound=mel)
    path = interop.export(model, variables, tmp_path / "a.html", example=batch, page=page)[0]
    with opened(path) as page:
        bound, z = model.bind(variables), np.asarray([[1.0, -1.0, 0.5]], np.float32)
        means = [bound.mean(bound.decode(z, batch.context[i : i + 1])) for i in (0, 1)]
        assert np.abs(np.subtract(*means)).max() > 0.01
        np.testing.assert_allclose(decoded(page, z), np.ravel(means[0]), atol=1e-5)
        page.select_option("#given", "1")
        np.testing.assert_allclose(decoded(page, z), np.ravel(means[1]), atol=1e-5)
        phases = np.random.default_rng(1).uniform(0, 6, (13, 33)).astype(np.float32)
        magnitude = jnp.pad(mel.magnitude(x[0, ..., 0]), ((0, 1), (0, 0)))
        wanted = griffin_lim(magnitude, phases, mel.size, mel.hop, iterations=8)
        given = [np.ravel(x[0]).tolist(), phases.ravel().tolist()]
        heard = page.evaluate("([x, p]) => Array.from(window.page.sound(x, p, 8))", given)
        np.testing.assert_allclose(heard, wanted, atol=1e-4 * float(jnp.abs(wanted).max()))
        page.wait_for_function("document.getElementById('player').duration > 0.02")
