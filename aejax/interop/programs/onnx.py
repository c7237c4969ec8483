"""ONNX: a program that onnxruntime runs in Python, in a browser, on a telephone; one file."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

from aejax.errors import UserError
from aejax.interop.programs.program import Traced, batched, mapped
from aejax.interop.programs.weights import Packed
from aejax.optional import needs

OPSET = 21


def onnx(traced: Traced, packed: Mapping[str, Packed], about: Mapping[str, str]) -> bytes:
    """Returns the bytes of one .onnx file, weights included.

    Its inputs and outputs have the names of the program's; their first axis is called B.

    Raises:
      UserError: if jax2onnx is not installed, or an operation has no form in ONNX.
    """
    converter = needs("jax2onnx", "exporting ONNX")
    order, names = list(traced.inputs), list(traced.outputs)
    run = mapped(traced, packed, _replaced)

    def listed(*values: Any) -> tuple[Any, ...]:
        found = run(dict(zip(order, values, strict=True)))
        return tuple(found[name] for name in names)

    specs = list(batched(traced.inputs, "B").values())
    try:
        with _quiet():
            model = converter.to_onnx(listed, specs, model_name=traced.name, opset=OPSET)
    except UserError:
        raise
    except Exception as error:  # the converter raises errors of many kinds
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise UserError(
            f"the {traced.name} of this model cannot be written as ONNX, because jax2onnx does "
            f"not convert one of its operations ({reason}): export it as StableHLO"
        ) from error
    renamed = dict(zip((value.name for value in model.graph.input), order, strict=True))
    renamed |= dict(zip((value.name for value in model.graph.output), names, strict=True))
    _rename(model.graph, renamed)
    for key, text in about.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, text
    return model.SerializeToString()


def _replaced(equation: Any, given: list[Any]) -> list[Any] | None:
    """Replaces operations that jax2onnx does not convert for a batch of any size.

    Of an operation that the library has in a form for each platform, ONNX gets the default, which
    runs on platforms without measurements: a single operation. Padding becomes a concatenation.
    """
    name, params = equation.primitive.name, equation.params
    if name == "platform_index":
        return [np.int32(len(params["platforms"]) - 1)]
    if name == "pad" and all(
        low >= 0 and high >= 0 and not w for low, high, w in params["padding_config"]
    ):
        values, filling = given
        for axis, (low, high, _) in enumerate(params["padding_config"]):
            sides = [
                jax.lax.broadcast(filling, (*values.shape[:axis], size, *values.shape[axis + 1 :]))
                for size in (low, high)
            ]
            values = jax.lax.concatenate([sides[0], values, sides[1]], axis)
        return [values]
    return None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hides what jax2onnx prints and logs, such as the traceback of one of its plug-ins."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _rename(graph: Any, names: Mapping[str, str]) -> None:
    """Renames values of a graph everywhere; another value that has a new name gives way."""
    taken = {name for node in graph.node for name in node.output}
    taken |= {value.name for value in graph.initializer}
    moved = {name: f"{name}_inner" for name in taken & set(names.values())}
    _rename_in(graph, moved | dict(names))


def _rename_in(graph: Any, names: Mapping[str, str]) -> None:
    for values in (graph.input, graph.output, graph.initializer, graph.value_info):
        for value in values:
            value.name = names.get(value.name, value.name)
    for node in graph.node:
        for listed in (node.input, node.output):
            listed[:] = [names.get(name, name) for name in listed]
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                _rename_in(inner, names)
