"""Tests of reading and writing SAELens' files: all architectures, and versions before 6.

Files are made here, and expected outputs are computed in float64 by the papers' formulas.
"""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from aejax import interop
from aejax.dictionaries.folding import unfold
from aejax.dictionaries.plain import Plain, encode, reconstruct
from aejax.errors import UserError
from aejax.types import Batch
from tests.interop import cases

USUAL = ("W_enc", "W_dec", "b_enc", "b_dec")
TRANSCODER = {"d_out": cases.OUTPUT, "apply_b_dec_to_input": False}
# architecture -> its tensors, its cfg, and the formulas' arguments
ROWS = {
    "standard": (USUAL, {}, {"kind": "relu", "subtract": True}),
    "topk": (USUAL, {"k": 3}, {"kind": "topk", "subtract": True}),
    "topk rescaled": (
        USUAL,
        {"k": 3, "rescale_acts_by_decoder_norm": True},
        {"kind": "topk", "subtract": True, "rescale": True},
    ),
    "jumprelu": ((*USUAL, "threshold"), {}, {"kind": "jumprelu", "subtract": True}),
    "gated": (
        ("W_enc", "W_dec", "b_dec", "b_gate", "b_mag", "r_mag"),
        {},
        {"kind": "gated", "subtract": True},
    ),
    "transcoder": (USUAL, TRANSCODER, {"kind": "relu", "subtract": False}),
    "skip_transcoder": (
        (*USUAL, "W_skip"),
        TRANSCODER,
        {"kind": "relu", "subtract": False, "skip": True},
    ),
    "jumprelu_transcoder": (
        (*USUAL, "threshold"),
        TRANSCODER,
        {"kind": "jumprelu", "subtract": False},
    ),
    "jumprelu_skip_transcoder": (
        (*USUAL, "threshold", "W_skip"),
        TRANSCODER,
        {"kind": "jumprelu", "subtract": False, "skip": True},
    ),
    "abstopk": (USUAL, {"k": 3}, {"kind": "abstopk", "subtract": True}),
    "matching_pursuit": (
        ("W_dec", "b_dec"),
        {"residual_threshold": 0.4},
        {"kind": "matching_pursuit", "subtract": True},
    ),
}


def written(folder, row, **changed):
    """Returns the folder of one row, and its expected output on `cases.inputs()`."""
    names, config, how = ROWS[row]
    w = cases.weights(config.get("d_out", cases.SIZE))
    tensors = {name: w[name].T if name == "W_skip" else w[name] for name in names}
    config = {
        "architecture": row.split()[0],
        **config,
        "metadata": {"sae_lens_version": "6.0.0"},
        **changed,
    }
    cases.write_saelens(folder, tensors, **config)
    return folder, cases.output_of(w=w, x=cases.inputs(), **how)


def agrees(plain, expected, tolerance=1e-5):
    ours = np.asarray(reconstruct(plain, jnp.asarray(cases.inputs())))
    np.testing.assert_allclose(ours, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("row", ROWS)
def test_each_row_computes_what_the_formulas_say(tmp_path, row):
    """Fails if W_skip is not transposed, or a missing apply_b_dec_to_input means false."""
    agrees(interop.load(written(tmp_path, row)[0]), written(tmp_path, row)[1])


@pytest.mark.parametrize("row", ROWS)
def test_what_we_write_is_what_we_read(tmp_path, row):
    """Fails if a vector of gated or jumprelu is lost, or if W_skip is not transposed."""
    folder, expected = written(tmp_path / "theirs", row)
    interop.save_saelens(tmp_path / "ours", interop.load(folder), {"hook_name": "blocks.1.x"})
    agrees(interop.load(tmp_path / "ours"), expected)
    theirs, ours = (
        load_file(tmp_path / name / "sae_weights.safetensors") for name in ("theirs", "ours")
    )
    assert theirs.keys() == ours.keys()
    if row == "topk rescaled":  # read with rows of norm 1, so that activations are SAELens' too
        norms = np.linalg.norm(theirs["W_dec"], axis=1)
        theirs["W_dec"] = theirs["W_dec"] / norms[:, None]
        theirs["W_enc"], theirs["b_enc"] = theirs["W_enc"] * norms, theirs["b_enc"] * norms
    for name in theirs:
        np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-6, atol=1e-7)
    config = json.loads((tmp_path / "ours" / "cfg.json").read_text())
    assert config["architecture"] == row.split()[0]
    assert config["metadata"] == {"sae_lens_version": "6.0.0", "hook_name": "blocks.1.x"}


