"""Tests of selecting the largest values of a whole batch, against sorting all of them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from aejax.kernels.batch import chosen, kth_largest, largest_of_batch, positions

B = 64


def case(columns, repeating, seed=0):
    """Makes a batch in which some rows hold much larger values than others.

    The last element of the last row is large; with `repeating` there are many ties.
    """
    generator = np.random.default_rng(seed)
    product = generator.normal(size=(B, columns)) * generator.gamma(0.5, size=(B, 1))
    product[-1, -1] = 40.0
    bias, norms = generator.normal(size=columns) * 0.1, 0.5 + generator.random(columns)
    if repeating:
        product, bias, norms = np.round(8 * product), np.round(bias), np.ones(columns)
    return [jnp.asarray(a, jnp.float32) for a in (product, bias, norms)]


class TestLargestOfBatch:
    """Exactly the largest values of the batch are found, in whichever rows they are."""

    @pytest.mark.parametrize("repeating", [False, True])
    @pytest.mark.parametrize("columns", [33, 64, 512])  # no groups, groups, and groups of groups
    def test_what_is_found_is_what_a_sort_finds(self, columns, repeating):
        """Fails if members get another group's values, if zeros count, or if a tie is found twice.

        Many more values are asked for than are above zero, so it also fails if values beyond the
        found groups are read.
        """
        product, bias, norms = case(columns, repeating)
        room = 3 * B
        find = jax.jit(functools.partial(largest_of_batch, room=room))
        score = np.maximum((np.asarray(product) + np.asarray(bias)) * np.asarray(norms), 0)
        few = np.sort(score, axis=None)[-100]
        for least, counts in ((0.0, (1, 2, 100, room - 1, room)), (few, (room,))):
            held = np.where(score > least, score, 0)
            product = jnp.where(score > least, product, -1e9)
            for count in counts:
                found = find(product, bias, norms, count)
                row, column = (np.asarray(a)[: found.count] for a in found[:2])
                assert found.row.shape == found.column.shape == (room,)
                assert len(set(zip(row, column, strict=True))) == found.count
                assert np.all(np.diff(row) >= 0)
                expected = np.sort(held, axis=None)[::-1][:count]
                values = np.sort(held[row, column])[::-1]
                np.testing.assert_allclose(values, expected[expected > 0], rtol=1e-6)
        assert found.count < 100

    def test_groups_save_what_a_look_at_all_costs(self):
        """Fails if levels are not built: bisection would then read B m values for each bit."""
        product, bias, _ = case(512, False)
        program = str(
            jax.make_jaxpr(lambda p, b: largest_of_batch(p, b, None, 9, 2 * B))(product, bias)
        )
        assert f"i32[{B * 512 // 256},256]" not in program
        assert f"i32[{B * 8 // 256},256]" in program

    def test_members_of_a_sweep_find_their_own(self):
        """Members have different counts, and one has ties, so all count ties.

        Fails if the others lose values.
        """
        cases = [case(64, repeating, seed) for seed, repeating in ((0, False), (1, True))]
        product, bias, _ = (jnp.stack(column) for column in zip(*cases, strict=True))

        def find(product, bias, count):
            return largest_of_batch(product, bias, None, count, 2 * B)

        counts = jnp.asarray([50, 2 * B])
        together = jax.jit(jax.vmap(find))(product, bias, counts)
        for i, count in enumerate(counts):
            alone = jax.jit(find)(product[i], bias[i], count)
            for ours, theirs in zip(together, alone, strict=True):
                np.testing.assert_array_equal(ours[i], theirs)

    @pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
    def test_it_lowers_for_every_platform(self, platform):
        product, bias, norms = case(64, False)
        find = jax.jit(functools.partial(largest_of_batch, count=9, room=B))
        assert export.export(find, platforms=[platform])(product, bias, norms).mlir_module()


@pytest.mark.parametrize("size", [5, 32, 1000])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 1.0])
def test_positions_are_those_that_numpy_finds(size, share):
    """Fails if the last bit of a word is lost, or if ranks continue from word to word."""
    for length in (1, 31, 32, 33, 1000):
        mask = np.random.default_rng(length).random(length) < share
        found, count = jax.jit(positions, static_argnums=1)(mask, size)
        expected = np.flatnonzero(mask)[:size]
        np.testing.assert_array_equal(found[:count], expected)
        assert count == len(expected)
        assert np.all((np.asarray(found) >= 0) & (np.asarray(found) < length))


def test_bisection_finds_the_kth_largest():
    """Fails if a bit is left out, or if the comparison is strict."""
    values = np.random.default_rng(2).gamma(0.3, size=(50, 19)).astype(np.float32)
    values[0] = 0.0
    for k in (1, 2, 100, 287, 900, 950, 951):
        found = kth_largest(jnp.asarray(values), k)
        assert found == (np.sort(values, axis=None)[-k] if k <= values.size else 0.0)


def test_of_ties_the_first_are_chosen():
    """Fails if ties add to the count, or if zeros are chosen when few values are above them."""
    values = jnp.asarray([[0.0, 2.0, 1.0], [1.0, 0.0, 1.0]])
    expected = {1: [1], 2: [1, 2], 3: [1, 2, 3], 4: [1, 2, 3, 5], 5: [1, 2, 3, 5]}
    for count, places in expected.items():
        np.testing.assert_array_equal(np.flatnonzero(chosen(values, count)), places)
