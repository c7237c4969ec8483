"""What a training step of a sparse autoencoder costs on TPUs, as their compiler sees it.

    python -m experiments bench-tpu
    python -m experiments bench-tpu --only topk topk-sharded-state

Nothing runs on a TPU, and none is needed, but the package libtpu is (`pip install "jax[tpu]"`).
The whole step (forward, backward, Adam) is compiled in bfloat16 for chips of the kind v5e, with
2,304 inputs and 65,536 latents, of which 64 are active: for 16 chips with batches of 4,096, and for
one chip with batches of 1,024. The figures are those of each chip: gigabytes that it reads and
writes, operations, memory beside the state, and MiB that pass between chips. The trips of loops are
multiplied in; of a condition the largest branch counts, which for AuxK is that with many dead
latents. Columns with calls count operations that the compiler cannot price. Results that are
already in the folder are not asked for again. It takes 1 to 3 minutes for each step on a CPU core.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

import aejax as ae
from aejax.errors import UserError
from aejax.files import read_json, write_json
from aejax.runs.environment import environment
from experiments.shared import compiler
from experiments.shared.place import prepared, say

SMALL = 4  # the batch of one chip is this many times smaller than that of a slice


class Case(NamedTuple):
    """A training step, and the chips that it is compiled for."""

    code: str  # a key of CODES
    axes: dict[str, int]  # the mesh
    auxk: bool = False
    shard_state: bool = False
    form: str | None = None
    recall: float | None = None


SLICE, ROWS, ONE = {"data": 4, "model": 4}, {"data": 16}, {"data": 1}
CASES = {
    "topk": Case("topk", SLICE),
    "batchtopk": Case("batchtopk", SLICE),
    "abstopk": Case("abstopk", SLICE),
    "jumprelu": Case("jumprelu", SLICE),
    "gated": Case("gated", SLICE),
    "topk-auxk": Case("topk", SLICE, auxk=True),
    "topk-recall": Case("topk", SLICE, recall=0.95),
    "topk-sharded-state": Case("topk", SLICE, shard_state=True),
    "topk-data": Case("topk", ROWS),
    "topk-data-sharded-state": Case("topk", ROWS, shard_state=True),
    "topk-one-chip": Case("topk", ONE),
    "batchtopk-one-chip": Case("batchtopk", ONE),
    "topk-rows": Case("topk", SLICE, form="rows"),
}
CODES = {
    "topk": ae.TopK,
    "batchtopk": ae.BatchTopK,
    "abstopk": ae.AbsTopK,
    "jumprelu": ae.JumpReLU,
    "gated": ae.Gated,
}


def command(
    out: str = "runs/bench-tpu",
    only: tuple[str, ...] = tuple(CASES),
    size: int = 2304,
    latents: int = 65536,
    k: int = 64,
    batch: int = 4096,
    topology: str = "v5e:4x4",
) -> None:
    """Compiles each step, prints its price, and writes result.json.

    Args:
      out: the folder for result.json.
      only: the steps, by name.
      size: the number of inputs.
      latents: the number of latents.
      k: the number of active latents of an example.
      batch: the batch on all chips of a slice; one chip has a quarter of it.
      topology: the slice of TPUs.
    """
    unknown = set(only) - set(CASES)
    if unknown or not only:
        raise UserError(f"--only is {' '.join(only)}: choose from {', '.join(CASES)}")
    folder = prepared(out, size=size, latents=latents, k=k, batch=batch)
    path = folder / "result.json"
    result: dict[str, Any] = read_json(path, {}) if path.exists() else {}
    for name in only:
        case = CASES[name]
        row = f"{name}: {','.join(f'{axis}={count}' for axis, count in case.axes.items())}"
        if row not in result:
            rows = batch // SMALL if case.axes == ONE else batch
            found = priced(case, topology, size, latents, k, rows)
            result[row] = {word: figure(value) for word, value in figures(found).items()}
        write_json(path, {**result, "topology": topology, "environment": environment()})
        words = (f"{word} {cell['mean']:.4g}" for word, cell in result[row].items())
        say(f"{row}: {', '.join(words)}")


def priced(
    case: Case, topology: str, size: int, latents: int, k: int, batch: int
) -> compiler.Price:
    """Asks the compiler for the price of one step."""
    mesh = compiler.mesh(topology, **case.axes)
    batches: Any = jax.ShapeDtypeStruct((batch, size), jnp.float32)
    step = compiler.lowered(
        learner(case, size, latents, k),
        ae.Batch(batches, batches),
        mesh,
        ae.dictionary_rules,
        case.shard_state,
    )
    return compiler.price(step)


def learner(case: Case, size: int, latents: int, k: int) -> ae.Learner:
    """Returns the learner of a case, with products in bfloat16 and Adam."""
    fields: dict[str, Any] = {"form": case.form, "dtype": jnp.bfloat16}
    if case.code in ("topk", "batchtopk", "abstopk"):
        fields["k"] = k
    if case.recall is not None:
        fields["recall"] = case.recall
    decoder = ae.nets.Dictionary(size, dtype=jnp.bfloat16)
    model = ae.Autoencoder(ae.nets.Identity(), CODES[case.code](latents, **fields), decoder)
    objective = ae.sparse()
    if case.code == "jumprelu":
        objective = ae.merge(objective, {"penalty": (1e-3, ae.losses.penalty)})
    if case.code == "gated":
        gate = {"l1": (1e-3, ae.losses.gate_l1()), "gate": (1.0, ae.losses.gate_error())}
        objective = ae.merge(objective, gate)
    if case.auxk:
        objective = ae.merge(objective, {"auxk": (1 / 32, ae.losses.auxk())})
    return ae.learner(model, objective, optax.adam(1e-3))


def figures(price: compiler.Price) -> dict[str, float]:
    """Returns the figures of a price by the names of the table's columns."""
    return {
        "GB": price.gigabytes,
        "TFLOP": price.teraflops,
        "temp_MiB": price.temporary,
        "collectives_MiB": sum(price.collectives.values()),
        **{f"{name}_MiB": count for name, count in price.collectives.items()},
        "trips_of_loops": sum(price.loops),
        **{f"calls_of_{name}": count for name, count in price.unpriced.items()},
    }


def figure(value: float) -> dict[str, Any]:
    """Returns a figure of one run as the tables expect it."""
    return {"mean": value, "std": 0.0, "values": [value]}
