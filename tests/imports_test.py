"""Tests that imports run downwards only, and that `import aejax` loads no more than it needs.

How long it takes beyond its dependencies (at most 0.2 s) is measured by hand:

    python -X importtime -c "import jax, flax, optax, orbax.checkpoint" 2>&1 | tail -1
    python -X importtime -c "import aejax" 2>&1 | tail -1
"""

from __future__ import annotations

import ast
import json
import pathlib
import warnings

import pytest

from tests import kinds

PACKAGE = kinds.ROOT / "aejax"

# The rooms, from the bottom up. A room is a folder or a file of aejax, and may import rooms of
# lower
# rows only. A new room needs a place here.
PARTS = {"data", "nets", "bottlenecks", "priors", "likelihoods", "losses", "bounds"}
ROWS: list[set[str]] = [
    {"types", "errors"},
    {
        "attention",
        "checks",
        "contracts",
        "events",
        "files",
        "memory",
        "normal",
        "optional",
        "variables",
    },
    {"kernels", "sound"},
    PARTS,
    {"model", "objective"},
    {"training"},
    {"dictionaries"},
    {"interop"},
    {"runs"},
    {"evaluation"},
    {"language", "inspection"},
    {"report"},
]
HEIGHT = {room: height for height, row in enumerate(ROWS) for room in row}

# Only these rooms import flax, so that it could be replaced; types and losses name its Module only.
FLAX = {"types", "attention", "contracts", "losses", "model", "training"}
FLAX |= {"nets", "bottlenecks", "priors", "likelihoods", "language"}

HEAVY = ["tensorflow_datasets", "tensorflow", "grain", "array_record", "matplotlib", "sklearn"]
HEAVY += [
    "soundfile",
    "soxr",
    "PIL",
    "tyro",
    "rich",
    "safetensors",
    "torch",
    "transformers",
    "gguf",
    "tokenizers",
]


def room(path: pathlib.Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: pathlib.Path) -> list[str]:
    """Returns the dotted names that a file imports anywhere, without those for annotations
    alone.
    """
    found = []

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            for child in node.orelse:
                visit(child)
            return
        if isinstance(node, ast.Import):
            found.extend(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            found.extend(f"{node.module}.{alias.name}" for alias in node.names)
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text()))
    return found


FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def file_of(target: str) -> pathlib.Path:
    """Returns the file of `aejax.room.name`: a module of that name, or else the module of the
    name.
    """
    path = kinds.ROOT.joinpath(*target.split("."))
    for found in (path.with_suffix(".py"), path / "__init__.py", path.parent.with_suffix(".py")):
        if found.exists():
            return found
    return path.parent / "__init__.py"


def graph() -> dict[pathlib.Path, set[pathlib.Path]]:
    """Returns each file of aejax with the files that it imports.

    Importing a file also runs the `__init__.py` of each folder on its path, except for folders that
    hold the importing file, whose `__init__.py` is running already.
    """
    found: dict[pathlib.Path, set[pathlib.Path]] = {}
    for path in FILES:
        files = {file_of(name) for name in imported(path) if name.split(".")[0] == "aejax"}
        folders = {folder for file in files for folder in file.parents if PACKAGE in folder.parents}
        found[path] = files | {folder / "__init__.py" for folder in folders - set(path.parents)}
    return found


def circle(edges: dict[pathlib.Path, set[pathlib.Path]]) -> list[str]:
    """Returns the names of the files of one circle of imports, or nothing if there is none."""
    done: set[pathlib.Path] = set()

    def visit(path: pathlib.Path, above: list[pathlib.Path]) -> list[pathlib.Path]:
        if path in above:
            return above[above.index(path) :]
        for below in sorted(edges.get(path, set()) - done):
            if found := visit(below, [*above, path]):
                return found
        done.add(path)
        return []

    for path in edges:
        if found := visit(path, []):
            return [str(one.relative_to(kinds.ROOT)) for one in found]
    return []


def test_every_room_has_a_place_and_every_place_a_room():
    assert {room(path) for path in FILES} == set(HEIGHT)


def test_no_circle_of_imports():
    """Files of one room are tested too. Fails if kernels/rows.py imports a file that imports it."""
    assert circle(graph()) == []


