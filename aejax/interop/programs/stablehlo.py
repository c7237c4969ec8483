"""StableHLO: a program that jax runs without aejax and without flax, on CPUs, GPUs and TPUs."""

from __future__ import annotations

from collections.abc import Mapping

from aejax.interop.programs.program import Program, bound, exported
from aejax.interop.programs.weights import Packed
from aejax.optional import needs

PLATFORMS = ("cpu", "cuda", "tpu")


def stablehlo(program: Program, packed: Mapping[str, Packed]) -> bytes:
    """Returns the bytes of a file that `jax.export.deserialize` reads.

    The function in it maps a dict of inputs to a dict of outputs, for any batch size.

    Raises:
      UserError: if an operation does not work for a batch of any size, or flatbuffers is missing.
    """
    needs("flatbuffers", "exporting StableHLO")
    return bytes(exported(program, bound(program, packed), PLATFORMS).serialize())