def test_activations_are_those_of_saelens_where_norms_count(tmp_path):
    """SAELens selects by pre * norm and returns these scores. Fails if `encode` leaves out the
    norms, or if weights that are read select without them after a step of training."""
    plain = interop.load(written(tmp_path, "topk rescaled")[0])
    w, x = cases.weights(), cases.inputs()
    scores = ((x - w["b_dec"]) @ w["W_enc"] + w["b_enc"]) * np.linalg.norm(w["W_dec"], axis=1)
    least = np.sort(scores, axis=1)[:, [-3]]
    expected = np.where(scores >= least, np.maximum(scores, 0), 0)
    np.testing.assert_allclose(encode(plain, x), expected, rtol=1e-5, atol=1e-5)
    model, _ = unfold(plain)
    assert model.bottleneck.score_by_norm


def test_tied_weights_that_saelens_would_read_otherwise_are_not_saved(tmp_path):
    """Fails if W_enc is left out of the file unseen, or an output loses its bias."""
    plain = interop.load(written(tmp_path / "theirs", "matching_pursuit")[0])
    with pytest.raises(UserError, match="not the transpose of W_dec"):
        interop.save_saelens(tmp_path / "ours", plain._replace(W_enc=2 * plain.W_enc))
    with pytest.raises(UserError, match="adds b_dec of matching_pursuit weights"):
        interop.save_saelens(tmp_path / "ours", plain._replace(apply_b_dec_to_input=False))
    folder, _ = written(tmp_path / "plain", "matching_pursuit", apply_b_dec_to_input=False)
    assert not np.any(np.asarray(interop.load(folder).b_dec))


@pytest.mark.parametrize("row", [row for row in ROWS if "skip" not in row])
def test_a_model_made_of_a_file_computes_the_same(tmp_path, row):
    """A file becomes plain weights and then a model. Fails if a bias or a threshold is lost."""
    folder, expected = written(tmp_path, row)
    model, variables = unfold(interop.load(folder))
    x = jnp.asarray(cases.inputs())
    forward = model.apply(variables, Batch(x, jnp.asarray(expected, jnp.float32)))
    np.testing.assert_allclose(forward.prediction, expected, rtol=1e-5, atol=1e-5)


def test_layer_norm_is_undone_on_the_output(tmp_path):
    """Fails with ddof 0, with epsilon under the root, or if the output stays normalised."""
    folder, _ = written(tmp_path, "topk", normalize_activations="layer_norm")
    expected = cases.output_of(
        "topk", cases.weights(), cases.inputs(), subtract=True, layer_norm=True
    )
    agrees(interop.load(folder), expected)


def test_a_bias_can_stay_out_of_the_input(tmp_path):
    """Fails if apply_b_dec_to_input is not read."""
    folder, _ = written(tmp_path, "standard", apply_b_dec_to_input=False)
    expected = cases.output_of("relu", cases.weights(), cases.inputs(), subtract=False)
    agrees(interop.load(folder), expected)


def test_a_skip_connection_on_centred_inputs_becomes_a_transcoder(tmp_path):
    """SAELens' transcoders never subtract b_dec.

    Fails if the encoder's bias does not make up for it.
    """
    w = cases.weights()
    arrays = {name: jnp.asarray(w[name]) for name in (*USUAL, "W_skip")}
    plain = Plain("relu", **arrays, apply_b_dec_to_input=True)
    interop.save_saelens(tmp_path, plain)
    config = json.loads((tmp_path / "cfg.json").read_text())
    assert config["architecture"] == "skip_transcoder"
    assert config["apply_b_dec_to_input"] is False
    agrees(
        interop.load(tmp_path),
        cases.output_of("relu", w, cases.inputs(), subtract=True, skip=True),
    )


