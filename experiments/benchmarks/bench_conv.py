"""Speed of the library's convolutions and their derivatives in a loop, compared with JAX's own.

    python -m experiments bench-conv

Training steps run in a compiled loop, and inside loops the derivatives of JAX's convolutions are
slow on CPUs (see aejax/kernels/conv.py). A step computes the output of a layer, and the gradients
for its 100 images and its kernel. aejax and JAX are timed alternately, several times each, and each
result is the median. The benchmark takes 2 minutes on 2 CPU cores.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from aejax.files import write_json
from aejax.kernels.conv import convolve, convolve_transposed
from aejax.runs.environment import environment
from experiments.shared.place import prepared, say

IMAGES = 100
ORDER = ("NHWC", "HWIO", "NHWC")
Layer = Callable[[Any, Any], Any]  # (images, kernel) -> output


class Shape(NamedTuple):
    """The shape of a convolutional layer."""

    size: int  # height and width of an image
    inputs: int  # input channels
    outputs: int  # output channels
    kernel: int  # height and width of the kernel
    stride: int
    transposed: bool = False  # whether it is a transposed convolution


SHAPES = {
    "3x3, 24 to 24 channels at 14x14": Shape(14, 24, 24, 3, 1),
    "3x3, 64 to 64 channels at 14x14": Shape(14, 64, 64, 3, 1),
    "7x7, 1 to 32 channels at 28x28": Shape(28, 1, 32, 7, 1),
    "3x3, 32 to 64 channels at 14x14, stride 2": Shape(14, 32, 64, 3, 2),
    "4x4 transposed, 64 to 32 channels at 7x7, stride 2": Shape(7, 64, 32, 4, 2, True),
}


def command(out: str = "runs/bench-conv", rounds: int = 5, steps: int = 5) -> None:
    """Times aejax's and JAX's convolutions for each layer of SHAPES, and writes result.json.

    Args:
      out: the folder for result.json.
      rounds: how many times each implementation is timed.
      steps: the number of steps in the loop that is timed.
    """
    folder = prepared(out, rounds=rounds, steps=steps)
    result: dict[str, Any] = {}
    for name, shape in SHAPES.items():
        rates = {
            program: {"images_per_second": rate}
            for program, rate in measured(shape, rounds, steps).items()
        }
        ratio = rates["aejax"]["images_per_second"] / rates["jax"]["images_per_second"]
        result[name] = {**rates, "ratios": {"jax": ratio}}
        say(f"{name}: {ratio:.1f} times jax")
    write_json(folder / "result.json", {**result, "environment": environment()})


def measured(shape: Shape, rounds: int, steps: int) -> dict[str, float]:
    """Times a layer's implementations; returns "aejax" and "jax" -> images per second."""
    rng = np.random.default_rng(0)
    images = rng.normal(size=(IMAGES, shape.size, shape.size, shape.inputs))
    kernel = rng.normal(size=(shape.kernel, shape.kernel, shape.inputs, shape.outputs))
    start = jnp.asarray(images, jnp.float32), jnp.asarray(kernel, jnp.float32)
    loops = {name: loop(layer) for name, layer in layers(shape).items()}
    seconds: dict[str, list[float]] = {name: [] for name in loops}
    for turn in range(rounds + 1):
        for name, call in loops.items():
            began = time.perf_counter()
            jax.block_until_ready(call(start, steps))
            if turn:  # the first call, which compiles, is not counted
                seconds[name].append(time.perf_counter() - began)
    return {name: IMAGES * steps / statistics.median(taken) for name, taken in seconds.items()}


def layers(shape: Shape) -> dict[str, Layer]:
    """Returns the implementations of a layer: {"aejax": function, "jax": function}."""
    strides = (shape.stride, shape.stride)
    if shape.transposed:
        return {
            "aejax": lambda x, w: convolve_transposed(x, w, strides),
            "jax": lambda x, w: jax.lax.conv_transpose(x, w, strides, "SAME"),
        }
    return {
        "aejax": lambda x, w: convolve(x, w, strides, "SAME"),
        "jax": lambda x, w: jax.lax.conv_general_dilated(
            x, w, strides, "SAME", dimension_numbers=ORDER
        ),
    }


def loop(layer: Layer) -> Callable[[Any, int], Any]:
    """Returns a compiled function that takes gradient steps on the mean square of the output.

    It maps (images and kernel, number of steps) to the new images and kernel.
    """

    def step(_: Any, both: Any) -> Any:
        slopes = jax.grad(lambda both: jnp.mean(jnp.square(layer(*both))))(both)
        return jax.tree.map(jnp.subtract, both, slopes)

    return jax.jit(lambda both, steps: jax.lax.fori_loop(0, steps, step, both))
