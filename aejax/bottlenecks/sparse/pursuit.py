"""The sparse code of matching pursuit, whose encoder is the dictionary itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np

from aejax.bottlenecks.sparse.base import Sparse, weights
from aejax.bottlenecks.sparse.code import SparseCode
from aejax.bottlenecks.sparse.plain import Architectures, Plain
from aejax.checks import check
from aejax.errors import UserError
from aejax.kernels.pursuit import pursue
from aejax.types import Array


class MatchingPursuit(Sparse):
    """Chooses atoms greedily until the residual is small or an atom comes again (SAELens' form).

    There is no kernel: W_enc is the transpose of W_dec. Inputs and outputs are thus in the same
    space, and the encoder is `nets.Identity`, because a scale would change the atoms of one of
    them. Keep the atoms at norm 1 (`dictionaries.unit_rows`): a longer one overshoots.

    Attributes:
      latents: the number of latents m.
      residual_threshold: the norm of the residual below which an example takes no more atoms.
    """

    latents: int
    residual_threshold: float = 1e-2

    kind = "matching_pursuit"
    saelens = Architectures("matching_pursuit")
    vectors = ()
    numbers: ClassVar[Mapping[str, float]] = {"residual_threshold": 1e-2}
    tied = True

    def check(self) -> None:
        """Raises UserError if the threshold is negative."""
        check(self, "residual_threshold", lambda norm: norm >= 0, "a number, 0 or more")

    def activate(self, inputs: Array, step: Any, decoder: Any) -> SparseCode:
        """Computes the code of inputs f32[B, D], with a dense z f32[B, m]."""
        atoms = weights(decoder, self.latents).atoms
        if atoms.shape[1] != inputs.shape[1]:
            raise UserError(
                f"a matching pursuit explains its own input, but reads {inputs.shape[1]} numbers "
                f"and writes {atoms.shape[1]}: choose another code for a transcoder"
            )
        z = jnp.asarray(pursue(inputs, atoms, self.residual_threshold))
        return SparseCode(z, jnp.sum(z != 0, axis=-1).astype(jnp.float32))

    def projection(self, size: int, decoder: Any) -> tuple[Array, Array]:
        """Returns the transposed atoms and no bias."""
        return weights(decoder, self.latents).atoms.T, jnp.zeros((self.latents,))

    def plain(self, params: Any, memory: Any, norms: Array) -> dict[str, Any]:
        """Returns the fields of Plain."""
        own = {"residual_threshold": self.residual_threshold}
        return {"activation": self.kind, "own": own}

    @classmethod
    def from_plain(cls, plain: Plain) -> tuple[Sparse, Mapping[str, Any]]:
        """Returns the bottleneck, which has no parameters."""
        threshold = float(plain.needed("residual_threshold"))
        subtracts = plain.apply_b_dec_to_input
        return cls(plain.latents, residual_threshold=threshold, subtract_bias=subtracts), {}

    @classmethod
    def shift_plain(cls, plain: Plain, shift: np.ndarray) -> dict[str, np.ndarray]:
        """Raises UserError: the residual is that of the inputs as they are."""
        raise UserError(
            "a matching pursuit cannot be folded with a scale of its inputs, because encoder and "
            "decoder share the atoms: use nets.Identity as the encoder and no scale"
        )

    @classmethod
    def encode_plain(cls, plain: Plain, inputs: Array) -> Array:
        """Computes the codes of plain weights, f32[N, m]."""
        threshold = float(plain.needed("residual_threshold"))
        return jnp.asarray(pursue(inputs, plain.W_dec, threshold))
