"""Tests of every form of every kernel, chosen or not, against products, sorts and autodiff."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from aejax.kernels import rows, select, table
from aejax.kernels.encode import encode_topk
from aejax.kernels.mask import counts, mask_of_largest

B, D, M, K = 12, 10, 64, 4


def arrays(*shapes, seed=0):
    generator = np.random.default_rng(seed)
    return [jnp.asarray(generator.normal(size=shape), jnp.float32) for shape in shapes]


def some_indices(repeated, seed=1):
    generator = np.random.default_rng(seed)
    if repeated:
        return jnp.asarray(generator.integers(0, 3, (B, K)), jnp.int32)
    return jnp.asarray(np.stack([generator.permutation(M)[:K] for _ in range(B)]), jnp.int32)


def one_hot(values, indices):
    return jnp.einsum("bk,bkm->bm", values, jax.nn.one_hot(indices, M))


@pytest.mark.parametrize("repeated", [False, True])
class TestRows:
    """Forms agree to 1e-5 with the dense product.

    Fails if a form sets where it should add, or swaps axes.
    """

    @pytest.mark.parametrize("form", list(rows.COMBINE))
    def test_combine(self, form, repeated):
        values, atoms = arrays((B, K), (M, D))
        indices = some_indices(repeated)
        found = jax.jit(rows.COMBINE[form])(values, indices, atoms)
        expected = one_hot(values, indices) @ atoms
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)

    @pytest.mark.parametrize("form", list(rows.MATCH))
    def test_match(self, form, repeated):
        vectors, atoms = arrays((B, D), (M, D))
        indices = some_indices(repeated)
        found = jax.jit(rows.MATCH[form])(vectors, indices, atoms)
        expected = jnp.take_along_axis(vectors @ atoms.T, indices, axis=1)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)

    @pytest.mark.parametrize("form", list(rows.SPREAD))
    def test_spread(self, form, repeated):
        values, vectors = arrays((B, K), (B, D))
        indices = some_indices(repeated)
        found = jax.jit(rows.SPREAD[form], static_argnames="rows")(values, indices, vectors, rows=M)
        expected = one_hot(values, indices).T @ vectors
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


class TestLargest:
    """The k largest values are found exactly."""

    @pytest.mark.parametrize("columns", [M, 1024, 63])
    @pytest.mark.parametrize("normed", [False, True])
    @pytest.mark.parametrize("repeating", [False, True])
    def test_every_form_finds_what_a_sort_finds(self, columns, normed, repeating):
        """Fails if a group's maximum is counted twice, or if a column gets the bias of another."""
        product, bias, norms = arrays((B, columns), (columns,), (columns,))
        if repeating:  # many ties
            product, bias = jnp.round(product), jnp.round(bias)
        norms = 0.5 + jnp.abs(norms) if normed else jnp.ones(columns)
        score = (np.asarray(product) + np.asarray(bias)) * np.asarray(norms)
        expected = -np.sort(-score, axis=1)[:, :K]
        forms = select.forms_for(columns, K)
        assert ("groups of 8" in forms) == (columns % 8 == 0)
        for name, form in forms.items():
            indices = np.asarray(jax.jit(form, static_argnames="k")(product, bias, norms, k=K))
            found = np.take_along_axis(score, indices, axis=1)
            np.testing.assert_allclose(found, expected, rtol=1e-6, err_msg=name)
            for row in indices:
                assert len(set(row.tolist())) == K, name

    def test_columns_taken_out_are_found_last_and_once(self):
        """Fails if a group's own maximum, which is masked among its members, is found again as
        -inf.
        """
        product = arrays((B, 64))[0]
        bias = jnp.full((64,), -jnp.inf).at[jnp.asarray([3, 11, 40])].set(0.0)
        for name, form in select.forms_for(64, 6).items():
            indices = np.asarray(
                jax.jit(form, static_argnames="k")(product, bias, jnp.ones(64), k=6)
            )
            for row in indices:
                assert set(row[:3].tolist()) == {3, 11, 40}, name
                assert len(set(row.tolist())) == 6, name

    def test_an_approximate_selection_is_asked_for_by_name(self):
        """On CPUs it finds all values.

        Fails if the default is approximate, or if scores leave out the bias.
        """
        product, bias = arrays((B, M), (M,))

        def find(recall):
            return functools.partial(select.largest, norms=None, k=K, recall=recall)

        exact, near = (jax.jit(find(recall))(product, bias) for recall in (None, 0.95))
        np.testing.assert_array_equal(np.sort(exact, axis=1), np.sort(near, axis=1))
        programs = [str(jax.make_jaxpr(find(recall))(product, bias)) for recall in (None, 0.95)]
        assert ["approx_top_k" in program for program in programs] == [False, True]

    @pytest.mark.parametrize("columns", [33, 64, 8192])
    def test_counts_are_those_of_one_sum(self, columns):
        """Fails if a byte overflows, which happens if more than 127 slices are added."""
        values = np.random.default_rng(0).integers(-9, 9, (B, columns)).astype(np.int32)
        for least in (np.int32(-9), np.int32(3), values[:, :1]):
            found = jax.jit(counts)(values, jnp.asarray(least))
            np.testing.assert_array_equal(found, (values >= least).sum(1))

    @pytest.mark.parametrize("k", [1, 3, 20, 21])
    def test_the_mask_holds_k_a_row_ties_first(self, k):
        """Fails if the sign bit is left out, or if ties add to the count."""
        values = np.random.default_rng(0).integers(-3, 4, (B, 20)).astype(np.float32)
        values[0] = -np.inf
        values[1, :5] = 0.25
        found = np.asarray(jax.jit(mask_of_largest, static_argnums=1)(jnp.asarray(values), k))
        expected = np.zeros((B, 20), bool)
        for row, order in zip(expected, np.argsort(-values, axis=1, kind="stable"), strict=True):
            row[order[:k]] = True
        np.testing.assert_array_equal(found, expected)


