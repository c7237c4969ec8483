"""Tests that training equals SAELens', number for number.

Compared are output, loss, gradients and 100 steps of Adam. The frozen arrays are of one run of
SAELens and are written again by `python -m tests.interop.parity.reference`. With the extra `parity`
installed, the same is computed by SAELens itself, SAELens loads files that we write, and we load
files that PyTorch and SAELens write.
"""

import functools
import importlib.util
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import aejax as ae
from aejax import interop, losses
from aejax.bottlenecks import sparse
from aejax.dictionaries.folding import fold
from aejax.dictionaries.plain import encode, reconstruct
from aejax.training.initialise import standardised
from aejax.types import Batch
from tests.interop import cases as interop_cases
from tests.interop.parity import reference
from tests.interop.saelens_test import ROWS, written

needs_sae_lens = pytest.mark.skipif(
    importlib.util.find_spec("sae_lens") is None,
    reason="sae_lens is not installed: pip install -e '.[parity]'",
)

M, WINDOW = reference.LATENTS, reference.WINDOW
SUBTRACTS = {"subtract_bias": True}  # the default of SAELens
ERROR = {"error": (1.0, losses.scaled_error)}
AUXK = {"auxk": (1.0, losses.auxk(after=WINDOW))}
BANDWIDTH = reference.JUMP["jumprelu_bandwidth"]
PURSUIT = reference.CASES["matching_pursuit"][1]


def topk(**how):
    return sparse.TopK(M, 5, **how, **SUBTRACTS), {**ERROR, **AUXK}


def batchtopk():
    return sparse.BatchTopK(M, 4.5, score_by_norm=True, from_zero=True, **SUBTRACTS)


def jumprelu(penalty, weight, **how):
    code = sparse.JumpReLU(M, bandwidth=BANDWIDTH, **how, **SUBTRACTS)
    return code, {**ERROR, "l0": (weight, penalty)}


def ours(case):
    """Makes the bottleneck and the objective that correspond to a case of SAELens."""
    prefixes = losses.prefix_error((6, 16, M), (1.0, 1.0, 1.0))
    gates = {
        "l1": (0.2, losses.gate_l1(weighted=True)),
        "gate": (1.0, losses.gate_error(detach=False)),
    }
    return {
        "standard": lambda: (
            sparse.ReLU(M, **SUBTRACTS),
            {**ERROR, "l1": (0.3, losses.weighted_l1)},
        ),
        "topk": lambda: topk(score_by_norm=True),
        "topk_plain": topk,
        "abstopk": lambda: (sparse.AbsTopK(M, 6, score_by_norm=True, **SUBTRACTS), ERROR),
        "batchtopk": lambda: (batchtopk(), {**ERROR, **AUXK}),
        "gated": lambda: (sparse.Gated(M, **SUBTRACTS), {**ERROR, **gates}),
        "jumprelu": lambda: jumprelu(losses.l0, 0.3),
        "jumprelu_tanh": lambda: jumprelu(losses.tanh_l0(4.0), 0.3, to_input=True),
        "jumprelu_quadratic": lambda: jumprelu(losses.quadratic_l0(6.0), 0.05),
        "matryoshka": lambda: (batchtopk(), {"error": (1.0, prefixes), **AUXK}),
        "matching_pursuit": lambda: (sparse.MatchingPursuit(M, **PURSUIT, **SUBTRACTS), ERROR),
    }[case]()


PATHS = {
    "W_enc": ("bottleneck", "encode", "kernel"),
    "b_enc": ("bottleneck", "encode", "bias"),
    "b_gate": ("bottleneck", "encode", "bias"),
    "b_mag": ("bottleneck", "b_mag"),
    "r_mag": ("bottleneck", "r_mag"),
    "threshold": ("bottleneck", "log_threshold"),
    "W_dec": ("decoder", "atoms"),
    "b_dec": ("decoder", "bias"),
}


def params_of(case, arrays):
    """Returns SAELens' tensors as our parameters."""
    tree = {"bottleneck": {}, "decoder": {}}
    for name, value in reference.weights(case, arrays).items():
        *branch, leaf = PATHS[name]
        at = tree
        for part in branch:
            at = at.setdefault(part, {})
        at[leaf] = jnp.asarray(np.log(value) if name == "threshold" else value)
    return {part: own for part, own in tree.items() if own}


def at(tree, path):
    return tree if not path else at(tree[path[0]], path[1:])


def remembering_adam():
    """Makes Adam with the last gradients in its state, so that one program returns both."""
    adam = optax.adam(reference.LEARNING_RATE)

    def update(grads, state, params=None):
        updates, inner = adam.update(grads, state[0], params)
        return updates, (inner, grads)

    return optax.GradientTransformation(lambda params: (adam.init(params), params), update)


