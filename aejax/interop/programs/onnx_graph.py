"""Merges nodes of an ONNX graph, so that it runs faster, and renames its values.

shorten(model)                      # the same function in fewer nodes
rename(model.graph, {"in_0": "z"})
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np


def shorten(model: Any) -> None:
    """Merges nodes that jax2onnx writes and onnxruntime does not merge when it loads a file.

    A shape that is computed from the batch size becomes a constant with -1 in its place, and a bias
    that is added to a product of matrices becomes an input of Gemm.
    """
    graph = model.graph
    shapes = _shapes(model)
    made = {output: node for node in graph.node for output in node.output}
    known = {value.name: value for value in graph.initializer}
    for node in graph.node:
        if node.op_type == "Reshape":
            _constant_shape(graph, node, made, known, shapes)
    readers: dict[str, int] = {}
    for name in itertools.chain(_read(graph), (value.name for value in graph.output)):
        readers[name] = readers.get(name, 0) + 1
    for node in graph.node:
        product = made.get(node.input[0]) if node.op_type == "Add" else None
        if product is not None and product.op_type == "Gemm" and readers[node.input[0]] == 1:
            _bias(product, node, known)
    _prune(graph)


def _shapes(model: Any) -> dict[str, list[int]]:
    """Returns name -> shape of those values in the graph whose sizes are all known numbers."""
    from onnx import shape_inference

    graph = shape_inference.infer_shapes(model).graph
    found = {}
    for value in graph.value_info:
        dims = value.type.tensor_type.shape.dim
        if all(dim.HasField("dim_value") for dim in dims):
            found[value.name] = [dim.dim_value for dim in dims]
    return found


def _constant_shape(
    graph: Any,
    node: Any,
    made: Mapping[str, Any],
    known: Mapping[str, Any],
    shapes: Mapping[str, list[int]],
) -> None:
    """Replaces the computed shape of a Reshape node by a constant, if all sizes but one are known.

    Args:
      graph: the graph.
      node: the Reshape node.
      made: name of a value -> the node that computes it.
      known: name of a value -> its constant.
      shapes: name of a value -> its shape.
    """
    from onnx import numpy_helper

    joined = made.get(node.input[1])
    if joined is None or joined.op_type != "Concat":
        return
    sizes: list[int] = []
    for name in joined.input:
        if name in known:
            sizes += numpy_helper.to_array(known[name]).tolist()
        elif shapes.get(name) == [1]:
            sizes.append(-1)
        else:
            return
    if sizes.count(-1) == 1 and 0 not in sizes:
        name = f"{node.output[0]}_shape"
        graph.initializer.append(numpy_helper.from_array(np.asarray(sizes, np.int64), name))
        node.input[1] = name


def _bias(product: Any, addition: Any, known: Mapping[str, Any]) -> None:
    """Moves the constant that is added to f32[B, n] = Gemm(x, W, 0) into Gemm."""
    from onnx import numpy_helper

    zero, bias = known.get(product.input[2]), known.get(addition.input[1])
    if zero is None or bias is None or numpy_helper.to_array(zero).any():
        return
    if len(bias.dims) == 1 or (len(bias.dims) == 2 and bias.dims[0] == 1):
        product.input[2] = bias.name
        for attribute in product.attribute:
            if attribute.name == "beta":  # jax2onnx writes 0
                attribute.f = 1.0
        product.output[0], addition.output[0] = addition.output[0], f"{addition.output[0]}_unused"


def _prune(graph: Any) -> None:
    """Removes the nodes and constants that no output depends on."""
    while True:
        read = set(_read(graph)) | {value.name for value in graph.output}
        kept = [node for node in graph.node if read & set(node.output)]
        if len(kept) == len(graph.node):
            break
        del graph.node[:]
        graph.node.extend(kept)
    constants = [value for value in graph.initializer if value.name in read]
    del graph.initializer[:]
    graph.initializer.extend(constants)


def _read(graph: Any) -> list[str]:
    """Returns the names that the nodes of a graph read, also inside loops and branches."""
    names = []
    for node in graph.node:
        names += node.input
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                names += [*_read(inner), *(value.name for value in inner.output)]
    return names


def rename(graph: Any, names: Mapping[str, str]) -> None:
    """Renames values of a graph (old name -> new name) wherever they occur.

    If another value already has one of the new names, it gets an unused name.
    """
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
