"""Features of the patches of a picture, for detectors that compare patches.

patches(8, 4)                           # the pixels of overlapping patches
encoded(model, variables)               # a trained autoencoder's convolutional encoder
network(lambda x: net.apply(weights, x))   # any net of Flax, or any function of JAX
onnx("features.onnx")                   # a net in the ONNX format
pooled(joined(a, b))                    # two of them side by side, averaged over neighbours
"""

from __future__ import annotations

import functools
import os
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from aejax.errors import UserError
from aejax.inspection.detector import Features
from aejax.optional import needs
from aejax.types import Array, Batch, Variables


@functools.lru_cache(maxsize=32)  # equal features have one function, which compiles only once
def patches(side: int = 8, stride: int = 4, centred: bool = False) -> Features:
    """Returns as features the pixels of patches, D = side * side * channels.

    Args:
      side: the height and width of a patch.
      stride: the distance between neighbouring patches.
      centred: whether the mean of each patch's channels is subtracted, so that a change of the
        brightness between pictures is no anomaly.
    """

    def apply(_: Any, pictures: Array) -> Array:
        if min(pictures.shape[1:3]) < side:
            raise UserError(
                f"patches of {side}x{side} pixels do not fit into pictures of "
                f"{pictures.shape[1]}x{pictures.shape[2]}: give a smaller side"
            )
        found = lax.conv_general_dilated_patches(
            pictures, (side, side), (stride, stride), "VALID",
            dimension_numbers=("NHWC", "HWIO", "NHWC"), precision=lax.Precision.HIGHEST,
        )  # fmt: skip
        if centred:
            parts = found.reshape((*found.shape[:3], pictures.shape[-1], side * side))
            found = (parts - parts.mean(axis=-1, keepdims=True)).reshape(found.shape)
        return found

    return Features(apply)


def encoded(model: Any, variables: Variables) -> Features:
    """Returns as features a trained model's encoder, whose output must be maps [B, h, w, D]."""

    def apply(variables: Any, pictures: Array) -> Array:
        found = model.apply(variables, Batch(pictures, pictures), method=model.features)
        return _check_maps(found, f"the encoder {type(model.encoder).__name__}")

    return Features(apply, variables)


def network(function: Any, variables: Any) -> Features:
    """Returns the features of a net: function(variables, f32[B, H, W, C]) -> f32[B, h, w, D].

    For a net of Flax, the function is `net.apply`.
    """

    def apply(variables: Any, pictures: Array) -> Array:
        return _check_maps(function(variables, pictures), "the feature net")

    return Features(apply, variables)


def onnx(path: str | os.PathLike) -> Features:
    """Returns the features of a net in the ONNX format, whose one input is f32[B, C, H, W].

    The channels of a grey picture are repeated if the net reads three. The one output is
    f32[B, D, h, w].

    Raises:
      UserError: if onnxruntime is not installed, or the file cannot be read as a net.
    """
    runtime = needs("onnxruntime", "a feature net in the ONNX format")
    if not pathlib.Path(path).is_file():
        raise UserError(f"there is no file {path}: give the path of an ONNX file")
    try:
        session = runtime.InferenceSession(os.fspath(path), providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors have no common public class
        raise UserError(f"{path} is no net that onnxruntime can run ({error})") from error
    entry = session.get_inputs()[0]

    def run(pictures: Any) -> np.ndarray:
        channels = np.asarray(pictures, np.float32).transpose(0, 3, 1, 2)
        if entry.shape[1] == 3 and channels.shape[1] == 1:
            channels = np.repeat(channels, 3, axis=1)
        found = session.run(None, {entry.name: channels})[0]
        return np.ascontiguousarray(found.transpose(0, 2, 3, 1), np.float32)

    def apply(_: Any, pictures: Array) -> Array:
        # The shape of the output is that of a run on zeros, because the file may not state it.
        shape = run(np.zeros(pictures.shape, np.float32)).shape
        return jax.pure_callback(run, jax.ShapeDtypeStruct(shape, jnp.float32), pictures)

    return Features(apply)


def pooled(features: Features, side: int = 3) -> Features:
    """Returns features averaged over side x side neighbouring places."""

    def averaged(arrays: Any, pictures: Array) -> Array:
        found = features.apply(arrays, pictures)
        reach = side // 2
        wide = jnp.pad(found, ((0, 0), (reach, reach), (reach, reach), (0, 0)), mode="edge")
        window = (1, side, side, 1)
        return lax.reduce_window(wide, 0.0, lax.add, window, (1, 1, 1, 1), "VALID") / side**2

    return Features(averaged, features.arrays)


def joined(*features: Features) -> Features:
    """Returns several features concatenated, after resizing all to the grid of the first."""

    def together(arrays: Any, pictures: Array) -> Array:
        found = [f.apply(a, pictures) for f, a in zip(features, arrays, strict=True)]
        grid = found[0].shape[:3]
        found = [jax.image.resize(f, (*grid, f.shape[-1]), "linear") for f in found]
        return jnp.concatenate(found, axis=-1)

    return Features(together, tuple(f.arrays for f in features))


def _check_maps(found: Array, what: str) -> Array:
    if found.ndim != 4:
        raise UserError(
            f"{what} returns shape {found.shape}, but features of patches have shape "
            "[B, height, width, channels]: give a convolutional net without a dense layer, such as "
            "nets.SpatialEncoder"
        )
    return found
