"""Tests of weights in files: the model gets exactly them, and errors name what is wrong."""

import json
import pathlib
import shutil

import numpy as np
import pytest

from aejax.errors import UserError
from aejax.language.huggingface import load_huggingface
from aejax.language.llama import Transformer
from tests.language.parity import reference

gguf = pytest.importorskip("gguf", reason="gguf is not installed: pip install -e '.[language]'")
safetensors = pytest.importorskip("safetensors.numpy")

from aejax.language.gguf import _NAMES, load_gguf  # noqa: E402
from aejax.language.huggingface import _GEMMA, _config  # noqa: E402
from aejax.language.huggingface import _NAMES as _HF  # noqa: E402


def folder(family, tmp_path):
    """Makes a copy of a reference model's folder."""
    shutil.copytree(reference.HERE / family, tmp_path / family)
    return tmp_path / family


def tensors(family):
    """Reads the tensors of a folder: Hugging Face's names -> f32[...]."""
    return safetensors.load_file(reference.HERE / family / "model.safetensors")


def write_gguf(path, family, quantised="F32", left=(), extra=(), **fields):
    """Writes the reference model as llama.cpp's converter would."""
    data = json.loads((reference.HERE / family / "config.json").read_text())
    config = _config(data, pathlib.Path("config.json"))
    writer = gguf.GGUFWriter(path, fields.pop("architecture", family))
    writer.add_block_count(config.layers)
    writer.add_context_length(config.context)
    writer.add_embedding_length(config.size)
    writer.add_feed_forward_length(config.hidden)
    writer.add_head_count(config.heads)
    writer.add_head_count_kv(config.kv_heads)
    writer.add_layer_norm_rms_eps(config.epsilon)
    writer.add_rope_freq_base(config.rope_base)
    writer.add_key_length(config.head_size)
    if config.window:
        writer.add_sliding_window(config.window)
    names = {hf: name for (_, hf), (_, name) in zip_names(family)}
    arrays = dict(tensors(family))
    if family == "llama":
        arrays["rope"] = np.asarray(config.rope_factors, np.float32)
        names["rope"] = "rope_freqs.weight"
    for hf, held in [*arrays.items(), *extra]:
        layer = hf.split(".")[2] if hf.startswith("model.layers.") else ""
        name = names.get(hf.replace(f".{layer}.", ".#."), hf).replace("#", layer)
        if name in left:
            continue
        array = held + 1.0 if family == "gemma3" and name.endswith("norm.weight") else held
        if family == "llama" and name.split(".")[-2] in ("attn_q", "attn_k"):
            pairs = held.reshape(-1, 2, config.head_size // 2, held.shape[1])
            array = pairs.swapaxes(1, 2).reshape(held.shape)
        kind = gguf.GGMLQuantizationType[quantised if array.ndim == 2 else "F32"]
        writer.add_tensor(name, gguf.quantize(array, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def zip_names(family):
    """Yields ((parameter, Hugging Face's name), (parameter, GGUF's name)) of every parameter."""
    theirs = dict(_HF + (_GEMMA if family == "gemma3" else ()))
    return [((path, theirs[path]), (path, name)) for path, name in _NAMES if path in theirs]


@pytest.mark.parametrize("family", ["llama", "qwen2", "gemma3"])
def test_a_gguf_file_and_a_folder_give_the_same_model(family, tmp_path):
    """Fails if Qwen's queries are permuted like Llama's, or if 1 is not added to Gemma's norms.

    Gemma's GGUF files cannot state which layers are local, or a linear scaling, so these are left
    out.
    """
    model, variables = load_huggingface(reference.HERE / family)
    found, its = load_gguf(write_gguf(tmp_path / "model.gguf", family))
    assert isinstance(found, Transformer)
    if family == "gemma3":
        assert found.config.local == (True, True)
        assert found.config.embedding_scale == model.config.embedding_scale
    else:  # floats of a GGUF file are float32
        near = {"epsilon": pytest.approx(model.config.epsilon), "rope_factors": ()}
        assert {**vars(found.config), "rope_factors": ()} == {**vars(model.config), **near}
        factors = found.config.rope_factors, model.config.rope_factors
        np.testing.assert_allclose(*factors, rtol=1e-6)
    assert_equal(its, variables)


def assert_equal(a, b, **how):
    import jax

    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **{"rtol": 1e-6, **how}), a, b)


def test_quantised_weights_are_dequantised(tmp_path):
    """Fails if blocks of 32 numbers run along the wrong axis; sizes here are multiples of 32."""
    rows = np.random.default_rng(0).standard_normal((4, 64)).astype(np.float32)
    kind = gguf.GGMLQuantizationType.Q8_0
    writer = gguf.GGUFWriter(tmp_path / "q.gguf", "llama")
    writer.add_tensor("a", gguf.quantize(rows, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    from aejax.language.gguf import _dequantised, open_gguf

    reader, _ = open_gguf(tmp_path / "q.gguf")
    found = _dequantised(tmp_path / "q.gguf", reader.tensors[0])
    np.testing.assert_allclose(found, rows, atol=np.abs(rows).max() / 127)


def test_shards_are_read_by_their_index(tmp_path):
    path = folder("qwen2", tmp_path)
    held = tensors("qwen2")
    names = sorted(held)
    parts = {"model-1.safetensors": names[::2], "model-2.safetensors": names[1::2]}
    for shard, some in parts.items():
        safetensors.save_file({name: held[name] for name in some}, path / shard)
    (path / "model.safetensors").unlink()
    places = {name: shard for shard, some in parts.items() for name in some}
    index = path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": places}))
    assert_equal(load_huggingface(path)[1], load_huggingface(reference.HERE / "qwen2")[1])
    index.write_text(json.dumps({"weight_map": {**places, names[0]: "model-2.safetensors"}}))
    with pytest.raises(UserError, match=r"which .*index.json names"):
        load_huggingface(path)
    index.write_text(json.dumps({"weight_map": places}))
    (path / "model-2.safetensors").unlink()
    with pytest.raises(UserError, match=r"model-2.safetensors is named by .* but is not there"):
        load_huggingface(path)


def changed(path, **fields):
    """Writes other values into config.json."""
    config = path / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), **fields}))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"model_type": "mamba"}, "'model_type' in .* is 'mamba': this reader knows llama"),
        ({"hidden_size": None}, "'hidden_size'"),
        ({"hidden_act": "relu"}, "the activation .* 'relu'"),
        ({"rope_parameters": {"rope_type": "yarn"}}, "rotary positions by 'yarn'"),
        ({"final_logit_softcapping": 30.0}, "'final_logit_softcapping'"),
        ({"intermediate_size": 25}, r"has shape \(16, 24\) instead of \(16, 25\)"),
        ({"num_hidden_layers": 3}, "has no tensor 'model.layers.2"),
        ({"num_hidden_layers": 1}, "holds the tensor 'model.layers.1"),
    ],
)
def test_a_folder_that_does_not_fit_is_refused(fields, words, tmp_path):
    path = folder("llama", tmp_path)
    changed(path, **fields)
    with pytest.raises(UserError, match=words):
        load_huggingface(path)


