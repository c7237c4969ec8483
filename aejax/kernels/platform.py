"""The platform that a program is traced for, and the form of sparse codes that is fast there."""

from __future__ import annotations

import jax

from aejax.errors import UserError

FORMS = ("rows", "dense")
LATENTS = "model"  # the axis of a mesh over which the latents of a dictionary are divided


def platform() -> str:
    """Returns the platform that the program being traced will run on, such as "cpu" or "tpu".

    It is the platform of the mesh in whose context (`jax.set_mesh`, as `ae.compiled` enters it) the
    program is traced; without a mesh it is that of jax's default devices. A program that is lowered
    for another platform than these, such as an export, must state its form.
    """
    device = jax.sharding.get_abstract_mesh().abstract_device
    return jax.default_backend() if device is None else device.platform


def form_or_default(form: str | None) -> str:
    """Returns `form`, or the form that is fast on the platform that is traced for.

    The rows form selects indices, and computes with the selected rows of the dictionary alone, by
    gathers and scatters. The dense form computes with all rows, and sets to zero what was not
    selected. By the compiler of TPUs the rows form moves 3 to 100 times as many bytes as the dense
    form there; on CPUs it is the faster one. On GPUs neither was measured.

    Args:
      form: "rows", "dense", or None.

    Raises:
      UserError: if it is none of these.
    """
    if form is None:
        return "dense" if platform() == "tpu" else "rows"
    if form not in FORMS:
        raise UserError(
            f"a sparse code has form = {form!r}: give one of {' and '.join(map(repr, FORMS))}, or "
            "None, which chooses by the platform"
        )
    return form


def shards_of_latents(latents: int) -> str | None:
    """Returns the mesh axis that divides so many latents in the program being traced, or None."""
    mesh = jax.sharding.get_abstract_mesh()
    size = mesh.shape.get(LATENTS, 1)
    if size == 1 or latents % size or LATENTS in mesh.manual_axes:
        return None
    return LATENTS
