"""Plain weights: what any sparse dictionary of the literature is, on raw inputs, in one record.

The names are those of the files of other libraries: W_enc, b_dec, apply_b_dec_to_input. Each class
of sparse code says beside its `activate` what its weights are here (`plain`), which codes they give
(`apply_plain`), and how they become parameters again (`from_plain`).
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, TypeAlias

from aejax.errors import UserError
from aejax.types import Array

Normalisation: TypeAlias = Literal["none", "layer_norm", "constant_norm_rescale"]


class Plain(NamedTuple):
    """A dictionary's weights; with a the switch `apply_b_dec_to_input`, pi = (x - a b_dec) W_enc.

    relu      relu(pi + b_enc)
    topk      the k largest of pi + b_enc, cut at zero
    abstopk   the k largest in magnitude, signs kept
    jumprelu  relu(p) where p = pi + b_enc is above the threshold, else 0
    gated     relu(exp(r_mag) pi + b_mag) where pi + b_gate is above 0, else 0

    The activation of a code that is defined elsewhere is its class, a subclass of `Sparse`. Such a
    class keeps its vectors in the fields whose meaning they share: `b_enc` and `b_gate` are added
    to pi, `threshold` is in the units of pi, `b_mag` is added to exp(r_mag) pi.
    """

    activation: str | type  # one of the names above, or a class
    W_enc: Array  # f32[d, m]; a crosscoder's layers are flattened, d = layers * size
    W_dec: Array  # f32[m, d_out]
    b_dec: Array  # f32[d_out]
    b_enc: Array | None = None  # f32[m]; None where gated
    threshold: Array | None = None  # f32[m], jumprelu
    b_gate: Array | None = None  # f32[m], gated
    b_mag: Array | None = None  # f32[m], gated
    r_mag: Array | None = None  # f32[m], gated
    k: int | None = None  # topk and abstopk
    rescale_acts_by_decoder_norm: bool = False  # topk: selects by p * ||W_dec row||
    apply_b_dec_to_input: bool = False
    W_skip: Array | None = None  # f32[d, d_out], added to the output as x W_skip
    # Done to each x by itself, and undone on the output; what depends on the data set alone is
    # folded into the weights. As layer_norm: (x - mean) / (std + 1e-5), std with ddof 1.
    normalisation: Normalisation = "none"
    shape: tuple[int, ...] | None = None  # of one output where that is no vector: (layers, size)

    @property
    def latents(self) -> int:
        """The number of latents, m."""
        return self.W_dec.shape[0]

    @property
    def called(self) -> str:
        """The activation's name, for a sentence."""
        return getattr(self.activation, "__name__", str(self.activation))

    def needed(self, name: str) -> Any:
        """The value of a field that the activation needs.

        Raises:
          UserError: if it is None.
        """
        value = getattr(self, name)
        if value is None:
            raise UserError(f"these {self.called} weights have no {name}: give them one")
        return value

    def projection(self, bias: str = "b_enc") -> dict[str, Any]:
        """A bottleneck's parameters of the projection; its bias is the field of that name."""
        return {"encode": {"kernel": self.W_enc, "bias": self.needed(bias)}}


class Architectures(NamedTuple):
    """The names that SAELens gives to one kind of code; None where it has no such architecture."""

    sae: str | None = None
    transcoder: str | None = None
    skip_transcoder: str | None = None
