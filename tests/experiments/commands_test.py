"""Tests of experiments: small runs end to end, errors for bad input, and compilation for GPUs."""

from __future__ import annotations

import dataclasses
import io
import json
import shutil
import sys
import tarfile

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import aejax as ae
import experiments
from aejax.data import Batches, changes
from aejax.errors import UserError
from aejax.runs import metrics
from experiments import __main__ as commands
from experiments import (
    collapse,
    digits_vae,
    image_flows,
    image_ladder,
    image_priors,
    images_sae,
    images_vae,
    mnist_iwae,
    sprites_disentangle,
)
from experiments.shared import course, published
from experiments.shared.course import drive
from experiments.shared.paths import linear, spherical
from experiments.shared.place import Place, parse_mesh
from experiments.shared.training import learner, streams, summary, table, train, watch_held_out
from experiments.tools import fetch_onnxruntime_web, keep
from experiments.tools import table as tables

pytestmark = pytest.mark.usefixtures("coarse")
SMALL = digits_vae.Config(seeds=2, steps=8, chunk=4, log_every=1, width=16, nll_draws=5)
CASES = {
    "digits-vae": (digits_vae.EXPERIMENT, SMALL),
    "images-vae": (images_vae.EXPERIMENT, images_vae.Config(width=16, draws=2, bound="iwae")),
    "images-vae-conv": (images_vae.EXPERIMENT, images_vae.Config(width=16, net="conv")),
    "mnist-iwae": (mnist_iwae.EXPERIMENT, mnist_iwae.Config(objective="dreg", draws=2)),
    "mnist-iwae-2": (mnist_iwae.EXPERIMENT, mnist_iwae.Config(layers=2, objective="iwae", draws=2)),
    "image-priors": (
        image_priors.EXPERIMENT,
        image_priors.Config(model="convhvae", latents=3, width=8, pseudo_inputs=4),
    ),
    "image-ladder": (image_ladder.EXPERIMENT, image_ladder.Config(large=1, channels=4, remat=True)),
    "images-sae": (images_sae.EXPERIMENT, images_sae.Config(latents=64, k=(4,), code=8)),
    "sprites-disentangle": (
        sprites_disentangle.EXPERIMENT,
        dataclasses.replace(sprites_disentangle.PAPER, critic=8, critic_layers=1, strengths=1),
    ),
    "image-flows": (image_flows.EXPERIMENT, image_flows.Config(width=8, latents=4, columns=2)),
    "collapse": (collapse.EXPERIMENT, collapse.Config(width=8, channels=2, layers=1, kernel=3)),
}
# Experiments with many jobs -> those with nets or terms that no other lowered program has.
LOWERED = {
    "images-sae": ("gated", "plain"),
    "sprites-disentangle": ("factor-vae",),
    "image-flows": ("iaf", "sylvester"),
    "collapse": ("infovae",),
}


@pytest.fixture(scope="module")
def data_dir(digits):
    return str(digits)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, data_dir, coarse):
    """A finished run of digits-vae and what it returned."""
    folder = tmp_path_factory.mktemp("runs") / "digits"
    return folder, drive(digits_vae.EXPERIMENT, SMALL, Place(out=str(folder), data_dir=data_dir))


def main(capsys, *arguments) -> tuple[int, str]:
    """Runs a command and returns its exit status and all that it printed."""
    try:
        status = commands.main([str(argument) for argument in arguments])
    except SystemExit as exit:  # the parser of flags raises it
        status = exit.code
    captured = capsys.readouterr()
    return status, captured.out + captured.err


def abstract(name):
    """Yields the step of each job of an experiment, and the shapes of its arguments."""
    experiment, config = CASES[name]
    config = dataclasses.replace(config, seeds=2, chunk=4, batch=4)
    images = np.zeros((20, 16, 16, 1), np.float32)
    train = ae.data.arrays(images, validation=1, test=1)[0]
    jobs = experiment.build(config, train.event)
    for label in LOWERED.get(name, jobs):
        job = jobs[label]
        trained = learner(job, config)
        keys = jnp.stack([jax.random.key(0), jax.random.key(1)])
        batches = streams(job, config, train)
        state = jax.eval_shape(trained.init, keys, batches[0])
        yield trained.step, (state, batches.source(0, 4))


