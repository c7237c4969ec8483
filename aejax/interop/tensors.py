"""Reads the named tensors and the settings of a file; unknown ones raise an error."""

from __future__ import annotations

import pathlib
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import jax.numpy as jnp
import numpy as np

from aejax.bottlenecks.sparse.plain import Source
from aejax.errors import UserError
from aejax.files import check_regular, parse_json, read_bytes, reading
from aejax.files import read_npz as read_arrays
from aejax.files.json_file import MOST_BYTES
from aejax.optional import needs
from aejax.types import Array

_MOST = 2**31 - 1  # the largest size of an axis


class Tensors:
    """The tensors of one file, each of which can be taken once, by its name in that file.

    Attributes:
      path: the path of the file, for error messages.
    """

    def __init__(self, path: pathlib.Path, arrays: Mapping[str, Any]):
        self.path = path
        self._left = dict(arrays)

    def __contains__(self, name: str) -> bool:
        return name in self._left

    def take(self, name: str, shape: tuple[int, ...] | None = None) -> Array:
        """Returns a tensor of the file; the same tensor cannot be taken again.

        Args:
          name: the name of the tensor in the file.
          shape: the shape that the tensor must have; None: it must be a matrix of any shape.

        Returns:
          The tensor, f32[shape].

        Raises:
          UserError: if the tensor is missing, has another shape, or contains anything but finite
            numbers (a "threshold" may be infinite).
        """
        if name not in self._left:
            there = f"{sorted(self._left)!r:.200}"
            raise UserError(
                f"{self.path} has no tensor {name!r} (it has {there}): fetch the file again, or "
                "give a file of this architecture"
            )
        array = self._left.pop(name)
        if not isinstance(array, np.ndarray) or not (
            array.dtype.kind in "fiu" or array.dtype == jnp.bfloat16
        ):
            raise UserError(
                f"{name!r} in {self.path} is {shown(array)}, but must be a tensor of real numbers"
            )
        if shape is None and (array.ndim != 2 or 0 in array.shape):
            raise UserError(
                f"{name!r} in {self.path} has shape {array.shape}, but must be a matrix"
            )
        if shape is not None and array.shape != shape:
            raise UserError(
                f"{name!r} in {self.path} has shape {array.shape} instead of {shape}, which the "
                "other tensors or the configuration require: fetch the files again"
            )
        with np.errstate(over="ignore"):
            array = np.asarray(array, np.float32)
        # A latent with an infinite threshold is never active. Any other infinity is an error.
        if np.isnan(array).any() or (name != "threshold" and np.isinf(array).any()):
            raise UserError(
                f"{name!r} in {self.path} is damaged, since it holds NaN or infinity: fetch the "
                "file again"
            )
        return jnp.asarray(array)

    def take_value(self, name: str) -> Any:
        """Returns an entry of the file that is not a tensor: a number, a string or a dict."""
        if name not in self._left:
            raise UserError(f"{self.path} has no entry {name!r}: fetch the file again")
        return self._left.pop(name)

    def drop(self, *names: str) -> None:
        """Discards the named entries, if they exist, because the forward pass does not use them."""
        for name in names:
            self._left.pop(name, None)

    def close(self) -> None:
        """Raises UserError if the file has an entry that was neither taken nor dropped."""
        if self._left:
            raise UserError(
                f"{self.path} has an entry {sorted(self._left)[0]!r:.60}, which is unknown for "
                "this architecture, so the weights cannot be used: without it they may compute "
                "something else"
            )


def read_safetensors(path: pathlib.Path) -> Tensors:
    """Reads all tensors of a .safetensors file.

    Raises:
      UserError: if the file is missing or damaged.
    """
    library = safetensors()
    with _reading(path):
        check_regular(path)
        try:
            return Tensors(path, library.numpy.load_file(path))
        except library.SafetensorError as error:
            raise ValueError(str(error)) from error


def safetensors() -> Any:
    """Imports the package `safetensors` and its module for numpy, and returns the package.

    Raises:
      UserError: if the package is not installed.
    """
    needs("safetensors.numpy", "reading and writing .safetensors")
    return needs("safetensors", "reading and writing .safetensors")


