"""The named tensors of one file: taken one by one, checked, and none left over."""

from __future__ import annotations

import json
import pathlib
import tokenize
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from lzma import LZMAError
from typing import Any

import jax.numpy as jnp
import numpy as np

from aejax.errors import UserError
from aejax.optional import needs
from aejax.types import Array

# What reading a damaged file raises, whatever its format; archive.py reads with the same list.
MALFORMED = (
    *(ValueError, TypeError, KeyError, IndexError, SyntaxError, OverflowError, AttributeError),
    *(EOFError, OSError, MemoryError, RuntimeError, zipfile.BadZipFile, zlib.error),
    LZMAError,  # any zip may be compressed so
    tokenize.TokenError,  # numpy looks for Python 2's integers in a header it cannot parse
)

_MOST = 2**31 - 1  # numbers along one axis


class Tensors:
    """The tensors of one file; each is taken once, by its name in that file.

    Attributes:
      path: of the file; every error names it.
    """

    def __init__(self, path: pathlib.Path, arrays: Mapping[str, Any]):
        self.path = path
        self._left = dict(arrays)

    def __contains__(self, name: str) -> bool:
        return name in self._left

    def take(self, name: str, shape: tuple[int, ...] | None = None) -> Array:
        """Takes a tensor, f32[shape].

        Args:
          name: in the file.
          shape: that it must have; None for a matrix of any shape.

        Raises:
          UserError: it is missing, has another shape, or holds what is no finite number.
        """
        if name not in self._left:
            there = f"{sorted(self._left)!r:.200}"
            raise UserError(f"{self.path} has no tensor {name!r}; not yet read are {there}")
        array = self._left.pop(name)
        if not isinstance(array, np.ndarray) or not (
            array.dtype.kind in "fiu" or array.dtype == jnp.bfloat16
        ):
            raise UserError(f"{name!r} in {self.path} holds no real numbers but {shown(array)}")
        if shape is None and (array.ndim != 2 or 0 in array.shape):
            raise UserError(f"{name!r} in {self.path} has shape {array.shape}, but is a matrix")
        if shape is not None and array.shape != shape:
            raise UserError(
                f"{name!r} in {self.path} has shape {array.shape} instead of {shape}: it "
                "does not fit the other tensors or the configuration"
            )
        with np.errstate(over="ignore"):
            array = np.asarray(array, np.float32)
        # A threshold of infinity takes a latent out; any other infinity is damage.
        if np.isnan(array).any() or (name != "threshold" and np.isinf(array).any()):
            raise UserError(f"{name!r} in {self.path} holds NaN or infinity: it is damaged")
        return jnp.asarray(array)

    def take_value(self, name: str) -> Any:
        """Takes what is no float tensor: a number, a string, a dictionary, an array of integers."""
        if name not in self._left:
            raise UserError(f"{self.path} has no entry {name!r}")
        return self._left.pop(name)

    def drop(self, *names: str) -> None:
        """Leaves out statistics that a forward pass does not need, where they are."""
        for name in names:
            self._left.pop(name, None)

    def close(self) -> None:
        """Raises UserError if the file holds a tensor that nobody took."""
        if self._left:
            raise UserError(
                f"{self.path} holds {sorted(self._left)[0]!r:.60}, which this architecture does "
                "not have: reading it without would compute something else"
            )


def read_safetensors(path: pathlib.Path) -> Tensors:
    """All tensors of a .safetensors file.

    Raises:
      UserError: the file is missing, truncated or damaged.
    """
    library = safetensors()

    def load(path: pathlib.Path) -> dict[str, np.ndarray]:
        try:
            return library.numpy.load_file(path)
        except library.SafetensorError as error:
            raise ValueError(str(error)) from error

    return Tensors(path, _read(path, load))


def safetensors() -> Any:
    """The package that reads and writes .safetensors, with its numpy part.

    Raises:
      UserError: it is not installed.
    """
    needs("safetensors.numpy", "reading and writing .safetensors")
    return needs("safetensors", "reading and writing .safetensors")


def read_npz(path: pathlib.Path) -> Tensors:
    """All arrays of a .npz file; arrays of Python objects are refused unread.

    Raises:
      UserError: the file is missing, truncated, damaged, or holds objects.
    """

    def load(path: pathlib.Path) -> dict[str, np.ndarray]:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}

    return Tensors(path, _read(path, load))


def read_config(path: pathlib.Path) -> dict[str, Any]:
    """A JSON file that holds one object.

    Raises:
      UserError: the file is missing or damaged.
    """

    def load(path: pathlib.Path) -> dict[str, Any]:
        data = json.loads(path.read_bytes())
        if not isinstance(data, dict):
            raise ValueError(f"it holds {type(data).__name__} instead of an object")
        return data

    return _read(path, load)


def _read(path: pathlib.Path, load: Any) -> Any:
    try:
        return load(path)
    except FileNotFoundError as error:
        raise UserError(f"there is no file {path}") from error
    except MALFORMED as error:
        raise UserError(f"{path} cannot be read ({reason(error)}): fetch it again") from error


def reason(error: Exception) -> str:
    """What an exception says, on one short line without the bytes of the file that it quotes."""
    words = " ".join(str(error).split()) or type(error).__name__
    return ascii(words)[1:-1] if len(words) < 160 else ascii(words[:157])[1:-1] + "..."


def shown(value: Any) -> str:
    """A value out of a file that nobody may trust, for a sentence: itself, or its type alone.

    A container is not formatted: its repr may be without end, or too deep for the interpreter.
    """
    if isinstance(value, np.ndarray):
        return f"an array of {value.dtype.name}"
    # Python refuses to write an integer of thousands of digits.
    if isinstance(value, int) and value.bit_length() > 64:
        return "a number of more than 64 bits"
    if value is None or isinstance(value, str | int | float):
        return f"{value!r:.60}"
    return f"a value of type {type(value).__name__}"


def entry(config: Mapping[str, Any], name: str, kind: type, path: pathlib.Path) -> Any:
    """An entry of a configuration, of the type that it must have.

    Raises:
      UserError: it is missing or of another type; whole numbers must be at least 1.
    """
    value = config.get(name)
    if kind is int:
        return count(value, None, name, path)
    if not isinstance(value, kind):
        raise UserError(
            f"{name!r} in {path} is {shown(value)}, but must be of type {kind.__name__}"
        )
    return value


def check_keys(
    config: Mapping[str, Any], known: Iterable[str], whose: str, path: pathlib.Path
) -> None:
    """Raises UserError for a key that is not known, as it may change what is computed.

    Args:
      config: a configuration, or an entry of one.
      known: its names.
      whose: keys they are, for the sentence, in the singular.
      path: of the file.
    """
    unknown = sorted(config.keys() - set(known))
    if unknown:
        raise UserError(f"{path} has the key {unknown[0]!r:.60}, which no {whose} has")


def count(value: Any, most: int | None, name: str, path: pathlib.Path) -> int:
    """A number of latents, which a file may hold as a number or as a tensor of one integer.

    Args:
      value: as it stands in the file.
      most: the largest that makes sense; None for that of any axis.
      name: of the entry.
      path: of the file.

    Raises:
      UserError: it is no whole number between 1 and `most`.
    """
    most = _MOST if most is None else most
    if isinstance(value, np.ndarray) and value.shape == () and value.dtype.kind in "iu":
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= most:
        return value
    raise UserError(
        f"{name!r} in {path} is {shown(value)}, but must be a whole number of at least 1 and at "
        f"most {most}"
    )
