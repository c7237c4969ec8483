"""Plain weights: one format for the weights of any sparse dictionary of the literature.

They apply to raw inputs, that is, to activations that were not scaled. The fields have the names
that files of other libraries use, such as W_enc, b_dec and apply_b_dec_to_input. Each class of
sparse bottleneck converts its parameters to these weights (`plain`), computes codes with the
weights (`apply_plain`) and converts weights back to parameters (`from_plain`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, TypeAlias

from aejax.errors import UserError
from aejax.types import Array

Normalisation: TypeAlias = Literal["none", "layer_norm", "constant_norm_rescale"]


class Source(NamedTuple):
    """The language model and the hooks whose activations a dictionary was trained on."""

    model: str | None = None  # the model's name, or the sha256 of its weights
    reads: str | None = None  # the hook whose activations the dictionary encodes
    writes: str | None = None  # the hook whose activations it reconstructs; None: the same hook


class Plain(NamedTuple):
    """The weights of a dictionary, and the name of the activation that computes its codes.

    Let pi = (x - b_dec) W_enc if `apply_b_dec_to_input`, else x W_enc. The codes then are:

    relu      relu(pi + b_enc)
    topk      the k largest of pi + b_enc, negative values set to zero
    abstopk   the k of pi + b_enc that are largest in magnitude, with their signs
    jumprelu  relu(p) where p = pi + b_enc is above the threshold, else 0
    gated     relu(exp(r_mag) pi + b_mag) where pi + b_gate is above 0, else 0
    matching_pursuit   atoms chosen one after the other, W_enc = W_dec^T (`kernels.pursuit`)

    For a bottleneck that is defined outside the library, `activation` is its class, a subclass of
    `Sparse`. Such a class may give the vector fields any meaning, and stores everything else in
    `own`. Its `shift_plain` and `scales` define how its fields change when a scale of the inputs or
    the norms of the atoms are folded into the weights.
    """

    activation: str | type  # one of the names above, or a class
    W_enc: Array  # f32[d, m]; in a crosscoder the layers are flattened: d = layers * size
    W_dec: Array  # f32[m, d_out]
    b_dec: Array  # f32[d_out]
    b_enc: Array | None = None  # f32[m]; None for gated
    threshold: Array | None = None  # f32[m], for jumprelu only
    b_gate: Array | None = None  # f32[m], for gated only
    b_mag: Array | None = None  # f32[m], for gated only
    r_mag: Array | None = None  # f32[m], for gated only
    k: int | None = None  # for topk and abstopk only
    # For topk and abstopk: whether scores are multiplied by the norm of the latent's W_dec row.
    rescale_acts_by_decoder_norm: bool = False
    apply_b_dec_to_input: bool = False
    W_skip: Array | None = None  # f32[d, d_out], added to the output as x W_skip
    # How each x is normalised by its own statistics; the output is transformed back. "layer_norm"
    # is (x - mean) / (std + 1e-5), where std divides by d - 1. The scale of a whole data set is not
    # stored here but folded into the weights.
    normalisation: Normalisation = "none"
    # The shape of one output, such as a crosscoder's (layers, size); None: (d_out,).
    shape: tuple[int, ...] | None = None
    # Arrays and settings of the activation that have no field above.
    own: Mapping[str, Any] = {}
    # What the dictionary was trained on; None if unknown. `aejax.language` refuses to replace the
    # activations of another hook by reconstructions; `_replace(source=None)` turns this check off.
    source: Source | None = None

    @property
    def latents(self) -> int:
        """Returns the number of latents, m."""
        return self.W_dec.shape[0]

    @property
    def called(self) -> str:
        """Returns the activation's name for use in messages."""
        return getattr(self.activation, "__name__", str(self.activation))

    def needed(self, name: str) -> Any:
        """Returns the value of a field, or of an entry of `own`, that the activation needs.

        Raises:
          UserError: if there is no entry of this name in `own`, and the field is None or missing.
        """
        value = self.own[name] if name in self.own else getattr(self, name, None)
        if value is None:
            raise UserError(
                f"these plain weights have no {name}, which the activation {self.called} needs: "
                f"set {name}"
            )
        return value

    def changed(self, values: Mapping[str, Any]) -> Plain:
        """Returns a copy of the weights with new `values` of fields or of entries of `own`."""
        own = {name: value for name, value in values.items() if name in self.own}
        rest = {name: value for name, value in values.items() if name not in self.own}
        return self._replace(**rest, own={**self.own, **own})

    def projection(self, bias: str = "b_enc") -> dict[str, Any]:
        """Returns W_enc, and the field named `bias`, as the parameters of a bottleneck."""
        return {"encode": {"kernel": self.W_enc, "bias": self.needed(bias)}}


class Architectures(NamedTuple):
    """The names that SAELens gives to an autoencoder and to transcoders with one kind of code.

    None means that SAELens has no such model.
    """

    sae: str | None = None
    transcoder: str | None = None
    skip_transcoder: str | None = None