def test_a_crosscoder_comes_back_with_its_layers(tmp_path):
    """Fails if the shape of the output is lost, or a shape of another size is believed."""
    w, x = cases.weights(), cases.inputs()
    plain = Plain("relu", **{name: jnp.asarray(w[name]) for name in USUAL}, shape=(2, 3))
    interop.save_saelens(tmp_path, plain, {"hook_name": "two"})
    again = interop.load(tmp_path)
    assert again.shape == (2, 3)
    np.testing.assert_array_equal(reconstruct(again, x), reconstruct(plain, x))
    with pytest.raises(UserError, match=r"'output_shape' .* is \[2, 4\], .* product is 6"):
        interop.save_saelens(tmp_path, plain._replace(shape=(2, 4)))
    assert interop.load(tmp_path).shape == (2, 3)


LEGACY = {  # as SAELens 3 and before wrote it, shortened
    "hook_point": "blocks.8.hook_resid_pre",
    "hook_point_layer": 8,
    "expansion_factor": 2,
    "l1_coefficient": 8e-05,
    "use_ghost_grads": True,
    "normalize_activations": False,
    "dtype": "torch.float32",
}


@pytest.mark.parametrize(
    ("changed", "how"),
    [
        ({}, {"kind": "relu", "subtract": True}),
        ({"d_sae": None}, {"kind": "relu", "subtract": True}),
        (
            {"activation_fn_str": "topk", "activation_fn_kwargs": {"k": 3}},
            {"kind": "topk", "subtract": True},
        ),
        (
            {
                "activation_fn_str": "topk",
                "activation_fn_kwargs": {"k": 3, "signed": False, "postact_fn": "ReLU"},
            },
            {"kind": "topk", "subtract": True},
        ),
        *(
            (
                {"activation_fn_str": "topk", "activation_fn_kwargs": {"k": 3, **signed}},
                {"kind": "abstopk", "subtract": True},
            )
            for signed in ({"signed": True}, {"signed": True, "postact_fn": "Identity"})
        ),
        (
            {"architecture": "jumprelu", "activation_fn_str": "relu"},
            {"kind": "jumprelu", "subtract": True},
        ),
        ({"apply_b_dec_to_input": False}, {"kind": "relu", "subtract": False}),
    ],
)
def test_configurations_before_version_6(tmp_path, changed, how):
    """Fails if activation_fn_str is ignored, as TopK would be read as ReLU.

    Fails also if a signed selection, which keeps large negative values, is read as an unsigned one.
    """
    config = {**LEGACY, "d_sae": cases.LATENTS, "expansion_factor": 7, **changed}
    w = cases.weights()
    names = (*USUAL, "threshold") if how["kind"] == "jumprelu" else USUAL
    tensors = {name: w[name] for name in names}
    if config["d_sae"] is None:
        tensors = {name: v[..., :12] if v.shape[-1] == 14 else v for name, v in tensors.items()}
        tensors["W_dec"] = w["W_dec"][:12]
        w = {**w, **tensors}
        config = {**config, "expansion_factor": 2}
    tensors["scaling_factor"] = np.ones(len(tensors["W_dec"]), np.float32)
    cases.write_saelens(tmp_path, tensors, **config)
    if config["d_sae"] is None:
        without = json.loads((tmp_path / "cfg.json").read_text())
        del without["d_sae"]
        (tmp_path / "cfg.json").write_text(json.dumps(without))
    agrees(interop.load(tmp_path), cases.output_of(w=w, x=cases.inputs(), **how))


@pytest.mark.parametrize("row", ["topk", "topk rescaled", "abstopk"])
def test_todays_form_without_a_version(tmp_path, row):
    """Fails if k is looked up among the arguments of an activation that the file does not name."""
    folder, expected = written(tmp_path, row, metadata={})
    agrees(interop.load(folder), expected)


def selecting(**arguments):
    """Makes a TopK of before version 6."""
    arguments = {"k": 3, **arguments}
    return {"metadata": {}, "activation_fn_str": "topk", "activation_fn_kwargs": arguments}