def read_npz(path: pathlib.Path) -> Tensors:
    """Reads all arrays of an .npz file; arrays of Python objects are not unpickled.

    Raises:
      UserError: if the file is missing or damaged, or contains Python objects.
    """

    with _reading(path):
        return Tensors(path, read_arrays(path))


def read_config(path: pathlib.Path) -> dict[str, Any]:
    """Reads a JSON file whose content is one object.

    Raises:
      UserError: if the file is missing or damaged, or contains something else.
    """

    with _reading(path):
        data = parse_json(read_bytes(path, MOST_BYTES))
        if not isinstance(data, dict):
            raise ValueError(f"it holds {type(data).__name__} instead of an object")
        return data


def _reading(path: pathlib.Path) -> AbstractContextManager[None]:
    missing = f"there is no file {path}: fetch it, or give another folder"
    return reading(path, "fetch it again", missing)


def shown(value: Any) -> str:
    """Returns a description of a value from an untrusted file, for an error message.

    It contains the value only if that is short. A container is never formatted, because its repr
    may be endless, or nested too deeply for the interpreter.
    """
    if isinstance(value, np.ndarray):
        return f"an array of {value.dtype.name}"
    # Python raises an error for the repr of an integer with thousands of digits.
    if isinstance(value, int) and value.bit_length() > 64:
        return "a number of more than 64 bits"
    if value is None or isinstance(value, str | int | float):
        return f"{value!r:.60}"
    return f"a value of type {type(value).__name__}"


def entry(config: Mapping[str, Any], name: str, kind: type, path: pathlib.Path) -> Any:
    """Returns an entry of a configuration after checking its type.

    Args:
      config: the configuration.
      name: the key of the entry.
      kind: the type that the entry must have; an int must also be at least 1.
      path: the path of the configuration, for error messages.

    Raises:
      UserError: if the entry is missing or of another type.
    """
    value = config.get(name)
    if kind is int:
        return count(value, None, name, path)
    if not isinstance(value, kind):
        raise UserError(
            f"{name!r} in {path} is {shown(value)}, but must be of type {kind.__name__}"
        )
    return value


def source(config: Any, model: str, reads: str, writes: str) -> Source | None:
    """Returns the model and hooks of a dictionary, or None if its configuration names no hook.

    Args:
      config: a configuration; anything but a mapping is treated like an empty one.
      model: the key of the model's name.
      reads: the key of the hook whose activations the dictionary encodes.
      writes: the key of the hook whose activations it reconstructs, which only a transcoder has.
    """
    given = config if isinstance(config, Mapping) else {}
    found = [given.get(key) for key in (model, reads, writes)]
    names = [name if isinstance(name, str) and name else None for name in found]
    return Source(*names) if names[1] else None


def check_keys(
    config: Mapping[str, Any], known: Iterable[str], whose: str, path: pathlib.Path
) -> None:
    """Checks that a configuration has only known keys.

    An unknown key may change what the weights compute.

    Args:
      config: a configuration, or a mapping inside one.
      known: the known keys.
      whose: the kind of object that has the known keys, such as "known trainer", for the message.
      path: the path of the configuration, for error messages.

    Raises:
      UserError: if there is an unknown key.
    """
    unknown = sorted(config.keys() - set(known))
    if unknown:
        raise UserError(
            f"{path} has the key {unknown[0]!r:.60}, which no {whose} has, so it cannot be read: "
            "the key may change what is computed"
        )


def count(value: Any, most: int | None, name: str, path: pathlib.Path) -> int:
    """Returns a count as an int; in the file it may be a number or a tensor of one integer.

    Args:
      value: the value in the file.
      most: the largest valid count, or None for the largest size of an axis.
      name: the name of the entry, for the error message.
      path: the path of the file, for the error message.

    Raises:
      UserError: if the value is not an integer between 1 and `most`.
    """
    most = _MOST if most is None else most
    if isinstance(value, np.ndarray) and value.shape == () and value.dtype.kind in "iu":
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= most:
        return value
    raise UserError(
        f"{name!r} in {path} is {shown(value)}, but must be an integer of at least 1 and at most "
        f"{most}"
    )
