"""Tests of synthetic activations: the store agrees with its true features and its statistics."""

import dataclasses
import json

import numpy as np
import pytest
from scipy.stats import multivariate_normal, norm

import aejax as ae
from aejax.data.activations.writer import ActivationWriter
from aejax.data.synthetic.random import correlated_draws, factors, normal, uniform
from aejax.data.synthetic.store import HOOK, ROWS, synthetic, truth, truth_of
from aejax.data.synthetic.superposition import Superposition
from aejax.data.synthetic.synthbench import SynthBench

# The first three draws of seed 3 and stream (1, 2).
UNIFORM = np.array([0.266057647969676, 0.704702285422382, 0.9016497202625345])
TOY = Superposition(features=24, size=10, active=3.0, decay=0.9, rank=3)
BENCH = SynthBench(features=60, size=20, roots=4, branching=3, depth=2, rank=4, orthogonal_steps=20)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Sets files to two blocks, so that a small store has several."""
    monkeypatch.setattr("aejax.data.synthetic.store.BLOCKS", 2)


def dense(recipe, blocks=4):
    return np.concatenate([recipe.block(i).dense(recipe.features) for i in range(blocks)])


def deviations(mean, p, n):
    """Returns how many standard deviations the mean of n Bernoulli draws is from p."""
    return np.abs(mean - p) / np.sqrt(p * (1 - p) / n)


class TestStore:
    @pytest.mark.parametrize("recipe", [TOY, dataclasses.replace(BENCH, offset=9.0)])
    def test_store_is_its_truth(self, tmp_path, recipe):
        """x = f D + constant in any range. Fails if features and tokens are shifted by a block."""
        tokens = 2 * ROWS * 2 + 700
        store, known = synthetic(tmp_path, recipe, tokens)
        assert len(store) == known.tokens == tokens
        assert np.linalg.norm(recipe.constant()) == pytest.approx(getattr(recipe, "offset", 0.0))
        for start, stop in [(0, 5), (ROWS * 2 - 3, ROWS * 2 + 3), (tokens - 900, tokens)]:
            features = known.features(start, stop)
            expected = features @ recipe.dictionary() + recipe.constant()
            found = store.tokens(HOOK)[start:stop]
            np.testing.assert_allclose(found, expected, atol=1e-5)
        block = recipe.block(3).dense(recipe.features)
        np.testing.assert_array_equal(known.features(3 * ROWS, 3 * ROWS + 99), block[:99])
        np.testing.assert_allclose(np.linalg.norm(known.dictionary, axis=1), 1.0, rtol=1e-6)
        with pytest.raises(ae.UserError, match="no tokens from 0 to"):
            known.features(0, tokens + 1)

    def test_each_split_knows_what_its_own_tokens_are_made_of(self, tmp_path):
        """Fails if features are counted from the store's first token, or if a copy of a split is
        accepted.
        """
        store, _ = synthetic(tmp_path, TOY, ROWS + 900)
        for split in store.splits(HOOK, validation=500, test=300):
            truth = truth_of(split)
            x = np.asarray(split.arrays[HOOK][3:90])
            np.testing.assert_allclose(truth.features(3, 90) @ truth.dictionary, x, atol=1e-5)
        with pytest.raises(ae.UserError, match="not a split of a synthetic store"):
            truth_of(store.split(HOOK).take(5))

    def test_killed_and_made_again(self, tmp_path, monkeypatch):
        """The bytes equal those of one run. Fails if blocks depend on where generation started."""
        tokens = ROWS * 5
        synthetic(tmp_path / "whole", TOY, tokens)

        def stop(self, activations, *rest):
            if self.appends == 1:
                raise KeyboardInterrupt
            return append(self, activations, *rest)

        append = ActivationWriter.append
        monkeypatch.setattr(ActivationWriter, "append", stop)
        with pytest.raises(KeyboardInterrupt):
            synthetic(tmp_path / "killed", TOY, tokens)
        monkeypatch.setattr(ActivationWriter, "append", append)
        synthetic(tmp_path / "killed", TOY, tokens)
        files = sorted(p.relative_to(tmp_path / "whole") for p in (tmp_path / "whole").rglob("*.*"))
        assert len(files) == 9
        for file in files:
            assert (tmp_path / "killed" / file).read_bytes() == (
                tmp_path / "whole" / file
            ).read_bytes()

    def test_another_recipe_and_damage_are_refused(self, tmp_path):
        """Fails if the numbers of the recipe, or the hash of the dictionary, are not compared."""
        synthetic(tmp_path, TOY, 100)
        for other in (dataclasses.replace(TOY, seed=1), BENCH):
            with pytest.raises(ae.UserError, match="begun with provenance"):
                synthetic(tmp_path, other, 100)
        path = tmp_path / "truth" / "dictionary.npy"
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
        with pytest.raises(ae.UserError, match=r"dictionary.npy is damaged"):
            truth(tmp_path)

    def test_damaged_features_are_named(self, tmp_path):
        """Fails if a file that was read before comes from memory, or if numpy's error is raised."""
        _, known = synthetic(tmp_path, TOY, 100)
        known.features(0, 100)
        path = tmp_path / "truth" / "features-00000.npz"
        path.write_bytes(path.read_bytes()[:-9])
        with pytest.raises(ae.UserError, match=r"features-00000.npz cannot be read"):
            known.features(0, 100)

    @pytest.mark.parametrize(
        ("name", "change"),
        [
            ("indices", lambda x: x + 100),
            ("counts", lambda x: x.astype(np.float32)),
            ("counts", np.negative),
            ("values", lambda x: x[:-1]),
            ("values", lambda x: x[::-1]),
        ],
    )
    def test_edited_features_are_named(self, tmp_path, name, change):
        """Fails if the file's hash is not compared: permuted values have valid statistics."""
        _, known = synthetic(tmp_path, TOY, 100)
        path = tmp_path / "truth" / "features-00000.npz"
        with np.load(path) as file:
            held = dict(file)
        np.savez(path, **{**held, name: change(held[name])})
        with pytest.raises(ae.UserError, match=r"features-00000.npz cannot be read \(its sha256"):
            known.features(0, 100)

    @pytest.mark.parametrize(
        ("change", "says"),
        [
            ([1], r"recipe.json cannot be read \(it is not a JSON object"),
            ({"file_tokens": 0}, "'file_tokens' of recipe.json is 0"),
            ({"tokens": None}, "'tokens' of recipe.json is None"),
            ({"recipe": None}, "'recipe' of recipe.json is None"),
            ({"features_sha256": [5]}, r"'features_sha256' of recipe.json is \[5\]"),
            ({"features_sha256": None}, "of an older version"),
            ({"features_sha256": []}, "lists 0 files of 8192 tokens, too few for 100"),
            ({"tokens": 101}, "has 100 tokens instead of the 101"),
        ],
    )
    def test_an_edited_recipe_is_named_and_written_anew(self, tmp_path, change, says):
        """Fails if that field is not checked, or if a store from before hashes cannot be used."""
        synthetic(tmp_path, TOY, 100)
        path = tmp_path / "truth" / "recipe.json"
        content = path.read_bytes()
        about = json.loads(content)
        path.write_text(json.dumps(change if isinstance(change, list) else {**about, **change}))
        with pytest.raises(ae.UserError, match=says):
            truth(tmp_path).features(0, 100)
        _, known = synthetic(tmp_path, TOY, 100)
        assert path.read_bytes() == content
        np.testing.assert_array_equal(known.features(0, 100), dense(TOY, 1)[:100])