@functools.cache
def compiled(case, scaled=False):
    """Returns the model, a learner with a compiled step, and a compiled forward pass in
    training.
    """
    bottleneck, objective = ours(case)
    size, scale, how = reference.SIZE, ae.nets.Scale, {}
    model = ae.Autoencoder(ae.nets.Identity(), bottleneck, ae.nets.Dictionary(size))
    if scaled:
        model = ae.Autoencoder(scale(), bottleneck, ae.nets.Dictionary(size, scale=scale()))
        how = {"initialise": standardised()}
    learner = ae.learner(model, objective, remembering_adam(), **how)
    learner = learner._replace(init=jax.jit(learner.init), step=jax.jit(learner.step))
    forward = jax.jit(lambda variables, batch: model.apply(variables, batch, mutable=["memory"])[0])
    return model, learner, forward


def started(case, arrays, scaled=False):
    """Makes a state with SAELens' weights and its dead latents."""
    _, learner, _ = compiled(case, scaled)
    state = learner.init(jax.random.key(0), batch(arrays, 0))
    params = params_of(case, arrays)
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, state.params)
    age = jnp.zeros((M,), jnp.int32).at[reference.DEAD].set(1000)
    memory = {**state.memory["bottleneck"], "ages": {"age": age}}
    memory = {**state.memory, "bottleneck": memory}
    return state._replace(params=params, memory=memory, opt=remembering_adam().init(params))


def batch(arrays, step):
    x = jnp.asarray(reference.batch(arrays, step))
    return Batch(x, x)


def close(ours, theirs, relative, what):
    """Checks equality relative to the largest value, since small elements of sums have large
    relative errors.
    """
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    bound = relative * np.abs(theirs).max()
    assert np.abs(ours - theirs).max() <= bound, f"{what}: {np.abs(ours - theirs).max()} > {bound}"


def agrees(case, arrays, result):
    """Checks all comparisons of one case."""
    _, learner, forward = compiled(case)
    state = started(case, arrays)
    seen = forward(learner.variables(state), batch(arrays, 0))
    close(seen.prediction, result["output"], 1e-5, "output")
    history = []
    for i in range(reference.STEPS):
        state, metrics = learner.step(state, batch(arrays, i))
        history.append(float(metrics["loss"]))
        if i == 0:
            close(metrics["loss"], result["loss"], 1e-5, "loss")
            for name in reference.weights(case, arrays):
                gradient = at(state.opt[1], PATHS[name])
                close(gradient, result[f"grad_{name}"], 1e-4, f"gradient of {name}")
    theirs = np.asarray(result["losses"], np.float64)
    worst = np.max(np.abs(np.asarray(history) - theirs) / theirs)
    assert worst <= 1e-3, f"losses of {reference.STEPS} steps differ by {worst}"
    memory = state.memory["bottleneck"]
    assert int(np.sum(np.asarray(memory["ages"]["age"]) > WINDOW)) == result["dead"]
    if "threshold" in result:
        close(memory["threshold"], result["threshold"], 1e-3, "threshold after training")


@pytest.fixture(scope="module")
def frozen():
    with np.load(reference.FROZEN, allow_pickle=False) as file:
        return dict(file)


def frozen_case(frozen, case):
    return {k.removeprefix(f"{case}/"): v for k, v in frozen.items() if k.startswith(f"{case}/")}


@pytest.mark.parametrize("case", reference.CASES)
def test_training_is_that_of_the_frozen_run(frozen, case):
    """All cases agree with the frozen arrays.

    Fails if AuxK is rectified, keeps its target's gradient or loses its weight; if norms are left
    out of L1 or of the selection; if the window reads values after the jump; if matryoshka's errors
    are averaged; or if b_dec is not subtracted.
    """
    agrees(case, frozen, frozen_case(frozen, case))


@needs_sae_lens
@pytest.mark.parametrize("case", reference.CASES)
def test_training_is_that_of_sae_lens(frozen, case):
    """The installed SAELens computes the same from the same weights and data."""
    agrees(case, frozen, reference.run(case, frozen))


