"""Exports a trained model, or a part of it, as one file that runs without aejax or flax.

    export(model, variables, "decoder.stablehlo")              # jax alone runs it
    export(model, variables, "decoder.onnx", weights="int8")   # onnxruntime; a quarter of the size
    export(model, variables, "all.onnx", part="all", example=batch, threshold=95.0)
    export(model, variables, "decoder.html", example=batch, page=Page("onnxruntime-web"))

| ending | what it is | what is written next to it |
|---|---|---|
| .stablehlo | a program for `jax.export.deserialize` | run_exported.py |
| .onnx | a program for onnxruntime | run_exported.py |
| .safetensors | the weights alone | a table of names and shapes |
| .html | a page that runs the decoder in a browser | |

`aejax.interop.programs.parts` lists the parts with their inputs and outputs.
"""

from __future__ import annotations

import os
import pathlib
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias, get_args

from aejax.errors import UserError
from aejax.files import write_bytes, writing
from aejax.interop.programs import parts
from aejax.interop.programs.onnx import onnx
from aejax.interop.programs.program import Program, Traced, trace
from aejax.interop.programs.stablehlo import stablehlo
from aejax.interop.programs.tensors import table, tensors
from aejax.interop.programs.web import Page, web
from aejax.interop.programs.weights import Packed, Stored, pack
from aejax.types import Batch, Term, Variables

Part: TypeAlias = Literal["decoder", "encoder", "all", "dictionary"]
ENDINGS = (".stablehlo", ".onnx", ".safetensors", ".html")
SCRIPT = "run_exported.py"


def export(
    model: Any,
    variables: Variables | None,
    path: str | os.PathLike[str],
    *,
    part: Part = "decoder",
    outputs: Sequence[str] = (),
    weights: Stored = "float32",
    example: Batch | None = None,
    score: Term | None = None,
    threshold: float | None = None,
    page: Page | None = None,
) -> list[pathlib.Path]:
    """Writes a model, or a part of it, as one file, and next to it a script or table for its use.

    Args:
      model: an Autoencoder, of the library's nets or your own. For the part "dictionary" it may
        also be an `ae.dictionary.Plain`, which needs no variables.
      variables: the variables {params, memory} of one model, without an axis of seeds.
      path: the file; its ending chooses the format.
      part: what to export: "decoder", "encoder", "all" (both), or "dictionary" (a sparse dictionary
        as plain weights on raw inputs). Weights on which no output depends are left out.
      outputs: the names of the outputs to keep, such as ("mean",); () keeps all.
      weights: how matrices are stored; the program computes in float32.
      example: a batch of examples, not scaled or otherwise changed. "encoder" and "all" need its
        shapes; a model that was trained with a context needs its context; a web page stores the
        codes of its first examples.
      score: for "encoder" and "all", the term that scores x, such as `ae.losses.squared_error`.
        None: for "encoder" the rate, for "all" the negative ELBO of the latent without noise, in
        nats, and the squared error of a model without a likelihood.
      threshold: the score above which the program calls an example anomalous.
      page: for .html, the folder of onnxruntime-web, and the title and labels of the page.

    Returns:
      The paths of the files, that of `path` first.

    Raises:
      UserError: if the part, the ending or the weights are unknown, a package is missing, the model
        has no such part, an operation cannot be exported, or an ONNX program does not compute what
        the model does (which is checked if onnxruntime is installed). Nothing is written then.
    """
    path = pathlib.Path(path)
    if path.suffix not in ENDINGS:
        raise UserError(
            f"{path.name!r} does not say what to write: give a name that ends in one of "
            f"{', '.join(ENDINGS)}"
        )
    variables = variables or {}
    program = _program(model, variables, part, example, score, threshold)
    traced = trace(program, outputs)
    if not outputs:
        for name, reason in traced.facts.items():
            warnings.warn(f"the output {name} is {reason}", stacklevel=2)
    packed = pack(traced.weights, weights)
    if path.suffix == ".html":
        files = {path.name: web(traced, packed, model, variables, example, page)}
    else:
        files = _files(path, traced, packed, _about(traced, weights, threshold))
    with writing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
    # `path` is written last: if it exists, the files that belong to it exist too.
    for name, content in reversed(files.items()):
        write_bytes(path.with_name(name), content)
    return [path.with_name(name) for name in files]


def _program(
    model: Any,
    variables: Variables,
    part: Part,
    example: Batch | None,
    score: Term | None,
    threshold: float | None,
) -> Program:
    if part not in get_args(Part):
        raise UserError(f"there is no part {part!r}: choose one of {', '.join(get_args(Part))}")
    if part == "decoder":
        if score is not None or threshold is not None:
            raise UserError("a decoder sees no x to score: choose the part encoder or all")
        return parts.decoder(model, variables, example)
    if part == "dictionary":
        if score is not None:
            raise UserError("a dictionary's score is its squared error: give no other")
        return parts.dictionary(model, variables, example, threshold)
    if example is None:
        raise UserError(f"the part {part} starts at x, whose shape is needed: give an example")
    make = parts.encoder if part == "encoder" else parts.whole
    return make(model, variables, example, score, threshold)


def _about(traced: Traced, weights: Stored, threshold: float | None) -> dict[str, str]:
    """Returns what is stored in the file to describe it, such as its part: name -> text."""
    limit = {} if threshold is None else {"threshold": f"{threshold:g}"}
    return {"part": traced.name, "weights": weights, **limit, **traced.facts}


def _files(
    path: pathlib.Path, traced: Traced, packed: Mapping[str, Packed], about: Mapping[str, str]
) -> dict[str, bytes]:
    """Returns the exported file and the script or table next to it, for any format but .html.

    Returns:
      name of a file -> its content, the exported file first.
    """
    if path.suffix == ".safetensors":
        text = table(path.name, packed, about)
        return {path.name: tensors(packed, about), f"{path.stem}.md": text.encode()}
    script = pathlib.Path(parts.__file__).with_name(f"run_{path.suffix[1:]}.py")
    stable = path.suffix == ".stablehlo"
    content = stablehlo(traced, packed) if stable else onnx(traced, packed, about)
    return {path.name: content, SCRIPT: script.read_bytes()}
