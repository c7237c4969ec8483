"""Export as StableHLO, a program that jax runs without aejax or flax on CPUs, GPUs and TPUs."""

from __future__ import annotations

from collections.abc import Mapping

import jax

from aejax.errors import UserError
from aejax.interop.programs.program import Traced, batched, mapped
from aejax.interop.programs.weights import Packed
from aejax.optional import needs

PLATFORMS = ("cpu", "cuda", "tpu")


def stablehlo(traced: Traced, packed: Mapping[str, Packed]) -> bytes:
    """Returns a program as the bytes of a file that `jax.export.deserialize` reads.

    The function in it maps a dict of inputs to a dict of outputs, for any batch size.

    Raises:
      UserError: if an operation has no portable form, or flatbuffers is not installed.
    """
    needs("flatbuffers", "exporting StableHLO")
    specs = batched(traced.inputs, jax.export.symbolic_shape("B")[0])
    run = jax.jit(mapped(traced, packed))
    try:
        return bytes(jax.export.export(run, platforms=PLATFORMS)(specs).serialize())
    except Exception as error:  # each operation of jax raises errors of its own kind
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise UserError(
            f"the part {traced.name} of this model cannot be exported, because jax has no "
            f"portable form of one of its operations ({reason}): replace that operation"
        ) from error
