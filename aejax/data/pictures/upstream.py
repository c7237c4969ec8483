"""Finds, downloads, verifies and reads the original ("upstream") files of a data set."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import math
import os
import struct
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np

from aejax.errors import UserError
from aejax.files import MALFORMED, open_file, reason

SLACK = 2**20  # bytes that an idx file may have beyond twice those of its array
# A download fails if the server does not answer for this number of seconds.
PATIENCE = 30


def fetch(url: str, name: str, sha256: str | None, manual_dir: Path | None, folder: Path) -> Path:
    """Finds an upstream file in manual_dir, or downloads it to folder if manual_dir is None.

    Args:
      url: the address of the file.
      name: the name of the file.
      sha256: the sha256 that a downloaded file must have, or None if it is not known.
      manual_dir: the folder that holds the file, gzipped or not, or None to download it.
      folder: the folder for the downloaded file.

    Returns:
      The path of the file.

    Raises:
      UserError: if the file is missing, cannot be downloaded, or has another sha256.
    """
    if manual_dir is not None:
        for candidate in (manual_dir / name, manual_dir / name.removesuffix(".gz")):
            if candidate.is_file():
                return candidate
        raise UserError(
            f"{manual_dir / name} is missing: fetch it from {url}, or omit --manual-dir"
        )
    folder.mkdir(parents=True, exist_ok=True)
    path, digest = folder / name, hashlib.sha256()
    try:
        with (
            # The addresses are constants of the code of data sets.
            urllib.request.urlopen(url, timeout=PATIENCE) as answer,  # noqa: S310
            path.open("wb") as file,
        ):
            while block := answer.read(2**20):
                digest.update(block)
                file.write(block)
    except (
        urllib.error.URLError,
        TimeoutError,
        ConnectionError,
        http.client.HTTPException,
    ) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise UserError(
            f"{url} could not be downloaded ({reason}): "
            "fetch the file by other means and give its folder by --manual-dir"
        ) from error
    if sha256 is not None and digest.hexdigest() != sha256:
        raise UserError(
            f"the file downloaded from {url} does not have the known sha256: try again, or fetch "
            "it by other means and give its folder by --manual-dir"
        )
    return path


def is_upstream(path: Path, sha256: str, time: int | None) -> bool:
    """Returns whether a file has the content that its publisher ("upstream") published.

    The header of a gzip file may have been rewritten since.

    Args:
      path: the path of a file that `fetch` returned.
      sha256: the sha256 of upstream's file.
      time: the time stamp in the header of upstream's gzip file, or None if it is not known.
    """
    with open_file(path) as file:
        content = file.read()
    if hashlib.sha256(content).hexdigest() == sha256:
        return True
    if time is None or not content.startswith(b"\x1f\x8b\x08\x00"):
        return False
    # Linux distributions compress files with `gzip -n`, which removes the name and the time from
    # the header (RFC 1952). Upstream's header is therefore reconstructed before the hash is taken.
    name = path.name.removesuffix(".gz").encode()
    header = content[:3] + b"\x08" + struct.pack("<I", time) + content[8:10] + name + b"\0"
    return hashlib.sha256(header + content[10:]).hexdigest() == sha256


def read_idx(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """Reads an array in the idx format, gzipped or not.

    Args:
      path: the path of the file.
      shape: the shape that the array must have.

    Returns:
      The array, u8[shape].

    Raises:
      UserError: if the file is damaged or contains something else.

    Source: Y. LeCun, C. Cortes, C. Burges, "The MNIST database", section file formats.
    """
    wanted = 4 + 4 * len(shape) + math.prod(shape)
    try:
        with open_file(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size > 2 * wanted + SLACK:  # gzip would skip gigabytes of zeros behind its end
                raise ValueError(f"it has {size:,} bytes for {wanted:,}")
            # One more byte is read than the array has, so that a longer file is noticed.
            unpacked = gzip.GzipFile(fileobj=file) if path.suffix == ".gz" else file
            content = unpacked.read(wanted + 1)
    except MALFORMED as error:
        raise UserError(f"{path} is damaged ({reason(error)}): fetch it again") from error
    magic = bytes([0, 0, 8, len(shape)])  # 8 is the code of the type u8
    if content[:4] != magic:
        raise UserError(
            f"{path} is not an idx file of {len(shape)} axes: it starts with {content[:4].hex()} "
            f"instead of {magic.hex()}; fetch it again"
        )
    start = 4 + 4 * len(shape)
    found = tuple(int(n) for n in np.frombuffer(content[4:start], ">u4"))
    if found != shape:
        raise UserError(
            f"{path} holds an array of shape {found} instead of {shape}: fetch the right file"
        )
    if len(content) - start != math.prod(shape):
        raise UserError(
            f"{path} is damaged: it holds {'at least ' if len(content) > wanted else ''}"
            f"{len(content) - start} bytes of pixels or labels instead of {math.prod(shape)}; "
            "fetch it again"
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)
