"""What all sparse bottlenecks share: one projection, ages, and an activation of its own each."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from aejax.bottlenecks.sparse.code import SparseCode, Subset
from aejax.bottlenecks.sparse.memory import Ages, Controller
from aejax.bottlenecks.sparse.plain import Architectures, Plain
from aejax.checks import check
from aejax.contracts import NOTHING, Bottleneck, Given
from aejax.errors import UserError
from aejax.events import flatten
from aejax.kernels import encode
from aejax.kernels.mask import mask_of_largest
from aejax.kernels.members import any_member
from aejax.types import Array, Key, LinearDecoder


class Projection(nn.Module):
    """The encoder's weights: a kernel and a bias."""

    latents: int

    @nn.compact
    def __call__(self, size: int) -> tuple[Array, Array]:
        """The kernel f32[D, m] and the bias f32[m], for inputs of D values."""
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (size, self.latents))
        return kernel, self.param("bias", nn.initializers.zeros_init(), (self.latents,))


class Sparse(Bottleneck):
    """Abstract: a sparse bottleneck, whose kind is its `activate`.

    All that is special to a kind stands in its class, so that a new one is one class, in the
    library or outside it. It needs `activate`; to be folded also `apply_plain`, and `plain` and
    `from_plain` where it has more than a kernel and a bias; `penalty` if its price may be steered;
    `fresh` if resampled latents have parameters of their own.

    Attributes:
      latents: m, usually many times the size of x.
      subtract_bias: takes the decoder's bias from the input first, pi = (x - b_dec) W_enc + b_enc.
      l0: the mean number of active latents that the price of `losses.priced` is steered to; None:
        there is no such price.
      descent: training steps over which L0 comes down to that; a fifth of all is a good number.
      alive_above: |z| of which ends a latent's silence; OpenAI's is 1e-3 (Gao et al. 2024).
      dtype: of the product; parameters and z stay float32.
    """

    latents: int
    subtract_bias: bool = dataclasses.field(default=False, kw_only=True)
    l0: float | None = dataclasses.field(default=None, kw_only=True)
    descent: int = dataclasses.field(default=1000, kw_only=True)
    alive_above: float = dataclasses.field(default=0.0, kw_only=True)
    dtype: Any = dataclasses.field(default=None, kw_only=True)

    # Its name as the `activation` of Plain; a class that has none stands there itself.
    kind: ClassVar[str] = ""
    saelens: ClassVar[Architectures] = Architectures()  # its names in SAELens' files
    vectors: ClassVar[tuple[str, ...]] = ("b_enc",)  # the fields f32[m] of Plain that it needs
    selects: ClassVar[bool] = False  # keeps the k latents of an example that score highest
    windowed: ClassVar[bool] = False  # has `thresholds` that learn from the `window` around them
    # Fields that some kinds have; the others behave as if these were theirs.
    score_by_norm = False
    powers = ()

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one example's latent."""
        return (self.latents,)

    def setup(self) -> None:
        """Checks the numbers and names the parts: the projection, and the memory.

        Raises:
          UserError: for a number that makes no sense.
        """
        self.check()
        self.encode = Projection(self.latents)
        self.ages = Ages(self.latents)
        if self.l0 is not None:
            m = self.latents
            check(
                self, "l0", lambda n: 0 < n <= m, f"a number above 0, and at most {m}, its latents"
            )
            check(self, "descent", lambda steps: steps >= 0, "a number of steps, 0 or more")
            self.controller = Controller(self.l0, self.descent)

    def __call__(self, features: Array, key: Key | None, given: Given = NOTHING) -> SparseCode:
        """[B, ...] -> SparseCode; the key is not used.

        Raises:
          UserError: if the bias or the norms of the atoms are needed and the decoder has none.
        """
        inputs = self.inputs(features, given.decoder)
        code = self.activate(inputs, given.step, given.decoder)
        self.ages(code.used(self.alive_above))
        if self.l0 is not None:
            known = isinstance(given.decoder, LinearDecoder)
            size = given.decoder.weights(self.latents).bias.size if known else None
            self.controller(code.l0, inputs, given.step, size)
        return code

    def check(self) -> None:
        """Raises UserError for a number of the activation's own that makes no sense."""

    @abc.abstractmethod
    def activate(self, inputs: Array, step: Any, decoder: Any) -> SparseCode:
        """What is active for inputs f32[B, D]."""

    def plain(self, params: Mapping[str, Any], memory: Any, norms: Array) -> dict[str, Any]:
        """The fields of Plain that are the activation's own; by default its bias is the only one.

        Args:
          params: of this bottleneck.
          memory: of this bottleneck.
          norms: f32[m] of the atoms.
        """
        return {"activation": self.kind or type(self), "b_enc": params["encode"]["bias"]}

    @classmethod
    def from_plain(cls, plain: Plain) -> tuple[Sparse, dict[str, Any]]:
        """A bottleneck and its parameters that compute what plain weights do: the way back."""
        return cls(plain.latents, subtract_bias=plain.apply_b_dec_to_input), plain.projection()

    @classmethod
    def apply_plain(cls, plain: Plain, pre: Array) -> Array:
        """The codes that plain weights give, f32[B, m].

        Args:
          plain: the weights.
          pre: f32[B, m], (x - a b_dec) W_enc, without any bias of the encoder.

        Raises:
          UserError: if the class does not say.
        """
        raise UserError(
            f"{cls.__name__} does not say which codes its plain weights give: define apply_plain"
        )

    def penalty(self, code: SparseCode) -> Array:
        """What must be small for few latents to be active, f32[B]: its price is what is steered.

        Raises:
          UserError: if there is nothing to steer.
        """
        raise UserError(
            f"{type(self).__name__} has no penalty of its own to steer: name one, such as "
            "losses.l1, or choose a bottleneck that has one, such as ReLU"
        )

    def fresh(self) -> dict[str, float]:
        """What a latent that starts again has in parameters of its own, beside the projection."""
        return {}

    def inputs(self, features: Array, decoder: Any) -> Array:
        """What the kernel sees, f32[B, D]."""
        seen = flatten(features).astype(jnp.float32)
        return seen - weights(decoder, self.latents).bias[None] if self.subtract_bias else seen

    def project(self, inputs: Array) -> Array:
        """inputs W + b, f32[B, m]."""
        kernel, bias = self.encode(inputs.shape[-1])
        return project(inputs, kernel, bias, self.dtype)

    def pre_activations(self, features: Array, decoder: Any = None) -> Array:
        """(x - a b_dec) W + b for every latent, f32[B, m]."""
        return self.project(self.inputs(features, decoder))

    def norms(self, decoder: Any) -> Array | None:
        """What selection scales the pre-activations by, f32[m]; None unless `score_by_norm`."""
        return atom_norms(decoder, self.latents) if self.score_by_norm else None

    def revive(
        self, features: Array, dead: Array, k: int, decoder: Any = None, room: int | None = None
    ) -> Subset:
        """The k largest pre-activations among dead latents, signs kept, all where fewer are dead.

        Args:
          features: [B, ...].
          dead: bool[m].
          k: how many, whatever the number of dead latents.
          decoder: of the model.
          room: for so many dead latents, which is what they cost; those beyond are not looked at.
            None: for all m.
        """
        inputs = self.inputs(features, decoder)
        kernel, bias = self.encode(inputs.shape[-1])
        norms = self.norms(decoder)
        # Dead ones first, then others in the places that are left over.
        columns = jax.lax.top_k(dead.astype(jnp.float32), room or self.latents)[1]
        held = jnp.take(dead, columns)[None]
        own = jnp.take(kernel, columns, axis=1), jnp.take(bias, columns)
        pre = project(inputs, *own, self.dtype)

        def best() -> Array:
            score = jax.lax.stop_gradient(pre)
            score = score if norms is None else score * jnp.take(norms, columns)[None]
            return mask_of_largest(jnp.where(held, score, -jnp.inf), k)

        everyone = jnp.ones(pre.shape, bool)
        many = any_member(jnp.sum(dead) > k)
        kept = held & jax.lax.cond(many, best, lambda: everyone)
        return Subset(jnp.where(kept, pre, 0.0), columns, self.latents)


def project(inputs: Array, kernel: Array, bias: Array, dtype: Any = None) -> Array:
    """inputs W + b, f32[B, m]; the product in `dtype`, summed and kept in float32."""
    return encode.project(inputs, kernel, dtype) + bias[None]


def weights(decoder: Any, latents: int) -> Any:
    """A dictionary's atoms and bias.

    Raises:
      UserError: if the decoder is none.
    """
    if not isinstance(decoder, LinearDecoder):
        kind = "no decoder" if decoder is None else f"a {type(decoder).__name__}"
        raise UserError(
            f"this sparse bottleneck reads the bias or the norms of a Dictionary, but was given "
            f"{kind}: use it in an Autoencoder whose decoder is a Dictionary"
        )
    return decoder.weights(latents)


def atom_norms(decoder: Any, latents: int) -> Array:
    """||W_dec row||, f32[m], at least 1e-12, without a gradient: it only orders the latents."""
    norms = jnp.linalg.norm(weights(decoder, latents).atoms, axis=-1)
    return jax.lax.stop_gradient(jnp.maximum(norms, 1e-12))
