"""The base class of all sparse bottlenecks, which have a projection and an activation.

They also count for how many steps each latent was inactive. A latent that no example has activated
for many steps is called dead.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from aejax.bottlenecks.sparse.code import SparseCode, Subset
from aejax.bottlenecks.sparse.memory import Ages, Controller
from aejax.bottlenecks.sparse.plain import Architectures, Plain
from aejax.bottlenecks.sparse.revived import revived
from aejax.checks import check, check_size
from aejax.contracts import NOTHING, Bottleneck, Given
from aejax.errors import UserError
from aejax.events import flatten
from aejax.kernels import encode
from aejax.kernels.platform import form_or_default
from aejax.types import Array, Key, LinearDecoder


class Projection(nn.Module):
    """The encoder's weights W_enc and b_enc, as the parameters `kernel` and `bias`.

    Attributes:
      latents: the number of latents m.
    """

    latents: int

    @nn.compact
    def __call__(self, size: int) -> tuple[Array, Array]:
        """Returns W_enc f32[D, m] and b_enc f32[m] for inputs of D values."""
        check_size(self, "kernel", 0, size)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (size, self.latents))
        return kernel, self.param("bias", nn.initializers.zeros_init(), (self.latents,))


class Sparse(Bottleneck):
    """Base class of sparse bottlenecks; a subclass defines its activation by `activate`.

    To add a new sparse code, write one subclass, in the library or outside it, that defines
    `activate`. Some features need further definitions:

    - To convert a trained dictionary to plain weights (`Plain`, the format of other libraries),
      define `apply_plain`. Also define `plain` and `from_plain` if the class has fields or
      parameters besides a kernel and a bias, `shift_plain` if subtracting a constant from the
      inputs changes fields other than `b_enc`, and `scales` if the norms of the atoms may be moved
      into the encoder.
    - To train it to a target L0, define `penalty`.
    - To resample dead latents whose parameters are more than a column of the kernel and a bias,
      define `fresh`.

    Attributes:
      latents: the number of latents m, usually many times the size of x.
      subtract_bias: whether to subtract the decoder's bias from the input before the projection:
        (x - b_dec) W_enc + b_enc. It must be False in a transcoder, where b_dec is a bias of the
        output and not of the input.
      l0: the target for the mean number of active latents per example; a controller adjusts the
        weight of the sparsity penalty (`losses.priced`) to reach it. None: there is no controller.
      descent: the number of training steps over which the controller lowers L0 to that target; a
        fifth of all steps works well.
      alive_above: a step counts as one in which a latent was active if its |z| exceeds this value
        for at least one example; OpenAI uses 1e-3 (Gao et al. 2024).
      dtype: the dtype of the projection's product; parameters and z stay float32.
      form: how codes that select their latents, and AuxK, are computed: "rows" reads the rows of
        the selected latents alone, "dense" all rows, as a ReLU does, with zeros for what was not
        selected. The values are the same, except that the dense form keeps all latents whose scores
        tie with the smallest one kept. None: "dense" on TPUs, else "rows"; the platform is that of
        the mesh of `ae.compiled`, or of jax's default devices. State the form in a program that is
        exported for another platform.
    """

    latents: int
    subtract_bias: bool = dataclasses.field(default=False, kw_only=True)
    l0: float | None = dataclasses.field(default=None, kw_only=True)
    descent: int = dataclasses.field(default=1000, kw_only=True)
    alive_above: float = dataclasses.field(default=0.0, kw_only=True)
    dtype: Any = dataclasses.field(default=None, kw_only=True)
    form: str | None = dataclasses.field(default=None, kw_only=True)

    # The value of the field `activation` in Plain; "": the value is the class itself.
    kind: ClassVar[str] = ""
    saelens: ClassVar[Architectures] = Architectures()  # its names in files of SAELens
    vectors: ClassVar[tuple[str, ...]] = ("b_enc",)  # the fields f32[m] of Plain that must be set
    # The fields of Plain that scale with a latent: if a latent's column of W_enc and its entries of
    # these fields are multiplied by c > 0, its values are multiplied by c too. None: there are no
    # such fields, so the norms of the atoms cannot be moved into the encoder.
    scales: ClassVar[tuple[str, ...] | None] = None
    # The settings in Plain.own that a cfg.json of SAELens stores under the same names, with their
    # defaults. The default also determines which values are valid: a bool for a bool, a number of 0
    # or more for a number, and None or a whole number of 1 or more for None.
    settings: ClassVar[Mapping[str, Any]] = {}
    tied: ClassVar[bool] = False  # whether W_enc is the transpose of W_dec instead of a parameter
    selects: ClassVar[bool] = False  # whether it keeps the k highest scores of each example
    # The damping of its controller, which may be smaller if L0 follows the price at once.
    damping: ClassVar[float] = 5.0
    windowed: ClassVar[bool] = False  # whether it has `thresholds`, trained through a `window`
    # Defaults of fields that only some subclasses have.
    score_by_norm = False
    powers = ()

    @property
    def shape(self) -> tuple[int, ...]:
        """Returns the shape of one example's latent."""
        return (self.latents,)

    def setup(self) -> None:
        """Checks the attributes, and declares the submodules: projection, ages and controller.

        Raises:
          UserError: if an attribute is out of range.
        """
        self.check()
        form_or_default(self.form)
        self.encode = Projection(self.latents)
        self.ages = Ages(self.latents)
        if self.l0 is not None:
            m = self.latents
            check(
                self, "l0", lambda n: 0 < n <= m, f"a number above 0, and at most {m}, its latents"
            )
            check(self, "descent", lambda steps: steps >= 0, "a number of steps, 0 or more")
            self.controller = Controller(self.l0, self.descent, damping=self.damping)

    def __call__(self, features: Array, key: Key | None, given: Given = NOTHING) -> SparseCode:
        """Encodes features [B, ...]; in training it also updates the collection `memory`.

        This variable collection stores the number of steps since each latent was last active, and
        the state of the controller. The key is not used.

        Raises:
          UserError: if the decoder's bias or atom norms are needed, but it is not a Dictionary.
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
        """Raises UserError if an attribute that the subclass adds is out of range."""

    @abc.abstractmethod
    def activate(self, inputs: Array, step: Any, decoder: Any) -> SparseCode:
        """Projects inputs f32[B, D], applies the activation, and returns the sparse code.

        Args:
          inputs: the input of the projection, f32[B, D].
          step: the training step, i32[].
          decoder: the model's decoder, or None.
        """

    def plain(self, params: Mapping[str, Any], memory: Any, norms: Array) -> dict[str, Any]:
        """Returns name -> value of the fields of Plain that describe the encoder, without W_enc.

        By default these are `activation` and `b_enc`.

        Args:
          params: the parameters of this bottleneck.
          memory: the collection `memory` of this bottleneck.
          norms: the norms of the atoms, f32[m].
        """
        return {"activation": self.kind or type(self), "b_enc": params["encode"]["bias"]}

    @classmethod
    def from_plain(cls, plain: Plain) -> tuple[Sparse, dict[str, Any]]:
        """Returns a bottleneck and its parameters, which compute the codes of the plain weights.

        It is the inverse of `plain`.
        """
        return cls(plain.latents, subtract_bias=plain.apply_b_dec_to_input), plain.projection()

    @classmethod
    def shift_plain(cls, plain: Plain, shift: np.ndarray) -> dict[str, np.ndarray]:
        """Returns fields of Plain with which subtracting `shift` does not change the codes.

        The shift is subtracted from the product pi of the input and W_enc, which `Plain` defines as
        (x - b_dec) W_enc or x W_enc.

        Args:
          plain: the weights before the change.
          shift: the constant that will be subtracted from pi, f64[m].
        """
        return {"b_enc": np.asarray(plain.needed("b_enc"), np.float64) + shift}

    @classmethod
    def encode_plain(cls, plain: Plain, inputs: Array) -> Array:
        """Computes the codes of plain weights, f32[N, m]; by default apply_plain(inputs W_enc).

        Args:
          plain: the plain weights.
          inputs: the inputs, f32[N, d], from which b_dec was already subtracted if needed.
        """
        return cls.apply_plain(plain, inputs @ plain.W_enc)

    @classmethod
    def apply_plain(cls, plain: Plain, pre: Array) -> Array:
        """Computes the codes of plain weights, f32[B, m].

        Args:
          plain: the plain weights.
          pre: the input times W_enc, f32[B, m], before any bias of the encoder is added.

        Raises:
          UserError: if the subclass does not define it.
        """
        raise UserError(
            f"{cls.__name__} does not define how codes are computed from plain weights: define its "
            "method apply_plain"
        )

    def penalty(self, code: SparseCode, norms: Array | None = None) -> Array:
        """Computes the sparsity penalty whose weight the controller may adjust, f32[B].

        Args:
          code: the code of a batch.
          norms: the norms of the atoms, f32[m], through which gradients flow. A penalty on |z| must
            multiply by them; otherwise smaller z with longer atoms lower it without being sparser.
            None: all are 1.

        Raises:
          UserError: if the subclass defines no penalty.
        """
        raise UserError(
            f"{type(self).__name__} defines no sparsity penalty: pass one, such as losses.l1, or "
            "choose a bottleneck that defines one, such as ReLU"
        )

    def fresh(self) -> dict[str, float]:
        """Returns name -> initial value of a latent's parameters other than W_enc and b_enc."""
        return {}

    def inputs(self, features: Array, decoder: Any) -> Array:
        """Returns the input of the projection, f32[B, D]: the features, or features - b_dec.

        The decoder's bias b_dec is subtracted if `subtract_bias` is True.

        Raises:
          UserError: if the decoder's bias b_dec has another size than the features.
        """
        seen = flatten(features).astype(jnp.float32)
        if not self.subtract_bias:
            return seen
        bias = weights(decoder, self.latents).bias
        if bias.shape[0] != seen.shape[1]:
            raise UserError(
                f"{type(self).__name__} has subtract_bias=True, but an input has {seen.shape[1]} "
                f"values and the decoder's bias {bias.shape[0]}: set subtract_bias=False in a "
                "transcoder, whose inputs and outputs differ"
            )
        return seen - bias[None]

    def project(self, inputs: Array) -> Array:
        """Computes the projection inputs W_enc + b_enc, f32[B, m]."""
        kernel, bias = self.encode(inputs.shape[-1])
        return project(inputs, kernel, bias, self.dtype)

    def projection(self, size: int, decoder: Any) -> tuple[Array, Array]:
        """Returns W_enc f32[D, m] and b_enc f32[m] for inputs of D = size values."""
        return self.encode(size)

    def pre_activations(self, features: Array, decoder: Any = None) -> Array:
        """Computes the pre-activation of every latent, f32[B, m]."""
        inputs = self.inputs(features, decoder)
        return project(inputs, *self.projection(inputs.shape[-1], decoder), self.dtype)

    def norms(self, decoder: Any) -> Array | None:
        """Returns the norms of the atoms, f32[m], by which selection scores are multiplied.

        It returns None if `score_by_norm` is False, because scores are then not multiplied.
        """
        return atom_norms(decoder, self.latents) if self.score_by_norm else None

    def revive(
        self,
        features: Array,
        dead: Array,
        k: int,
        decoder: Any = None,
        projected: Array | None = None,
    ) -> Callable[[int], Array | Subset]:
        """Returns a function of `room` that computes the code of AuxK, which revives dead latents.

        The code holds the k largest pre-activations of dead latents of each example. Negative ones
        keep their signs, and all other latents are zero. If at most k latents are dead, the code
        holds all of them. The function's argument is the largest number of dead latents whose
        pre-activations are computed; further dead latents are ignored. The dense form takes all.

        Args:
          features: the encoder's output, [B, ...].
          dead: whether each latent is dead, bool[m].
          k: the number of dead latents to keep for each example.
          decoder: the model's decoder.
          projected: the pre-activations of all latents, f32[B, m], if they are known.
        """
        return revived(self, features, dead, k, decoder, projected)


def project(inputs: Array, kernel: Array, bias: Array, dtype: Any = None) -> Array:
    """Computes inputs kernel + bias, f32[B, m]; factors have `dtype`, and sums are in float32."""
    return encode.project(inputs, kernel, dtype) + bias[None]


def weights(decoder: Any, latents: int) -> Any:
    """Returns the weights of the decoder, with the fields `atoms` and `bias`.

    Raises:
      UserError: if the decoder is not a Dictionary.
    """
    if not isinstance(decoder, LinearDecoder):
        kind = "no decoder" if decoder is None else f"a {type(decoder).__name__}"
        raise UserError(
            f"this sparse bottleneck needs the bias or the atom norms of a Dictionary, but was "
            f"given {kind}: use it in an Autoencoder whose decoder is a Dictionary"
        )
    return decoder.weights(latents)


def atom_norms(decoder: Any, latents: int) -> Array:
    """Computes the norms of the decoder's atoms, f32[m], at least 1e-12.

    Gradients through the norms are stopped, because they only determine which latents are selected.
    """
    norms = jnp.linalg.norm(weights(decoder, latents).atoms, axis=-1)
    return jax.lax.stop_gradient(jnp.maximum(norms, 1e-12))
