"""Upstream files as a tfds builder asks for them, unpacked without TensorFlow."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from aejax.data.pictures.upstream import fetch, is_upstream
from aejax.errors import UserError


class Archives:
    """Stands where tfds has its download manager, whose unpacking needs TensorFlow.

    Where `manual_dir` is given nothing is downloaded.
    """

    def __init__(self, manual_dir: Path | None, folder: Path, known: Mapping[str, Any]):
        self._manual_dir = manual_dir
        self._folder = folder
        self._known = known  # url -> tfds' UrlInfo, with upstream's checksum and file name
        self.used: dict[str, Path] = {}  # url -> file, of all that was asked for

    @property
    def manual_dir(self) -> Path:
        """Where files lie that upstream lets nobody download."""
        if self._manual_dir is None:
            raise UserError("upstream lets nobody download this data set: give --manual-dir")
        return self._manual_dir

    def download(self, urls: Any) -> Any:
        """Paths in the place of urls, in whatever lists and mappings they stand."""

        def one(url: Any) -> Path:
            url = getattr(url, "url", url)  # a tfds.download.Resource
            info = self._known.get(url)
            name = (info and info.filename) or url.rpartition("/")[2]
            sha256 = info and info.checksum
            self.used[url] = fetch(url, name, sha256, self._manual_dir, self._folder)
            return self.used[url]

        return _mapped(one, urls)

    def verified(self, times: Mapping[str, int | None]) -> bool:
        """Whether all files that were asked for are upstream's; file -> time as `is_upstream`."""
        return bool(self.used) and all(
            url in self._known
            and is_upstream(path, self._known[url].checksum, times.get(path.name))
            for url, path in self.used.items()
        )

    def extract(self, paths: Any) -> Any:
        """Folders with the content in the place of zip and tar files."""
        return _mapped(self._extracted, paths)

    def download_and_extract(self, urls: Any) -> Any:
        """Both: folders in the place of urls."""
        return self.extract(self.download(urls))

    def iter_archive(self, path: Path) -> Iterator[tuple[str, io.BytesIO]]:
        """The files of a zip or tar file, each with its name, in the file's order."""
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                for entry in archive.infolist():
                    if not entry.is_dir():
                        yield entry.filename, io.BytesIO(archive.read(entry))
            return
        try:
            with tarfile.open(path) as archive:
                for entry in archive:
                    file = archive.extractfile(entry) if entry.isfile() else None
                    if file is not None:
                        yield entry.name, io.BytesIO(file.read())
        except (tarfile.TarError, EOFError, OSError) as error:
            reason = str(error).partition("\n")[0]
            raise UserError(f"{path} is damaged or no zip or tar file ({reason})") from error

    def _extracted(self, path: Path) -> Path:
        folder = self._folder / f"{Path(path).name}.unpacked"
        for name, content in self.iter_archive(Path(path)):
            target = (folder / name).resolve()
            if not target.is_relative_to(folder.resolve()):
                raise UserError(f"{path} holds {name!r}, which leads out of its folder")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content.getvalue())
        return folder


def _mapped(change: Callable[[Any], Any], tree: Any) -> Any:
    if isinstance(tree, Mapping):
        return {key: _mapped(change, value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree)(_mapped(change, value) for value in tree)
    return change(tree)