class TestEncode:
    """Values and gradients agree with the dense form."""

    @pytest.mark.parametrize("normed", [False, True])
    def test_gradients_are_those_of_the_dense_form(self, normed):
        """Fails if d_bias or d_kernel leaves out a slot, or if the norms scale the values."""
        x, kernel, bias, norms, weights = arrays((B, D), (D, M), (M,), (M,), (B, K))
        norms = 0.5 + jnp.abs(norms) if normed else None

        def ours(x, kernel, bias):
            values, _ = encode_topk(x, kernel, bias, K, norms)
            return jnp.sum(weights * values**2)

        def dense(x, kernel, bias):
            pre = x @ kernel + bias[None]
            _, indices = jax.lax.top_k(pre if norms is None else pre * norms[None], K)
            return jnp.sum(weights * jnp.take_along_axis(pre, indices, axis=1) ** 2)

        found = jax.jit(jax.value_and_grad(ours, argnums=(0, 1, 2)))(x, kernel, bias)
        expected = jax.jit(jax.value_and_grad(dense, argnums=(0, 1, 2)))(x, kernel, bias)
        jax.tree.map(
            functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4), *[found, expected]
        )

    def test_seeds_map_it(self):
        """Fails if a form's axes are counted from the front."""
        x, kernel, bias = arrays((3, B, D), (3, D, M), (3, M))

        def gradients(x, kernel, bias):
            return jax.grad(lambda *a: jnp.sum(encode_topk(*a, K)[0] ** 3), (0, 1, 2))(
                x, kernel, bias
            )

        together = jax.jit(jax.vmap(gradients))(x, kernel, bias)
        for i in range(3):
            for ours, theirs in zip(
                together, jax.jit(gradients)(x[i], kernel[i], bias[i]), strict=True
            ):
                np.testing.assert_allclose(ours[i], theirs, rtol=1e-5, atol=1e-5)

    def test_in_bfloat16_all_three_gradients_are_of_rounded_numbers(self):
        """They agree with float64 to a hundredth of a rounding.

        Fails if the backward pass reads kernel or x as they were before the product rounded them,
        or if it sums in bfloat16.
        """
        x, kernel, bias, weights = arrays((B, D), (D, M), (M,), (B, K))

        def cost(x, kernel, bias):
            values, _ = encode_topk(x, kernel, bias, K, dtype=jnp.bfloat16)
            return jnp.sum(weights * values)

        found = jax.jit(jax.grad(cost, (0, 1, 2)))(x, kernel, bias)
        rough_x, rough = (np.float64(np.asarray(a.astype(jnp.bfloat16))) for a in (x, kernel))
        indices = np.argsort(-(rough_x @ rough + np.float64(bias)), axis=1)[:, :K]
        d_pre = np.zeros((B, M))
        np.put_along_axis(d_pre, indices, np.float64(weights), axis=1)
        expected = d_pre @ rough.T, rough_x.T @ d_pre, d_pre.sum(axis=0)
        for ours, theirs in zip(found, expected, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)

    def test_the_gradient_of_the_input_is_not_computed_unasked(self):
        """Fails if d_x depends on code that stays, such as a check or a shared loop."""
        x, kernel, bias = arrays((B, D), (D, M), (M,))

        def cost(x, kernel, bias):
            return jnp.sum(encode_topk(x, kernel, bias, K)[0])

        def program(argnums):
            return jax.jit(jax.grad(cost, argnums)).lower(x, kernel, bias).compile().as_text()

        assert "gradient_of_inputs" not in program((1, 2))
        assert "gradient_of_inputs" in program((0, 1, 2))

    def test_no_dense_gradient_is_written(self):
        """Fails if the backward pass goes through the product, whose cotangent is an array [B,
        m].
        """
        x, kernel, bias = arrays((B, D), (D, 4 * M), (4 * M,))

        def cost(kernel, bias):
            return jnp.sum(encode_topk(x, kernel, bias, K)[0])

        text = str(jax.make_jaxpr(jax.grad(cost, (0, 1)))(kernel, bias))
        products = [line for line in text.splitlines() if f"f32[{B},{4 * M}] = dot_general" in line]
        assert len(products) == 1, text