@pytest.mark.parametrize(
    ("row", "changed", "said"),
    [
        ("matching_pursuit", {"residual_threshold": "small"}, "'residual_threshold' in"),
        ("matching_pursuit", {"residual_threshold": -1.0}, "must be a number, 0 or more"),
        ("standard", {"architecture": "temporal"}, "temporal"),
        ("standard", {"architecture": None}, "architecture"),
        ("standard", {"lp_norm": 0.5}, "lp_norm"),
        ("standard", {"k": 3}, "'k'"),
        ("standard", {"normalize_activations": "expected_average_only_in"}, "expected_average"),
        ("standard", {"apply_b_dec_to_input": "no"}, "apply_b_dec_to_input"),
        ("transcoder", {"apply_b_dec_to_input": True}, "apply_b_dec_to_input"),
        ("transcoder", {"normalize_activations": "layer_norm"}, "layer_norm"),
        ("transcoder", {"d_out": None}, "d_out"),
        ("topk", {"k": None}, "'k'"),
        ("topk", {"k": 3.5}, "'k'"),
        ("topk", {"k": cases.LATENTS + 1}, "'k'"),
        ("standard", {"d_in": 7}, "W_enc"),
        ("standard", {"d_sae": True}, "d_sae"),
        ("standard", {"metadata": {}, "activation_fn_str": "tanh-relu"}, "tanh-relu"),
        ("standard", selecting(temperature=2.0), "the key 'temperature'"),
        ("standard", selecting(postact_fn="Identity"), "'postact_fn' in .* must be 'ReLU'"),
        ("standard", selecting(signed=True, postact_fn="ReLU"), "must be 'Identity'"),
        ("abstopk", selecting(), "both the activation topk and the architecture 'abstopk'"),
        ("jumprelu", selecting(), "both the activation topk and the architecture 'jumprelu'"),
        (
            "topk",
            {"metadata": {}, "activation_fn_str": "relu"},
            "both the architecture 'topk' and the activation relu",
        ),
        (
            "standard",
            {**selecting(), "activation_fn_kwargs": [3]},
            "'activation_fn_kwargs' in .* must be of type dict",
        ),
        ("standard", selecting(signed=1), "'signed' in .* must be of type bool"),
        ("standard", {"metadata": {}, "finetuning_scaling_factor": True}, "finetuning"),
        ("standard", {"metadata": {}, "normalize_activations": True}, "expected_average"),
    ],
)
def test_configurations_that_are_refused(tmp_path, row, changed, said):
    folder, _ = written(tmp_path, row, **changed)
    with pytest.raises(UserError, match=said) as caught:
        interop.load(folder)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.pop("b_dec"), "b_dec"),
        (lambda t: t.update(W_gate=t["W_enc"]), "W_gate"),
        (lambda t: t.update(W_dec=t["W_enc"]), "W_dec"),
        (lambda t: t.update(b_enc=t["b_enc"][:-1]), "b_enc"),
        (lambda t: t.update(b_enc=np.full_like(t["b_enc"], np.nan)), "NaN"),
        (lambda t: t.update(b_enc=np.full(cases.LATENTS, 1e300)), "infinity"),
        (lambda t: t.update(b_enc=t["b_enc"] > 0), "must be a tensor of real numbers"),
        (lambda t: t.update(scaling_factor=2 * np.ones_like(t["b_enc"])), "scaling_factor"),
    ],
)
def test_tensors_that_are_refused(tmp_path, change, said):
    folder, _ = written(tmp_path, "standard")
    tensors = load_file(folder / "sae_weights.safetensors")
    change(tensors)
    save_file(tensors, folder / "sae_weights.safetensors")
    with pytest.raises(UserError, match=said) as caught:
        interop.load(folder)
    assert str(folder) in str(caught.value)


def test_what_saelens_cannot_hold_is_refused(tmp_path):
    folder, _ = written(tmp_path / "theirs", "topk")
    plain = interop.load(folder)
    with pytest.raises(UserError, match="topk transcoder"):
        interop.save_saelens(tmp_path / "ours", plain, {"hook_name_out": "blocks.1.hook_mlp_out"})
    skipping = plain._replace(W_skip=jnp.eye(cases.SIZE))
    with pytest.raises(UserError, match="topk transcoder with a skip"):
        interop.save_saelens(tmp_path / "ours", skipping)
    with pytest.raises(UserError, match="threshold"):
        interop.save_saelens(tmp_path / "ours", plain._replace(activation="jumprelu"))
    assert not (tmp_path / "ours").exists()