# Their nets and bounds are those of the kinds that interop/export_test.py lowers.
ALIKE = ("digits-vae", "images-vae", "images-vae-conv", "mnist-iwae")


@pytest.mark.parametrize("name", [n for n in CASES if n not in (*ALIKE, "images-sae")])
def test_every_step_is_traced_from_its_first_state(name):
    """Fails if an experiment does not fit the parts that it is made of."""
    for step, (state, source) in abstract(name):
        after, metrics = jax.eval_shape(step, state, source)
        assert jax.tree.structure(after) == jax.tree.structure(state)
        assert metrics["loss"].shape == (2, 4)


# By default those of the sparse codes alone, which have kernels of their own.
@pytest.mark.parametrize(
    "name", [n if n == "images-sae" else pytest.param(n, marks=pytest.mark.slow) for n in CASES]
)
def test_every_compiled_step_lowers_for_cpu_gpu_and_tpu(name):
    platforms = ("cpu", "cuda", "tpu")
    for step, given in abstract(name):
        assert jax.export.export(jax.jit(step), platforms=platforms)(*given).platforms == platforms


def test_a_run_leaves_all_that_it_promises(finished):
    folder, result = finished
    for name in ("config.json", "environment.json", "metrics.jsonl", "result.json", "report.html"):
        assert (folder / name).stat().st_size > 0
    stored = json.loads((folder / "result.json").read_text())
    assert stored == result
    for figure in ("elbo", "nll", "active_units"):
        values = stored[figure]["values"]
        assert len(values) == 2
        np.testing.assert_allclose(stored[figure]["mean"], np.mean(values))
        np.testing.assert_allclose(stored[figure]["std"], np.std(values, ddof=1))
    assert len(stored["steps_per_second"]["values"]) == 1
    assert len(stored["params_sha256"]) == 64
    # The NLL is below -ELBO except for noise, which is smaller than the gap here.
    assert stored["nll"]["mean"] < -stored["elbo"]["mean"]
    steps = [json.loads(line)["step"] for line in (folder / "metrics.jsonl").open()]
    assert steps == list(range(8))


def test_the_same_command_twice_gives_the_same_bits(finished, tmp_path, data_dir, monkeypatch):
    monkeypatch.setattr(course, "report_if_possible", lambda *_: None)  # nobody reads them
    again = drive(digits_vae.EXPERIMENT, SMALL, Place(out=str(tmp_path / "a"), data_dir=data_dir))
    assert again["params_sha256"] == finished[1]["params_sha256"]
    assert again["nll"] == finished[1]["nll"]
    other = dataclasses.replace(SMALL, seed=1)
    moved = drive(digits_vae.EXPERIMENT, other, Place(out=str(tmp_path / "b"), data_dir=data_dir))
    assert moved["params_sha256"] != finished[1]["params_sha256"]
    # Member 0 of seed 1 is member 1 of seed 0.
    np.testing.assert_allclose(moved["elbo"]["values"][0], again["elbo"]["values"][1], rtol=1e-4)


def test_a_finished_run_prints_its_result_and_trains_nothing(finished, data_dir, capsys):
    folder, result = finished
    before = (folder / "metrics.jsonl").read_bytes()
    again = drive(digits_vae.EXPERIMENT, SMALL, Place(out=str(folder), data_dir=data_dir))
    assert again == result
    assert "is finished" in capsys.readouterr().out
    assert (folder / "metrics.jsonl").read_bytes() == before


