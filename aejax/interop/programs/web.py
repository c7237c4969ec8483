"""A web page that runs a decoder in the browser: one HTML file, without network or server."""

from __future__ import annotations

import base64
import gzip
import html
import json
import os
import pathlib
import string
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from aejax.errors import UserError
from aejax.events import dense
from aejax.files import file_sha256, with_policy
from aejax.interop.programs.onnx import onnx
from aejax.interop.programs.program import Traced, mapped
from aejax.interop.programs.weights import Packed
from aejax.sound import Mel, mel_filterbank
from aejax.types import Batch, Variables

VERSION = "1.30.0"  # the version of onnxruntime-web (licence: MIT)
LIBRARY, WASM = "ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"
# The files of onnxruntime-web that a page contains, and their sha256.
FILES = {
    LIBRARY: "11e64bd8ffe11bd1a2a2f0d6275fdfbbba7262f0b76b99b53d228a8a22ef3d90",
    WASM: "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
}
SHOWN = 12  # number of latents with a slider, or for a sparse code with a switch
KEPT = 8  # number of examples whose codes are stored in the page
WIDE = 3.0  # sliders range from -WIDE to WIDE, or further if a code does


class Page(NamedTuple):
    """What a web page with a decoder needs besides the model."""

    runtime: str | os.PathLike[str]  # the folder with the files of onnxruntime-web
    title: str = "A decoder"
    names: Sequence[str] = ()  # names of the first examples, such as their labels
    # If the output is a sound, which the page then plays: its sample rate in Hz, or for log-mel
    # spectrograms f32[frames, bands] the `Mel` that computed them.
    sound: int | Mel | None = None


def web(
    traced: Traced,
    packed: Mapping[str, Packed],
    model: Any,
    variables: Variables,
    example: Batch | None,
    page: Page | None,
) -> bytes:
    """Returns the bytes of an HTML page that runs a decoder in the browser.

    Its sliders move the latents that vary most over the examples; for a sparse code, switches turn
    latents on and off. It also decodes 100 draws from the prior, and paths between the codes of two
    examples. A decoder that reads a context gets that of one of the kept examples.

    Args:
      traced: the decoder as a program.
      packed: the decoder's weights.
      model: the model.
      variables: the variables of one model, without an axis of seeds.
      example: raw examples; the page stores the codes of the first eight.
      page: the folder of onnxruntime-web, the page's title and the names of the examples.

    Raises:
      UserError: if there is no example, onnxruntime-web is missing or has another version, the
        latents of the model are not one vector, or the page cannot play the sound.
    """
    if page is None:
        raise UserError("a page runs on onnxruntime-web: give page=Page(runtime=its folder)")
    if example is None:
        raise UserError("a web page contains the codes of some examples: give them as `example`")
    _check(traced)
    library, wasm = (_runtime(pathlib.Path(page.runtime), name) for name in (LIBRARY, WASM))
    content = _content(traced, packed, model, variables, example, page)
    text = json.dumps(content, separators=(",", ":")).replace("<", "\\u003c")
    about = {"part": traced.name, **traced.facts}
    template = string.Template(_beside("page.html"))
    sound = _beside("mel_sound.js") if content["mel"] else ""
    whole = template.substitute(
        title=html.escape(page.title),
        text=html.escape(_words(content)),
        content=text,
        sound=sound,
        library=_zipped(library),
        wasm=_zipped(wasm),
        program=_zipped(onnx(traced, packed, about)),
    )
    # The page's script unpacks onnxruntime-web, which it imports from a blob: URL.
    own = template.safe_substitute(sound=sound)
    return with_policy(whole, own, scripts="'wasm-unsafe-eval' blob:", blobs=True).encode()


def _check(traced: Traced) -> None:
    if traced.name != "decoder":
        raise UserError(
            f"a page runs a decoder, but the part is {traced.name}: choose the part decoder"
        )
    context = traced.inputs.get("context")
    if context is not None and context.dtype != np.float32:
        raise UserError(
            f"a page takes contexts of float32, but this decoder reads one of {context.dtype}: "
            "export it as ONNX"
        )
    latent = traced.inputs.get("z")
    if latent is None or len(latent.shape) != 1 or latent.dtype != np.float32:
        raise UserError(
            "a page moves the latents of one vector, but those of this model are a grid of indices "
            "or several levels: export it as ONNX"
        )


