"""What a detector is, and how it scores any number of pictures in bounded memory."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from aejax.errors import UserError
from aejax.types import Array, Key

State = Mapping[str, Any]  # name -> array
BLUR = 1 / 64  # the standard deviation of the maps' blur, as a share of the picture's height


def peak(state: State, pictures: Array, maps: Array) -> Array:
    """Returns the largest value of each map, f32[B]; in anomalib this is the score of a picture."""
    return jnp.max(maps, axis=(1, 2))


class Detector(NamedTuple):
    """A way to detect anomalies: three pure functions of pictures f32[B, H, W, C] in [0, 1]."""

    # (key, good pictures u8[N, H, W, C]) -> state: name -> array, which may be stored
    fit: Callable[[Key, np.ndarray], State]
    # (state and `given`, pictures) -> how anomalous each place is, f32[B, h, w], on any grid
    map: Callable[[State, Array], Array]
    # (state and `given`, pictures, blurred maps f32[B, H, W]) -> the score of each picture, f32[B]
    score: Callable[[State, Array, Array], Array] = peak
    # What the detector was made with, such as the variables of a trained net.
    given: State = types.MappingProxyType({})


class Features(NamedTuple):
    """A function from pictures to features of their patches, and the arrays that it needs."""

    apply: Callable[[Any, Array], Array]  # (arrays, f32[B, H, W, C]) -> f32[B, h, w, D]
    arrays: Any = ()


class Found(NamedTuple):
    """Scores and maps of M pictures; a higher value is more anomalous."""

    score: np.ndarray  # f32[M]
    map: np.ndarray  # f32[M, H, W], blurred


def detect(
    detector: Detector, state: State, pictures: np.ndarray, batch: int = 50, blur: float = BLUR
) -> Found:
    """Scores pictures and computes their maps, some pictures at a time.

    Args:
      detector: the detector.
      state: what its `fit` returned.
      pictures: u8[M, H, W, C].
      batch: the number of pictures at a time.
      blur: the standard deviation of the Gaussian that blurs maps, as a share of the height.

    Raises:
      UserError: if the pictures are not u8[M, H, W, C], or the detector's maps or scores have
        another shape or the scores are not finite.
    """
    check_pictures(pictures)
    step = _compiled(detector.map, detector.score, blur)
    state = jax.tree.map(jnp.asarray, {**detector.given, **state})
    scores, maps = [], []
    for start in range(0, len(pictures), batch):
        part = pictures[start : start + batch]
        # The last batch is padded, so that the program is compiled for one size only.
        rows = np.minimum(np.arange(min(batch, len(pictures))), len(part) - 1)
        score, found = step(state, part[rows])
        scores.append(np.asarray(score)[: len(part)])
        maps.append(np.asarray(found)[: len(part)])
    score = np.concatenate(scores)
    if not np.isfinite(score).all():
        place = int(np.argmin(np.isfinite(score)))
        raise UserError(f"picture {place} has the score {score[place]}: fit the detector again")
    return Found(score, np.concatenate(maps))


def check_pictures(pictures: np.ndarray) -> None:
    """Raises UserError unless pictures are u8[M, H, W, C] with M at least 1."""
    if pictures.ndim != 4 or pictures.dtype != np.uint8 or not len(pictures):
        raise UserError(
            f"the pictures have shape {pictures.shape} and dtype {pictures.dtype}: give one or "
            "more as u8[M, height, width, channels]"
        )


@functools.lru_cache(maxsize=32)
def _compiled(place: Any, score: Any, blur: float) -> Callable[..., tuple[Array, Array]]:
    def step(state: State, stored: Array) -> tuple[Array, Array]:
        pictures = scaled(stored)
        height, width = pictures.shape[1:3]
        found = place(state, pictures)
        if found.ndim != 3 or len(found) != len(pictures):
            raise UserError(
                f"the detector's map has shape {found.shape} for {len(pictures)} pictures: return "
                "f32[B, h, w]"
            )
        maps = smooth(found, (height, width), blur)
        scores = score(state, pictures, maps)
        if jnp.shape(scores) != (len(pictures),):
            raise UserError(
                f"the detector's score has shape {jnp.shape(scores)} for {len(pictures)} pictures: "
                "return f32[B]"
            )
        return scores, maps

    return jax.jit(step)


def scaled(pictures: Any) -> Array:
    """Returns pictures u8[...] as f32[...] in [0, 1]."""
    return jnp.asarray(pictures).astype(jnp.float32) * np.float32(1 / 255)


def smooth(maps: Array, size: tuple[int, int], blur: float) -> Array:
    """Enlarges maps f32[B, h, w] to pictures of the given size, and blurs them, f32[B, H, W].

    Args:
      maps: the maps.
      size: the height and width of the pictures.
      blur: the standard deviation of the Gaussian as a share of the height; 0: no blur.
    """
    maps = jax.image.resize(maps, (maps.shape[0], *size), "linear")
    sigma = blur * size[0]
    if sigma <= 0:
        return maps
    reach = max(1, round(3 * sigma))
    offset = jnp.arange(-reach, reach + 1)
    kernel = jnp.exp(-jnp.square(offset / sigma) / 2)
    kernel = kernel / kernel.sum()
    # The edge is repeated, because zeros outside would make the edge of a map look good.
    wide = jnp.pad(maps, ((0, 0), (reach, reach), (reach, reach)), mode="edge")
    rows = sum(kernel[i] * wide[:, i : i + size[0]] for i in range(2 * reach + 1))
    return sum(kernel[i] * rows[:, :, i : i + size[1]] for i in range(2 * reach + 1))  # type: ignore


def by_position(features: Features, pictures: np.ndarray, batch: int = 50) -> np.ndarray:
    """Computes the features of all pictures, f32[N, h, w, D]."""
    check_pictures(pictures)
    step = _compiled_features(features.apply)
    found = []
    for start in range(0, len(pictures), batch):
        part = pictures[start : start + batch]
        rows = np.minimum(np.arange(min(batch, len(pictures))), len(part) - 1)
        found.append(np.asarray(step(features.arrays, part[rows]))[: len(part)])
    return np.concatenate(found)


@functools.lru_cache(maxsize=32)
def _compiled_features(apply: Callable[[Any, Array], Array]) -> Callable[[Any, Any], Array]:
    return jax.jit(lambda arrays, stored: apply(arrays, scaled(stored)))