class TestRandom:
    def test_draws_are_those_of_ever(self):
        """Draws equal recorded ones. Fails if the generator, or the use of its words, changes."""
        found = uniform(3, (1, 2), (3,))
        np.testing.assert_allclose(found, UNIFORM, rtol=1e-12)
        np.testing.assert_allclose(normal(3, (1, 2), (3,)), norm.ppf(UNIFORM), rtol=1e-9)

    def test_copula_has_its_marginals_and_its_pairs(self):
        """Pairs agree with scipy's bivariate normal within five standard deviations.

        Fails if the independent part is not scaled to give unit variance. There are 100,000 draws.
        """
        p, n = np.array([0.3, 0.1, 0.02]), 100_000
        factor = np.array([[0.8, 0.1], [0.5, -0.6], [-0.4, 0.0]])
        drawn = correlated_draws(0, (1,), p, factor, n)
        on = drawn < 1.0
        assert deviations(on.mean(0), p, n).max() < 5
        for i, j in [(0, 1), (0, 2), (1, 2)]:
            rho = factor[i] @ factor[j]
            both = multivariate_normal(cov=[[1, rho], [rho, 1]]).cdf(norm.ppf(p[[i, j]]))
            assert deviations((on[:, i] & on[:, j]).mean(), both, n) < 5
        # The uniform number of an active feature is uniform below p, whatever p is.
        for i in range(3):
            inside = drawn[on[:, i], i]
            assert abs(inside.mean() - 0.5) < 5 / np.sqrt(12 * len(inside))

    def test_factors_leave_room(self):
        """Fails if long factors are not shortened: the independent part's deviation would be
        imaginary.
        """
        length = np.linalg.norm(factors(0, (1,), 50, 9, 2.0), axis=1)
        assert (length**2 <= 0.99 + 1e-12).all()
        assert factors(0, (1,), 50, 0, 2.0).shape == (50, 0)