def _content(
    traced: Traced,
    packed: Mapping[str, Packed],
    model: Any,
    variables: Variables,
    example: Batch,
    page: Page,
) -> dict[str, Any]:
    """Returns the data that the page's script reads, ready to be written as JSON."""
    encode = jax.jit(lambda v, batch: dense(model.bind(v).encode(batch)))
    codes = np.asarray(encode(variables, example), np.float32)
    sparse = model.prior is None and (codes == 0).mean() > 0.5
    order = np.argsort(-(np.abs(codes).sum(axis=0) if sparse else codes.var(axis=0)))[:SHOWN]
    inputs = traced.inputs
    noise = inputs["noise"].shape[0] if "noise" in inputs else 0
    context = np.asarray(example.context, np.float32) if "context" in inputs else None
    given = {"z": codes, "noise": np.full((len(codes), noise), 0.5, np.float32), "context": context}
    given = {name: value for name, value in given.items() if name in inputs}
    mean = np.asarray(jax.jit(mapped(traced, packed))(given)["mean"])
    event = list(mean.shape[1:])
    shown = np.asarray(example.target if example.target.shape == mean.shape else mean)
    names = [*map(str, page.names[:KEPT])]
    names += [f"example {i}" for i in range(len(names), min(KEPT, len(codes)))]
    return {
        "size": codes.shape[1],
        "noise": noise,
        "event": event,
        "media": _media(event, page.sound),
        "rate": page.sound.rate if isinstance(page.sound, Mel) else page.sound,
        "mel": _mel(page.sound, event) if isinstance(page.sound, Mel) else None,
        "low": float(shown.min()),
        "high": float(max(shown.max(), shown.min() + 1e-6)),
        "sparse": bool(sparse),
        "latents": [_latent(int(i), codes[:, i]) for i in order],
        "codes": [
            {"name": name, "index": np.flatnonzero(code).tolist(), "value": _short(code[code != 0])}
            for name, code in zip(names, codes, strict=False)
        ],
        "context": [] if context is None else list(context.shape[1:]),
        "contexts": [] if context is None else [_short(row.ravel()) for row in context[:KEPT]],
    }


def _mel(mel: Mel, event: list[int]) -> dict[str, Any]:
    """Returns the numbers with which the page turns a log-mel spectrogram into a sound.

    Raises:
      UserError: if the decoder computes no spectrogram with such bands, or a frame's size is not a
        power of two.
    """
    if event not in ([*event[:1], mel.bands], [*event[:1], mel.bands, 1]):
        raise UserError(
            f"the decoder computes arrays of shape {tuple(event)}, which are no spectrograms of "
            f"{mel.bands} bands: give Page a sound that describes them"
        )
    if mel.size & (mel.size - 1):
        raise UserError(
            f"a page plays spectrograms whose frames have a power of two as their size, but these "
            f"have {mel.size} samples: give Page no sound"
        )
    filters = mel_filterbank(mel.rate, mel.size, mel.bands).astype(np.float32)
    bands = [np.flatnonzero(row) for row in filters]
    return {
        "size": mel.size,
        "hop": mel.hop,
        "bands": mel.bands,
        "floor": mel.floor,
        "largest": float((filters.T @ filters).max()),
        "filters": [
            {"first": int(band[0]), "weights": _short(row[band[0] : band[-1] + 1])}
            for band, row in zip(bands, filters, strict=True)
        ],
    }


def _media(event: list[int], sound: int | Mel | None) -> str:
    if isinstance(sound, Mel):
        return "spectrogram"
    if sound is not None:
        return "curve"
    picture = len(event) == 2 or (len(event) == 3 and event[-1] in (1, 3))
    return "picture" if picture else "curve"


def _latent(index: int, values: np.ndarray) -> dict[str, float]:
    """Returns the range of a latent's slider on the page, and the value that its switch sets.

    Args:
      index: the index of the latent.
      values: the latent of the kept examples, f[N].
    """
    on = values[values != 0]
    return {
        "index": index,
        "low": float(min(-WIDE, values.min())),
        "high": float(max(WIDE, values.max())),
        "on": float(on.mean()) if len(on) else 1.0,
    }


def _short(values: np.ndarray) -> list[float]:
    return [float(f"{value:.7g}") for value in values]


def _words(content: Mapping[str, Any]) -> str:
    control = "Switches turn latents on and off" if content["sparse"] else "Sliders move latents"
    return f"{control}; the decoder answers at once."


def _beside(name: str) -> str:
    return pathlib.Path(__file__).with_name(name).read_text(encoding="utf-8")


def _runtime(folder: pathlib.Path, name: str) -> bytes:
    """Reads a file of onnxruntime-web.

    Raises:
      UserError: if the file is missing, or its sha256 is not that of the tested version.
    """
    path = folder / name
    if not path.is_file():
        raise UserError(
            f"{folder} has no {name}: fetch onnxruntime-web {VERSION} with `python -m experiments "
            f"fetch-onnxruntime-web {folder}`, or unpack the npm package and give its folder dist"
        )
    if file_sha256(path) != FILES[name]:
        raise UserError(
            f"{path} is not the file of onnxruntime-web {VERSION} (its sha256 differs): fetch that "
            "version"
        )
    return path.read_bytes()


def _zipped(content: bytes) -> str:
    """Compresses bytes by gzip, which browsers unpack, and returns the result as base64 text."""
    return base64.b64encode(gzip.compress(content, 9, mtime=0)).decode()
