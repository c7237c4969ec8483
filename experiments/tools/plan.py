"""What the training step of an experiment needs on a slice of TPUs that one does not have.

    python -m experiments plan digits-vae --topology v5e:4x4
    python -m experiments plan images-sae --dataset mnist --topology v5e:4x4
        --meshes data=16 data=4,model=4 --shard-state

The words after the experiment's name are its own flags. Each of its models is compiled by the
compiler of TPUs (`pip install "jax[tpu]"`), for each mesh of the slice. Nothing runs, and no TPU is
needed, but the data must be at hand. The table has, for each chip: the memory of the state, the
batch and the step, and whether it fits; operations and bytes; MiB that pass between chips; and two
estimates of the milliseconds of a step. The lower one is the slowest of products, memory and links,
if the three overlap perfectly; the higher one is their sum. The trips of loops are counted, of a
condition the largest branch; calls that the compiler cannot price are named. The rates are those
that the maker of the chips publishes. Products in float32 take 6 passes, in tensorfloat32 3, and in
bfloat16 1 (`--precision bfloat16`).

Reading data, evaluation and checkpoints are not counted, nor a data set that stays on the chips.
With `--out FOLDER` the figures are written to FOLDER/result.json, for `keep`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax

import aejax as ae
from aejax.errors import UserError
from aejax.files import write_json
from aejax.runs.environment import environment
from experiments.shared import compiler
from experiments.shared.experiment import Experiment, by_name
from experiments.shared.flags import parsed_experiment
from experiments.shared.numbers import check
from experiments.shared.place import Place, parse_mesh, prepared, say
from experiments.shared.training import Job, completed, learner, streams


class Chip(NamedTuple):
    """What the maker publishes of one chip."""

    memory: float  # GiB
    teraflops: float  # of bfloat16 products, 1e12 a second
    memory_rate: float  # 1e9 bytes a second
    link_rate: float  # 1e9 bytes a second in one direction, all links of the chip together


# Google Cloud's pages "TPU v5e", "TPU v5p" and "TPU v6e" (system architecture).
CHIPS = {
    "v5e": Chip(16.0, 197.0, 819.0, 200.0),
    "v5p": Chip(95.0, 459.0, 2_765.0, 600.0),
    "v6e": Chip(32.0, 918.0, 1_638.0, 400.0),
}
PASSES = {"float32": 6, "tensorfloat32": 3, "bfloat16": 1}


@dataclasses.dataclass(frozen=True)
class Ask:
    """The slice and the meshes to plan for."""

    topology: str = "v5e:4x4"  # slice of TPUs: a kind of chip and the shape of the slice
    # meshes, such as data=16 data=4,model=4; by default --mesh, or all chips along data
    meshes: tuple[str, ...] = ()
    shard_state: bool = False  # divide parameters and the optimiser's state over data as well


class Row(NamedTuple):
    """The price of one model's step on one mesh."""

    model: str
    mesh: str
    price: compiler.Price


def main(arguments: list[str], **how: Any) -> None:
    """Plans the experiment that the first word names.

    Args:
      arguments: the words after `plan`.
      **how: the arguments `prog` and `description` of the parser of flags.

    Raises:
      UserError: if there is no such experiment, slice or mesh, or the compiler is missing.
    """
    name = arguments[0] if arguments else ""
    experiment = by_name(name)
    if experiment is None:
        raise UserError(
            f"plan needs the name of an experiment first, not {name!r:.60}: python -m experiments "
            "lists them"
        )
    config, place, ask = parsed_experiment(experiment, arguments[1:], Ask(), **how)
    check(config)
    kind = ask.topology.partition(":")[0]
    if kind not in CHIPS:
        raise UserError(
            f"--topology is {ask.topology!r:.60}: give one of {', '.join(CHIPS)} and a shape, such "
            "as v5e:4x4"
        )
    rows = planned(experiment, config, place, ask)
    chip, passes = CHIPS[kind], PASSES[place.precision]
    for line in table(rows, chip, passes):
        say(line)
    if place.out is not None:
        found = {f"{row.model}: {row.mesh}": figures(row, chip, passes) for row in rows}
        facts = {"topology": ask.topology, "environment": environment()}
        write_json(prepared(place.out) / "result.json", {**found, **facts})