@needs_sae_lens
@pytest.mark.parametrize("row", ROWS)
def test_sae_lens_loads_what_we_write(tmp_path, row):
    """For each row, SAE.load_from_disk computes what our weights compute."""
    import torch
    from sae_lens import SAE

    folder, expected = written(tmp_path / "theirs", row)
    plain = interop.load(folder)
    interop.save_saelens(tmp_path / "ours", plain, {"hook_name": "blocks.0.hook_resid_pre"})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sae = SAE.load_from_disk(tmp_path / "ours")
    x = interop_cases.inputs()
    with torch.no_grad():
        theirs = sae(torch.from_numpy(x)).numpy()
        codes = sae.encode(torch.from_numpy(x)).numpy()
    assert sae.cfg.architecture() == row.split()[0]
    assert sae.cfg.metadata.hook_name == "blocks.0.hook_resid_pre"
    np.testing.assert_allclose(reconstruct(plain, jnp.asarray(x)), theirs, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(theirs, expected, rtol=1e-5, atol=1e-5)
    own = np.asarray(encode(plain, jnp.asarray(x)))
    np.testing.assert_allclose(own, codes, rtol=1e-5, atol=1e-5)


@needs_sae_lens
@pytest.mark.parametrize("how", ["none", "layer_norm", "constant_norm_rescale"])
def test_sae_lens_normalises_as_we_do(tmp_path, how):
    import torch
    from sae_lens import SAE

    folder, _ = written(tmp_path / "theirs", "standard", normalize_activations=how)
    plain = interop.load(folder)
    interop.save_saelens(tmp_path / "ours", plain)
    x = interop_cases.inputs()
    for path in (folder, tmp_path / "ours"):
        with torch.no_grad():
            theirs = SAE.load_from_disk(path)(torch.from_numpy(x)).numpy()
        ours = reconstruct(plain, jnp.asarray(x))
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


@needs_sae_lens
def test_sae_lens_flattens_heads(tmp_path):
    """Fails unless the file sets reshape_activations: SAELens then multiplies each head alone."""
    import torch
    from sae_lens import SAE

    folder, _ = written(tmp_path / "theirs", "standard")
    plain = interop.load(folder)
    interop.save_saelens(tmp_path / "ours", plain, {"hook_name": "blocks.0.attn.hook_z"})
    x = interop_cases.inputs().reshape((-1, 2, interop_cases.SIZE // 2))
    with torch.no_grad():
        theirs = SAE.load_from_disk(tmp_path / "ours")(torch.from_numpy(x)).numpy()
    ours = reconstruct(plain, jnp.asarray(x))
    np.testing.assert_allclose(ours, theirs.reshape(ours.shape), rtol=1e-5, atol=1e-5)


@needs_sae_lens
@pytest.mark.parametrize("case", reference.CASES)
def test_we_load_what_sae_lens_trained(tmp_path, frozen, case):
    """SAELens saves trained BatchTopK and Matryoshka as jumprelu with their threshold."""
    import torch
    from sae_lens import SAE

    peer = reference.Peer(case, frozen)
    for step in range(3):
        peer.step(reference.batch(frozen, step))
    if peer.logarithm is not None:
        peer.sae.threshold = torch.nn.Parameter(peer.logarithm.exp().detach())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peer.sae.save_inference_model(tmp_path)
        sae = SAE.load_from_disk(tmp_path)
    x = reference.batch(frozen, 5)
    with torch.no_grad():
        theirs = sae(torch.from_numpy(x)).numpy()
    ours = reconstruct(interop.load(tmp_path), jnp.asarray(x))
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


@needs_sae_lens
@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("case", reference.CASES)
def test_sae_lens_loads_what_we_trained(tmp_path, frozen, case, scaled):
    """After training, folding and saving, SAELens computes on raw inputs what our model does.

    Fails if the input's mean or factor is not folded, or if a threshold stays in units of the
    selection's scores.
    """
    import torch
    from sae_lens import SAE

    model, learner, _ = compiled(case, scaled)
    state = started(case, frozen, scaled)
    if scaled and model.bottleneck.tied:
        with pytest.raises(ae.UserError, match="share the atoms"):
            fold(model, learner.variables(state))
        return
    for step in range(10):
        state, _ = learner.step(state, batch(frozen, step))
    variables = learner.variables(state)
    x = batch(frozen, 20)
    ours = model.apply(variables, x).prediction
    interop.save_saelens(tmp_path, fold(model, variables))
    with torch.no_grad():
        theirs = SAE.load_from_disk(tmp_path)(torch.from_numpy(np.array(x.x))).numpy()
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


@needs_sae_lens
def test_we_load_what_torch_saves(tmp_path):
    """Strides, offsets, dtypes and modules' versions of torch.save are read."""
    import torch

    from aejax.errors import UserError
    from aejax.interop.archive import read_torch

    module = torch.nn.Linear(5, 3)
    whole = torch.arange(24.0).reshape(4, 6)
    state = module.state_dict()
    state |= {"transposed": whole.T, "part": whole[1:3, 2:5], "number": torch.tensor(7)}
    state |= {"half": whole.half(), "brain": whole.bfloat16(), "none": torch.zeros(0, 2)}
    state |= {"parameter": torch.nn.Parameter(whole), "nested": {"k": 32, "name": "ReLU"}}
    for form in (state, dict(state)):
        torch.save(form, tmp_path / "a.pt")
        read = read_torch(tmp_path / "a.pt")
        assert read.keys() == state.keys()
        assert read["nested"] == {"k": 32, "name": "ReLU"}
        for name, value in state.items():
            if name == "nested":
                continue
            assert read[name].shape == tuple(value.shape)
            theirs = value.detach().float().numpy()
            np.testing.assert_array_equal(read[name].astype(np.float32), theirs)
    for hostile in (module, {"weights": whole, "module": module}):
        torch.save(hostile, tmp_path / "a.pt")
        with pytest.raises(UserError, match="not run"):
            read_torch(tmp_path / "a.pt")
    torch.save(state, tmp_path / "a.pt", _use_new_zipfile_serialization=False)
    with pytest.raises(UserError, match=r"a\.pt"):
        read_torch(tmp_path / "a.pt")
