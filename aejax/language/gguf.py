"""Reads GGUF files, llama.cpp's format, in every quantisation that the package gguf supports.

    model, variables = load_gguf("SmolLM2-135M-Instruct.Q4_1.gguf")

The field `general.architecture` must be llama, qwen2 or gemma3. The tensors differ from those in
Hugging Face's files in two ways: llama.cpp interleaves the rotary pairs of Llama's queries and
keys, which this reader undoes, and it stores Gemma's norm weights plus 1, as `Transformer` does.
"""

from __future__ import annotations

import pathlib
from typing import Any

import jax.numpy as jnp
import numpy as np

from aejax.errors import UserError
from aejax.files import MALFORMED, check_regular, reading, reason
from aejax.language.config import Config, check_sizes
from aejax.language.llama import Transformer
from aejax.language.weights import Archive, assemble, named
from aejax.optional import needs

_NAMES = (
    ("embedding", "token_embd.weight"),
    ("norm/weight", "output_norm.weight"),
    ("unembed/kernel", "output.weight"),
    ("blocks_#/attention_norm/weight", "blk.#.attn_norm.weight"),
    ("blocks_#/attention/query/kernel", "blk.#.attn_q.weight"),
    ("blocks_#/attention/query/bias", "blk.#.attn_q.bias"),
    ("blocks_#/attention/query_norm/weight", "blk.#.attn_q_norm.weight"),
    ("blocks_#/attention/key/kernel", "blk.#.attn_k.weight"),
    ("blocks_#/attention/key/bias", "blk.#.attn_k.bias"),
    ("blocks_#/attention/key_norm/weight", "blk.#.attn_k_norm.weight"),
    ("blocks_#/attention/value/kernel", "blk.#.attn_v.weight"),
    ("blocks_#/attention/value/bias", "blk.#.attn_v.bias"),
    ("blocks_#/attention/out/kernel", "blk.#.attn_output.weight"),
    ("blocks_#/attention_post_norm/weight", "blk.#.post_attention_norm.weight"),
    ("blocks_#/mlp_norm/weight", "blk.#.ffn_norm.weight"),
    ("blocks_#/mlp/gate/kernel", "blk.#.ffn_gate.weight"),
    ("blocks_#/mlp/up/kernel", "blk.#.ffn_up.weight"),
    ("blocks_#/mlp/down/kernel", "blk.#.ffn_down.weight"),
    ("blocks_#/mlp_post_norm/weight", "blk.#.post_ffw_norm.weight"),
)
MOST_VALUES = 2**22  # a vocabulary of 262,144 tokens with 514,906 merges has half as many
_FACTORS = "rope_freqs.weight"  # the divisors of Llama 3.1's rotary frequencies
ARCHITECTURES = ("llama", "qwen2", "gemma3")


class Fields:
    """The key-value pairs at the head of a GGUF file."""

    def __init__(self, path: pathlib.Path, reader: Any):
        self.path, self.reader = path, reader

    def get(self, name: str, default: Any = None) -> Any:
        """Returns a key's value (a number, string or list), or `default` if the key is missing."""
        field = self.reader.get_field(name)
        return default if field is None else field.contents()

    def need(self, name: str, kind: type = int) -> Any:
        """Returns the value of a key that the file must have.

        Raises:
          UserError: if the value is missing, is of another type than `kind`, or an integer below 1.
        """
        value = self.get(name)
        if kind is float and isinstance(value, int):
            value = float(value)
        if not isinstance(value, kind) or (kind is int and value < 1):
            raise UserError(
                f"the field {name!r} of {self.path} is {value!r:.60}, which cannot be right: fetch "
                "the file again"
            )
        return value


def open_gguf(path: str | pathlib.Path) -> tuple[Any, Fields]:
    """Opens a GGUF file and returns its gguf.GGUFReader and its fields.

    Raises:
      UserError: if the package gguf or the file is missing, or the file is damaged or incomplete.
    """
    path = pathlib.Path(path).expanduser()
    gguf: Any = needs("gguf", f"reading {path}")
    try:
        check_regular(path)
        reader = _reader(gguf)(path)
    except FileNotFoundError as error:
        raise UserError(f"there is no file {path}: check the path") from error
    except MALFORMED as error:
        if "GGMLQuantizationType" in str(error):
            raise UserError(
                f"{path} has a tensor of a quantisation that the installed package gguf does not "
                f"know ({reason(error)}): update gguf, or use a file of another quantisation"
            ) from error
        raise UserError(
            f"{path} is not a complete GGUF file ({reason(error)}): fetch it again"
        ) from error
    return reader, Fields(path, reader)


def _reader(gguf: Any) -> Any:
    """Returns the package's reader, but one that ends where the file does.

    The package's own takes an array of 2**60 numbers beyond the end of the file for empty ones.
    """

    class Reader(gguf.GGUFReader):
        """Refuses a file whose head is cut, or has very many values."""

        values = 0

        def _get(
            self, offset: int, dtype: Any, count: int = 1, override_order: Any = None
        ) -> np.ndarray:
            found = super()._get(offset, dtype, count, override_order)
            self.values += 1
            if len(found) != count:
                raise EOFError("its head is cut off")
            if self.values > MOST_VALUES:
                raise ValueError(f"its head has more than {MOST_VALUES:,} values")
            return found

    return Reader


