"""Orthogonal Sylvester flows: planar flows that move z along several directions in one step."""

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
    """One step of the flow: z + Q R tanh(R' Q^T z + b) (van den Berg et al. 2018, equation 13).

    Q f32[L, M] has orthonormal columns; R and R' f32[M, M] are upper triangular with diagonals in
    (-1, 1). All of them are computed from the features. Q comes from a QR decomposition instead of
    the paper's iteration, whose columns are orthonormal, as the determinant assumes, only once it
    has converged.

    Attributes:
      columns: M, the number of directions.
    """

    columns: int

    @nn.compact
    def __call__(self, z: Array, features: Array) -> tuple[Array, Array]:
        """Maps z f32[B, L] and features f32[B, D] to z' f32[B, L] and log|det| f32[B]."""
        (size, count), columns = z.shape, self.columns
        # If the bias started at zero, features of zero would make the matrix zero, for which QR has
        # no gradient.
        start = nn.initializers.constant(np.eye(count, columns, dtype=np.float32).reshape(-1))
        directions = nn.Dense(count * columns, bias_init=start, name="directions")(features)
        q = jnp.linalg.qr(directions.reshape((size, count, columns)))[0]
        # One matrix stores R above its diagonal and the transpose of R' below it.
        both = nn.Dense(columns * columns, name="triangles")(features)
        both = both.reshape((size, columns, columns))
        # The factor 0.999 keeps the diagonals away from 1 and -1, where the determinant could be
        # rounded to 0.
        diagonals = 0.999 * jnp.tanh(nn.Dense(2 * columns, name="diagonals")(features))
        first, second = jnp.split(diagonals, 2, axis=-1)
        eye = jnp.eye(columns)[None]
        r = jnp.triu(both, 1) + first[..., None] * eye
        r_inner = jnp.triu(jnp.swapaxes(both, 1, 2), 1) + second[..., None] * eye
        b = nn.Dense(columns, name="bias")(features)
        along = jnp.sum(q * z[..., None], axis=1)
        height = jnp.tanh(jnp.sum(r_inner * along[:, None, :], axis=-1) + b)
        move = jnp.sum(r * height[:, None, :], axis=-1)
        # By equation 14, the determinant is that of a triangular matrix: the product of 1 + slope,
        # whose factors are all positive.
        slope = (1.0 - jnp.square(height)) * first * second
        return z + jnp.sum(q * move[:, None, :], axis=-1), jnp.sum(jnp.log1p(slope), axis=-1)


class Sylvester(VectorBottleneck):
    """A diagonal Gaussian, transformed by Sylvester flows whose parameters depend on the features.

    Attributes:
      latents: the number of latents L.
      columns: M, the number of directions along which a step moves z, at most L; None: L.
      flows: the number of steps.
    """

    columns: int | None = None
    flows: int = 4

    @nn.compact
    def __call__(self, features: Array, key: Key | None, given: Given = NOTHING) -> FlowCode:
        """Draws the code of features [B, ...]; without a key the steps transform the base mean.

        Raises:
          UserError: if columns is not between 1 and the number of latents.
        """
        columns = self.latents if self.columns is None else self.columns
        if not 1 <= columns <= self.latents:
            raise UserError(
                f"Sylvester has {columns} columns for {self.latents} latents: give 1 to "
                f"{self.latents} columns, which can be orthonormal"
            )
        check_count(self, 0, "flows")
        steps = [SylvesterStep(columns, name=f"flow_{i}") for i in range(self.flows)]
        return flow(Base(self.latents, name="base"), steps, features, key)
