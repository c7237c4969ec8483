"""How much memory this machine has, so that what cannot fit is refused before it is built.

check_memory(400 * 2**30, "the state", "lower --width")    # UserError, which has both figures
"""

from __future__ import annotations

import math
import os
import pathlib
from typing import Any

import jax

from aejax.errors import UserError

# The limits that a container may have, below the memory of the machine.
LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def host_memory() -> int:
    """Returns how many bytes of memory the system and a container let this process use."""
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for path in LIMITS:
        try:
            text = pathlib.Path(path).read_text().strip()
        except OSError:
            continue
        if text.isdecimal():
            found.append(int(text))
    return min(found)


def device_memory() -> int:
    """Returns the bytes of memory of all devices together; on CPUs they share that of the host."""
    devices = jax.devices()
    if devices[0].platform == "cpu":
        return host_memory() * jax.process_count()
    limits = [(device.memory_stats() or {}).get("bytes_limit", 0) for device in devices]
    return sum(limits) if all(limits) else host_memory()


def size_of(tree: Any) -> int:
    """Returns the bytes of all arrays of a tree, or of their shapes from `jax.eval_shape`."""
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def check_memory(needed: int, what: str, instead: str, there: int | None = None) -> None:
    """Raises UserError if something needs more memory than there is; the message has both figures.

    Args:
      needed: a lower bound, in bytes.
      what: what needs the memory, in the singular, such as "a batch of 9 samples".
      instead: what to do, such as "lower --width".
      there: the bytes that there are; None: those of all devices.
    """
    there = device_memory() if there is None else there
    if needed > there:
        raise UserError(
            f"{what} needs at least {_words(needed)} of memory, but there is {_words(there)}: "
            f"{instead}"
        )


def _words(size: int) -> str:
    return f"{size / 2**30:,.1f} GiB"
