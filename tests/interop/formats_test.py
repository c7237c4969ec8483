"""Tests of Gemma Scope's, OpenAI's, sparsify's and dictionary_learning's files.

Files are written here, byte by byte and without PyTorch, and expected outputs are computed in
float64 by the formulas of each library.
"""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from aejax import interop
from aejax.dictionaries.plain import reconstruct
from aejax.errors import UserError
from tests.interop import cases

SIZE, LATENTS, OUTPUT = cases.SIZE, cases.LATENTS, cases.OUTPUT
W = cases.weights()


def agrees(plain, expected):
    ours = np.asarray(reconstruct(plain, jnp.asarray(cases.inputs())))
    np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-5)


def refuses(path, said):
    with pytest.raises(UserError, match=said) as caught:
        interop.load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


# Gemma Scope


@pytest.mark.parametrize("lower", [False, True])
@pytest.mark.parametrize("output", [SIZE, OUTPUT])
def test_gemma_scope_1(tmp_path, lower, output):
    """Fails if b_dec is subtracted from the input."""
    w = cases.weights(output)
    names = ("W_enc", "W_dec", "b_enc", "b_dec", "threshold")
    np.savez(tmp_path / "params.npz", **{n.lower() if lower else n: w[n] for n in names})
    expected = cases.output_of("jumprelu", w, cases.inputs(), subtract=False)
    agrees(interop.load(tmp_path), expected)
    agrees(interop.load(tmp_path / "params.npz"), expected)


def gemma_2(folder, skip, **config):
    w = cases.weights(OUTPUT)
    names = ("W_enc", "W_dec", "b_enc", "b_dec", "threshold")
    tensors = {name.lower(): w[name] for name in names}
    if skip:
        tensors["affine_skip_connection"] = w["W_skip"]
    save_file(tensors, folder / "params.safetensors")
    whole = {
        "architecture": "jump_relu",
        "hf_hook_point_in": "model.layers.5.pre_feedforward_layernorm.output",
        "hf_hook_point_out": "model.layers.5.post_feedforward_layernorm.output",
        "width": LATENTS,
        "model_name": "google/gemma-3-4b-it",
        "l0": 60,
        "affine_connection": skip,
        "type": "transcoder",
        **config,
    }
    (folder / "config.json").write_text(
        json.dumps({n: v for n, v in whole.items() if v is not None})
    )
    return w, tensors


@pytest.mark.parametrize("fewer", [False, True])
@pytest.mark.parametrize("skip", [False, True])
def test_gemma_scope_2(tmp_path, skip, fewer):
    """Fails if the skip connection is transposed; it is stored as it multiplies.

    The first configuration has few keys, the others all keys of the real files.
    """
    few = {"width": None, "affine_connection": None, "type": None, "l0": None}
    w, _ = gemma_2(tmp_path, skip, **(few if fewer else {}))
    expected = cases.output_of("jumprelu", w, cases.inputs(), subtract=False, skip=skip)
    agrees(interop.load(tmp_path), expected)


@pytest.mark.parametrize(
    ("skip", "config", "said"),
    [
        (False, {"apply_b_dec_to_input": True}, "the key 'apply_b_dec_to_input', which no"),
        (False, {"nonsense": 1}, "the key 'nonsense', which no"),
        (True, {"affine_connection": False}, "has a tensor 'affine_skip_connection', but"),
        (False, {"affine_connection": True}, "has no tensor 'affine_skip_connection', but"),
        (False, {"type": "crosscoder"}, "'type' in .* is 'crosscoder'"),
        (False, {"width": LATENTS + 1}, "'width' in .* is 15, but .* has 14 latents"),
    ],
)
def test_gemma_scope_2_configurations_that_are_refused(tmp_path, skip, config, said):
    """Fails if a key is not read, or if it contradicts the weights and these are believed."""
    gemma_2(tmp_path, skip, **config)
    refuses(tmp_path, said)


