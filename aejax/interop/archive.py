"""A reader of PyTorch's .pt files that does not import or call anything that a file names.

A file of torch.save is a zip archive. It contains `data.pkl`, a pickle that describes the tensors,
and `data/0`, `data/1`, ..., their bytes. A pickle is a program for a stack machine, and it may call
any function of any module. The machine below supports only the few operations that tensors need,
never looks up a name, and raises an error for every other operation.
"""

from __future__ import annotations

import math
import os
import pathlib
import zipfile
from collections.abc import Callable
from pickletools import genops
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from aejax.errors import UserError
from aejax.files import MALFORMED, open_file, reason
from aejax.interop.tensors import shown

_STORAGES = {
    "torch DoubleStorage": np.dtype(np.float64),
    "torch FloatStorage": np.dtype(np.float32),
    "torch HalfStorage": np.dtype(np.float16),
    "torch BFloat16Storage": np.dtype(jnp.bfloat16),
    "torch LongStorage": np.dtype(np.int64),
    "torch IntStorage": np.dtype(np.int32),
    "torch BoolStorage": np.dtype(np.bool_),
}
_DICTIONARY = "collections OrderedDict"
_TENSOR = "torch._utils _rebuild_tensor_v2"
_PARAMETER = "torch._utils _rebuild_parameter"

# Operations that push a value from the program, a constant, or an empty container onto the stack.
_LITERALS = (
    *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE"),
)
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_CONTAINERS = {"EMPTY_DICT": dict, "EMPTY_LIST": list}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
# The largest data.pkl, in bytes; that of a model with a thousand tensors has a tenth of this.
_PROGRAM = 2**20
_ORDER = 16  # the largest file `byteorder`, in bytes
_LONGEST = 64  # the longest tuple, since numpy arrays have 64 axes at most


class _Name(NamedTuple):
    """The name of a function or class in the file, which is never looked up."""

    path: str  # "module name"


_MARK = _Name("mark")


def read_torch(path: pathlib.Path) -> dict[str, Any]:
    """Reads the state dictionary in a file of torch.save; tensors become numpy arrays.

    Args:
      path: a file in the format of PyTorch 1.6 (July 2020) and later.

    Returns:
      name -> array, number, string or dictionary, as saved.

    Raises:
      UserError: if the file is damaged, is not a file of torch.save, or contains anything but
        tensors, numbers, strings and dictionaries.
    """
    try:
        with open_file(path) as file, zipfile.ZipFile(file) as archive:
            programs = [name for name in archive.namelist() if name.endswith("/data.pkl")]
            if len(programs) != 1:
                raise UserError(
                    f"{path} is not a file of torch.save, since it has no data.pkl: give another "
                    "file"
                )
            root = programs[0].removesuffix("data.pkl")
            if root + "byteorder" in archive.namelist() and (
                _read(archive, root + "byteorder", _ORDER) != b"little"
            ):
                raise UserError(
                    f"{path} has big-endian tensors, which are not supported: save it again on a "
                    "little-endian machine"
                )
            program = _read(archive, programs[0], _PROGRAM)
            size = os.fstat(file.fileno()).st_size
            result = _Machine(path, archive, root, size).run(program)
    except UserError:
        raise
    except zipfile.BadZipFile as error:
        raise UserError(
            f"{path} is not a complete file of torch.save ({reason(error)}): fetch it again if it "
            "is damaged; other pickle files are not read, since they may run code"
        ) from error
    except MALFORMED as error:
        raise UserError(
            f"{path} is damaged or not a file of torch.save ({reason(error)}): fetch it again"
        ) from error
    if not isinstance(result, dict) or not all(isinstance(name, str) for name in result):
        raise UserError(
            f"{path} contains a {type(result).__name__} instead of a state dictionary: save only "
            "the state dictionary"
        )
    return result


def _read(archive: zipfile.ZipFile, name: str, most: int) -> bytes:
    """Reads a file of the archive that has at most `most` bytes after it was inflated."""
    entry = archive.getinfo(name)
    if entry.file_size > most:
        raise ValueError(f"{name!r:.60} has {entry.file_size:,} bytes instead of {most:,} at most")
    return archive.read(entry)


