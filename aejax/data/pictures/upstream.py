"""Upstream files of a data set: found or downloaded, checked against upstream's sha256, read."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import struct
import urllib.error
import urllib.request
import zlib
from pathlib import Path

import numpy as np

from aejax.errors import UserError

# Seconds without an answer after which a download is given up.
PATIENCE = 30


def fetch(url: str, name: str, sha256: str | None, manual_dir: Path | None, folder: Path) -> Path:
    """One upstream file.

    Args:
      url: where upstream keeps it.
      name: of the file.
      sha256: what a downloaded file must have, None where upstream's is not known.
      manual_dir: the folder to take it from, packed or unpacked; nothing is downloaded then.
      folder: where a download goes.

    Returns:
      The path of the file.

    Raises:
      UserError: the file is missing, cannot be downloaded, or was damaged on the way.
    """
    if manual_dir is not None:
        for candidate in (manual_dir / name, manual_dir / name.removesuffix(".gz")):
            if candidate.is_file():
                return candidate
        raise UserError(
            f"{manual_dir / name} is missing: fetch it from {url}, or leave --manual-dir out"
        )
    folder.mkdir(parents=True, exist_ok=True)
    path, digest = folder / name, hashlib.sha256()
    try:
        with urllib.request.urlopen(url, timeout=PATIENCE) as answer, path.open("wb") as file:
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
            "fetch it by other means and give its folder by --manual-dir"
        ) from error
    if sha256 is not None and digest.hexdigest() != sha256:
        raise UserError(
            f"{url} came with another sha256 than upstream's: try again, or fetch it by other "
            "means and give its folder by --manual-dir"
        )
    return path


def is_upstream(path: Path, sha256: str, time: int | None) -> bool:
    """Whether a file is upstream's, or is so once its gzip header is put back.

    Args:
      path: of a file as `fetch` found it.
      sha256: upstream's.
      time: the time in upstream's gzip header, None where that is not known.
    """
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() == sha256:
        return True
    if time is None or not content.startswith(b"\x1f\x8b\x08\x00"):
        return False
    # `gzip -n`, which distributions run for reproducible packages, drops name and time (RFC 1952).
    name = path.name.removesuffix(".gz").encode()
    header = content[:3] + b"\x08" + struct.pack("<I", time) + content[8:10] + name + b"\0"
    return hashlib.sha256(header + content[10:]).hexdigest() == sha256


def read_idx(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """Reads an array of the idx format, packed by gzip or not.

    Args:
      path: of the file.
      shape: what it must hold.

    Returns:
      u8 of that shape.

    Raises:
      UserError: the file is damaged or holds something else; names it.

    Source: Y. LeCun, C. Cortes, C. Burges, "The MNIST database", section file formats.
    """
    content = path.read_bytes()
    if path.suffix == ".gz":
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise UserError(f"{path} is damaged ({error}): fetch it again") from error
    magic = bytes([0, 0, 8, len(shape)])  # 8: unsigned bytes
    if content[:4] != magic:
        raise UserError(
            f"{path} is no idx file of {len(shape)} axes: "
            f"it starts with {content[:4].hex()}, not {magic.hex()}"
        )
    start = 4 + 4 * len(shape)
    found = tuple(int(n) for n in np.frombuffer(content[4:start], ">u4"))
    if found != shape:
        raise UserError(f"{path} says it holds {found}, but {shape} is what belongs there")
    if len(content) - start != int(np.prod(shape)):
        raise UserError(
            f"{path} is damaged: {len(content) - start} bytes where {int(np.prod(shape))} belong"
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)
