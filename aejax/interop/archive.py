"""PyTorch's files (.pt), read as data: nothing that such a file names is imported or called.

A file of torch.save is a zip archive: `data.pkl`, a program for a stack machine that describes
the tensors, and `data/0`, `data/1`, ..., their bytes. A pickle may name any function of any module
and call it. The machine below knows the few operations that tensors need, keeps a name as a
string, and stops at any other.
"""

from __future__ import annotations

import math
import pathlib
import zipfile
from collections.abc import Callable
from pickletools import genops
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from aejax.errors import UserError
from aejax.interop.tensors import MALFORMED, reason, shown

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

# Operations that push what stands in the program, a constant, or an empty container.
_LITERALS = (
    *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE"),
)
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_CONTAINERS = {"EMPTY_DICT": dict, "EMPTY_LIST": list}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_LONGEST = 64  # of a tuple: numpy has no more axes


class _Name(NamedTuple):
    """A function or class that the file names; never looked up."""

    path: str  # "module name"


_MARK = _Name("mark")


def read_torch(path: pathlib.Path) -> dict[str, Any]:
    """The dictionary in a file of torch.save: tensors as numpy arrays, numbers, strings.

    Args:
      path: a file in the format of PyTorch 1.6 (July 2020) and later.

    Returns:
      name -> array, number, string or dictionary, as saved.

    Raises:
      UserError: the file is truncated or damaged, is no such file, or names anything but tensors.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            programs = [name for name in archive.namelist() if name.endswith("/data.pkl")]
            if len(programs) != 1:
                raise UserError(f"{path} is no file of torch.save: it has no data.pkl")
            root = programs[0].removesuffix("data.pkl")
            if root + "byteorder" in archive.namelist() and (
                archive.read(root + "byteorder") != b"little"
            ):
                raise UserError(f"{path} has big-endian tensors: save it again on this machine")
            result = _Machine(path, archive, root).run(archive.read(programs[0]))
    except UserError:
        raise
    except zipfile.BadZipFile as error:
        raise UserError(
            f"{path} is no whole file of torch.save ({reason(error)}): a plain pickle is not read "
            "since it may run code, and a damaged file must be fetched again"
        ) from error
    except MALFORMED as error:
        raise UserError(
            f"{path} is damaged or no file of torch.save ({reason(error)}): fetch it again"
        ) from error
    if not isinstance(result, dict) or not all(isinstance(name, str) for name in result):
        raise UserError(f"{path} holds no state dictionary, but {type(result).__name__}")
    return result


class _Machine:
    """The stack of one data.pkl, and the few operations on it."""

    def __init__(self, path: pathlib.Path, archive: zipfile.ZipFile, root: str):
        self.path, self.archive, self.root = path, archive, root
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self, program: bytes) -> Any:
        """Interprets the program and returns what it leaves."""
        for operation, argument, _ in genops(program):
            if operation.name == "STOP":
                return self.stack.pop()
            self.step(operation.name, argument)
        raise EOFError("the program has no end")

    def step(self, name: str, argument: Any) -> None:
        """One operation."""
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
                f"{self.path} does more than describe tensors (operation {name}): it was not run"
            )

    def put(self, slot: int | None) -> None:
        """Remembers the top of the stack under a number, or under the next."""
        self.memo[len(self.memo) if slot is None else slot] = self.stack[-1]

    def group(self, items: list[Any]) -> None:
        """Pushes a tuple: of a storage, of a call's arguments, or a shape inside those.

        Nested or shared further, a few bytes would describe what takes for ever to look through.
        """
        inner = [number for item in items if type(item) is tuple for number in item]
        if len(items) > _LONGEST or not all(type(number) is int for number in inner):
            raise ValueError("a tuple holds more than a tensor needs")
        self.stack.append(tuple(items))

    def update(self, items: list[Any]) -> None:
        """Sets keys and values, one after the other, of the dictionary on top."""
        for key in items[::2]:
            # Before it is hashed: the hash of a deep tuple overflows the interpreter's own stack,
            # and chosen integers all collide.
            if not isinstance(key, str):
                raise UserError(
                    f"{self.path} has a dictionary whose key is {shown(key)}, but the names of "
                    "tensors are strings: save the state dictionary alone"
                )
        self.stack[-1].update(zip(items[::2], items[1::2], strict=True))

    def extend(self, items: list[Any]) -> None:
        """Appends to the list on top."""
        self.stack[-1].extend(items)

    def reduce(self) -> None:
        """Calls, or so the file believes, a function with the arguments on top."""
        arguments, function = self.stack.pop(), self.stack.pop()
        if type(arguments) is not tuple:
            raise ValueError("a function is called without a tuple of arguments")
        self.stack.append(self.call(function, arguments))

    def take(self, many: int) -> list[Any]:
        """Takes the last few."""
        items = self.stack[-many:]
        del self.stack[-many:]
        return items

    def above_mark(self) -> list[Any]:
        """Takes all that lies above the last mark, and the mark."""
        items = []
        while (item := self.stack.pop()) is not _MARK:
            items.append(item)
        return items[::-1]

    def named(self, *parts: str) -> _Name:
        """A name, if it is one that tensors need."""
        path = " ".join(parts)
        if path not in _STORAGES and path not in (_DICTIONARY, _TENSOR, _PARAMETER):
            raise UserError(
                f"{self.path} names {path.replace(' ', '.')!r:.60}, which is no part of a tensor: "
                "it was not run; save the state dictionary alone"
            )
        return _Name(path)

    def storage(self, kind: str, of: _Name, key: str, device: str, size: int) -> np.ndarray:
        """The numbers that tensors share, [size], out of the archive."""
        if not isinstance(key, str) or not isinstance(size, int):
            raise ValueError("a storage is described by something else than its name and size")
        entry = self.archive.getinfo(f"{self.root}data/{key}")
        if kind != "storage" or entry.compress_type != zipfile.ZIP_STORED:
            raise ValueError(f"storage {key} is not stored plainly")
        numbers = np.frombuffer(self.archive.read(entry), _STORAGES[of.path])
        if len(numbers) != size:
            raise ValueError(f"storage {key} has {len(numbers)} numbers instead of {size}")
        return numbers

    def call(self, function: _Name, arguments: tuple[Any, ...]) -> Any:
        """What one of the three known functions would have made."""
        if function.path == _DICTIONARY and arguments == ():
            return {}
        if function.path == _PARAMETER:
            return arguments[0]
        if function.path != _TENSOR:
            raise ValueError(f"{function.path} is called with arguments")
        numbers, offset, shape, strides = arguments[:4]
        if type(shape) is not tuple or type(strides) is not tuple:
            raise ValueError("a tensor's shape and strides are no tuples")
        # A stride of 0 would repeat one number without end; numpy checks the far end itself.
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
    # The versions of modules (`_metadata`), which no tensor needs.
    "BUILD": lambda machine, _: machine.stack.pop(),
}