def test_samples_are_given_a_context(tmp_path, capsys):
    """Fails if decoder and prior ignore the context, or if its absence raises an error of flax."""
    parts = ae.nets.MLP(()), ae.Gaussian(3), ae.nets.MLP((), shape=(4,)), ae.priors.Flow(2, (8,))
    model = ae.Autoencoder(*parts, ae.likelihoods.Bernoulli())
    learner = ae.learner(model, ae.elbo(rate=ae.losses.rate()), optax.sgd(0.1))
    learner = ae.compiled(ae.chunked(ae.seeds(learner, 1), 1))
    images, labels = np.zeros((20, 4), np.float32), np.arange(20) % 2
    train = ae.data.arrays(images, labels, validation=1, test=1)[0]
    batches = ae.data.Batches(ae.data.changed(train, changes.Labels(2)), size=4, seed=0, seeds=1)
    with ae.Run(tmp_path / "run", digits_vae.Config(), model=model) as run:
        state = run.restore(learner.init(jax.random.key(0)[None], batches[0]))
        for new, _ in ae.loop(learner, state, batches, steps=1):
            run.save(new)
    command = "sample", tmp_path / "run", "--count", 3
    drawn = []
    for given in ((1, 0), (0, 1)):
        assert main(capsys, *command, "--context", *given)[0] == 0
        drawn.append(np.load(tmp_path / "run" / "samples.npy", allow_pickle=False))
    assert drawn[0].shape == (3, 4)
    assert not np.allclose(*drawn)
    status, said = main(capsys, *command)
    assert status != 0
    assert "the prior Flow was called without a context" in " ".join(said.split())


def test_sampling_needs_no_encoder(finished, data_dir, tmp_path, capsys):
    folder = shutil.copytree(finished[0], tmp_path / "run")
    assert main(capsys, "sample", folder, "--count", 9)[0] == 0
    whole = np.load(folder / "samples.npy", allow_pickle=False)
    removed = [p for p in folder.glob("checkpoints/*/arrays/*") if "encoder" in p.name]
    assert removed
    for path in removed:
        shutil.rmtree(path)
    (folder / "samples.npy").unlink()
    assert main(capsys, "sample", folder, "--count", 9)[0] == 0
    np.testing.assert_array_equal(np.load(folder / "samples.npy", allow_pickle=False), whole)
    assert whole.shape == (9, 8, 8, 1)
    assert 0 <= whole.min() < whole.max() <= 1
    # The report needs the encoder, so without one the command fails.
    with pytest.warns(UserWarning, match="encoder"):
        assert main(capsys, "report", folder, "--data-dir", data_dir)[0] == 2


def test_parts_of_a_finished_run_are_exported(finished, data_dir, tmp_path, capsys):
    """Fails if the threshold is another quantile of the validation scores, or a seed another's."""
    command = "export", finished[0], "--out", tmp_path / "new", "--data-dir", data_dir
    status, said = main(capsys, *command, "--part", "all", "--flagged", 0.25)
    assert status == 0
    assert "threshold: " in said
    names = {path.name for path in (tmp_path / "new").iterdir()}
    assert names == {"all.stablehlo", "run_exported.py"}
    program = jax.export.deserialize(bytearray((tmp_path / "new" / "all.stablehlo").read_bytes()))
    validation = ae.data.images("digits", data_dir=data_dir)[1]
    x = np.concatenate([batch.x for batch in validation.batches(500)])
    assert abs(np.mean(program.call({"x": x})["anomalous"]) - 0.25) <= 1 / len(x)
    assert main(capsys, *command, "--format", "safetensors", "--member", 1)[0] == 0
    library = pytest.importorskip("safetensors.numpy")
    tensors = library.load_file(tmp_path / "new" / "decoder.safetensors")
    second = ae.load(finished[0], seed=1).variables["params"]["decoder"]["output"]["kernel"]
    np.testing.assert_array_equal(tensors["params.decoder.output.kernel"], second)
    for flags, words in (
        (("--flagged", 0.1), "--flagged is 0.1 for the part decoder"),
        (("--part", "dictionary"), "only a linear dictionary has plain weights"),
        (("--format", "web"), "give --runtime its folder"),
        (("--runtime", tmp_path), "--runtime is for --format web, but the format is stablehlo"),
        (("--format", "coreml"), "coreml"),
    ):
        status, said = main(capsys, "export", finished[0], "--out", tmp_path / "bad", *flags)
        assert status == 2
        assert words in " ".join(said.split())
        assert not (tmp_path / "bad").exists()
    assert "holds no run" in main(capsys, "export", tmp_path)[1]