def test_gemma_scope_refusals(tmp_path):
    _, tensors = gemma_2(tmp_path, skip=False, affine_connection=True)
    refuses(tmp_path, "affine_skip_connection")
    gemma_2(tmp_path, skip=False, architecture="topk")
    refuses(tmp_path, "topk")
    gemma_2(tmp_path, skip=False)
    layers = {**tensors, "w_dec": np.stack([tensors["w_dec"]] * 2, axis=1)}
    save_file(layers, tmp_path / "params.safetensors")
    refuses(tmp_path, "w_dec")
    save_file({**tensors, "w_dec": tensors["w_dec"][:-1]}, tmp_path / "params.safetensors")
    refuses(tmp_path, "w_dec")
    save_file({**tensors, "scale": tensors["b_enc"]}, tmp_path / "params.safetensors")
    refuses(tmp_path, "scale")


# OpenAI


def openai(path, activation, state=None, tied=False, **more):
    tensors = {
        "pre_bias": W["b_dec"],
        "encoder.weight": np.ascontiguousarray(W["W_enc"].T),
        "latent_bias": W["b_enc"],
        "stats_last_nonzero": np.zeros(LATENTS, np.int64),
        **more,
    }
    if tied:
        tensors["decoder.linear.weight"] = tensors["encoder.weight"]
    else:
        tensors["decoder.weight"] = W["W_dec"].T  # stored with its strides
    if activation is not None:
        tensors["activation"] = activation
    if state is not None:
        tensors["activation_state_dict"] = state
    return cases.write_torch(path / "autoencoder.pt", tensors)


def test_openai_topk_normalises_its_inputs(tmp_path):
    """Fails without layer norm, or if latent_bias is taken for b_dec."""
    path = openai(tmp_path, "TopK", {"k": 3, "postact_fn": "ReLU"})
    expected = cases.output_of("topk", W, cases.inputs(), subtract=True, layer_norm=True)
    agrees(interop.load(path), expected)
    agrees(interop.load(tmp_path), expected)


@pytest.mark.parametrize("activation", ["ReLU", None])
def test_openai_relu(tmp_path, activation):
    expected = cases.output_of("relu", W, cases.inputs(), subtract=True)
    agrees(interop.load(openai(tmp_path, activation)), expected)


def test_openai_tied_decoder(tmp_path):
    w = {**W, "W_dec": W["W_enc"].T}
    expected = cases.output_of("relu", w, cases.inputs(), subtract=True)
    agrees(interop.load(openai(tmp_path, "ReLU", tied=True)), expected)


def test_openai_refusals(tmp_path):
    refuses(openai(tmp_path, "Identity"), "Identity")
    refuses(openai(tmp_path, "TopK"), "'k'")
    refuses(openai(tmp_path, "TopK", {"k": 3, "postact_fn": "Identity"}), "postact_fn")
    refuses(openai(tmp_path, "ReLU", scale=W["b_enc"]), "scale")
    refuses(openai(tmp_path, "ReLU", **{"encoder.weight": W["W_enc"]}), "decoder.weight")
    cases.write_torch(tmp_path / "autoencoder.pt", {"epoch": 3})
    refuses(tmp_path / "autoencoder.pt", "encoder.weight")


# sparsify


def sparsify(folder, drop=(), **config):
    w = cases.weights()
    tensors = {
        "encoder.weight": np.ascontiguousarray(w["W_enc"].T),
        "encoder.bias": w["b_enc"],
        "W_dec": w["W_dec"],
        "b_dec": w["b_dec"],
    }
    if config.get("skip_connection"):
        tensors["W_skip"] = np.ascontiguousarray(w["W_skip"].T)
    save_file({n: v for n, v in tensors.items() if n not in drop}, folder / "sae.safetensors")
    whole = {
        "activation": "topk",
        "expansion_factor": 32,
        "normalize_decoder": True,
        "num_latents": LATENTS,
        "k": 3,
        "multi_topk": False,
        "skip_connection": False,
        "transcode": False,
        "d_in": SIZE,
        **config,
    }
    (folder / "cfg.json").write_text(json.dumps({n: v for n, v in whole.items() if v is not None}))
    return folder


@pytest.mark.parametrize(
    ("config", "how"),
    [
        ({}, {"kind": "topk", "subtract": True}),
        ({"normalize_decoder": False}, {"kind": "topk", "subtract": True}),
        ({"transcode": True}, {"kind": "topk", "subtract": False}),
        ({"skip_connection": True}, {"kind": "topk", "subtract": True, "skip": True}),
        (
            {"transcode": True, "skip_connection": True},
            {"kind": "topk", "subtract": False, "skip": True},
        ),
        ({"activation": None, "signed": True}, {"kind": "abstopk", "subtract": True}),
    ],
)
def test_sparsify(tmp_path, config, how):
    """Fails if `normalize_decoder` subtracts b_dec, or if W_skip is not transposed.

    SAELens' loader does subtract b_dec, and transposes W_dec, which is stored as it multiplies.
    """
    agrees(
        interop.load(sparsify(tmp_path, **config)),
        cases.output_of(w=W, x=cases.inputs(), **how),
    )


