"""Writes the report of a finished run again.

    python -m experiments report runs/digits-vae

It reads checkpoints, metrics and result.json, and writes figures/*.png and report.html. The run may
be somebody else's: nothing is downloaded, no path that its files name is followed, and the page
says what it cannot show.
"""

from __future__ import annotations

import pathlib

from experiments.shared.pages import write_page
from experiments.shared.place import say


def command(
    run_dir: pathlib.Path,
    data_dir: str | None = None,
    manual_dir: str | None = None,
    own: bool = False,
) -> None:
    """Writes the report of a finished run again.

    Args:
      run_dir: folder of a finished run.
      data_dir: folder of prepared data sets; that of tensorflow-datasets by default.
      manual_dir: folder with a data set's raw files; then nothing is downloaded.
      own: trusts the run: follows the paths in its config.json, and prepares missing data.
    """
    say(f"report: {write_page(run_dir, data_dir, manual_dir, own)}")
