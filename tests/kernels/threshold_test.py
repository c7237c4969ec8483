"""The k-th largest value, against a sort, and the platform that a program is traced for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractDevice, AbstractMesh

import aejax as ae
from aejax.kernels import threshold
from aejax.kernels.platform import form_or_default, platform, shards_of_latents

ROWS, COLUMNS = 9, 64


@pytest.fixture(scope="module")
def values():
    found = np.random.default_rng(0).normal(size=(ROWS, COLUMNS)).astype(np.float32)
    found[0] = -3.0
    found[1] = np.round(found[1])  # many ties
    found[2, :9] = 0.0
    found[3, :3], found[4, :3] = np.inf, -np.inf
    found[5] *= 1e-36
    return found


@pytest.mark.parametrize("few", [threshold.FEW, 0])
@pytest.mark.parametrize("k", [1, 5, COLUMNS])
def test_the_kth_of_each_row_is_that_of_a_sort(values, k, few, monkeypatch):
    """By candidates and by counting. Fails if counting leaves out the sign or the last bits."""
    monkeypatch.setattr(threshold, "FEW", few)
    found = jax.jit(threshold.kth_of_rows, static_argnums=1)(values, k)
    np.testing.assert_array_equal(found[:, 0], -np.sort(-values, axis=1)[:, k - 1])


@pytest.mark.parametrize("few", [threshold.FEW, 0])
def test_a_traced_number_chooses_among_the_k(values, few, monkeypatch):
    """A fraction counts as the next whole number, as in the rows form."""
    monkeypatch.setattr(threshold, "FEW", few)
    found = jax.jit(lambda v, n: threshold.kth_of_rows(v, 8, n))(values, jnp.float32(2.5))
    np.testing.assert_array_equal(found[:, 0], -np.sort(-values, axis=1)[:, 2])


def test_the_kth_of_all_is_that_of_a_sort(values):
    order = -np.sort(-values.ravel())
    find = jax.jit(threshold.kth_of_all)
    for k in (1, 100, values.size):
        assert find(values, k)[0, 0] == order[k - 1]


def test_the_platform_is_that_of_the_mesh():
    """Fails if the form is chosen by the machine that traces."""
    tpu = AbstractDevice(device_kind="TPU v5 lite", num_cores=1, platform="tpu")
    mesh = AbstractMesh((4, 2), ("data", "model"), abstract_device=tpu)
    assert (platform(), form_or_default(None), shards_of_latents(8)) == ("cpu", "rows", None)
    with jax.sharding.use_abstract_mesh(mesh):
        assert (platform(), form_or_default(None)) == ("tpu", "dense")
        assert (form_or_default("rows"), shards_of_latents(8)) == ("rows", "model")
        assert shards_of_latents(7) is None
    with pytest.raises(ae.UserError, match="a sparse code has form = 'masked'"):
        form_or_default("masked")