@pytest.mark.parametrize(
    ("row", "changed", "said"),
    [
        ("standard", {"b_enc": jnp.zeros(3)}, r"'b_enc' in .* has shape \(3,\) instead of \(14,\)"),
        ("standard", {"W_dec": jnp.zeros((13, 6))}, "W_dec"),
        ("standard", {"W_enc": jnp.zeros((6, 14, 1))}, "W_enc of these weights has shape"),
        ("standard", {"W_dec": jnp.zeros(14)}, "W_dec of these weights has shape"),
        ("standard", {"b_enc": jnp.full(cases.LATENTS, jnp.nan)}, "'b_enc' in .* NaN"),
        ("jumprelu", {"threshold": jnp.full(cases.LATENTS, jnp.nan)}, "'threshold' in .* NaN"),
        ("topk", {"k": cases.LATENTS + 1}, "'k' in .* is 15, but must be .* at most 14"),
        ("topk", {"k": 2.5}, "'k' in .* is 2.5"),
        ("transcoder", {"W_skip": jnp.eye(cases.SIZE)}, "W_skip"),
        (
            "transcoder",
            {"apply_b_dec_to_input": True},
            r"b_dec of these weights has shape \(5,\), but must have shape \(6,\)",
        ),
    ],
)
def test_what_could_not_be_read_is_not_saved(tmp_path, row, changed, said):
    """Fails if weights are written unchecked: the old SAE is then lost, and the new one
    unreadable.
    """
    folder, expected = written(tmp_path, row)
    with pytest.raises(UserError, match=said):
        interop.save_saelens(folder, interop.load(folder)._replace(**changed))
    agrees(interop.load(folder), expected)
    assert len(list(folder.iterdir())) == 2


def test_metadata_that_is_no_json_leaves_the_old_sae_whole(tmp_path):
    """Fails if the old file is removed before the configuration is made into text."""
    folder, expected = written(tmp_path, "standard")
    with pytest.raises(UserError, match="cannot be written as JSON"):
        interop.save_saelens(folder, interop.load(folder), {"hook_name": object()})
    agrees(interop.load(folder), expected)


@pytest.mark.parametrize("k", [3, np.int64(3), jnp.int32(3)])
def test_the_version_is_that_of_the_files(tmp_path, k):
    """Fails if metadata of an old file makes the new one be read by old rules, under which k is
    None.
    """
    plain = interop.load(written(tmp_path / "theirs", "topk")[0])._replace(k=k)
    interop.save_saelens(tmp_path / "ours", plain, {"sae_lens_version": "5.3.1", "seed": 1})
    assert interop.load(tmp_path / "ours").k == 3
    config = json.loads((tmp_path / "ours" / "cfg.json").read_text())
    assert config["metadata"] == {"sae_lens_version": "6.0.0", "seed": 1}


def test_a_failed_save_leaves_the_old_sae_whole(tmp_path, monkeypatch):
    """Fails if cfg.json is removed, or weights are replaced, before the new files are complete."""
    folder, expected = written(tmp_path, "standard")

    def full(path, content):
        raise UserError(f"cannot write {path}: no space")

    monkeypatch.setattr(interop.saelens, "write_bytes", full)
    with pytest.raises(UserError, match="no space"):
        interop.save_saelens(folder, interop.load(folder)._replace(W_dec=jnp.zeros((14, 6))))
    agrees(interop.load(folder), expected)
    monkeypatch.undo()

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(interop.saelens, "write_json", killed)
    with pytest.raises(KeyboardInterrupt):
        interop.save_saelens(folder, interop.load(folder))
    with pytest.raises(UserError, match=r"cfg.json"):
        interop.load(folder)


def test_bfloat16_weights_are_read_as_they_are(tmp_path):
    """Fails if the bits are read as another dtype."""
    w = {name: np.asarray(jnp.asarray(v, jnp.bfloat16)) for name, v in cases.weights().items()}
    cases.write_saelens(
        tmp_path,
        {name: w[name] for name in USUAL},
        architecture="standard",
        dtype="bfloat16",
        metadata={"sae_lens_version": "6.0.0"},
    )
    agrees(
        interop.load(tmp_path),
        cases.output_of("relu", w, cases.inputs(), subtract=True),
    )
