"""Reads models in Hugging Face's format: a folder with config.json and safetensors files.

    model, variables = load_huggingface("models/gemma-3-270m")

The entry `model_type` of config.json must be llama, qwen2 or gemma3_text. Its keys may be those of
the package transformers in version 4 (rope_theta, rope_scaling) or 5 (rope_parameters).
"""

from __future__ import annotations

import math
import pathlib
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from aejax.errors import UserError
from aejax.files import MALFORMED, check_regular, reading, reason
from aejax.interop.tensors import entry, read_config, safetensors, shown
from aejax.language.config import Config, check_sizes
from aejax.language.llama import Transformer
from aejax.language.weights import Archive, assemble, named

_LAYER = "model.layers.#."
_NAMES = (
    ("embedding", "model.embed_tokens.weight"),
    ("norm/weight", "model.norm.weight"),
    ("unembed/kernel", "lm_head.weight"),
    ("blocks_#/attention_norm/weight", _LAYER + "input_layernorm.weight"),
    ("blocks_#/attention/query/kernel", _LAYER + "self_attn.q_proj.weight"),
    ("blocks_#/attention/query/bias", _LAYER + "self_attn.q_proj.bias"),
    ("blocks_#/attention/query_norm/weight", _LAYER + "self_attn.q_norm.weight"),
    ("blocks_#/attention/key/kernel", _LAYER + "self_attn.k_proj.weight"),
    ("blocks_#/attention/key/bias", _LAYER + "self_attn.k_proj.bias"),
    ("blocks_#/attention/key_norm/weight", _LAYER + "self_attn.k_norm.weight"),
    ("blocks_#/attention/value/kernel", _LAYER + "self_attn.v_proj.weight"),
    ("blocks_#/attention/value/bias", _LAYER + "self_attn.v_proj.bias"),
    ("blocks_#/attention/out/kernel", _LAYER + "self_attn.o_proj.weight"),
    ("blocks_#/mlp_norm/weight", _LAYER + "post_attention_layernorm.weight"),
    ("blocks_#/mlp/gate/kernel", _LAYER + "mlp.gate_proj.weight"),
    ("blocks_#/mlp/up/kernel", _LAYER + "mlp.up_proj.weight"),
    ("blocks_#/mlp/down/kernel", _LAYER + "mlp.down_proj.weight"),
)
# In Gemma's files the norms around attention and MLP have these names.
_GEMMA = (
    ("blocks_#/attention_post_norm/weight", _LAYER + "post_attention_layernorm.weight"),
    ("blocks_#/mlp_norm/weight", _LAYER + "pre_feedforward_layernorm.weight"),
    ("blocks_#/mlp_post_norm/weight", _LAYER + "post_feedforward_layernorm.weight"),
)
FAMILIES = ("llama", "qwen2", "gemma3_text")
# Options that change the forward pass and that `Transformer` does not support.
_REFUSED = ("attn_logit_softcapping", "final_logit_softcapping", "use_bidirectional_attention")
_INDEX, _WHOLE = "model.safetensors.index.json", "model.safetensors"


def load_huggingface(
    folder: str | pathlib.Path, dtype: Any = jnp.float32
) -> tuple[Transformer, dict[str, Any]]:
    """Reads a model and its variables from a folder.

    Args:
      folder: a folder with config.json and *.safetensors.
      dtype: the dtype of the matrix products and the weights.

    Raises:
      UserError: if a file is missing, incomplete or damaged, or the architecture is not known.
    """
    folder = pathlib.Path(folder).expanduser()
    with reading(folder, "fetch the model again"):
        return _load(folder, dtype)


