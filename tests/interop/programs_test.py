"""Exported programs compute what the model does, without flax, and bad input writes nothing."""

from __future__ import annotations

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from scipy import special

import aejax as ae
from aejax import interop
from aejax.errors import UserError
from aejax.interop.programs import noise, onnx, onnx_check, parts, web
from aejax.interop.programs.program import trace
from aejax.interop.programs.weights import pack, unpack
from aejax.normal import mean_and_log_std
from tests import kinds

RANDOM = np.random.default_rng(0)
X = RANDOM.random((5, *kinds.EVENT)).astype(np.float32)
BATCH = ae.Batch(jnp.asarray(X), jnp.asarray(X))


def started(model: ae.Autoencoder):
    """The variables of all parts; a prior's are first touched by its density."""

    def touched(module: ae.Autoencoder, batch: ae.Batch):
        forward = module(batch, jax.random.key(1))
        if module.prior is not None:
            module.prior.log_prob(forward.code.latent, None, module.posterior)

    start = jax.jit(lambda key: model.init(key, BATCH, method=touched))(jax.random.key(0))
    # Biases start at 0, so that a program without them would pass.
    random = np.random.default_rng(1)
    return jax.tree.map(
        lambda leaf: leaf + 0.1 * random.standard_normal(leaf.shape).astype(leaf.dtype), start
    )


@pytest.fixture(scope="module")
def vae():
    model = kinds.variational()
    return model, started(model)


def inputs_of(program: parts.Program, size: int = 5) -> dict[str, np.ndarray]:
    """Random inputs; x is that of the batch."""
    found = {}
    for name, spec in program.inputs.items():
        shape = (size, *spec.shape)
        found[name] = RANDOM.random(shape) if name == "noise" else RANDOM.standard_normal(shape)
        found[name] = np.resize(X, shape) if name == "x" else found[name].astype(spec.dtype)
    return found


def again(path, inputs):
    return jax.export.deserialize(bytearray(path.read_bytes())).call(inputs)


def apart(found, wanted) -> float:
    assert set(found) == set(wanted)
    return max(
        float(np.max(np.abs(np.asarray(found[name], np.float64) - np.asarray(wanted[name]))))
        for name in wanted
    )