def test_sparsify_without_a_number_of_latents(tmp_path):
    """num_latents 0, or none in the oldest files, means expansion_factor times d_in."""
    sparsify(tmp_path)
    w = {name: v[..., :12] if v.shape[-1] == LATENTS else v for name, v in W.items()}
    w["W_dec"] = W["W_dec"][:12]
    tensors = {"encoder.weight": w["W_enc"].T.copy(), "encoder.bias": w["b_enc"]}
    tensors |= {"W_dec": w["W_dec"], "b_dec": w["b_dec"]}
    save_file(tensors, tmp_path / "sae.safetensors")
    config = json.loads((tmp_path / "cfg.json").read_text()) | {"expansion_factor": 2}
    for number in (0, None):
        config["num_latents"] = number
        (tmp_path / "cfg.json").write_text(json.dumps(config))
        agrees(interop.load(tmp_path), cases.output_of("topk", w, cases.inputs(), subtract=True))


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"activation": "groupmax"}, "groupmax"),
        ({"embed_skip": True}, "embed_skip"),
        ({"gram_lookup": True}, "gram_lookup"),
        ({"temperature": 2.0}, "temperature"),
        ({"k": 0}, "'k'"),
        ({"d_in": 5}, "encoder.weight"),
        ({"d_in": None}, "d_in"),
        ({"transcode": "yes"}, "transcode"),
        ({"drop": ("W_dec",)}, "W_dec"),
        ({"drop": ("W_skip",), "skip_connection": True}, "W_skip"),
    ],
)
def test_sparsify_refusals(tmp_path, config, said):
    refuses(sparsify(tmp_path, **config), said)


def test_sparsify_refuses_a_skip_that_is_not_announced(tmp_path):
    sparsify(tmp_path, skip_connection=True)
    config = json.loads((tmp_path / "cfg.json").read_text()) | {"skip_connection": False}
    (tmp_path / "cfg.json").write_text(json.dumps(config))
    refuses(tmp_path, "W_skip")


# dictionary_learning


def linear(bias, **more):
    return {
        bias: W["b_dec"],
        "encoder.weight": np.ascontiguousarray(W["W_enc"].T),
        "decoder.weight": W["W_dec"].T,
        **more,
    }


MATRICES = {name: W[name] for name in ("W_enc", "b_enc", "W_dec", "b_dec")}
K = {"k": np.asarray(3, np.int32)}
LEARNED = {"threshold": np.asarray(0.4, np.float32)}
SHARED = {**W, "threshold": np.full(LATENTS, 0.4, np.float32)}
NEVER = {"threshold": np.asarray(-1.0, np.float32)}
DICTIONARIES = {
    "AutoEncoder": (
        linear("bias", **{"encoder.bias": W["b_enc"]}),
        {"kind": "relu", "subtract": True},
    ),
    "AutoEncoderNew": (
        linear("decoder.bias", **{"encoder.bias": W["b_enc"]}),
        {"kind": "relu", "subtract": False},
    ),
    "AutoEncoderTopK": (
        linear("b_dec", **{"encoder.bias": W["b_enc"]}, **K, **NEVER),
        {"kind": "topk", "subtract": True},
    ),
    "BatchTopKSAE": (
        linear("b_dec", **{"encoder.bias": W["b_enc"]}, **K, **LEARNED),
        {"kind": "jumprelu", "subtract": True, "w": SHARED},
    ),
    "GatedAutoEncoder": (
        linear("decoder_bias", r_mag=W["r_mag"], gate_bias=W["b_gate"], mag_bias=W["b_mag"]),
        {"kind": "gated", "subtract": True},
    ),
    "JumpReluAutoEncoder": (
        {**MATRICES, "threshold": W["threshold"]},
        {"kind": "jumprelu", "subtract": False},
    ),
    "MatryoshkaBatchTopKSAE": (
        {**MATRICES, **K, **LEARNED, "group_sizes": np.asarray([4, 10], np.int64)},
        {"kind": "jumprelu", "subtract": True, "w": SHARED},
    ),
}