def test_a_circle_would_be_found():
    one, two, three = (PACKAGE / f"{name}.py" for name in ("one", "two", "three"))
    assert circle({one: {two}, two: {three}, three: set()}) == []
    assert len(circle({one: {two}, two: {three}, three: {two}})) == 2


@pytest.mark.parametrize("name", sorted({room(path) for path in FILES}))
def test_imports_run_downwards(name):
    """Fails if model.py imports training, or if a bottleneck imports a prior."""
    for path in FILES:
        if room(path) != name:
            continue
        for target in imported(path):
            parts = target.split(".")
            if parts[0] in ("experiments", "tests"):
                pytest.fail(f"{path} imports {target}, which stands above the library")
            if parts[0] != "aejax":
                continue
            assert len(parts) > 1, f"{path} imports aejax itself: name the room"
            assert parts[1] in HEIGHT, f"{path} imports {target}, which is no room: name the room"
            below = HEIGHT[parts[1]] < HEIGHT[name] or parts[1] == name
            assert below, f"{path} imports {target}, which does not stand below {name}"


# Folders of one room meet in the room's own files; these folders are above others of their room.
ABOVE = {("data", "synthetic"): {("data", "activations")}}


def test_folders_within_a_room_do_not_import_each_other():
    """Fails if data/pictures/store.py imports data/activations/writer.py."""
    for path in FILES:
        own = path.relative_to(PACKAGE).parent.parts
        for target in imported(path):
            if target.split(".")[0] != "aejax":
                continue
            folder = file_of(target).relative_to(PACKAGE).parent.parts
            if len(own) < 2 or len(folder) < 2 or folder == own or folder[0] != own[0]:
                continue
            assert folder in ABOVE.get(own, set()), f"{path} imports {target} beside its own folder"


def test_what_several_experiments_share_imports_none_of_them():
    """Fails if experiments/shared/labels.py imports experiments/conditional.py."""
    for path in sorted((kinds.ROOT / "experiments" / "shared").glob("*.py")):
        for target in imported(path):
            parts = target.split(".")
            assert parts[0] != "experiments" or parts[1:2] in ([], ["shared"]), (path, target)


def test_flax_stays_in_its_rooms():
    """Fails if objective.py imports flax."""
    users = {room(path) for path in FILES for target in imported(path) if "flax" in target}
    assert users <= FLAX
    assert "nets" in users


def test_only_checkpoint_knows_orbax():
    users = {path for path in FILES for target in imported(path) if "orbax" in target}
    assert users == {PACKAGE / "runs" / "checkpoint.py"}


IMPORTED = """
import json, sys
import jax, flax, optax, chex, orbax.checkpoint
before = set(sys.modules)
import aejax as ae
print(json.dumps([sorted(before), sorted(set(sys.modules) - before)]))

import importlib.abc

class Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {names}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Missing())
from tests import kinds
train, _, _ = ae.data.arrays(kinds.pixels())
batches = ae.data.Batches(train, 32)
learner = ae.compiled(ae.chunked(kinds.learner("vae"), 3))
state = learner.init(jax.random.key(0), batches[0])
for state, metrics in ae.loop(learner, state, batches, steps=5, progress=False):
    pass
print(int(state.step))
"""


def test_import_and_training_need_jax_flax_optax_chex_and_orbax_alone():
    """They work if only these, and what flax itself needs, such as rich, can be imported.

    Fails if a builder imports tensorflow_datasets, or the progress bar imports rich, outside a
    function, or if training imports one of them within a function.
    """
    script = IMPORTED.format(names={name.split(".")[0] for name in HEAVY} - {"rich"})
    listing, steps = kinds.output(kinds.python("-c", script)).splitlines()
    before, added = map(set, json.loads(listing))
    assert {"aejax", "aejax.data", "aejax.training.learner"} <= added
    assert not added & set(HEAVY)
    assert not before & (set(HEAVY) - {"rich"})
    assert steps == "5"


def test_warnings_raised_from_aejax_are_errors():
    """Fails without the filter in pyproject.toml."""
    with pytest.raises(DeprecationWarning):
        warnings.warn_explicit("old", DeprecationWarning, "aejax/model.py", 1, module="aejax.model")