class _Machine:
    """A stack machine that interprets one data.pkl with the few operations that tensors need."""

    def __init__(self, path: pathlib.Path, archive: zipfile.ZipFile, root: str, size: int):
        self.path, self.archive, self.root = path, archive, root
        self.storages: dict[str, bytes] = {}  # the storages that were read, by their keys
        self.left = size  # bytes of the file that are not in these; storages may not overlap
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self, program: bytes) -> Any:
        """Interprets the program and returns its result."""
        for operation, argument, _ in genops(program):
            if operation.name == "STOP":
                return self.stack.pop()
            self.step(operation.name, argument)
        raise EOFError("its pickle does not end with STOP")

    def step(self, name: str, argument: Any) -> None:
        """Executes one operation."""
        if name in _LITERALS:
            self.stack.append(argument)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name])
        elif name in _CONTAINERS:
            self.stack.append(_CONTAINERS[name]())
        elif name in _TUPLES:
            self.group(self.take(_TUPLES[name]))
        elif name in _OPERATIONS:
            _OPERATIONS[name](self, argument)
        elif name not in ("PROTO", "FRAME"):
            raise UserError(
                f"{self.path} contains more than tensors (the pickle operation {name}), so it was "
                "not run: save only the state dictionary"
            )

    def put(self, slot: int | None) -> None:
        """Stores the item on top of the stack in the memo, the pickle's table of items.

        Args:
          slot: the index in the memo; None: the next one.
        """
        self.memo[len(self.memo) if slot is None else slot] = self.stack[-1]

    def group(self, items: list[Any]) -> None:
        """Pushes the items onto the stack as a tuple, which may contain tuples of integers.

        Tensors need no other tuples. Deeper nesting raises an error, since a few bytes could
        describe a structure that takes forever to traverse.
        """
        inner = [number for item in items if type(item) is tuple for number in item]
        if len(items) > _LONGEST or not all(type(number) is int for number in inner):
            raise ValueError("a tuple contains more than tensors need")
        self.stack.append(tuple(items))

    def update(self, items: list[Any]) -> None:
        """Adds items, alternately keys and values, to the dictionary on top of the stack."""
        for key in items[::2]:
            # The type is checked before the key is hashed: hashing a deep tuple overflows the
            # interpreter's stack, and integers can be chosen so that all hashes collide.
            if not isinstance(key, str):
                raise UserError(
                    f"{self.path} has a dictionary whose key is {shown(key)}, but the names of "
                    "tensors are strings: save only the state dictionary"
                )
        self.stack[-1].update(zip(items[::2], items[1::2], strict=True))

    def extend(self, items: list[Any]) -> None:
        """Appends items to the list on top of the stack."""
        self.stack[-1].extend(items)

    def reduce(self) -> None:
        """Replaces the function and arguments on top of the stack by the result of `call`."""
        arguments, function = self.stack.pop(), self.stack.pop()
        if type(arguments) is not tuple:
            raise ValueError("a function is called without a tuple of arguments")
        self.stack.append(self.call(function, arguments))

    def take(self, many: int) -> list[Any]:
        """Pops and returns the last `many` items of the stack, in the order of the stack."""
        items = self.stack[-many:]
        del self.stack[-many:]
        return items

    def above_mark(self) -> list[Any]:
        """Pops the last mark and all items above it, and returns these items."""
        items = []
        while (item := self.stack.pop()) is not _MARK:
            items.append(item)
        return items[::-1]

    def named(self, *parts: str) -> _Name:
        """Returns the name of a function or class, if files of tensors use it.

        Raises:
          UserError: for any other name.
        """
        path = " ".join(parts)
        if path not in _STORAGES and path not in (_DICTIONARY, _TENSOR, _PARAMETER):
            raise UserError(
                f"{self.path} uses {path.replace(' ', '.')!r:.60}, which tensors do not need, so "
                "it was not run: save only the state dictionary"
            )
        return _Name(path)

    def storage(self, kind: str, of: _Name, key: str, device: str, size: int) -> np.ndarray:
        """Returns a storage of the archive, a flat array [size] that several tensors may share."""
        if not isinstance(key, str) or not isinstance(size, int):
            raise ValueError("a storage is not described by a name and a size")
        entry = self.archive.getinfo(f"{self.root}data/{key}")
        if kind != "storage" or entry.compress_type != zipfile.ZIP_STORED:
            raise ValueError(f"storage {key} is compressed or has an unknown type")
        if key not in self.storages:
            self.left -= entry.file_size
            if self.left < 0:
                raise ValueError("its storages have more bytes than the file")
            self.storages[key] = self.archive.read(entry)
        numbers = np.frombuffer(self.storages[key], _STORAGES[of.path])
        if len(numbers) != size:
            raise ValueError(f"storage {key} has {len(numbers)} numbers instead of {size}")
        return numbers

    def call(self, function: _Name, arguments: tuple[Any, ...]) -> Any:
        """Returns the result of one of the three known functions, without calling it."""
        if function.path == _DICTIONARY and arguments == ():
            return {}
        if function.path == _PARAMETER:
            return arguments[0]
        if function.path != _TENSOR:
            raise ValueError(f"{function.path} is called with arguments")
        numbers, offset, shape, strides = arguments[:4]
        if type(shape) is not tuple or type(strides) is not tuple:
            raise ValueError("a tensor's shape or strides are not a tuple")
        # With a stride of 0, a short storage could describe a huge tensor, so the size is checked;
        # numpy checks that the last element is inside the storage.
        if min((*shape, *strides, offset, 0)) < 0 or math.prod(shape) > len(numbers):
            raise ValueError(f"a tensor of shape {shape} exceeds its storage")
        width = numbers.itemsize
        return np.ndarray(
            shape, numbers.dtype, numbers, offset * width, tuple(s * width for s in strides)
        )


_OPERATIONS: dict[str, Callable[[_Machine, Any], None]] = {
    "MARK": lambda machine, _: machine.stack.append(_MARK),
    "TUPLE": lambda machine, _: machine.group(machine.above_mark()),
    "SETITEM": lambda machine, _: machine.update(machine.take(2)),
    "SETITEMS": lambda machine, _: machine.update(machine.above_mark()),
    "APPEND": lambda machine, _: machine.extend(machine.take(1)),
    "APPENDS": lambda machine, _: machine.extend(machine.above_mark()),
    "BINPUT": _Machine.put,
    "LONG_BINPUT": _Machine.put,
    "MEMOIZE": _Machine.put,
    "BINGET": lambda machine, slot: machine.stack.append(machine.memo[slot]),
    "LONG_BINGET": lambda machine, slot: machine.stack.append(machine.memo[slot]),
    "GLOBAL": lambda machine, path: machine.stack.append(machine.named(path)),
    "STACK_GLOBAL": lambda machine, _: machine.stack.append(machine.named(*machine.take(2))),
    "BINPERSID": lambda machine, _: machine.stack.append(machine.storage(*machine.stack.pop())),
    "REDUCE": lambda machine, _: machine.reduce(),
    # BUILD sets the versions of modules (`_metadata`), which tensors do not need.
    "BUILD": lambda machine, _: machine.stack.pop(),
}
