"""Writes the report of a finished run anew.

python -m experiments report runs/digits-vae
"""

from __future__ import annotations

import pathlib

from experiments.shared.experiment import named
from experiments.shared.pages import write_page
from experiments.shared.place import Place, say


def command(
    run_dir: pathlib.Path, data_dir: str | None = None, manual_dir: str | None = None
) -> None:
    """Writes figures/*.png and report.html.

    Args:
      run_dir: folder of a finished run.
      data_dir: where data sets are prepared.
      manual_dir: raw files of a data set.
    """
    place = Place(data_dir=data_dir, manual_dir=manual_dir)
    say(f"report: {write_page(named(run_dir), run_dir, place)}")
