"""Writes the report of a finished run again.

    python -m experiments report runs/digits-vae

It reads checkpoints, metrics and result.json, and writes figures/*.png and report.html.
"""

from __future__ import annotations

import pathlib

from experiments.shared.experiment import named
from experiments.shared.pages import write_page
from experiments.shared.place import Place, say


def command(
    run_dir: pathlib.Path, data_dir: str | None = None, manual_dir: str | None = None
) -> None:
    """Writes the report of a finished run again.

    Args:
      run_dir: folder of a finished run.
      data_dir: folder of prepared data sets; that of tensorflow-datasets by default.
      manual_dir: folder with a data set's raw files; then nothing is downloaded.
    """
    place = Place(data_dir=data_dir, manual_dir=manual_dir)
    say(f"report: {write_page(named(run_dir), run_dir, place)}")