def test_onnxruntime_web_is_taken_from_the_registry_s_package(tmp_path, capsys):
    """A damaged package leaves nothing. Fails if its sha256 is not compared."""
    with tarfile.open(tmp_path / fetch_onnxruntime_web.ARCHIVE, "w:gz") as package:
        for name in fetch_onnxruntime_web.FILES:
            member = tarfile.TarInfo(f"package/dist/{name}")
            package.addfile(member, io.BytesIO())
    status, said = main(capsys, "fetch-onnxruntime-web", tmp_path)
    assert status == 2
    assert "differs from that of version" in said
    assert [path.name for path in tmp_path.iterdir()] == [fetch_onnxruntime_web.ARCHIVE]


def test_commands_on_a_finished_run_draw_their_pictures(finished, data_dir, capsys):
    folder = finished[0]
    assert main(capsys, "interpolate", folder, 3, 14, "--data-dir", data_dir)[0] == 0
    assert (folder / "figures" / "interpolation-3-14.png").exists()
    status, text = main(capsys, "interpolate", folder, 3, 99_999, "--data-dir", data_dir)
    assert status == 2
    assert "no test example 99999" in text


def test_paths_keep_their_ends_and_the_sphere_its_norm():
    first, last = jnp.asarray([3.0, 0.0, 0.0]), jnp.asarray([0.0, 3.0, 0.0])
    share = jnp.linspace(0, 1, 5)
    for path in (linear(first, last, share), spherical(first, last, share)):
        np.testing.assert_allclose(path[0], first, atol=1e-6)
        np.testing.assert_allclose(path[-1], last, atol=1e-6)
    # Fails if the path is straight: its middle would have the norm 3 / sqrt(2).
    norms = np.linalg.norm(spherical(first, last, share), axis=-1)
    np.testing.assert_allclose(norms, 3.0, rtol=1e-5)
    np.testing.assert_allclose(spherical(first, first, share), np.tile(first, (5, 1)), rtol=1e-5)