def planned(experiment: Experiment, config: Any, place: Place, ask: Ask) -> list[Row]:
    """Returns the price of a step of each model of an experiment on each mesh."""
    jax.config.update("jax_default_matmul_precision", place.precision)
    meshes = ask.meshes or ((place.mesh,) if place.mesh else (compiler.whole(ask.topology),))
    grids = {words: compiler.mesh(ask.topology, **parse_mesh(words)) for words in meshes}
    splits = experiment.data(config, dataclasses.replace(place, mesh=None))
    rows = []
    for name, job in experiment.build(config, splits[0].event).items():
        step, batch = one_step(completed(job, splits[0]), config, job.view(splits[0]))
        for words, grid in grids.items():
            if config.batch % grid.shape.get("data", 1):
                raise UserError(
                    f"--batch {config.batch} cannot be divided evenly over {words}: choose a "
                    "multiple of the size of data"
                )
            made = compiler.lowered(step, batch, grid, experiment.rules, ask.shard_state)
            rows.append(Row(name, words, compiler.price(made)))
            say(f"{name}, {words}: compiled")
    return rows


def one_step(job: Job, config: Any, split: ae.data.Split) -> tuple[ae.Learner, Any]:
    """Returns the learner of all seeds of a job, one step a call, and the shapes of its batch."""
    batch = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), streams(job, config, split)[0]
    )
    return learner(job, config, chunked=False), batch


def table(rows: Sequence[Row], chip: Chip, passes: int) -> list[str]:
    """Returns the lines of a Markdown table, one line for each model and mesh."""
    lines = [
        "| model | mesh | GiB | fits | TFLOP | GB | MiB between chips | ms | most of it |",
        "|---|---|---:|---|---:|---:|---:|---:|---|",
    ]
    for row in rows:
        found = {name: cell["mean"] for name, cell in figures(row, chip, passes).items()}
        times = milliseconds(row.price, chip, passes)
        fits = "yes" if found["GiB"] <= chip.memory else f"no, a chip has {chip.memory:g}"
        spread = f"{found['ms at least']:.3g} to {found['ms at most']:.3g}"
        if row.price.unpriced:
            calls = ", ".join(f"{n} x {name}" for name, n in row.price.unpriced.items())
            spread = f"{spread} and {calls}"
        lines.append(
            f"| {row.model} | {row.mesh} | {found['GiB']:.2f} | {fits} | {found['TFLOP']:.3g} | "
            f"{found['GB']:.3g} | {found['MiB between chips']:.3g} | {spread} | "
            f"{max(times, key=lambda name: times[name])} |"
        )
    return lines


def figures(row: Row, chip: Chip, passes: int) -> dict[str, dict[str, Any]]:
    """Returns the figures of one step, by name, in the form of a kept result."""
    price, times = row.price, milliseconds(row.price, chip, passes)
    found = {
        "GiB": (price.arguments + price.results + price.temporary) / 1024,
        "TFLOP": price.teraflops,
        "GB": price.gigabytes,
        "MiB between chips": sum(price.collectives.values()),
        "ms at least": max(times.values()),
        "ms at most": sum(times.values()),
    }
    return {name: {"mean": x, "std": 0.0, "values": [x]} for name, x in found.items()}


def milliseconds(price: compiler.Price, chip: Chip, passes: int) -> dict[str, float]:
    """Returns what the products, the memory and the links of a chip need for one step, in ms."""
    return {
        "products": 1e3 * passes * price.teraflops / chip.teraflops,
        "memory": 1e3 * price.gigabytes / chip.memory_rate,
        "links": 1e3 * sum(price.collectives.values()) * 2**20 / 1e9 / chip.link_rate,
    }
