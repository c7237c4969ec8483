"""Tests of feature recovery, fidelity and SAEBench's metrics, against brute force and sklearn."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.metrics import precision_recall_fscore_support
from sklearn.metrics.pairwise import cosine_similarity

import aejax as ae
from aejax import evaluation
from aejax.evaluation.features import (
    _chunks,
    cosines,
    detection,
    matched,
    mcc,
    mmcs,
    nearest,
    recovery,
)
from aejax.evaluation.fidelity import added, fidelity
from aejax.evaluation.saebench import saebench
from aejax.evaluation.sparsity import variance
from aejax.types import Batch
from tests.evaluation.cases import Held

GENERATOR = np.random.default_rng(0)
ATOMS = GENERATOR.normal(size=(7, 4)) * np.array([0.1, 1, 2, 3, 4, 5, 6])[:, None]
TRUTH = GENERATOR.normal(size=(5, 4))

# The columns are explained variance, its legacy form, mse, cosine similarity, l2 ratio and relative
# reconstruction bias.
THEIRS = [
    0.9431291627707566,
    0.9094842060428123,
    0.011496456730606359,
    0.996424087663747,
    0.8041027135353078,
    0.8054833392471024,
]


class TestMatching:
    def test_cosines_are_sklearns(self):
        """Fails if one side is not normalised; a row of zeros has cosine 0."""
        atoms = np.concatenate([ATOMS, np.zeros((1, 4))])
        np.testing.assert_allclose(cosines(atoms, TRUTH), cosine_similarity(atoms, TRUTH))

    @pytest.mark.parametrize("swap", [False, True])
    def test_matching_is_the_best_of_all(self, swap):
        """It is the best of all one-to-one matchings. Fails if it is greedy, or uses signs."""
        few, many = TRUTH, ATOMS
        cosine = np.abs(cosine_similarity(few, many))
        best = max(
            np.mean([cosine[i, j] for i, j in enumerate(chosen)])
            for chosen in itertools.permutations(range(7), 5)
        )
        pairs = matched(few, many) if swap else matched(many, few)
        assert mcc(pairs) == pytest.approx(best, rel=1e-12)
        assert len(set(pairs.latents)) == len(set(pairs.features)) == 5
        of = cosine_similarity(few, many) if swap else cosine_similarity(many, few)
        np.testing.assert_allclose(pairs.cosine, of[pairs.latents, pairs.features])

    def test_greedy_would_lose(self):
        """Two latents are near one feature: 0.6 + 0.8 loses to 0.8 + 0.6 the other way round."""
        angle = np.deg2rad([0.0, 20.0])
        atoms = np.stack([np.cos(angle), np.sin(angle)], axis=1)
        truth = np.stack([np.cos(np.deg2rad([10.0, -60.0])), np.sin(np.deg2rad([10.0, -60.0]))], 1)
        pairs = matched(atoms, truth)
        expected = (np.cos(np.deg2rad(60)) + np.cos(np.deg2rad(10))) / 2
        assert mcc(pairs) == pytest.approx(expected)
        np.testing.assert_array_equal(nearest(atoms, truth).features, [0, 0])

    def test_mmcs_has_its_sign(self):
        """A latent of opposite direction counts for MCC, but not for MMCS. Fails with |cos|."""
        assert mcc(matched(-np.eye(3), np.eye(3))) == 1.0
        assert mmcs(-np.eye(3), np.eye(3)) == 0.0
        cosine = cosine_similarity(TRUTH, ATOMS)
        assert mmcs(ATOMS, TRUTH) == pytest.approx(cosine.max(axis=1).mean(), rel=1e-12)

    def test_shapes_that_do_not_belong_together(self):
        with pytest.raises(ae.UserError, match=r"\(7, 4\) and the true directions \(5, 3\)"):
            matched(ATOMS, TRUTH[:, :3])


class TestDetection:
    CODES = GENERATOR.normal(size=(500, 7)) * (GENERATOR.random((500, 7)) < 0.3)
    FEATURES = GENERATOR.random((500, 5)) * (GENERATOR.random((500, 5)) < 0.2)
    CODES[:, 1] = 0.0  # a latent that is never active
    FEATURES[:, 3] = 0.0  # a feature that is never active

    @pytest.mark.parametrize("size", [1, 7, 500])
    @pytest.mark.parametrize("pairing", [matched, nearest])
    def test_against_sklearn(self, size, pairing):
        """Chunks have any size, and negative codes count as active.

        Fails if precision and recall are swapped, or if chunks are averaged.
        """
        pairs = pairing(ATOMS, TRUTH)
        starts = range(0, 500, size)
        chunks = [(self.CODES[i : i + size], self.FEATURES[i : i + size]) for i in starts]
        found = detection(chunks, pairs)
        for i, (latent, feature) in enumerate(zip(pairs.latents, pairs.features, strict=True)):
            precision, recall, f1, _ = precision_recall_fscore_support(
                self.FEATURES[:, feature] > 0,
                self.CODES[:, latent] != 0,
                average="binary",
                zero_division=0,
            )
            expected = [precision, recall, f1]
            np.testing.assert_allclose([found.precision[i], found.recall[i], found.f1[i]], expected)
        assert found.examples == 500

    def test_what_cannot_be_detected(self):
        pairs = nearest(ATOMS, TRUTH)
        with pytest.raises(ae.UserError, match="no tokens"):
            detection([], pairs)
        with pytest.raises(ae.UserError, match="codes of 3 tokens but the features of 2"):
            detection([(self.CODES[:3], self.FEATURES[:2])], pairs)


def sae(atoms, scale=1.0):
    """Returns codes relu(x atoms^T - 1/2), which are active if their atom is in x."""
    atoms = np.asarray(atoms, np.float32)
    latents, size = atoms.shape
    model = ae.Autoencoder(ae.nets.Identity(), ae.ReLU(latents), ae.nets.Dictionary(size))
    x = jnp.zeros((2, size))
    variables = jax.jit(model.init)(jax.random.key(0), Batch(x, x))
    params = {
        "bottleneck": {"encode": {"kernel": atoms.T, "bias": np.full(latents, -0.5)}},
        "decoder": {"atoms": scale * atoms, "bias": np.zeros(size)},
    }
    return model, {**variables, "params": jax.tree.map(lambda a: jnp.asarray(a, "f4"), params)}


class TestRecovery:
    @pytest.mark.parametrize("batch", [7, 64])
    def test_a_dictionary_that_has_all_features(self, batch):
        """Permuted orthogonal atoms recover all features.

        Fails if pairs are not permuted back, or if the padding of the last batch counts.
        """
        generator = np.random.default_rng(4)
        truth = np.linalg.qr(generator.normal(size=(6, 6)))[0]
        features = (1.0 + generator.random((100, 6))) * (generator.random((100, 6)) < 0.3)
        order = np.array([3, 0, 5, 1, 4, 2])
        model, variables = sae(truth[order])
        data = Held(features @ truth)
        found = recovery(model, variables, data, truth, lambda a, b: features[a:b], batch=batch)
        assert found == pytest.approx((1, 1, 1, 1, 1, 1, 100))
        half = recovery(model, variables, data, truth, lambda a, b: features[a:b][:, ::-1])
        assert half.mcc == pytest.approx(1)
        assert half.f1 < 0.6
        for few in (features[:, :5], lambda a, b: features[a:b, :5]):
            with pytest.raises(ae.UserError, match="token are 5, but there are 6 true directions"):
                recovery(model, variables, data, truth, few)
        other = recovery(
            model, variables, data, truth, lambda a, b: features[a:b], dictionary=truth[[0] * 6]
        )
        assert (other.unique, other.mcc) == pytest.approx((1 / 6, 1 / 6), abs=1e-6)

    def test_codes_do_not_depend_on_the_batch(self):
        """They are equal to the bit.

        Fails if the product has as many rows as the batch, which rounds differently.
        """
        size, latents = 768, 2048
        x = np.random.default_rng(5).normal(size=(1024, size)).astype(np.float32)
        model = ae.Autoencoder(
            ae.nets.Identity(), ae.ReLU(latents), ae.nets.Dictionary(size, norm=1.0)
        )
        variables = jax.jit(model.init)(jax.random.key(0), Batch(x[:2], x[:2]))
        first, second = (
            np.concatenate([codes for codes, _ in _chunks(model, variables, Held(x), both, batch)])
            for batch in (7, 1024)
        )
        np.testing.assert_array_equal(first, second)

    def test_atoms_are_compared_in_the_units_of_the_truth(self):
        """Fails if the atoms of a dictionary on whitened data are compared as they are."""
        generator = np.random.default_rng(6)
        truth = generator.normal(size=(5, 8))
        features = generator.exponential(size=(300, 5)) * (generator.random((300, 5)) < 0.3)
        x = (features @ truth + generator.normal(size=(300, 8))).astype(np.float32)
        dictionary = ae.nets.Dictionary(8, scale=ae.nets.Scale())
        model = ae.Autoencoder(ae.nets.Scale(), ae.ReLU(5), dictionary)
        start = ae.standardised(form=ae.initialise.whitening())
        learner = ae.learner(model, ae.sparse(l1=0.1), optax.sgd(0.0), initialise=start)
        state = learner.init(jax.random.key(0), Batch(x, x))
        variables = learner.variables(state)
        factor = np.asarray(variables["memory"]["decoder"]["scale"]["factor"], np.float64)
        variables["params"]["decoder"]["atoms"] = jnp.asarray(truth @ factor, jnp.float32)
        found = recovery(model, variables, Held(x), truth, lambda a, b: features[a:b])
        assert (found.mcc, found.mmcs, found.unique) == pytest.approx((1, 1, 1), abs=1e-5)

    def test_variables_of_several_members_are_refused(self):
        """Fails if their first axis is taken for the latents."""
        model, variables = sae(TRUTH)
        several = jax.tree.map(lambda a: jnp.stack([a, a]), variables)
        for measure in (
            lambda: recovery(model, several, Held(TRUTH), TRUTH, both),
            lambda: evaluation.sparsity(model, several, Held(TRUTH)),
            lambda: ae.fold(model, several),
        ):
            with pytest.raises(ae.UserError, match="the variables of 2 seeds"):
                measure()

    @pytest.mark.parametrize("order", [[4, 0, 0, 2], [5, 1, 0, 1, 3, 5, 2, 1]])
    def test_unique_is_a_share_of_the_latents(self, order):
        """There are fewer or more latents than the six features, and some match the same one.

        Fails if it is the share of the features that are found, or if a feature counts more than
        once.
        """
        truth = np.linalg.qr(np.random.default_rng(4).normal(size=(6, 6)))[0]
        model, variables = sae(truth[order])
        found = recovery(model, variables, Held(truth), truth, lambda a, b: np.eye(6)[a:b])
        assert found.unique == pytest.approx(len(set(order)) / len(order))


def both(start, stop):
    return np.zeros((stop - start, 1))


class TestFidelity:
    X = GENERATOR.normal(size=(101, 8)) + 2.0
    Y = 0.7 * X + 0.2 * GENERATOR.normal(size=(101, 8))

    def test_against_numpy(self):
        """Fails if norms are averaged before the ratio, or if the bias is a mean of ratios."""
        found = fidelity(self.X, self.Y)
        ratio = np.linalg.norm(self.Y, axis=1) / np.linalg.norm(self.X, axis=1)
        cosine = np.diag(cosine_similarity(self.X, self.Y))
        assert found.mean_cosine() == pytest.approx(cosine.mean(), rel=1e-12)
        assert found.l2_ratio() == pytest.approx(ratio.mean(), rel=1e-12)
        bias = np.sum(self.Y**2) / np.sum(self.X * self.Y)
        assert found.relative_bias() == pytest.approx(bias, rel=1e-12)

    @pytest.mark.parametrize("size", [1, 7, 100])
    def test_chunks_add_up(self, size):
        sums = fidelity(self.X[:size], self.Y[:size])
        for i in range(size, 101, size):
            sums = added(sums, fidelity(self.X[i : i + size], self.Y[i : i + size]))
        np.testing.assert_allclose(sums, fidelity(self.X, self.Y), rtol=1e-12)

    def test_zeros_and_masks(self):
        """A zero target is left out, a zero prediction has cosine 0, and masked elements do not
        count.
        """
        x, y = np.array([[0.0, 0], [3, 4], [3, 4]]), np.array([[1.0, 0], [0, 0], [6, 8]])
        found = fidelity(x, y)
        assert found.mean_cosine() == pytest.approx(0.5)
        assert found.l2_ratio() == pytest.approx(1.0)
        mask = GENERATOR.integers(0, 2, self.X.shape)
        spoiled = np.where(mask, self.Y, 1e6)
        np.testing.assert_allclose(
            fidelity(self.X, spoiled, mask), fidelity(self.X * mask, self.Y * mask), rtol=1e-12
        )

    def test_sparsity_reports_them_whatever_the_batch(self):
        """A dictionary that shrinks its outputs, at d 96.

        Fails if a sum is float32, or padding counts.
        """
        generator = np.random.default_rng(5)
        atoms = generator.normal(size=(400, 96)) / np.sqrt(96)
        features = generator.random((3000, 400)) * (generator.random((3000, 400)) < 0.02) * 3
        model, variables = sae(atoms, scale=0.6)
        data = Held(features @ atoms + 0.3)
        small = evaluation.sparsity(model, variables, data, batch=7)
        large = evaluation.sparsity(model, variables, data, batch=4096)
        for name in ("explained_variance", "fvu", "cosine", "l2_ratio", "relative_bias", "l0"):
            assert getattr(small, name) == pytest.approx(getattr(large, name), abs=1e-9), name
        assert small.fvu == 1.0 - small.explained_variance
        x = np.asarray(data.x, np.float64)
        y = np.asarray(jax.jit(model.apply)(variables, Batch(data.x, data.x)).prediction)
        ratio = np.linalg.norm(y, axis=1) / np.linalg.norm(x, axis=1)
        assert large.l2_ratio == pytest.approx(ratio.mean(), rel=1e-6)
        assert large.cosine == pytest.approx(np.diag(cosine_similarity(x, y)).mean(), rel=1e-6)


class TestSAEBench:
    def test_a_mean_predictor_scores_nearly_one(self):
        """SAEBench's legacy score is 0.9885 at d 64, mean 3, deviation 0.3; ours is 0."""
        x = 3.0 + 0.3 * np.random.default_rng(0).normal(size=(4096, 64))
        mean = np.broadcast_to(x.mean(axis=0), x.shape)
        found = saebench([(x[i : i + 512], mean[i : i + 512]) for i in range(0, 4096, 512)])
        assert found.saebench_explained_variance == pytest.approx(0.9885, abs=2e-4)
        ours = variance(x, mean).explained()
        assert ours == pytest.approx(0.0, abs=1e-12)

    def test_against_their_code(self):
        """Values are those of SAEBench's own lines, run by torch in float64 on the same two
        batches.

        Fails if the bias is pooled, or if an error is not divided by the number of its batch's
        tokens.
        """
        i, j = np.arange(40)[:, None], np.arange(5)[None, :]
        x = np.sin(1.7 * i + j) + 0.5 + 0.01 * i
        y = 0.8 * x + 0.1 * np.cos(3.1 * i * (j + 1))
        found = saebench([(x[:24], y[:24]), (x[24:], y[24:])])
        np.testing.assert_allclose(found, THEIRS, rtol=1e-9)
        with pytest.raises(ae.UserError, match="no tokens"):
            saebench([])