class TestTable:
    """Tests of the choice among forms."""

    def test_the_fastest_at_the_nearest_shape(self, monkeypatch):
        """Fails if distances do not use logarithms, or if the slowest form is chosen."""
        near = table.Timing((100, 4), {"a": 2.0, "b": 1.0})
        far = table.Timing((10_000, 4), {"a": 1.0, "b": 2.0})
        monkeypatch.setattr(table, "MEASURED", {"cpu": {"thing": [near, far]}})
        table.fastest.cache_clear()
        assert table.fastest("cpu", "thing", (900, 4), ("a", "b")) == "b"
        assert table.fastest("cpu", "thing", (1100, 4), ("a", "b")) == "a"
        assert table.fastest("cpu", "thing", (1100, 4), ("b", "c")) == "b"
        assert table.fastest("cpu", "other", (1100, 4), ("c", "a")) == "c"
        table.fastest.cache_clear()

    def test_every_measured_form_exists(self):
        """Fails if a form is renamed but not its measurements."""
        for operations in table.MEASURED.values():
            for row in operations["largest"]:
                assert row.milliseconds.keys() <= {"whole"} | {
                    f"groups of {n}" for n in select.MEMBERS
                }
            for name, forms in (
                ("combine", rows.COMBINE),
                ("match", rows.MATCH),
                ("spread", rows.SPREAD),
            ):
                for row in operations[name]:
                    assert row.milliseconds.keys() <= forms.keys()

    def test_an_export_for_another_platform_has_its_own_form(self):
        """Fails if the form is that of the exporting machine: loops are the CPU's form."""
        values, vectors = arrays((B, K), (B, D))

        def spread(values, indices, vectors):
            return rows.spread(values, indices, vectors, M)

        def text(platform):
            made = export.export(jax.jit(spread), platforms=[platform])
            return made(values, some_indices(False), vectors).mlir_module()

        assert "stablehlo.while" in text("cpu")
        assert "stablehlo.while" not in text("tpu")