def _load(folder: pathlib.Path, dtype: Any) -> tuple[Transformer, dict[str, Any]]:
    data = read_config(folder / "config.json")
    config = _config(data, folder / "config.json")
    places = _places(folder)
    gemma = data["model_type"] == "gemma3_text"

    def read(name: str) -> np.ndarray:
        array = _tensor(places[name], name)
        # Gemma's files hold the weights of its norms minus 1.
        return 1.0 + array if gemma and name.endswith("norm.weight") else array

    names = named(config, _NAMES + (_GEMMA if gemma else ()))
    # If the head is tied to the embedding, a file may hold the embedding a second time.
    ignored = frozenset({"lm_head.weight"} if config.tied else ())
    return assemble(config, Archive(folder, names, set(places), read, ignored), dtype)


def _places(folder: pathlib.Path) -> dict[str, pathlib.Path]:
    """Returns tensor name -> the file that holds the tensor.

    Raises:
      UserError: if there are no weights, or the index names a file or a tensor that is missing.
    """
    if not (folder / _INDEX).is_file():
        path = folder / _WHOLE
        if not path.is_file():
            raise UserError(
                f"{folder} has neither {_WHOLE} nor {_INDEX}: it holds no weights, so fetch the "
                "model again"
            )
        return dict.fromkeys(_names(path), path)
    places = read_config(folder / _INDEX).get("weight_map")
    if not isinstance(places, Mapping) or not all(isinstance(v, str) for v in places.values()):
        raise UserError(f"{folder / _INDEX} has no table 'weight_map': fetch it again")
    there = {}
    for shard in sorted(set(places.values())):
        if pathlib.PurePath(shard).name != shard or not (folder / shard).is_file():
            raise UserError(
                f"{folder / shard!s:.200} is named by {_INDEX}, but is not there: fetch the model "
                "again"
            )
        there |= dict.fromkeys(_names(folder / shard), folder / shard)
    for name, shard in places.items():
        if there.get(name) != folder / shard:
            raise UserError(
                f"{folder / shard} has no tensor {name!r:.80}, which {_INDEX} names: fetch the "
                "model again"
            )
    return there


def _names(path: pathlib.Path) -> list[str]:
    return _reading(path, lambda file: list(file.keys()))


def _tensor(path: pathlib.Path, name: str) -> np.ndarray:
    """Reads one tensor of a file as f32[...], without reading the file's other tensors."""
    array = _reading(path, lambda file: file.get_tensor(name))
    if not (array.dtype.kind == "f" or array.dtype == jnp.bfloat16):
        raise UserError(
            f"the tensor {name!r} in {path} has dtype {array.dtype}, but weights must be floats: "
            "use a model that is not quantised"
        )
    return array.astype(np.float32)


def _reading(path: pathlib.Path, what: Any) -> Any:
    library = safetensors()
    try:
        check_regular(path)
        with library.safe_open(path, framework="numpy") as file:
            return what(file)
    except (library.SafetensorError, *MALFORMED) as error:
        raise UserError(f"{path} cannot be read ({reason(error)}): fetch it again") from error


def _config(data: Mapping[str, Any], path: pathlib.Path) -> Config:
    """Returns the model's Config, read from the content of config.json."""
    family = data.get("model_type")
    if family not in FAMILIES:
        raise UserError(
            f"'model_type' in {path} is {shown(family)}: this reader knows {', '.join(FAMILIES)} "
            "only"
        )

    for name in _REFUSED:
        if data.get(name):
            raise UserError(
                f"{name!r} in {path} is {shown(data[name])}: this reader has no such option, so "
                "use another model"
            )

    def need(name: str, kind: type = int) -> Any:
        return entry(data, name, kind, path)

    size, heads, layers = (
        need("hidden_size"),
        need("num_attention_heads"),
        need("num_hidden_layers"),
    )
    head = data.get("head_dim") or size // heads
    check_sizes(layers, head, path)
    activation = data.get("hidden_act") or data.get("hidden_activation")
    if activation not in ("silu", "gelu_pytorch_tanh"):
        raise UserError(
            f"the activation in {path} is {shown(activation)}: this reader knows only 'silu' and "
            "'gelu_pytorch_tanh'"
        )
    gemma, window = family == "gemma3_text", data.get("sliding_window")
    kinds = _kinds(data, layers, gemma, path)
    ropes = _ropes(data, gemma)
    own: dict[str, Any] = {}
    if gemma:
        own = {
            "query_norm": True,
            "post_norm": True,
            "embedding_scale": size**0.5,
            "query_scale": float(need("query_pre_attn_scalar", (int, float))) ** -0.5,  # type: ignore
            "local_rope_base": float(ropes["sliding_attention"].get("rope_theta", 1e4)),
        }
    return Config(
        vocabulary=need("vocab_size"),
        layers=layers,
        size=size,
        heads=heads,
        kv_heads=data.get("num_key_value_heads") or heads,
        head_size=head,
        hidden=need("intermediate_size"),
        context=need("max_position_embeddings"),
        epsilon=float(need("rms_norm_eps", float)),
        tied=bool(data.get("tie_word_embeddings", gemma)),
        query_bias=family == "qwen2" or bool(data.get("attention_bias")),
        activation="silu" if activation == "silu" else "gelu",
        rope_base=float(ropes["full_attention"].get("rope_theta", 1e4)),
        rope_factors=_factors(ropes["full_attention"], head, path),
        local=kinds,
        window=int(window or 0) if any(kinds) else 0,
        **own,
    )