def test_a_cut_or_missing_file_is_refused(tmp_path):
    path = folder("llama", tmp_path)
    weights = path / "model.safetensors"
    whole = weights.read_bytes()
    for length in (len(whole) - 8, 100, 0):
        weights.write_bytes(whole[:length])
        with pytest.raises(UserError, match="cannot be read"):
            load_huggingface(path)
    weights.unlink()
    with pytest.raises(UserError, match="it holds no weights"):
        load_huggingface(path)
    with pytest.raises(UserError, match="there is no file"):
        load_huggingface(tmp_path / "nowhere")
    written = write_gguf(tmp_path / "whole.gguf", "llama").read_bytes()
    for length in (len(written) - 100, len(written) // 2, 30, 0):
        (tmp_path / "cut.gguf").write_bytes(written[:length])
        with pytest.raises(UserError, match="not a complete GGUF file"):
            load_gguf(tmp_path / "cut.gguf")
    with pytest.raises(UserError, match="there is no file"):
        load_gguf(tmp_path / "nowhere.gguf")


def test_a_gguf_file_that_does_not_fit_is_refused(tmp_path):
    path = tmp_path / "model.gguf"
    write_gguf(path, "llama", architecture="mamba")
    with pytest.raises(UserError, match="architecture 'mamba': this reader knows llama"):
        load_gguf(path)
    write_gguf(path, "llama", left=("blk.1.ffn_up.weight",))
    with pytest.raises(UserError, match=r"has no tensor 'blk.1.ffn_up.weight'"):
        load_gguf(path)
    write_gguf(path, "llama", extra=[("blk.0.odd.weight", np.ones((2, 2), np.float32))])
    with pytest.raises(UserError, match=r"holds the tensor 'blk.0.odd.weight'"):
        load_gguf(path)
    write_gguf(path, "llama")
    reader = gguf.GGUFReader(path, "r+")
    reader.tensors[0].field.parts[4][0] = 99  # the field with the number of the quantisation
    reader.data.flush()
    with pytest.raises(UserError, match=r"quantisation that .* gguf does not know .*99"):
        load_gguf(path)


def test_weights_that_are_no_numbers_are_refused(tmp_path):
    path = folder("qwen2", tmp_path)
    held = {name: np.array(array) for name, array in tensors("qwen2").items()}
    held["model.norm.weight"][3] = np.nan
    safetensors.save_file(held, path / "model.safetensors")
    with pytest.raises(UserError, match=r"'model.norm.weight' in .* holds NaN"):
        load_huggingface(path)