class TestSuperposition:
    def test_probabilities_fall_and_add_up(self):
        """Fails if the decay is left out, or if `active` is not the mean L0."""
        features = dense(TOY)
        p = TOY.probability()
        np.testing.assert_allclose(p[1:] / p[:-1], 0.9)
        assert p.sum() == pytest.approx(3.0)
        # Tokens are independent of each other; the features of one token are not.
        assert deviations((features > 0).mean(0), p, len(features)).max() < 5
        values = features[features > 0]
        assert 0 < values.min() < 0.01
        assert 0.99 < values.max() < 1
        assert abs(values.mean() - 0.5) < 5 / np.sqrt(12 * len(values))

    def test_correlation_is_a_number(self):
        """With rank 0, pairs are independent; otherwise they are not.

        Fails if factors are not used.
        """

        def excess(recipe):
            on = dense(recipe) > 0
            both, apart = np.cov(on.T), np.outer(on.std(0), on.std(0))
            np.fill_diagonal(both, 0.0)
            return np.abs(both / apart).max()

        assert excess(dataclasses.replace(TOY, rank=0)) < 5 / np.sqrt(4 * ROWS)
        assert excess(dataclasses.replace(TOY, correlation=0.4)) > 0.1

    @pytest.mark.parametrize("change", [{"features": 0}, {"decay": 0.0}, {"active": 20.0}])
    def test_impossible_numbers(self, change):
        with pytest.raises(ae.UserError):
            dataclasses.replace(TOY, **change)


