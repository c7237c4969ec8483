"""environment.json: the software and the devices of a run; a start warns if they have changed."""

from __future__ import annotations

import importlib.metadata
import os
import pathlib
import platform
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import jax

from aejax.files import json_fields

PACKAGES = ("aejax", "jax", "jaxlib", "libtpu", "flax", "optax", "orbax-checkpoint", "numpy")
# A change of one of these may change the last bits of a result, so it causes a warning.
WATCHED = (
    "versions.jax",
    "versions.jaxlib",
    "devices",
    "processor",
    "matmul_precision",
    "deterministic",
)
# Flags of processors that change which products XLA and other libraries compile, the fastest first.
VECTORS = {
    "amx_tile": "AMX",
    "avx512f": "AVX-512",
    "avx2": "AVX2",
    "sve": "SVE",
    "asimd": "NEON",
}


# The checks of the fields of environment.json.
FIELDS = {
    "versions": json_fields.optional(json_fields.table),
    "devices": json_fields.optional(json_fields.table),
    "earlier": json_fields.optional(json_fields.list_of(json_fields.table)),
}


def environment() -> dict[str, Any]:
    """Returns the versions, devices, precision, command and git commit of this process, by name."""
    devices = jax.devices()
    return {
        "python": platform.python_version(),
        "system": platform.platform(),
        "versions": {name: version for name in PACKAGES if (version := _version(name))},
        "devices": {
            "platform": devices[0].platform,
            "kind": devices[0].device_kind,
            "count": len(devices),
            "processes": jax.process_count(),
        },
        "cores": _cores(),
        "processor": _processor(),
        "matmul_precision": jax.config.jax_default_matmul_precision or "default",
        "deterministic": "--xla_gpu_deterministic_ops=true" in os.environ.get("XLA_FLAGS", ""),
        "command": list(sys.orig_argv),
        "git_commit": {
            "here": _commit(pathlib.Path.cwd()),
            "aejax": _commit(pathlib.Path(__file__).parent),  # None if aejax is an installed wheel
        },
    }


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Compares two results of `environment`.

    Returns:
      A phrase "NAME was OLD and is NEW" for each entry of WATCHED that differs.
    """
    found = []
    for name in WATCHED:
        old, new = _at(before, name), _at(now, name)
        if old is not None and old != new:
            found.append(f"{name} was {_words(old)} and is {_words(new)}")
    return found


def _at(data: Any, name: str) -> Any:
    for part in name.split("."):
        data = data.get(part) if isinstance(data, Mapping) else None
    return data


def _words(value: Any) -> str:
    if isinstance(value, Mapping):
        return " ".join(f"{name}={content}" for name, content in value.items())
    return str(value)


def _cores() -> int | None:
    """Returns the number of CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count()


def _processor() -> str:
    """Returns the name of the CPU and its fastest vector unit, such as "AMD EPYC, AVX2"."""
    try:
        return processor_of(pathlib.Path("/proc/cpuinfo").read_text(errors="replace"))
    except OSError:
        return platform.processor() or platform.machine()  # The system is not Linux.


def processor_of(cpuinfo: str) -> str:
    """Returns the name and the fastest vector unit of the first CPU in the text of /proc/cpuinfo.

    Where the text has no name, as on ARM, the name is that of the architecture.
    """
    found: dict[str, str] = {}
    for line in cpuinfo.splitlines():
        name, _, value = line.partition(":")
        found.setdefault(name.strip(), value.strip())
    flags = found.get("flags", found.get("Features", "")).split()
    units = [unit for flag, unit in VECTORS.items() if flag in flags]
    return ", ".join([found.get("model name") or platform.machine(), *units[:1]])


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None  # aejax has no version when it runs from its source folder.


def _commit(folder: pathlib.Path) -> str | None:
    """Returns the git commit of a folder, followed by "+changes" if its files have been changed.

    It returns None if the folder is not in a git repository.
    """
    command = ["git", "-C", str(folder), "describe", "--always", "--abbrev=40", "--exclude=*"]
    try:
        found = subprocess.run(
            [*command, "--dirty=+changes"], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None  # git is not installed or did not answer in time.
    return found.stdout.strip() or None
