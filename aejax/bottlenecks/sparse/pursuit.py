"""The bottleneck of matching pursuit, which encodes with the atoms of the decoder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np

from aejax.bottlenecks.sparse.base import Sparse, weights
from aejax.bottlenecks.sparse.code import SparseCode
from aejax.bottlenecks.sparse.plain import Architectures, Plain
from aejax.checks import check, check_count
from aejax.errors import UserError
from aejax.kernels.pursuit import pursue
from aejax.types import Array


class MatchingPursuit(Sparse):
    """Chooses atoms greedily until the residual is small or an atom is chosen twice (as SAELens).

    The encoder has no parameters: W_enc is the transpose of W_dec. Inputs and outputs must
    therefore be in the same space, and the encoder must be `nets.Identity`, because if the inputs
    were scaled, encoder and decoder would need different atoms. Keep the norms of the atoms at 1
    (`dictionaries.unit_rows`), because a greedy step along a longer atom would overshoot.

    Attributes:
      latents: the number of latents m.
      residual_threshold: the norm of the residual below which no more atoms are chosen.
      max_iterations: the largest number of atoms chosen for an example; None: the size of x.
      stop_on_duplicate_support: whether to stop when an atom is chosen for the second time.
    """

    latents: int
    residual_threshold: float = 1e-2
    max_iterations: int | None = None
    stop_on_duplicate_support: bool = True

    kind = "matching_pursuit"
    saelens = Architectures("matching_pursuit")
    vectors = ()
    settings: ClassVar[Mapping[str, Any]] = {
        "residual_threshold": 1e-2,
        "max_iterations": None,
        "stop_on_duplicate_support": True,
    }
    tied = True

    def check(self) -> None:
        """Raises UserError if residual_threshold is negative, or max_iterations is below 1."""
        check(self, "residual_threshold", lambda norm: norm >= 0, "a number, 0 or more")
        if self.max_iterations is not None:
            check_count(self, 1, "max_iterations")

    def activate(self, inputs: Array, step: Any, decoder: Any) -> SparseCode:
        """Computes the code of inputs f32[B, D] by matching pursuit, with a dense z f32[B, m]."""
        atoms = weights(decoder, self.latents).atoms
        if atoms.shape[1] != inputs.shape[1]:
            raise UserError(
                f"a matching pursuit reconstructs its input, but x has {inputs.shape[1]} values, "
                f"and the target {atoms.shape[1]}: choose another bottleneck for a transcoder"
            )
        z = _codes(inputs, atoms, {name: getattr(self, name) for name in self.settings})
        return SparseCode(z, jnp.sum(z != 0, axis=-1).astype(jnp.float32))

    def projection(self, size: int, decoder: Any) -> tuple[Array, Array]:
        """Returns the transposed atoms, f32[D, m], and a bias of zeros, f32[m]."""
        return weights(decoder, self.latents).atoms.T, jnp.zeros((self.latents,))

    def plain(self, params: Any, memory: Any, norms: Array) -> dict[str, Any]:
        """Returns the fields of `Plain` that describe the encoder: its activation and settings."""
        own = {name: getattr(self, name) for name in self.settings}
        return {"activation": self.kind, "own": own}

    @classmethod
    def from_plain(cls, plain: Plain) -> tuple[Sparse, Mapping[str, Any]]:
        """Returns a bottleneck with the settings of `plain`, and {}, as it has no parameters."""
        own = {name: plain.own.get(name, usual) for name, usual in cls.settings.items()}
        return cls(plain.latents, subtract_bias=plain.apply_b_dec_to_input, **own), {}

    @classmethod
    def shift_plain(cls, plain: Plain, shift: np.ndarray) -> dict[str, np.ndarray]:
        """Raises UserError, because there is no encoder bias that could compensate the shift."""
        raise UserError(
            "a scale of the inputs cannot be folded into the weights of a matching pursuit, "
            "because encoder and decoder share the atoms: use nets.Identity as the encoder and no "
            "scale"
        )

    @classmethod
    def encode_plain(cls, plain: Plain, inputs: Array) -> Array:
        """Computes the codes of plain weights, f32[N, m]."""
        return _codes(inputs, plain.W_dec, {**cls.settings, **plain.own})


def _codes(x: Array, atoms: Array, own: Mapping[str, Any]) -> Array:
    """Computes the codes f32[B, m] of x f32[B, D]; `own` has the attributes of the bottleneck."""
    how = own["residual_threshold"], own["max_iterations"], not own["stop_on_duplicate_support"]
    return jnp.asarray(pursue(x, atoms, *how))
