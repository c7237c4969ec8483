"""Tests of the command that plans a training step for TPUs, without their compiler."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import aejax as ae
from aejax.errors import UserError
from experiments import digits_vae
from experiments.shared import compiler
from experiments.shared.training import learner, streams
from experiments.tools import plan


def test_a_step_takes_as_long_as_its_parts():
    """Fails if a unit is wrong, if passes do not count, or if the sum is taken for the maximum."""
    price = compiler.Price(
        teraflops=0.394,
        gigabytes=8.19,
        temporary=4_096.0,
        arguments=10_240.0,
        results=1_024.0,
        collectives={"all-reduce": 1_000.0, "all-gather": 907.3486328125},
        unpriced={"TopK": 2},
        loops=(),
    )
    chip = plan.CHIPS["v5e"]
    found = plan.milliseconds(price, chip, 6)
    assert found == pytest.approx({"products": 12.0, "memory": 10.0, "links": 10.0}, rel=1e-6)
    (line,) = plan.table([plan.Row("vae", "data=16", price)], chip, 6)[2:]
    cells = [cell.strip() for cell in line.split("|")[3:-1]]
    assert cells[:5] == ["15.00", "yes", "0.394", "8.19", "1.91e+03"]
    assert cells[5:] == ["12 to 32 and 2 x TopK", "products"]
    (line,) = plan.table([plan.Row("vae", "d", price._replace(arguments=20_480.0))], chip, 1)[2:]
    assert "| no, a chip has 16 |" in line
    assert "| 10 to 22 and" in line


def test_arguments_are_the_bytes_of_the_live_arrays():
    """Fails if the seeds, the optimiser's state or the batch are left out, or counted twice."""
    config = digits_vae.Config(seeds=2, batch=8, width=16, latents=3)
    images = np.zeros((20, 8, 8, 1), np.float32)
    train = ae.data.arrays(images, validation=1, test=1)[0]
    job = digits_vae.build(config, train.event)["vae"]
    step, batch = plan.one_step(job, config, train)
    mesh = ae.mesh(data=1)
    price = compiler.price(compiler.lowered(step, batch, mesh))
    state = jax.jit(learner(job, config).init)(
        jnp.stack([jax.random.key(0), jax.random.key(1)]), streams(job, config, train)[0]
    )
    live = [
        jax.random.key_data(a) if jnp.issubdtype(a.dtype, jax.dtypes.prng_key) else a
        for a in jax.tree.leaves((state, streams(job, config, train)[0]))
    ]
    assert price.arguments * 2**20 == sum(array.nbytes for array in live)
    assert price.teraflops > 0


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["vae"], "plan needs the name of an experiment first, not 'vae'"),
        (["pages"], "plan needs the name of an experiment first"),
        (["digits-vae", "--topology", "v9:2x2"], "--topology is 'v9:2x2': give one of v5e, v5p"),
        (["digits-vae", "--seeds", "0"], "--seeds"),
        (["digits-vae", "--color", "1"], "--color"),
    ],
)
def test_wrong_words_are_refused(words, says):
    with pytest.raises(UserError, match=says):
        plan.main(words, prog="plan")