def _kinds(data: Mapping[str, Any], layers: int, gemma: bool, path: pathlib.Path) -> Any:
    """Returns whether each layer's attention is local, as a tuple of bools; () if none is."""
    kinds = data.get("layer_types")
    if kinds is None and gemma:
        every = data.get("sliding_window_pattern", 6)
        kinds = [
            "full_attention" if (i + 1) % every == 0 else "sliding_attention" for i in range(layers)
        ]
    if kinds is None:
        return ()
    if not isinstance(kinds, list) or not set(kinds) <= {"full_attention", "sliding_attention"}:
        raise UserError(
            f"'layer_types' in {path} has an unknown kind of layer: this reader knows only "
            "'full_attention' and 'sliding_attention'"
        )
    local = tuple(kind == "sliding_attention" for kind in kinds)
    return local if any(local) else ()


def _ropes(data: Mapping[str, Any], gemma: bool) -> dict[str, Mapping[str, Any]]:
    """Returns "full_attention" and "sliding_attention" -> the rotary options of such layers."""
    both = ("full_attention", "sliding_attention")
    found = data.get("rope_parameters")
    if isinstance(found, Mapping):
        return {kind: found.get(kind, found) for kind in both}
    scaling = {**(data.get("rope_scaling") or {}), "rope_theta": data.get("rope_theta", 1e4)}
    local = {"rope_theta": data.get("rope_local_base_freq", 1e4)} if gemma else scaling
    return dict(zip(both, (scaling, local), strict=True))


def _factors(rope: Mapping[str, Any], head: int, path: pathlib.Path) -> tuple[float, ...]:
    """Returns numbers by which a head's rotary frequencies are divided; () if they are not scaled.

    Raises:
      UserError: if the scaling is neither linear nor Llama 3's.
    """
    kind = rope.get("rope_type") or rope.get("type") or "default"
    if kind == "default":
        return ()
    if kind == "linear":
        return (float(rope["factor"]),) * (head // 2)
    if kind != "llama3":
        raise UserError(
            f"{path} scales its rotary positions by {shown(kind)}: this reader knows only "
            "'default', 'linear' and 'llama3'"
        )
    # Llama 3.1 divides the frequencies of long wavelengths by the factor, keeps those of short
    # ones, and interpolates in between.
    base, factor = float(rope["rope_theta"]), float(rope["factor"])
    low, high = float(rope["low_freq_factor"]), float(rope["high_freq_factor"])
    context, factors = float(rope["original_max_position_embeddings"]), []
    for i in range(0, head, 2):
        wavelength = 2 * math.pi * base ** (i / head)
        share = min(1.0, max(0.0, (context / wavelength - low) / (high - low)))
        factors.append(1.0 / (share + (1.0 - share) / factor))
    return tuple(factors)
