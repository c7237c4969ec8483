"""A reader of numpy's files .npy and .npz that holds no more memory than their sizes explain.

    arrays = read_npz(path)              # {"W_enc": f32[d, m], ...}
    array = read_npy(path)

The declared shape of an array is compared with the bytes that are there before memory is taken for
it. Arrays have numbers, bools or strings; Python objects, which numpy would unpickle, are refused.
"""

from __future__ import annotations

import io
import math
import os
import pathlib
import re
import zipfile
from typing import IO, Any

import numpy as np

from aejax.files.reading import open_file

# A compressed archive may hold this many bytes, and SPREAD more for each of its bytes on the disk.
# Zeros are compressed to a thousandth, so that a small file could fill the memory.
INFLATED = 2**28
SPREAD = 16
HEADER = 2**14  # the longest header of an array, in bytes
KINDS = "biufcU"  # numpy's codes of bool, integer, float, complex and string
# The entries of a header without its spaces: the dtype, the order of the axes, and up to 64 sizes.
# They are matched in a time that grows with the length of the header.
_ENTRIES = (
    r"'descr':'([<>|=]?[A-Za-z?][0-9]{0,9})'",
    r"'fortran_order':(True|False)",
    r"'shape':\(((?:[0-9]{1,18}(?:,[0-9]{1,18}){0,63},?)?)\)",
)
_HEADER = re.compile(rf"\{{(?:(?:{'|'.join(_ENTRIES)}),?){{3}}\}}")


def read_npz(source: pathlib.Path | bytes) -> dict[str, np.ndarray]:
    """Reads all arrays of an .npz file; name -> array.

    Args:
      source: the path of the file, or its content.

    Raises:
      FileNotFoundError: if there is no such file.
      Exception: one of `aejax.files.MALFORMED` if the file is damaged or holds something else, or
        if its arrays are larger than INFLATED + SPREAD times the file.
    """
    with io.BytesIO(source) if isinstance(source, bytes) else open_file(source) as file:
        size = file.seek(0, os.SEEK_END)
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            declared = sum(member.file_size for member in members)
            if declared > INFLATED + SPREAD * size:
                raise ValueError(f"its {size:,} bytes hold {declared:,} bytes of arrays")
            arrays = {}
            for member in members:
                if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                    raise ValueError(f"{member.filename!r:.60} is compressed in an unknown way")
                with archive.open(member) as content:
                    name = member.filename.removesuffix(".npy")
                    arrays[name] = _array(content, member.file_size)
            return arrays


def read_npy(path: pathlib.Path) -> np.ndarray:
    """Reads the array of an .npy file; the exceptions are those of `read_npz`."""
    with open_file(path) as file:
        return _array(file, os.fstat(file.fileno()).st_size)


def _array(file: IO[bytes], size: int) -> np.ndarray:
    """Reads an array, whose header and numbers are `size` bytes together."""
    shape, fortran, dtype, header = _header(file)
    if dtype.kind not in KINDS:
        raise ValueError(f"it holds an array of {dtype}")
    held = math.prod(shape) * dtype.itemsize
    if held != size - header:
        raise ValueError(f"it declares {dtype}{list(shape)}, but has {size - header:,} bytes of it")
    array = np.empty(shape, dtype, order="F" if fortran else "C")
    # numpy cannot view an array of size 0 as bytes.
    rest = memoryview(array.reshape(-1, order="A").view(np.uint8).data) if held else memoryview(b"")
    while rest:
        count = file.readinto(rest)  # type: ignore[attr-defined]
        if not count:
            raise EOFError("it ends before its arrays do")
        rest = rest[count:]
    return array


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    """Returns the shape, the order, the dtype and the number of bytes of an array's header.

    numpy's own reader evaluates the header as Python.
    """
    start = file.read(8)
    if start[:6] != b"\x93NUMPY" or start[6:] not in (b"\1\0", b"\2\0"):
        raise ValueError("it has an array that is not in numpy's format")
    width = 2 if start[6] == 1 else 4
    length = int.from_bytes(file.read(width), "little")
    if length > HEADER:
        raise ValueError(f"it has a header of {length:,} bytes")
    text = "".join(file.read(length).decode("latin-1").split())
    found = [re.search(entry, text) for entry in _ENTRIES]
    if not _HEADER.fullmatch(text) or None in found:
        raise ValueError(f"it has the header {text!r:.80}")
    descr, order, sizes = (match[1] for match in found if match)
    shape = tuple(int(number) for number in re.findall("[0-9]+", sizes))
    return shape, order == "True", np.dtype(descr), 8 + width + length
