"""Where and on what a run takes place: nothing here changes what is computed but for rounding."""

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
    """Folders, devices and arithmetic of a run."""

    out: str | None = None  # folder of the run; runs/NAME where it is not given
    data_dir: str | None = None  # prepared data sets; tensorflow-datasets' own folder by default
    manual_dir: str | None = None  # raw files of a data set: then nothing is downloaded
    mesh: str | None = None  # devices by axis, as in data=8 or data=4,model=2
    precision: Literal["float32", "tensorfloat32", "bfloat16"] = "float32"  # of matrix products
    deterministic: bool = True  # only GPU operations that give the same bits each time
    distributed: bool = False  # several processes, as the cluster says (jax.distributed)
    profile: bool = False  # write a trace of jax.profiler into the folder

    def folder(self, name: str) -> pathlib.Path:
        """The run's folder for an experiment's name."""
        return pathlib.Path(self.out if self.out is not None else f"runs/{name}").expanduser()

    def settle(self) -> jax.sharding.Mesh | None:
        """Sets up JAX before its first computation, and returns the mesh if one is asked for.

        Raises:
          UserError: if the mesh cannot be read or does not fit the devices.
        """
        flag = "--xla_gpu_deterministic_ops=true"
        if self.deterministic and flag not in os.environ.get("XLA_FLAGS", ""):
            # Read when the first device is opened.
            os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flag}".strip()
        jax.config.update("jax_default_matmul_precision", self.precision)
        if self.distributed:
            _join()
        return None if self.mesh is None else ae.mesh(**parse_mesh(self.mesh))


def say(text: str) -> None:
    """A line for whoever watches, from one process of several."""
    if jax.process_index() == 0:
        print(text, flush=True)


def prepared(out: str, **counts: int) -> pathlib.Path:
    """The folder of a benchmark, made where it is not there.

    Args:
      out: its path.
      **counts: the benchmark's numbers by their flags.

    Raises:
      UserError: for a number below 1, or a folder that cannot be made.
    """
    for name, value in counts.items():
        if value < 1:
            raise UserError(f"--{name} is {value}: give 1 or more")
    folder = pathlib.Path(out).expanduser()
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def _join() -> None:
    """Joins the other processes: as the cluster says, or as three variables do without one."""
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
            f"--distributed found no other processes ({str(error).splitlines()[0]}): start it on a "
            "cluster that JAX knows, or set JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and "
            "JAX_PROCESS_ID"
        ) from error


def parse_mesh(text: str) -> dict[str, int]:
    """ "data=4,model=2" -> {"data": 4, "model": 2}.

    Raises:
      UserError: if it is not of that form.
    """
    axes: dict[str, int] = {}
    for part in text.split(","):
        name, _, size = part.strip().partition("=")
        if name not in ("data", "model") or not (size.isascii() and size.isdigit()) or name in axes:
            raise UserError(
                f"mesh {text!r} cannot be read at {part!r}: write data=8, model=8 or data=4,model=2"
            )
        axes[name] = int(size)
    return axes
