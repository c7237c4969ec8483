"""Orthogonal Sylvester flows: planar ones with as many directions at once as there are columns."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from aejax.bottlenecks.flow import Base, FlowCode, flow
from aejax.checks import check_count
from aejax.contracts import NOTHING, Given, VectorBottleneck
from aejax.errors import UserError
from aejax.types import Array, Key


class SylvesterStep(nn.Module):
    """z + Q R tanh(R' Q^T z + b) (van den Berg et al. 2018, equation 13).

    Q f32[L, M] has orthonormal columns, R and R' f32[M, M] are upper triangular with diagonals in
    (-1, 1), all from the features. Q comes from a QR decomposition: the paper's iteration is
    orthonormal only where it has converged, and the determinant holds only there.
    """

    columns: int

    @nn.compact
    def __call__(self, z: Array, features: Array) -> tuple[Array, Array]:
        """f32[B, L], f32[B, D] -> z' f32[B, L] and log|det| f32[B]."""
        (size, count), columns = z.shape, self.columns
        # Not from zero: features that are all zero would give no directions, and QR no gradient.
        start = nn.initializers.constant(np.eye(count, columns, dtype=np.float32).reshape(-1))
        directions = nn.Dense(count * columns, bias_init=start, name="directions")(features)
        q = jnp.linalg.qr(directions.reshape((size, count, columns)))[0]
        # R and R' in one matrix: the one above its diagonal, the other transposed below it.
        both = nn.Dense(columns * columns, name="triangles")(features)
        both = both.reshape((size, columns, columns))
        # Not up to 1 and -1, where the determinant could round to 0.
        diagonals = 0.999 * jnp.tanh(nn.Dense(2 * columns, name="diagonals")(features))
        first, second = jnp.split(diagonals, 2, axis=-1)
        eye = jnp.eye(columns)[None]
        r = jnp.triu(both, 1) + first[..., None] * eye
        r_inner = jnp.triu(jnp.swapaxes(both, 1, 2), 1) + second[..., None] * eye
        b = nn.Dense(columns, name="bias")(features)
        along = jnp.sum(q * z[..., None], axis=1)
        height = jnp.tanh(jnp.sum(r_inner * along[:, None, :], axis=-1) + b)
        move = jnp.sum(r * height[:, None, :], axis=-1)
        # Equation 14: the determinant of a triangular matrix, each factor above zero.
        slope = (1.0 - jnp.square(height)) * first * second
        return z + jnp.sum(q * move[:, None, :], axis=-1), jnp.sum(jnp.log1p(slope), axis=-1)


class Sylvester(VectorBottleneck):
    """A diagonal Gaussian through orthogonal Sylvester flows, whose parameters the features give.

    Attributes:
      latents: L.
      columns: M, directions that a step moves along, at most L; None for L.
      flows: how many steps.
    """

    columns: int | None = None
    flows: int = 4

    @nn.compact
    def __call__(self, features: Array, key: Key | None, given: Given = NOTHING) -> FlowCode:
        """[B, ...] -> FlowCode; without a key it is where the base's location goes.

        Raises:
          UserError: if there are more columns than latents.
        """
        columns = self.latents if self.columns is None else self.columns
        if not 1 <= columns <= self.latents:
            raise UserError(
                f"Sylvester has {columns} columns for {self.latents} latents: orthonormal columns "
                "are between 1 and the latents"
            )
        check_count(self, 0, "flows")
        steps = [SylvesterStep(columns, name=f"flow_{i}") for i in range(self.flows)]
        return flow(Base(self.latents, name="base"), steps, features, key)
