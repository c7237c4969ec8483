"""Runs an ONNX file before it is written, and compares it with the program that it was made from.

A converter can misread an operation without an error. Then onnxruntime refuses the file, or runs it
and computes something else; either is found here.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping

import jax
import numpy as np

from aejax.errors import UserError
from aejax.interop.programs.program import Traced, mapped
from aejax.interop.programs.weights import Packed

SIZE = 2  # number of examples
# An entry differs if it is further away than this, relative to the larger of its size and 1.
BOUND = 1e-3
# A number that rounding moves over a threshold switches a latent or a sampled bit, so this share of
# an output's entries may differ.
SHARE = 0.01


def check(content: bytes, traced: Traced, packed: Mapping[str, Packed]) -> None:
    """Compares an .onnx file with its program on random inputs, if onnxruntime is installed.

    Args:
      content: the bytes of the .onnx file.
      traced: the program from which the file was made.
      packed: the weights as the file stores them.

    Raises:
      UserError: if onnxruntime cannot run the file, or it computes something else.
    """
    if importlib.util.find_spec("onnxruntime") is None:
        return
    random = np.random.default_rng(0)
    inputs = {
        name: random.random((SIZE, *spec.shape)).astype(spec.dtype)
        for name, spec in traced.inputs.items()
    }
    wanted = jax.jit(mapped(traced, packed))(inputs)
    try:
        found = _run(content, list(wanted), inputs)
    except Exception as error:  # onnxruntime raises errors of many kinds
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"the part {traced.name} of this model cannot be written as ONNX, because onnxruntime "
            f"does not run what jax2onnx made of it ({reason}): export it as StableHLO"
        ) from error
    for name, value in wanted.items():
        fault = _fault(found[name], np.asarray(value))
        if fault is not None:
            raise UserError(
                f"the part {traced.name} of this model cannot be written as ONNX, because jax2onnx "
                f"misreads one of its operations, so that the output {name} {fault}: export it as "
                "StableHLO"
            )


def _run(
    content: bytes, outputs: list[str], inputs: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # only fatal errors are printed
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return dict(zip(outputs, session.run(outputs, dict(inputs)), strict=True))


def _fault(found: np.ndarray, wanted: np.ndarray) -> str | None:
    """Returns a phrase that says how an output differs from the wanted one.

    The result is None if at most a share `SHARE` of its entries differ."""
    if found.shape != wanted.shape:
        return f"has the shape {found.shape} instead of {wanted.shape}"
    if not wanted.size:
        return None
    exact = wanted.astype(np.float64)
    same = (found == exact) | (np.isnan(found) & np.isnan(exact))
    with np.errstate(invalid="ignore"):
        off = np.where(same, 0.0, np.abs(found - exact) / np.maximum(1.0, np.abs(exact)))
    if np.mean(~(off <= BOUND)) <= SHARE:
        return None
    return f"differs from the model's by up to {np.max(off):.2g}, where {BOUND:g} is allowed"
