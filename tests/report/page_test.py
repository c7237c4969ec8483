"""Tests of the page: it is self-contained, escapes its text, and works for all kinds of data."""

import base64
import hashlib
import html.parser
import inspect
import re

import jax
import numpy as np
import pytest

import aejax as ae
from aejax import report
from aejax.files import with_policy
from aejax.report import page, results, writing
from aejax.report.sparse import atoms_section
from experiments.tools import table
from tests.report.cases import SIDE, bars, fresh, splits, variational

pytestmark = pytest.mark.usefixtures("coarse")


class Reader(html.parser.HTMLParser):
    """Collects the tags, links and text of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.references, self.text = [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.references += [v for k, v in attrs if k in ("src", "srcset", "href", "data")]

    def handle_data(self, text):
        self.text += text


RESULTS = {
    "elbo": {"mean": -19.3042, "std": 0.0312, "values": [-19.27, -19.33]},
    "active_units": {"mean": 7.5, "std": 0.7071, "values": [8, 7]},
    "params_sha256": ["ab", "cd"],
}


def picture(name):
    return report.Picture(name, "what <i>one</i> sees", bars)


def written(folder, **options):
    sections = [
        report.Section("First & <script>alert(1)</script>", "A.\n\nB <b>.", [picture("one")]),
        report.Section("T", table=report.Table(("name", "n"), [("<x>", 1.5), ("y", 22)])),
        report.Section("Last", figures=[picture("two")]),
    ]
    path = report.write(folder, "ti<t>le", sections, "sum & mary", RESULTS, **options)
    return path, path.read_text()


def test_the_page_holds_every_figure_and_refers_to_nothing_outside(tmp_path):
    """Fails if a figure is linked as a file, or if the file in figures/ is another picture."""
    path, text = written(tmp_path / "new" / "run")
    assert path == tmp_path / "new" / "run" / "report.html"
    found = Reader(text)
    assert "script" not in found.tags
    assert "link" not in found.tags
    assert "url(" not in text
    assert not re.search("https?:", re.sub("base64,[A-Za-z0-9+/=]*", "", text))
    images = [r for r in found.references if not r.startswith("#")]
    assert len(images) == 4  # two figures, light and dark
    files = [base64.b64decode(r.removeprefix("data:image/png;base64,")) for r in images]
    for name in ("one", "two"):
        assert (path.parent / "figures" / f"{name}.png").read_bytes() in files
    assert not list(path.parent.rglob("*.tmp"))


def test_text_is_escaped(tmp_path):
    """Fails if a title, a caption, a cell or a config value is set without escaping."""
    config = {"a<b": "<u>", "nested": {"deep": [1, 2], "none": None}}
    found = Reader(written(tmp_path, config=config, environment={"e": "<q>"})[1])
    assert not {"i", "b", "x", "t", "u", "q", "script"} & set(found.tags)
    for piece in ("<script>", "<i>one</i>", "B <b>.", "<x>", "ti<t>le", "a<b", "<u>", "<q>"):
        assert piece in found.text
    assert "nested.deep" in found.text
    assert found.tags.count("details") == 2


def test_results_show_mean_deviation_and_each_seed(tmp_path):
    """Fails if decimals do not follow the deviation, or if a text gets a row."""
    text = Reader(written(tmp_path)[1]).text
    for piece in ("ELBO", "−19.304", "± 0.031", "−19.270", "seed 1", "active units", "7.50"):
        assert piece in text
    assert "19.3042" not in text
    assert "sha256" not in text


def test_results_of_other_models_stand_in_a_table_of_their_own(tmp_path):
    """Fails if nested figures are left out, or if a missing figure shifts other cells."""
    row = {"mean": 0.51234, "std": 0.01, "values": [0.5, 0.52]}
    given = {"elbo": -3.0, "plain": {"error": row}, "topk": {"error": row, "l0": 8.0}}
    text = page.render("t", [], {}, results=given)
    cells = [re.sub("<[^>]*>", " ", line).split() for line in re.findall("<tr>.*?</tr>", text)]
    assert ["plain", "0.512", "±", "0.010"] in cells
    assert ["TopK", "0.512", "±", "0.010", "8"] in cells
    assert ["model", "error", "±", "std", "L0"] in cells


def test_a_figure_that_is_no_number_stays_a_figure():
    """Fails if a figure that is NaN, a text in JSON, is shown as a model with empty cells."""
    nan = {"mean": "NaN", "std": 0.0, "values": ["NaN"]}
    given = {"steps_per_second": nan, "bare": "NaN", "plain": {"error": nan}, "sha": "ab"}
    assert list(results.figures(given)) == ["steps_per_second", "bare"]
    assert list(results.groups(given)) == ["plain"]
    assert results.by_seed(results.figures({"n": 3.0, "x": nan}))[1] == [["n", "3"], ["x", ""]]
    assert table.made({"command": "c", "hardware": "h", "versions": {"jax": "1"}, "x": nan}) == (
        "`c` (h, jax 1)\n\n| figure | mean | std | seeds |\n|---|---:|---:|---:|\n| x |  |  | 1 |\n"
    )


def test_figures_of_one_column_share_their_decimals():
    """Fails if cells of a column have different decimals, so that points do not line up."""
    models = {"topk": (0.4912, 32.0), "l1-mean": (0.008789, 176.1), "pca": (float("nan"), 64.0)}
    given = {name: {"dead": dead, "l0": l0} for name, (dead, l0) in models.items()}
    header, rows = results.by_group(results.groups(given))
    assert header == ["model", "dead", "L0"]
    assert rows == [["TopK", "0.4912", "32.0"], ["L1 mean", "0.0088", "176.1"], ["PCA", "", "64.0"]]
    assert results.notes(["l0", "dead"]) == (
        "Dead: the share of units that no test example activates."
    )


def curves(**columns):
    steps = np.arange(0, 400, 10)
    return report.curves_section({name: (steps, values) for name, values in columns.items()})


def test_only_what_is_fitted_is_said_to_overfit():
    """Fails if captions of rate, L0 and the like speak of overfitting, as those of losses do."""
    values = np.linspace(2, 1, 40)
    section = curves(
        loss=values, validation_loss=values, rate=values, validation_rate=values, l0=values
    )
    said = [picture.name for picture in section.figures if "overfits" in picture.caption]
    assert said == ["curve-loss"]


def test_dead_units_have_a_curve_from_their_window_on():
    """Fails if a run shorter than the window shows zeros, or if validation has its own curve."""
    assert inspect.signature(ae.losses.dead).parameters["after"].default == writing.WINDOW
    zeros = np.zeros(40)
    short = curves(loss=zeros + 1, dead=zeros, validation_dead=zeros)
    assert names([short]) == {"curve-loss"}
    assert "1,000 steps" in short.text
    told = curves(loss=zeros + 1, dead=zeros + 0.1, validation_dead=zeros)
    dead = next(picture for picture in told.figures if picture.name == "curve-dead")
    assert "training batch" in dead.caption
    assert dead.draw().axes[0].get_legend() is None  # one curve
    assert report.curves_section({"dead": (np.arange(1_500), np.zeros(1_500))}).figures


def test_numbers_align_at_the_point():
    """Fails if cells of one column end up of different width."""
    cells = results.aligned(["−19.304", "7.5", "1,811"])
    assert cells == ["−19.304", "7.5\u2007\u2007", "1,811\u2008\u2007\u2007\u2007"]


@pytest.mark.parametrize("names", [("one", "one"), ("../one", "two"), ("", "two")])
def test_bad_figure_names_write_nothing(tmp_path, names):
    """Fails if a figure overwrites another or leaves its folder."""
    sections = [report.Section("S", figures=[picture(name) for name in names])]
    with pytest.raises(ae.UserError):
        report.write(tmp_path / "run", "t", sections)
    assert not (tmp_path / "run").exists()


# The standard sections


def names(sections):
    return {picture.name for section in sections for picture in section.figures}


@pytest.mark.parametrize(
    ("latents", "shape", "labels"),
    [(1, (SIDE, SIDE, 1), True), (2, (4, 5, 3), False), (5, (7,), True)],
)
def test_variational_sections_of_all_kinds_of_data(tmp_path, latents, shape, labels):
    """Fails if one, two or many latents, colour, vectors or data without labels break a section."""
    parts = splits(labels, shape)
    model, plain = variational(latents, shape), variational(latents, shape, ae.Point)
    variables, its = fresh(model, parts[0]), fresh(plain, parts[0])
    key = jax.random.key(0)
    sections = report.variational_sections(model, variables, parts, key, plain=(plain, its))
    expected = {"reconstructions", "interpolation", "traversals", "activity-vae"}
    for kind in ("samples", "nearest", "latents"):
        expected |= {f"{kind}-vae", f"{kind}-plain-autoencoder"}
    assert names(sections) == expected | ({"plane"} if latents == 2 else set())
    assert report.write(tmp_path, "t", sections).exists()


def test_data_that_cannot_be_drawn_keeps_what_can():
    """Fails if a long vector is drawn as an image, or if all sections are left out."""
    parts = splits(shape=(300,))
    model = variational(3, (300,))
    sections = report.variational_sections(model, fresh(model, parts[0]), parts, jax.random.key(0))
    assert names(sections) == {"latents-vae", "activity-vae"}


@pytest.mark.parametrize("labels", [True, False])
def test_sparse_sections(tmp_path, labels):
    """Fails if data without labels breaks the sections, or if dead units break them."""
    parts = splits(labels)
    model = ae.Autoencoder(ae.nets.Identity(), ae.TopK(40, 2), ae.nets.Dictionary((SIDE, SIDE, 1)))
    sections = report.sparse_sections(model, fresh(model, parts[0]), parts)
    expected = {"reconstructions", "atoms", "units-most-used", "frequency", "l0"}
    telling = {"units-most-telling"} if labels else set()
    assert expected <= names(sections) <= expected | telling
    assert report.write(tmp_path, "t", sections).exists()


def test_atoms_of_codes_stand_most_used_first():
    """Fails if atoms keep their own order, or if a latent that is never active is drawn."""
    atoms = np.eye(SIDE * SIDE, dtype=np.float32)[:3]
    variables = {"params": {"decoder": {"atoms": atoms}}}
    used = {"topk": np.array([0.1, 0.0, 0.7])}
    (section,) = atoms_section({"topk": variables}, used, splits()[2])
    drawn = section.figures[0].draw.keywords["images"][0]  # f[columns, H, W, 3]
    assert np.isfinite(drawn).all(axis=(1, 2, 3)).sum() == 2
    orange = drawn[:2, 0, :3]  # pixel i is the only one of atom i
    assert np.ptp(orange[0, 2]) > 0.5
    assert np.ptp(orange[1, 0]) > 0.5
    none = ae.data.arrays(np.zeros((40, 3, 4, 5, 2), np.float32))[2]
    assert atoms_section({"topk": variables}, used, none) == []


def test_a_model_without_a_dictionary_is_refused():
    """Fails if the missing field is not named."""
    parts = splits()
    model = ae.Autoencoder(ae.nets.Identity(), ae.ReLU(8), ae.nets.MLP((4,), shape=(SIDE, SIDE, 1)))
    with pytest.raises(ae.UserError, match="atoms"):
        report.sparse_sections(model, fresh(model, parts[0]), parts)


def test_one_member_of_many():
    """Fails if the variables of all members are passed on instead of those of one."""
    stacked = {"params": {"w": np.arange(6).reshape(3, 2)}}
    np.testing.assert_array_equal(report.member(stacked, 1)["params"]["w"], [2, 3])


def test_rows_without_a_common_column_are_tables_of_their_own():
    """Fails if all rows share one table, most of whose cells would be empty."""
    rows = {"a": {"x": 1}, "b": {"x": 1, "y": 2}, "c": {"z": 3}, "d": {"y": 2}, "e": {"z": 4}}
    assert [list(table) for table in results.together(rows)] == [["a", "b", "d"], ["c", "e"]]
    assert results.together({}) == []


def test_a_browser_runs_and_loads_nothing_but_the_page_s_own(tmp_path):
    """Fails if the style differs from its hash, or if an element has a style of its own."""
    _, text = written(tmp_path)
    (policy,) = re.findall('http-equiv="Content-Security-Policy" content="([^"]*)"', text)
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules["default-src"] == rules["script-src"] == rules["base-uri"] == "'none'"
    (style,) = re.findall("<style>(.*?)</style>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert rules["style-src"] == f"'sha256-{digest}'"
    assert " style=" not in text
    assert re.search(r"\.w(\d+)\{--w:\1px\}", style)
    assert text.index("Content-Security-Policy") < text.index("<style>")


def test_a_script_that_got_into_a_page_is_not_run():
    """Fails if the policy holds the hashes of all scripts of the page instead of its own."""
    template = '<meta charset="utf-8"><style>a{}</style><script type="module">b()</script>TEXT'
    text = template.replace("TEXT", "<script>evil()</script><style>c{}</style>")
    found = with_policy(text, template, scripts="blob:")
    (policy,) = re.findall('content="([^"]*)"', found)
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    for name, own in {"script-src": "b()", "style-src": "a{}"}.items():
        digest = base64.b64encode(hashlib.sha256(own.encode()).digest()).decode()
        assert rules[name].removesuffix(" blob:") == f"'sha256-{digest}'"
    assert rules["img-src"] == "data:"


def test_metrics_of_any_name_are_drawn(tmp_path):
    """Fails if a name is mathematics to matplotlib, or if two names give one file."""
    steps = np.arange(3)
    names = ("", "$\\frac{", "a b", "a-b", "<b>", "\n")
    section = report.curves_section({name: (steps, 1.0 + steps) for name in names})
    path = report.write(tmp_path, "t", [section])
    assert len(list((tmp_path / "figures").iterdir())) == len(names)
    assert "A metric without a name" in path.read_text()


@pytest.mark.parametrize(
    "entry",
    [10**400, {"mean": 10**400}, {"mean": 1, "values": 3}, {"mean": 1, "std": "x"}, "a", []],
)
def test_results_that_are_no_figures_are_left_out(entry):
    """Fails with an OverflowError or TypeError if a field of result.json is used unchecked."""
    found = results.figures({"nll": entry, "elbo": 1.0})
    assert found["elbo"].mean == 1.0
    assert page.render("t", [], {}, results={"nll": entry})


def test_figures_that_are_a_link_are_not_written(tmp_path):
    """Fails if the link is followed: the pictures would land elsewhere."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "figures").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ae.UserError, match="figures is a link to another folder"):
        written(tmp_path / "run")
    assert list((tmp_path / "elsewhere").iterdir()) == []
