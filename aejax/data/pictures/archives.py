"""Downloads and unpacks the original files of a data set for a tfds builder.

"Upstream" is the publisher of a data set. Nothing here needs TensorFlow.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from aejax.data.pictures.upstream import fetch, is_upstream
from aejax.errors import UserError
from aejax.files import members, reading


class Archives:
    """Replaces the download manager of tfds, which needs TensorFlow to unpack files.

    If `manual_dir` is given, nothing is downloaded.
    """

    def __init__(self, manual_dir: Path | None, folder: Path, known: Mapping[str, Any]):
        self._manual_dir = manual_dir
        self._folder = folder
        self._known = known  # url -> tfds' UrlInfo, which has upstream's checksum and file name
        self.used: dict[str, Path] = {}  # url -> local file, for every file that was requested

    @property
    def manual_dir(self) -> Path:
        """Returns the user's folder of original files, for files that cannot be downloaded.

        Raises:
          UserError: if no folder was given.
        """
        if self._manual_dir is None:
            raise UserError(
                "this data set cannot be downloaded automatically: get its files from their "
                "publisher and give their folder by --manual-dir"
            )
        return self._manual_dir

    def download(self, urls: Any) -> Any:
        """Downloads every URL in `urls`, a tree of lists and mappings.

        Returns:
          The same tree with each URL replaced by the path of its file.
        """

        def one(url: Any) -> Path:
            url = getattr(url, "url", url)  # tfds.download.Resource has an attribute `url`
            info = self._known.get(url)
            name = (info and info.filename) or url.rpartition("/")[2]
            sha256 = info and info.checksum
            self.used[url] = fetch(url, name, sha256, self._manual_dir, self._folder)
            return self.used[url]

        return _mapped(one, urls)

    def verified(self, times: Mapping[str, int | None]) -> bool:
        """Returns whether all requested files have the content that upstream published.

        Args:
          times: file name -> the time stamp in the header of upstream's gzip file, or None; see
            `is_upstream`.
        """
        return bool(self.used) and all(
            url in self._known
            and is_upstream(path, self._known[url].checksum, times.get(path.name))
            for url, path in self.used.items()
        )

    def extract(self, paths: Any) -> Any:
        """Unpacks every zip and tar file in `paths`, a tree of lists and mappings.

        Returns:
          The same tree with each path replaced by the folder of the unpacked files.
        """
        return _mapped(self._extracted, paths)

    def download_and_extract(self, urls: Any) -> Any:
        """Downloads and unpacks the file of every URL in `urls`, a tree of lists and mappings.

        Returns:
          The same tree with each URL replaced by the folder of the unpacked files.
        """
        return self.extract(self.download(urls))

    def iter_archive(self, path: Path) -> Iterator[tuple[str, io.BytesIO]]:
        """Yields the name and content of each file in a zip or tar file, in stored order.

        Raises:
          UserError: if the file is damaged, or neither a zip nor a tar file.
        """
        with reading(path, "fetch it again", says="is damaged, or not a zip or tar file"):
            for name, content in members(path):
                yield name, io.BytesIO(content)

    def _extracted(self, path: Path) -> Path:
        folder = self._folder / f"{Path(path).name}.unpacked"
        for name, content in self.iter_archive(Path(path)):
            target = (folder / name).resolve()
            if not target.is_relative_to(folder.resolve()):
                raise UserError(
                    f"{path} contains a file {name!r}, which would be written outside the folder "
                    "of this archive, so it is not unpacked: get it from a source that you trust"
                )
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content.getvalue())
        return folder


def _mapped(change: Callable[[Any], Any], tree: Any) -> Any:
    if isinstance(tree, Mapping):
        return {key: _mapped(change, value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree)(_mapped(change, value) for value in tree)
    return change(tree)
