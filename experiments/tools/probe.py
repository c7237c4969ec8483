"""Probes the features of a finished run of transfer on another data set.

    python -m experiments probe runs/transfer fashion_mnist

It adds the accuracy of every kind of features to the run's results and report page, as the rows
`FEATURES on DATASET`. A second call for the same data set replaces them.
"""

from __future__ import annotations

import pathlib

import numpy as np

import aejax as ae
from aejax.errors import UserError
from aejax.files import write_json
from aejax.runs.folder import read_result
from experiments import transfer
from experiments.shared.course import show
from experiments.shared.experiment import named, recorded, recorded_data
from experiments.shared.images import image_data, labelled
from experiments.shared.pages import write_page
from experiments.shared.place import Place, say
from experiments.shared.training import summary


def command(
    run_dir: pathlib.Path,
    dataset: str,
    data_dir: str | None = None,
    manual_dir: str | None = None,
    own: bool = False,
) -> None:
    """Probes the features.

    Args:
      run_dir: folder of a finished run of transfer.
      dataset: name of the other data set, with pictures of the same size.
      data_dir: folder of prepared data sets; that of tensorflow-datasets by default.
      manual_dir: folder with the raw files of the other data set; then nothing is downloaded.
      own: trusts the run: follows the paths in its config.json, and prepares missing data.
    """
    experiment = named(run_dir)
    if experiment.name != "transfer":
        raise UserError(f"{run_dir} is a run of {experiment.name}: give a run of transfer")
    config = recorded(run_dir, experiment)
    place = Place(data_dir=data_dir, manual_dir=manual_dir)
    source = recorded_data(run_dir, data_dir, own=own)
    target = labelled(image_data(dataset, binarise="none"))(config, place)
    if target[0].event != source[0].event:
        raise UserError(
            f"{dataset} has pictures of shape {target[0].event}, but the run was trained on "
            f"{source[0].event}: choose a data set of the same size"
        )
    jobs = experiment.build(config, source[0].event)
    folders = {name: run_dir if i == 0 else run_dir / name for i, name in enumerate(jobs)}
    rows = []
    for i in range(config.seeds):
        models = {name: ae.load(folder, seed=i)[:2] for name, folder in folders.items()}
        seed = config.seed + i
        rows.append(transfer.measured(models, target, source[0], config.latents, seed))
    found = {
        f"{name}{transfer.ON}{dataset}": summary(
            {key: np.array([row[name][key] for row in rows]) for key in rows[0][name]}
        )
        for name in rows[0]
    }
    write_json(run_dir / "result.json", read_result(run_dir) | found)
    page = write_page(run_dir, data_dir=data_dir, own=own)
    say(f"{show(found)}\nreport: {page}")