def load_gguf(
    path: str | pathlib.Path, dtype: Any = jnp.float32
) -> tuple[Transformer, dict[str, Any]]:
    """Reads a model and its variables from a GGUF file.

    Args:
      path: the path of the file.
      dtype: the dtype of the matrix products and of the dequantised weights.

    Raises:
      UserError: if the file is missing, incomplete or damaged, or its architecture or quantisation
        is unknown.
    """
    reader, fields = open_gguf(path)
    with reading(fields.path, "fetch it again"):
        return _load(reader, fields, dtype)


def _load(reader: Any, fields: Fields, dtype: Any) -> tuple[Transformer, dict[str, Any]]:
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    config = _config(fields, tensors)
    turned = fields.get("general.architecture") == "llama"

    def read(name: str) -> np.ndarray:
        array = _dequantised(fields.path, tensors[name])
        heads = {"attn_q": config.heads, "attn_k": config.kv_heads}
        kind = name.split(".")[2] if name.startswith("blk.") else ""
        if turned and kind in heads and len(array) == heads[kind] * config.head_size:
            pairs = array.reshape(heads[kind], config.head_size // 2, 2, -1)
            array = pairs.swapaxes(1, 2).reshape(array.shape)
        return array

    names = named(config, _NAMES)
    return assemble(config, Archive(fields.path, names, set(tensors), read, {_FACTORS}), dtype)  # type: ignore


def _dequantised(path: pathlib.Path, tensor: Any) -> np.ndarray:
    """Returns a tensor of the file as f32[...], with the outermost axis first.

    Raises:
      UserError: if the installed gguf cannot dequantise its type.
    """
    gguf: Any = needs("gguf", f"reading {path}")
    try:
        return gguf.dequantize(tensor.data, tensor.tensor_type).astype(np.float32, copy=False)
    except NotImplementedError as error:
        raise UserError(
            f"the tensor {tensor.name!r} in {path} is quantised as {tensor.tensor_type.name}, "
            "which the installed package gguf cannot dequantise: use a file of another quantisation"
        ) from error


def _config(fields: Fields, tensors: dict[str, Any]) -> Config:
    """Returns the model's Config, read from the file's fields."""
    family = fields.need("general.architecture", str)
    if family not in ARCHITECTURES:
        raise UserError(
            f"{fields.path} is of the architecture {family!r:.60}: this reader knows "
            f"{', '.join(ARCHITECTURES)} only"
        )

    def need(name: str, kind: type = int) -> Any:
        return fields.need(f"{family}.{name}", kind)

    def get(name: str, default: Any) -> Any:
        return fields.get(f"{family}.{name}", default)

    size, heads, layers = (
        need("embedding_length"),
        need("attention.head_count"),
        need("block_count"),
    )
    scaling = get("rope.scaling.type", "none")
    if scaling not in ("none", "linear"):
        raise UserError(
            f"{fields.path} scales its rotary positions by {scaling!r:.40}: this reader knows only "
            "'none' and 'linear'"
        )
    head = get("attention.key_length", size // heads)
    check_sizes(layers, head, fields.path)
    if get("rope.dimension_count", head) != head:
        raise UserError(
            f"{fields.path} rotates only some elements of each head, but this reader knows only "
            "models that rotate all: use another model"
        )
    factors: tuple[float, ...] = ()
    if scaling == "linear":
        factors = (float(get("rope.scaling.factor", 1.0)),) * (head // 2)
    elif _FACTORS in tensors:
        factors = tuple(_dequantised(fields.path, tensors[_FACTORS]).tolist())
    own: dict[str, Any] = {}
    if family == "gemma3":
        own = gemma3(size, layers, need("attention.sliding_window"))
    return Config(
        vocabulary=int(tensors["token_embd.weight"].shape[1])
        if "token_embd.weight" in tensors
        else 0,
        layers=layers,
        size=size,
        heads=heads,
        kv_heads=get("attention.head_count_kv", heads),
        head_size=head,
        hidden=need("feed_forward_length"),
        context=need("context_length"),
        epsilon=need("attention.layer_norm_rms_epsilon", float),
        tied="output.weight" not in tensors,
        query_bias=family == "qwen2",
        rope_base=float(get("rope.freq_base", 1e6 if family == "gemma3" else 1e4)),
        rope_factors=factors,
        **own,
    )


def gemma3(size: int, layers: int, window: int, every: int = 6) -> dict[str, Any]:
    """Returns the fields of Config, by name, whose values in Gemma 3 differ from the defaults.

    Every sixth layer is global; all others are local.

    Args:
      size: the width of the residual stream.
      layers: the number of layers.
      window: the number of positions that a local layer's attention reaches back.
      every: the distance between two global layers.
    """
    return {
        "query_norm": True,
        "post_norm": True,
        "activation": "gelu",
        "embedding_scale": size**0.5,
        "local": tuple((i + 1) % every != 0 for i in range(layers)),
        "window": window,
        "local_rope_base": 1e4,
    }