BAD = {
    "an unknown experiment": (["digits-vea"], "digits-vea"),
    "an unknown flag": (["digits-vae", "--stepz", "3"], "--stepz"),
    "an unparsable value": (["digits-vae", "--steps", "many"], "--steps"),
    "steps below 1": (["digits-vae", "--steps", "0"], "--steps"),
    "seeds below 1": (["digits-vae", "--seeds", "0"], "--seeds"),
    "batch below 1": (["digits-vae", "--batch", "0"], "--batch"),
    "latents 0": (["digits-vae", "--latents", "0"], "--latents"),
    "a batch larger than the data": (["digits-vae", "--batch", "100000"], "100000"),
    "an unknown data set": (["images-vae", "--dataset", "mnits"], "mnits"),
    "a mesh that cannot be read": (["digits-vae", "--mesh", "date=8"], "date=8"),
    "a mesh that does not fit": (["digits-vae", "--mesh", "data=3"], "data=3"),
    "a folder that is no run": (["report", "no-such-folder"], "no-such-folder"),
    "count below 1": (["sample", "no-such-folder", "--count", "0"], "--count"),
    "a folder that is a file": (["bench-vae", "--out", "/dev/null/x"], "/dev/null"),
    "few latents": (["bench-sae", "--m", "512"], "--m is 512: give one or more numbers"),
    "rounds below 1": (["bench-sae", "--rounds", "0"], "--rounds is 0: give 1 or more"),
    "an unknown preset": (["sprites-disentangle", "--preset", "papper"], "no preset 'papper'"),
    "k above the latents": (["images-sae", "--dataset", "digits", "--k", "9999"], "--k"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_gets_a_sentence_and_status_2(case, tmp_path, data_dir, capsys, monkeypatch):
    arguments, named = BAD[case]
    monkeypatch.chdir(tmp_path)
    if arguments[0] in ("digits-vae", "images-vae", "images-sae"):
        arguments = [*arguments, "--data-dir", data_dir, "--out", str(tmp_path / "out")]
    status, text = main(capsys, *arguments)
    assert status == 2
    assert named in text
    assert "Traceback" not in text
    # No folder was made.
    assert not (tmp_path / "out" / "config.json").exists()


def test_the_folder_of_a_script_is_no_experiment(tmp_path, capsys):
    """Fails if the error calls the folder a run of another version instead of one of a script."""
    (tmp_path / "config.json").write_text(json.dumps({"class": "Config", "config": {}}))
    status, text = main(capsys, "report", tmp_path)
    assert status == 2
    assert "was written by a script" in text
    assert "ae.load(" in text


def test_another_config_in_the_folder_is_refused(finished, data_dir, capsys):
    flags = ["--out", finished[0], "--data-dir", data_dir]
    status, text = main(capsys, "digits-vae", *flags)
    assert status == 2
    assert "seeds was 2 and is 5" in text


def test_a_folder_that_cannot_be_written_is_named(tmp_path, data_dir, capsys):
    (tmp_path / "file").write_text("in the way")
    flags = ["--out", tmp_path / "file" / "run", "--data-dir", data_dir]
    status, text = main(capsys, "digits-vae", *flags)
    assert status == 2
    assert str(tmp_path / "file") in text


def test_the_listing_names_every_experiment_and_tool(capsys):
    status, text = main(capsys)
    assert status == 0
    groups = text.split("\n\n")[1:]
    assert [group.partition(":")[0] for group in groups] == [
        "experiments",
        "benchmarks",
        "tools, most of them for a finished run",
    ]
    for group, names in zip(groups, (CASES, ["bench-vae"], ["sample", "interpolate"]), strict=True):
        # the same experiments with other numbers
        for name in set(names) - {"images-vae-conv", "mnist-iwae-2"}:
            assert f"  {name} " in group


NEW = '''
"""A plain autoencoder of digits.

The rest of the text stands on the page.
"""
import dataclasses
import optax
import aejax as ae
from experiments.shared import variational
from experiments.shared.experiment import Experiment, Page
from experiments.shared.images import image_data
from experiments.shared.training import Numbers, Job

@dataclasses.dataclass(frozen=True)
class Config(Numbers):
    width: int = 8

def build(config, event):
    model = variational.plain("mlp", event, config.width, 2)
    return {"plain": Job(model, ae.reconstruction(), optax.adam(1e-3))}

def figures(config, trained, splits):
    done = trained["plain"]
    error = variational.mean_square_error
    one = lambda variables: {"error": error(done.job.model, variables, splits[2])}
    return ae.evaluation.over_seeds(one, done.variables, done.seeds)

EXPERIMENT = Experiment(
    "plain-digits", Config, image_data("digits"), build, figures,
    page=lambda config, models, splits: Page("Plain", __doc__, []),
)
'''


def test_a_new_experiment_is_one_file(tmp_path, data_dir, capsys, monkeypatch):
    """It is listed, has flags, trains and is reported, although no other file knows its name."""
    (tmp_path / "plain_digits.py").write_text(NEW)
    monkeypatch.setattr(experiments, "__path__", [*experiments.__path__, str(tmp_path)])
    monkeypatch.delitem(sys.modules, "experiments.plain_digits", raising=False)
    listed = " ".join(main(capsys)[1].split())
    assert "plain-digits A plain autoencoder of digits." in listed
    run = tmp_path / "run"
    flags = ["--steps", 2, "--chunk", 2, "--width", 4, "--data-dir", data_dir, "--out", run]
    assert main(capsys, "plain-digits", *flags)[0] == 0
    (run / "report.html").unlink()
    assert main(capsys, "report", run, "--data-dir", data_dir)[0] == 0
    assert "A plain autoencoder of digits." in (run / "report.html").read_text()
    assert len(json.loads((run / "result.json").read_text())["error"]["values"]) == 1
    del sys.modules["experiments.plain_digits"]


def test_a_preset_is_where_flags_start(monkeypatch):
    """Fails if the preset overrides a flag, or if flags after it are lost."""
    seen = []
    monkeypatch.setattr(course, "drive", lambda *arguments: seen.append(arguments))
    for words in (["--preset", "paper", "--seeds", "3"], ["--seeds", "3", "--preset=paper"], []):
        assert commands.main(["sprites-disentangle", *words, "--out", "here"]) == 0
    paper = dataclasses.replace(sprites_disentangle.PAPER, seeds=3)
    wanted = [paper, paper, sprites_disentangle.Config()]
    assert [config for _, config, _ in seen] == wanted
    assert {place.out for _, _, place in seen} == {"here"}


def test_mesh_texts():
    assert parse_mesh("data=4,model=2") == {"data": 4, "model": 2}
    with pytest.raises(ae.UserError, match="data=8"):
        parse_mesh("data")


def test_a_report_that_was_not_reached_is_written_by_the_next_start(finished, tmp_path, data_dir):
    folder = shutil.copytree(finished[0], tmp_path / "run")
    (folder / "report.html").unlink()
    drive(digits_vae.EXPERIMENT, SMALL, Place(out=str(folder), data_dir=data_dir))
    assert (folder / "report.html").stat().st_size > 0


def test_other_data_is_refused(finished, tmp_path, data_dir):
    """Fails if a run continues with data of other content."""
    folder = shutil.copytree(finished[0], tmp_path / "run")
    facts = json.loads((folder / "environment.json").read_text())
    facts["data"][0]["sha256"] = "0" * 64
    (folder / "environment.json").write_text(json.dumps(facts))
    longer = dataclasses.replace(SMALL, steps=12)
    with pytest.raises(ae.UserError, match="digits/train has changed since"):
        drive(digits_vae.EXPERIMENT, longer, Place(out=str(folder), data_dir=data_dir))


def test_held_out_losses_are_of_one_kind_whatever_the_step(data_dir):
    """Fails if validation weighs the rate as the current step does: step 1 would be the best."""
    splits = digits_vae.EXPERIMENT.data(SMALL, Place(data_dir=data_dir))
    part = digits_vae.build(SMALL, splits[0].event)["vae"]
    state = learner(part, SMALL).init(
        jnp.stack([jax.random.key(0), jax.random.key(1)]), Batches(splits[0], 4, seeds=2)[0]
    )
    variables = learner(part, SMALL).variables(state)
    own = learner(part, SMALL)
    early = watch_held_out(part, own, splits[1], 0)(variables)
    late = watch_held_out(part, own, splits[1], 5_000)(variables)
    np.testing.assert_allclose(early["validation_loss"], early["validation_distortion"], rtol=1e-5)
    whole = late["validation_distortion"] + late["validation_rate"]
    np.testing.assert_allclose(late["validation_loss"], whole, rtol=1e-5)


def test_the_stages_of_the_paper_and_a_rate_that_falls():
    """Fails if a stage is missing, or if the learning rate does not fall over the whole run."""

    paper = mnist_iwae.rate(mnist_iwae.Config(steps=3_280, schedule="stages"))
    epochs = (0, 1, 4, 13, 40, 121, 364, 1093)  # of 3,280 steps, each of which is an epoch
    found = np.array([float(paper(t)) for t in epochs])
    np.testing.assert_allclose(found, 1e-4 * np.array([10, 7.2, 5.2, 3.7, 2.7, 1.9, 1.4, 1]), 1e-6)
    np.testing.assert_allclose([float(paper(t - 1)) for t in epochs[1:]], found[:-1], rtol=1e-6)
    falling = mnist_iwae.rate(mnist_iwae.Config(steps=11_000, learning_rate=2.0))
    found = [float(falling(t)) for t in (0, 500, 1_000, 6_000, 11_000)]
    np.testing.assert_allclose(found, [0.0, 1.0, 2.0, 1.0, 0.0], atol=1e-6)
    assert float(mnist_iwae.rate(mnist_iwae.Config(steps=1))(0)) > 0
    later = mnist_iwae.rate(mnist_iwae.Config(steps=11_000, single=5_000, learning_rate=2.0))
    found = [float(later(t)) for t in (0, 500, 1_000, 5_000, 8_000, 11_000)]
    np.testing.assert_allclose(found, [0.0, 1.0, 2.0, 2.0, 1.0, 0.0], atol=1e-6)


def test_the_first_steps_have_an_objective_of_their_own(data_dir, tmp_path):
    """Stopped within them and resumed, a run ends as two loops that are written out.

    Fails if either objective holds for all steps, or if a resumed run begins the first ones anew.
    """
    splits = digits_vae.EXPERIMENT.data(SMALL, Place(data_dir=data_dir))
    early = digits_vae.build(SMALL, splits[0].event)["vae"]._replace(steps=4)
    iwae = ae.elbo(rate=ae.losses.rate())
    job = early._replace(objective=iwae, draws=3, bound=ae.bounds.iwae, steps=None, first=early)
    for steps in (2, 8):
        own = dataclasses.replace(SMALL, steps=steps)
        with ae.Run(tmp_path / "run", own, log_every=1) as run:
            ended = train(run, job, own, splits)
    assert np.unique(metrics.read(tmp_path / "run")["step"]).tolist() == list(range(8))
    batches = streams(job, SMALL, splits[0])
    keys = jnp.stack([jax.random.key(0), jax.random.key(1)])
    state = jax.jit(learner(job, SMALL).init)(keys, batches[0])
    for part, until in ((early, 4), (job, 8)):
        *_, (state, _) = ae.loop(ae.compiled(learner(part, SMALL)), state, batches, until)
    jax.tree.map(np.testing.assert_array_equal, ended.state.params, state.params)


def test_an_objective_without_steps_is_refused():
    with pytest.raises(ae.UserError, match="--single 10 leaves none of the 10 steps"):
        mnist_iwae.build(mnist_iwae.Config(steps=10, single=10), (28, 28, 1))


def test_dreg_of_two_layers_is_refused():
    with pytest.raises(ae.UserError, match="--objective dreg needs --layers 1"):
        mnist_iwae.build(mnist_iwae.Config(layers=2, objective="dreg"), (28, 28, 1))


def test_a_table_says_which_rows_were_not_run(tmp_path, monkeypatch):
    """Fails if a published row without a result, or a second budget of one row, is left out.

    Fails also if a run of 50 draws is taken for one of 5, because its name has the same beginning.
    """
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    for name in ("a-5", "a-5.longer", "a-50"):
        shutil.copy(keep.RESULTS / "digits-vae.json", tmp_path / f"{name}.json")
    rows = published.TABLES["mnist-iwae"]
    ran = rows[0]._replace(results="a-5")
    lines = tables.beside([rows[-1]._replace(results="no-such-run"), ran]).splitlines()
    assert len(lines) == 5
    assert lines[2].startswith("| IWAE, 2 layers, k=50 | 82.90, 82.82 | not run |")
    assert "22.6" in lines[3]
    assert "22.6" in lines[4]


def test_one_figure_of_several_runs_is_a_table(tmp_path, monkeypatch):
    """Fails if a run is left out, or the mean is of one seed or of another run."""
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    for word, values in (("b", [0.5, 0.7]), ("a", [0.1, 0.3])):
        rows = {"pca": summary({"auroc": values}), "k": summary({"l0": [4.0]})}
        record = {"command": f"inspect {word}", **rows}
        (tmp_path / f"inspect-{word}.json").write_text(json.dumps(record))
    filled = tables.filled("<!-- runs: inspect auroc -->\n<!-- end -->").splitlines()
    assert filled[1] == "Means over 2 seeds, of `inspect a` and others like it"
    assert filled[3] == "| auroc | a | b | mean |"
    assert filled[5] == "| pca | 0.200 | 0.600 | 0.400 |"
    assert len(filled) == 7
    with pytest.raises(UserError, match="no row with the figure 'recall' in common"):
        tables.filled("<!-- runs: inspect recall -->\n<!-- end -->")
    with pytest.raises(UserError, match=r"has no file other-\*\.json"):
        tables.filled("<!-- runs: other auroc -->\n<!-- end -->")


def test_figures_that_are_no_number_are_shown():
    """Fails if NaN, which JSON keeps as text, is formatted as a number."""
    rows = {"entropy": {"mean": "NaN", "std": 0.0, "values": ["NaN"]}}
    assert "nan" in table(rows)


@pytest.mark.parametrize("form", ["--peer-python /opt/python --out a", "--out=a --peer-python=b/c"])
def test_a_kept_command_names_no_folder_of_the_machine_but_says_that_there_was_a_peer(form):
    """Fails if the flag of the peer is dropped: the command would then not reproduce its row."""
    kept = keep.portable(["__main__.py", "bench-vae", *form.split(), "--rounds", "5"])
    assert kept == "python bench-vae --peer-python PATH --rounds 5"


@pytest.mark.parametrize(("cores", "words"), [(1, "1 CPU core ("), (16, "16 CPU cores (")])
def test_kept_hardware_is_what_the_run_had_not_what_keeps_it(cores, words):
    """Fails if the cores are those of the machine that runs `keep`, not of the one that trained."""
    facts = {"devices": {"platform": "cpu", "kind": "cpu", "count": 1}, "cores": cores}
    assert keep._hardware(facts).startswith(words)
    assert keep._hardware({**facts, "processor": "X9, AVX2"}) == f"{words}X9, AVX2)"


def test_the_report_of_a_stranger_s_run_reads_no_data_and_says_so(finished, tmp_path, capsys):
    """Fails if data are prepared for it, or if nothing is shown without data."""
    folder = shutil.copytree(finished[0], tmp_path / "run")
    status, said = main(capsys, "report", folder, "--data-dir", tmp_path / "data")
    assert status == 0, said
    text = (folder / "report.html").read_text()
    assert "does not hold the data set &#x27;digits&#x27;" in text
    assert "Learning curves" in text
    assert "active units" in text
    (folder / "environment.json").write_text("[]")
    (folder / "metrics.jsonl").write_text('{"step": 0, "loss": "text"}')
    assert main(capsys, "report", folder, "--data-dir", tmp_path / "data")[0] == 0
    text = (folder / "report.html").read_text()
    assert "it is not a JSON object" in text
    assert "the metric &#x27;loss&#x27; has values that are no numbers" in text
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("name", ["../../x", "", "a/b", ".x", "a\nb", "x" * 300, "-x"])
def test_a_kept_result_has_a_name_and_no_path(finished, tmp_path, monkeypatch, capsys, name):
    """Fails if the name is joined to the folder unchecked, or an empty one is taken for none."""
    monkeypatch.setattr(keep, "RESULTS", tmp_path / "results")
    status, said = main(capsys, "keep", finished[0], f"--name={name}")
    assert status == 2
    assert "--name is " in said
    assert list(tmp_path.iterdir()) == []


def test_an_error_of_the_operating_system_is_one_sentence(monkeypatch, capsys):
    """Fails if one that no other place expects ends in a traceback."""

    def fails(*given):
        raise OSError(36, "File name too long", "x" * 9_000)

    monkeypatch.setattr(commands, "_run", fails)
    status, said = main(capsys, "digits-vae")
    assert status == 2
    assert said.startswith("error: [Errno 36] File name too long")
    assert said.count("\n") == 1


def test_a_long_word_does_not_hide_the_name_of_its_flag(capsys):
    """Fails if the message is cut within the word, which stands before the flag's name."""
    status, said = main(capsys, "text-vae", f"--net={'9' * 10_000}")
    assert status == 2
    assert "--net" in said
    assert said.count("\n") == 1
    assert len(said) < 700


@pytest.mark.parametrize("place", ["x" * 300, "\0"])
def test_a_path_that_cannot_be_is_refused_in_one_sentence(data_dir, capsys, place):
    """Fails if the error of the operating system ends in a traceback."""
    status, said = main(capsys, "digits-vae", "--data-dir", data_dir, "--out", place)
    assert status == 2
    assert said.count("\n") == 1
