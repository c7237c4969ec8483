"""The folders, devices and precision of a run, which affect at most the rounding of its results."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from typing import Literal

import jax

import aejax as ae
from aejax.errors import UserError
from aejax.files import writing


@dataclasses.dataclass(frozen=True)
class Place:
    """Folders, devices and floating-point precision of a run."""

    out: str | None = None  # folder of the run; runs/NAME by default
    data_dir: str | None = None  # folder of prepared data sets; tensorflow-datasets' by default
    manual_dir: str | None = None  # folder with a data set's raw files, instead of a download
    mesh: str | None = None  # number of devices along each axis, such as data=8 or data=4,model=2
    # precision of matrix products
    precision: Literal["float32", "tensorfloat32", "bfloat16"] = "float32"
    deterministic: bool = True  # use only GPU operations that give the same bits every time
    distributed: bool = False  # join the other processes of the cluster (jax.distributed)
    profile: bool = False  # write a trace of jax.profiler to the run's folder
    # read prepared data sets of data_dir only: prepare and download nothing, and follow no path
    prepared_only: bool = False

    def folder(self, name: str) -> pathlib.Path:
        """Returns the run's folder: `out`, or runs/NAME for the experiment's name.

        Raises:
          UserError: if `out` cannot be a path.
        """
        if "\0" in (self.out or ""):
            raise UserError(f"--out is {self.out!r:.60}, which cannot be a path: give another")
        return pathlib.Path(self.out if self.out is not None else f"runs/{name}").expanduser()

    def settle(self) -> jax.sharding.Mesh | None:
        """Configures JAX for this record's devices and precision, before JAX has computed anything.

        Returns:
          The mesh of devices, or None if `mesh` is not set.

        Raises:
          UserError: if the mesh cannot be parsed or does not fit the devices.
        """
        flag = "--xla_gpu_deterministic_ops=true"
        if self.deterministic and flag not in os.environ.get("XLA_FLAGS", ""):
            # XLA reads its flags when JAX opens the first device.
            os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flag}".strip()
        jax.config.update("jax_default_matmul_precision", self.precision)
        if self.distributed:
            _join()
        return None if self.mesh is None else ae.mesh(**parse_mesh(self.mesh))


def say(text: str) -> None:
    """Prints a line; if there are several processes, only the first one prints."""
    if jax.process_index() == 0:
        print(text, flush=True)


def prepared(out: str, **counts: int) -> pathlib.Path:
    """Checks a benchmark's counts, creates its folder if it does not exist, and returns the path.

    Args:
      out: the path of the folder.
      **counts: name of a flag -> its value, at least 1.

    Raises:
      UserError: if a count is below 1, or the folder cannot be created.
    """
    for name, value in counts.items():
        if value < 1:
            raise UserError(f"--{name} is {value}: give 1 or more")
    folder = pathlib.Path(out).expanduser()
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def _join() -> None:
    """Connects this process with the others of a run, on a cluster or by environment variables.

    Raises:
      UserError: if JAX finds no other processes.
    """
    if jax.distributed.is_initialized():
        return
    count, index = (os.environ.get(f"JAX_{name}") for name in ("NUM_PROCESSES", "PROCESS_ID"))
    try:
        jax.distributed.initialize(
            num_processes=None if count is None else int(count),
            process_id=None if index is None else int(index),
        )
    except (ValueError, RuntimeError) as error:
        raise UserError(
            f"--distributed found no other processes ({str(error).splitlines()[0]}): start the "
            "command on a cluster that JAX recognises, or set JAX_COORDINATOR_ADDRESS, "
            "JAX_NUM_PROCESSES and JAX_PROCESS_ID"
        ) from error


def parse_mesh(text: str) -> dict[str, int]:
    """Parses the shape of a mesh: "data=4,model=2" becomes {"data": 4, "model": 2}.

    Raises:
      UserError: if the text is not of that form.
    """
    axes: dict[str, int] = {}
    for axis in text.split(","):
        name, _, size = axis.strip().partition("=")
        if name not in ("data", "model") or not (size.isascii() and size.isdigit()) or name in axes:
            raise UserError(
                f"--mesh {text!r} cannot be read at {axis!r}: write it as data=8, model=8 or "
                "data=4,model=2"
            )
        axes[name] = int(size)
    return axes