WITHOUT_FLAX = """
import importlib.abc, runpy, sys

class Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"flax", "aejax", "optax"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_a_decoder_runs_without_flax_for_any_batch(vae, tmp_path):
    """Fails if the program holds the encoder or a fixed batch, or a draw reads another's noise."""
    model, variables = vae
    path, script = interop.export(model, variables, tmp_path / "decoder.stablehlo")
    program = parts.decoder(model, variables)
    names = set(trace(program).weights)
    assert names == {
        f"params.decoder.{layer}.{leaf}"
        for layer in ("hidden_0", "output")
        for leaf in ("kernel", "bias")
    }
    for size in (1, 3, 7):
        inputs = inputs_of(program, size)
        found = again(path, inputs)
        bound = model.bind(variables)
        np.testing.assert_allclose(found["mean"], bound.mean(bound.decode(inputs["z"])), atol=1e-5)
        own = inputs["noise"][:, :4], inputs["noise"][:, 4:].reshape((size, *kinds.EVENT))
        np.testing.assert_allclose(found["draw"], special.ndtri(own[0]), rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(found["sample"], own[1] < found["mean"])
    said = subprocess.run(
        [sys.executable, "-c", WITHOUT_FLAX, script, path, "6"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.returncode == 0, said.stderr
    assert "decoder.stablehlo takes noise float32[B,68], z float32[B,4]" in said.stdout
    assert "mean       (6, 8, 8, 1)" in said.stdout


def test_noise_stands_for_the_draws_of_jax_random():
    """Against the inverses of the distributions, by scipy. Fails if a draw takes others' noise."""
    given = RANDOM.random((6, 5)).astype(np.float32)
    p = RANDOM.random((6, 3)).astype(np.float32)

    def both(key, p):
        first, second = jax.random.split(key)
        return jax.random.bernoulli(first, p), jax.random.normal(second, (p.shape[0], 2))

    assert noise.columns(both, p) == 5
    coins, normals = jax.jit(lambda u, p: noise.draw(both, u, p))(given, p)
    np.testing.assert_array_equal(coins, given[:, :3] < p)
    np.testing.assert_allclose(normals, special.ndtri(given[:, 3:]), rtol=1e-4, atol=1e-5)
    logits = RANDOM.standard_normal((6, 5)).astype(np.float32)
    chosen = noise.draw(jax.random.categorical, given, logits)
    np.testing.assert_array_equal(chosen, np.argmax(logits - np.log(-np.log(given)), axis=1))
    with pytest.raises(noise.Undrawable, match="rem"):
        noise.columns(lambda key, p: jax.random.randint(key, (p.shape[0],), 0, 3), p)


def test_nan_does_not_count_in_a_score():
    """Against the library and numpy. Fails if a missing element is scored, or the score is NaN."""
    model = kinds.variational(ae.likelihoods.LearnedGaussian(start=1.0), event=(3,), width=4)
    model = model.clone(encoder=ae.nets.Standardised(ae.nets.MLP((4,)), 0.0, 1.0))
    x = RANDOM.standard_normal((4, 3)).astype(np.float32)
    x[2, 1] = np.nan
    learner = ae.learner(model, ae.elbo(), optax.sgd(0.1))
    variables = learner.variables(kinds.begun(learner, ae.Batch(x, x)))
    program = parts.whole(model, variables, ae.Batch(x, x))
    found = jax.jit(program.run)(variables, {"x": x})
    bound = model.bind(variables)
    forward = bound(x)
    rate = 0.5 * (np.exp(2 * found["log_std"]) + found["z"] ** 2 - 1 - 2 * found["log_std"]).sum(1)
    np.testing.assert_allclose(
        found["score"] - rate, ae.losses.distortion(bound, forward), rtol=1e-4
    )
    seen = ~np.isnan(x)
    square = np.where(seen, np.square(np.nan_to_num(x) - np.asarray(found["mean"])), 0.0).sum(1)
    std = np.asarray(bound.likelihood.std())
    right = 0.5 * square / std**2 + (0.5 * np.log(2 * np.pi) + np.log(std)) * seen.sum(1)
    np.testing.assert_allclose(found["score"] - rate, right, rtol=1e-3)


def test_a_score_and_its_threshold_travel_inside(vae, tmp_path):
    """Fails if the score leaves out the rate, or the threshold is compared the wrong way round."""
    model, variables = vae
    bound = model.bind(variables)
    forward = bound(BATCH)
    q = forward.code
    rate = 0.5 * (q.mean**2 + jnp.exp(2 * q.log_std) - 1 - 2 * q.log_std).sum(-1)
    logits = np.asarray(forward.prediction, np.float64)
    scores = -(X * logits - np.logaddexp(0, logits)).sum((1, 2, 3)) + np.asarray(rate)
    limit = float(np.sort(scores)[1:3].mean())
    path = interop.export(
        model, variables, tmp_path / "all.stablehlo", part="all", example=BATCH, threshold=limit
    )[0]
    found = again(path, {"x": X})
    np.testing.assert_allclose(found["score"], scores, rtol=1e-5)
    np.testing.assert_allclose(found["z"], q.mean, atol=1e-5)
    np.testing.assert_allclose(found["log_std"], q.log_std, atol=1e-5)
    np.testing.assert_allclose(found["mean"], bound.mean(forward.prediction), atol=1e-5)
    np.testing.assert_array_equal(found["anomalous"], scores > limit)
    np.testing.assert_allclose(found["threshold"], limit, rtol=1e-6)
    path = interop.export(
        model,
        variables,
        tmp_path / "encoder.stablehlo",
        part="encoder",
        example=BATCH,
        score=lambda model, forward: 2.0 * ae.losses.squared_error(model, forward),
    )[0]
    means = np.asarray(bound.mean(forward.prediction))
    wanted = 2.0 * np.square(X - means).sum((1, 2, 3))
    found = again(path, {"x": X})
    assert sorted(found) == ["log_std", "score", "z"]
    np.testing.assert_allclose(found["score"], wanted, rtol=1e-5)


def levels() -> ae.Autoencoder:
    """A hierarchy of two levels, the upper one with 3 latents and the lower one with 4."""
    net = ae.nets.MLP
    return ae.Autoencoder(
        ae.nets.Branches((net((16,)), net((16,)))),
        ae.Levels((3, 4), (net((), (6,)), ae.nets.Joined((None, net((8,))), net((), (8,))))),
        ae.nets.Joined((net((8,)), net((8,))), net((16,), kinds.EVENT)),
        ae.priors.Levels((net((8,), (8,)),), ae.priors.Standard()),
        ae.likelihoods.Bernoulli(),
    )


def upward() -> ae.Autoencoder:
    """As above, but the posterior goes from the lower level up, and the decoder reads z_1 alone."""
    net = ae.nets.MLP
    bottleneck = ae.UpwardLevels((3, 4), (net((8,), (6,)),))
    decoder = net((16,), kinds.EVENT)
    return levels().clone(encoder=net((16,)), bottleneck=bottleneck, decoder=decoder)


def test_a_hierarchy_has_an_input_for_each_level(tmp_path):
    """Fails if the levels change places, or the lower one is drawn without the upper one."""
    model = levels()
    variables = started(model)
    path = interop.export(model, variables, tmp_path / "a.stablehlo")[0]
    inputs = inputs_of(parts.decoder(model, variables), 3)
    assert {name: value.shape[1] for name, value in inputs.items() if name != "noise"} == {
        "z_0": 3,
        "z_1": 4,
    }
    found = again(path, inputs)
    bound = model.bind(variables)
    means = bound.mean(bound.decode(bound.lift((inputs["z_0"], inputs["z_1"]))))
    np.testing.assert_allclose(found["mean"], means, atol=1e-5)
    upper, lower = (special.ndtri(inputs["noise"][:, a:b]) for a, b in ((0, 3), (3, 7)))
    np.testing.assert_allclose(found["draw_0"], upper, rtol=1e-4, atol=1e-5)
    weights = {"params": variables["params"]["prior"]["nets_0"]}
    mean, log_std = mean_and_log_std(ae.nets.MLP((8,), (8,)).apply(weights, upper))
    wanted = mean + np.exp(log_std) * lower
    np.testing.assert_allclose(found["draw_1"], wanted, rtol=1e-4, atol=1e-4)


def test_what_cannot_be_drawn_from_noise_is_left_out_with_a_warning(tmp_path):
    prior = ae.priors.Vamp(kinds.EVENT, 7)
    model = kinds.variational().clone(prior=prior)
    variables = started(model)
    with pytest.warns(UserWarning, match="output draw is left out, because of how Vamp draws"):
        interop.export(model, variables, tmp_path / "a.safetensors")


def test_a_dictionary_is_folded_and_scores_by_its_error(tmp_path):
    """Fails if the scale of the inputs is left out, or a batch's rows share a selection."""
    model = kinds.scaled(ae.TopK(32, 3))
    variables = ae.standardised()(started(model), BATCH, jax.random.key(0))
    for part in ("dictionary", "all"):
        path = interop.export(
            model, variables, tmp_path / f"{part}.stablehlo", part=part, example=BATCH
        )[0]
        found = again(path, {"x": X})
        forward = model.apply(variables, BATCH)
        np.testing.assert_allclose(found["z"], forward.code.dense(), atol=1e-5)
        np.testing.assert_allclose(found["mean"], forward.prediction, atol=1e-5)
        wanted = np.square(X - np.asarray(forward.prediction)).sum((1, 2, 3))
        np.testing.assert_allclose(found["score"], wanted, rtol=1e-5)


def test_int8_has_a_scale_for_each_channel():
    """Fails with one scale for a whole matrix, or if vectors or statistics are rounded, too."""
    matrix = RANDOM.standard_normal((40, 8)).astype(np.float32) * 10.0 ** np.arange(8)
    matrix = matrix.astype(np.float32)
    weights = {"params.kernel": matrix, "params.bias": matrix[0]}
    statistics = ("memory.factor", "batch_stats.norm.mean")
    weights |= {name: matrix for name in statistics}
    packed = pack(weights, "int8")
    assert packed["params.kernel"].values.dtype == np.int8
    found = unpack(packed)
    step = np.abs(weights["params.kernel"]).max(0) / 127
    assert np.all(np.abs(found["params.kernel"] - weights["params.kernel"]) <= 0.501 * step)
    np.testing.assert_array_equal(found["params.bias"], weights["params.bias"])
    for name in statistics:
        np.testing.assert_array_equal(found[name], matrix)
    half = pack(weights, "bfloat16")["params.kernel"].values
    assert half.dtype == jnp.bfloat16


def test_weights_leave_with_a_table_of_names(vae, tmp_path):
    model, variables = vae
    path, table = interop.export(model, variables, tmp_path / "a.safetensors", weights="int8")
    library = pytest.importorskip("safetensors.numpy")
    tensors = library.load_file(path)
    kernel = np.asarray(variables["params"]["decoder"]["output"]["kernel"])
    name = "params.decoder.output.kernel"
    restored = tensors[name] * tensors[f"{name}.scale"]
    assert np.abs(restored - kernel).max() < np.abs(kernel).max() / 200
    assert f"| `{name}` | int8 | [32, 64] |" in table.read_text()


def test_a_program_exists_only_with_what_belongs_to_it(vae, tmp_path):
    """Fails if the program is written first, or a process that was killed leaves files behind."""
    pytest.importorskip("safetensors")
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    left = [tmp_path / f".a.md.{process}.tmp" for process in (dead.pid, 1)]
    for path in left:
        path.touch()
    (tmp_path / "a.md").mkdir()
    with pytest.raises(UserError, match=r"cannot write .*a\.md"):
        interop.export(*vae, tmp_path / "a.safetensors")
    assert sorted(tmp_path.iterdir()) == [left[1], tmp_path / "a.md"]


OTHERS = {
    "an ending": ({"path": "a.pt"}, "ends in one of .stablehlo"),
    "a part": ({"part": "prior"}, "there is no part 'prior': choose one of decoder"),
    "weights": ({"weights": "int4"}, "choose one of float32, bfloat16, int8"),
    "an output": ({"outputs": ("score",)}, "has no output 'score': choose from draw, mean"),
    "no example": ({"part": "all"}, "give an example"),
    "a threshold": ({"threshold": 1.0}, "choose the part encoder or all"),
    "no dictionary": ({"part": "dictionary"}, "only a linear dictionary has plain weights"),
    "no runtime": ({"path": "a.html", "example": BATCH}, "give page=Page"),
    "another runtime": (
        {"path": "a.html", "example": BATCH, "page": interop.Page("nowhere")},
        "nowhere has no ort.wasm.bundle.min.mjs: fetch onnxruntime-web",
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_bad_input_is_one_sentence_and_writes_nothing(vae, tmp_path, name):
    changed, words = OTHERS[name]
    options = {"path": "a.stablehlo", **changed}
    with pytest.raises(UserError, match=words):
        interop.export(*vae, tmp_path / "new" / options.pop("path"), **options)
    assert not (tmp_path / "new").exists()


def test_a_prior_without_its_variables_is_named(vae, tmp_path):
    model = vae[0].clone(prior=ae.priors.Mixture(3))
    with pytest.raises(UserError, match=r"come from model\.init.*none of the prior"):
        interop.export(model, vae[1], tmp_path / "a.stablehlo")
    assert not list(tmp_path.iterdir())


def test_a_missing_package_is_named(vae, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "jax2onnx", None)
    with pytest.raises(UserError, match="exporting ONNX needs jax2onnx: pip install"):
        interop.export(*vae, tmp_path / "a.onnx")
    assert not list(tmp_path.iterdir())


def test_another_onnxruntime_web_is_refused(tmp_path):
    (tmp_path / web.LIBRARY).write_text("alert()")
    with pytest.raises(UserError, match="its sha256 differs"):
        web._runtime(tmp_path, web.LIBRARY)


class Transposed(nn.Module):
    """A user's decoder with flax's own transposed convolution, which dilates its input."""

    @nn.compact
    def __call__(self, z, context=None):
        return nn.ConvTranspose(1, (3, 3), (2, 2))(nn.Dense(32)(z).reshape((-1, 4, 4, 2)))


ONNX = {
    "vae": (kinds.variational, ("decoder", "encoder", "all")),
    "conv": (
        lambda: ae.Autoencoder(
            ae.nets.Conv((4, 8), 16),
            ae.Gaussian(4),
            ae.nets.Deconv(kinds.EVENT, (8, 4)),
            ae.priors.Mixture(3),
            ae.likelihoods.Bernoulli(),
        ),
        ("decoder", "all"),
    ),
    "transposed": (lambda: kinds.variational().clone(decoder=Transposed()), ("decoder",)),
    "topk": (lambda: kinds.scaled(ae.TopK(32, 3)), ("decoder", "dictionary")),
    "jumprelu": (lambda: kinds.scaled(ae.JumpReLU(32)), ("dictionary",)),
    "levels": (levels, ("decoder", "all")),
    "upward": (upward, ("decoder", "encoder", "all")),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ONNX)
def test_onnx_computes_what_the_model_does(name, tmp_path):
    """In onnxruntime; needs the extra onnx."""
    pytest.importorskip("jax2onnx")
    runtime = pytest.importorskip("onnxruntime")
    make, names = ONNX[name]
    model = make()
    variables = started(model)
    for part in names:
        files = interop.export(
            model, variables, tmp_path / f"{part}.onnx", part=part, example=BATCH
        )
        assert {path.name for path in tmp_path.iterdir()} >= {path.name for path in files}
        session = runtime.InferenceSession(files[0], providers=["CPUExecutionProvider"])
        outputs = [one.name for one in session.get_outputs()]
        make_part = {"decoder": parts.decoder, "encoder": parts.encoder, "all": parts.whole}
        program = make_part.get(part, parts.dictionary)(model, variables, BATCH)
        for size in (1, 5):
            inputs = inputs_of(program, size)
            given = {one.name: inputs[one.name] for one in session.get_inputs()}
            found = dict(zip(outputs, session.run(outputs, given), strict=True))
            wanted = jax.jit(program.run)(program.weights, inputs)
            assert apart(found, wanted) < 1e-5, (part, size)


@pytest.mark.slow
def test_a_prior_that_reads_a_context_runs_in_onnx(tmp_path):
    """Fails if an array without entries stays in the program, which onnxruntime refuses to load."""
    pytest.importorskip("jax2onnx")
    runtime = pytest.importorskip("onnxruntime")
    model = kinds.variational().clone(prior=ae.priors.Conditional((8,)))
    batch = BATCH._replace(context=jax.nn.one_hot(jnp.arange(5) % 3, 3))

    def touched(module):
        code = module(batch, jax.random.key(1)).code
        return module.prior.log_prob(code.latent, batch.context, module.posterior)

    variables = kinds.numbers(jax.eval_shape(lambda: model.init(jax.random.key(0), method=touched)))
    path = interop.export(model, variables, tmp_path / "a.onnx", example=batch)[0]
    inputs = inputs_of(parts.decoder(model, variables, batch))
    inputs["context"] = np.asarray(batch.context)
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    draws = session.run(["draw"], inputs)[0]
    net = jax.tree.map(np.asarray, variables["params"]["prior"])
    hidden = np.maximum(inputs["context"] @ net["hidden_0"]["kernel"] + net["hidden_0"]["bias"], 0)
    mean, log_std = mean_and_log_std(hidden @ net["output"]["kernel"] + net["output"]["bias"])
    wanted = mean + np.exp(log_std) * special.ndtri(inputs["noise"][:, :4])
    np.testing.assert_allclose(draws, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_the_mean_of_a_pixelcnn_is_that_of_each_example_alone(tmp_path):
    """Its sample is left out, and ONNX refuses it because it draws inside the program."""
    likelihood = ae.likelihoods.PixelCNN(ae.likelihoods.Bernoulli(), 1, 2, 4, 2, 3)
    model = kinds.variational(likelihood, event=(*kinds.EVENT[:2], 2))

    def touched(module):
        return ae.losses.distortion(module, module(BATCH, jax.random.key(1)))

    start = jax.jit(lambda: model.init(jax.random.key(0), method=touched))
    variables = start()
    with pytest.warns(UserWarning, match="sample is left out, because of how PixelCNN draws"):
        path = interop.export(model, variables, tmp_path / "a.stablehlo")[0]
    inputs = inputs_of(parts.decoder(model, variables), 2)
    found = again(path, inputs)["mean"]
    bound = model.bind(variables)
    for row in (slice(0, 1), slice(1, 2)):
        mean = jax.jit(lambda z: bound.mean(bound.decode(z)))(inputs["z"][row])
        np.testing.assert_allclose(found[row], mean, atol=1e-5)
    pytest.importorskip("jax2onnx")
    with pytest.raises(UserError, match="random_seed, which draws"):
        interop.export(model, variables, tmp_path / "a.onnx", outputs=("mean",))


def test_one_wrong_row_of_a_picture_is_a_fault_and_one_switched_bit_is_none():
    """Fails if differences are averaged over a picture, or a shape is not compared."""
    wanted = np.full((2, 28, 28, 1), -3.0, np.float32)
    row, bit, lost = wanted.copy(), wanted.copy(), wanted.copy()
    row[0, 0], bit[0, 0, 0], lost[0, 0] = -3.02, 1.0, np.nan
    assert onnx_check._fault(wanted, wanted) is None
    assert onnx_check._fault(bit, wanted) is None
    said = onnx_check._fault(row, wanted)
    assert said == "differs from the model's by up to 0.0067, where 0.001 is allowed"
    assert "up to nan" in str(onnx_check._fault(lost, wanted))
    assert onnx_check._fault(wanted[:, 1:], wanted) == (
        "has the shape (2, 27, 28, 1) instead of (2, 28, 28, 1)"
    )


@pytest.mark.slow
def test_a_wrong_onnx_file_is_refused(tmp_path, monkeypatch):
    """With two mutants of the conversion: other draws, and convolutions of undilated inputs."""
    pytest.importorskip("jax2onnx")
    pytest.importorskip("onnxruntime")
    model = kinds.variational().clone(decoder=Transposed())
    variables = started(model)
    for name, mutant, output, words in (
        ("CENTRAL", (0.0, 1.0), "draw", "output draw differs from the model's by up to"),
        ("_dilated", lambda images, *_: images, "mean", "output mean has the shape|does not run"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(onnx, name, mutant)
            with pytest.raises(UserError, match=words):
                interop.export(model, variables, tmp_path / "a.onnx", outputs=(output,))
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_what_onnx_lacks_is_said(tmp_path):
    pytest.importorskip("jax2onnx")

    class Odd(ae.nets.MLP):
        def __call__(self, values, context=None):
            found = super().__call__(values, context)
            return found + jax.random.uniform(jax.random.key(0), found.shape)

    model = kinds.variational()
    model = model.clone(decoder=Odd((4,), shape=kinds.EVENT))
    with pytest.raises(UserError, match=r"cannot be written as ONNX.*random_\w+, which draws"):
        interop.export(model, started(model), tmp_path / "a.onnx")
    assert not list(tmp_path.iterdir())