def learned(folder, kind, tensors, **trainer):
    cases.write_torch(folder / "ae.pt", tensors)
    trainer = {
        "dict_class": kind,
        "activation_dim": SIZE,
        "dict_size": LATENTS,
        "lr": 1e-4,
        **trainer,
    }
    whole = {"trainer": {n: v for n, v in trainer.items() if v is not None}, "buffer": {}}
    (folder / "config.json").write_text(json.dumps(whole))
    return folder


REAL = {  # as published beside a BatchTopKSAE of a language model
    **{"trainer_class": "BatchTopKTrainer", "lr": 3e-4, "steps": 24414, "auxk_alpha": 0.03125},
    **{"warmup_steps": 1000, "decay_start": 19531, "threshold_beta": 0.999, "top_k_aux": 2560},
    **{"threshold_start_step": 1000, "seed": 0, "device": "cuda:0", "layer": 50, "lm_name": "Qwen"},
    **{"wandb_name": "trainer_2", "submodule_name": "resid_post_layer_50"},
}


def test_a_published_configuration_is_read(tmp_path):
    """Fails if a key of training is unknown, or if a key beside the trainer is not read."""
    tensors, how = DICTIONARIES["BatchTopKSAE"]
    learned(tmp_path, "BatchTopKSAE", tensors, k=3, **REAL)
    agrees(interop.load(tmp_path), cases.output_of(**{"w": W, "x": cases.inputs(), **how}))
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "normalise": True}))
    refuses(tmp_path, "the key 'normalise', which no dictionary")


@pytest.mark.parametrize("kind", DICTIONARIES)
def test_dictionary_learning(tmp_path, kind):
    """Fails if JumpRelu subtracts b_dec, or if gate and magnitude are swapped.

    Fails also if AutoEncoderTopK selects by the threshold that training keeps.
    """
    tensors, how = DICTIONARIES[kind]
    k = {"k": 3} if "TopK" in kind else {}
    expected = cases.output_of(**{"w": W, "x": cases.inputs(), **how})
    agrees(interop.load(learned(tmp_path, kind, tensors, **k)), expected)
    agrees(interop.load(tmp_path / "ae.pt"), expected)


@pytest.mark.parametrize(
    ("kind", "change", "trainer", "said"),
    [
        ("CrossCoder", {}, {}, "CrossCoder"),
        ("AutoEncoder", {}, {"activation": "topk", "normalise": True}, "the key 'activation'"),
        ("AutoEncoder", {}, {"normalise": True}, "the key 'normalise', which no known trainer"),
        ("AutoEncoder", {"scale": W["b_enc"]}, {}, "scale"),
        ("AutoEncoder", {"bias": W["b_enc"]}, {}, "bias"),
        ("AutoEncoder", {}, {"dict_size": 13}, "encoder.weight"),
        ("AutoEncoder", {}, {"activation_dim": None}, "activation_dim"),
        ("AutoEncoder", {"bias": None}, {}, "bias"),
        ("AutoEncoderTopK", {}, {"k": 4}, "'k'"),
        ("AutoEncoderTopK", {"k": None}, {}, "'k'"),
        ("AutoEncoderTopK", {"k": np.asarray(15, np.int32)}, {}, "'k'"),
        ("BatchTopKSAE", NEVER, {}, "threshold"),
        ("MatryoshkaBatchTopKSAE", {"threshold": W["threshold"]}, {}, "threshold"),
    ],
)
def test_dictionary_learning_refusals(tmp_path, kind, change, trainer, said):
    tensors = {**DICTIONARIES.get(kind, DICTIONARIES["AutoEncoder"])[0], **change}
    tensors = {name: value for name, value in tensors.items() if value is not None}
    with pytest.raises(UserError, match=said) as caught:
        interop.load(learned(tmp_path, kind, tensors, **trainer))
    assert str(tmp_path) in str(caught.value)


def test_what_is_no_autoencoder(tmp_path):
    refuses(tmp_path, "known format")
    refuses(tmp_path / "nothing", "no file or folder")
    (tmp_path / "weights.pkl").write_bytes(b"\x80\x04N.")
    refuses(tmp_path / "weights.pkl", "pickle files")