class TestSynthBench:
    def test_tree(self):
        """It has 4 roots, 12 children, 36 grandchildren and 8 single features, and the published
        levels.
        """
        assert BENCH.levels() == [(range(4), range(4, 16)), (range(4, 16), range(16, 52))]
        full = SynthBench.published()
        assert [len(children) for _, children in full.levels()] == [512, 2048, 8192]
        assert dataclasses.replace(BENCH, features=18).levels()[1] == (range(4, 16), range(16, 18))

    def test_hierarchy_holds_for_every_token(self):
        """Fails if a child is active without its parent, siblings are active together, or no child
        is.
        """
        for recipe in (BENCH, dataclasses.replace(BENCH, features=45)):
            on = dense(recipe, 2) > 0
            for parents, children in recipe.levels():
                for child in children:
                    parent = parents.start + (child - children.start) // recipe.branching
                    assert not (on[:, child] & ~on[:, parent]).any()
                for start in range(children.start, children.stop, recipe.branching):
                    family = on[:, start : min(start + recipe.branching, children.stop)]
                    assert family.sum(1).max() == 1
                    assert family.any(0).all()

    def test_frequencies(self):
        """Roots and single features follow Zipf's law; two equal siblings share alike.

        Fails if the first sibling always wins, or if children's probabilities do not make up for
        the gate.
        """
        flat = dataclasses.replace(BENCH, rank=0, most=0.3, least=0.2999, spread=0.0)
        on = dense(flat, 6) > 0
        p, n = flat.probability(), len(on)
        single = [*range(4), *range(52, 60)]
        assert deviations(on[:, single].mean(0), p[single], n).max() < 5
        families = on[:, 4:16].reshape(n, 4, 3).mean(0)
        assert deviations(families, families.mean(1, keepdims=True), n).max() < 5
        # A child is active at most as often as its parent. Here it always would be, and one of
        # three wins.
        np.testing.assert_allclose(flat.fires()[4:16], 0.99)
        assert families.mean() == pytest.approx(0.3 / 3, rel=0.05)
        zipf = dataclasses.replace(BENCH, roots=0).probability()
        power = np.arange(1, 61) ** -0.5
        assert (zipf[0], zipf[-1]) == pytest.approx((0.4, 5e-4))
        np.testing.assert_allclose(np.diff(zipf) / np.diff(power), (0.4 - 5e-4) / (1 - power[-1]))

    def test_children_make_up_for_the_gate(self):
        """The factor is 1 / p(parent) times 1 + the siblings' sum, as in SAELens."""
        p, fires = BENCH.probability(), BENCH.fires()
        beside = (p[5] + p[6]) / p[0]
        assert fires[4] == pytest.approx(p[4] / p[0] * (1 + beside))
        np.testing.assert_array_equal(fires[:4], p[:4])

    def test_magnitudes(self):
        """Means fall from `large` to `small`. Fails if deviations differ between blocks."""
        sharp = dataclasses.replace(BENCH, spread=0.0)
        features = dense(sharp, 1)
        for i in (0, 3, 55):
            values = features[features[:, i] > 0, i]
            np.testing.assert_allclose(values, 5.0 - i / 59, rtol=1e-6)
        spread = [BENCH.block(i).dense(60)[:, 0] for i in (0, 1)]
        a, b = (values[values > 0].std() for values in spread)
        assert a == pytest.approx(b, rel=0.2)

    def test_directions_are_pushed_apart(self):
        """Squared overlaps reach Welch's bound, G^2 / d. Fails if the step has the wrong sign."""

        def overlaps(steps):
            rows = dataclasses.replace(BENCH, orthogonal_steps=steps).dictionary()
            np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1.0, rtol=1e-6)
            return np.sum(np.square(rows @ rows.T))

        assert overlaps(0) > 1.1 * 60**2 / 20
        assert overlaps(50) == pytest.approx(60**2 / 20, rel=0.01)

    def test_the_presets_are_those_of_saelens(self):
        """Zipf from .3 to .01, magnitude 1, independent, a constant of norm 1. Fails if a default
        of ours is left in."""
        made = SynthBench.sae_lens(50, 12)
        power = 1.0 / np.arange(1, 51)
        share = (power - power[-1]) / (power[0] - power[-1])
        np.testing.assert_allclose(made.probability(), 0.01 + 0.29 * share)
        np.testing.assert_array_equal(made.fires(), made.probability())
        features = made.block(0).dense(50)
        assert set(np.unique(features)) == {0.0, 1.0}
        np.testing.assert_allclose(features.mean(0), made.probability(), atol=0.03)
        assert np.linalg.norm(made.constant()) == pytest.approx(1.0)
        assert SynthBench.published() == SynthBench(features=16_384, size=768, roots=128)
