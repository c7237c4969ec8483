"""Tests of disentanglement metrics, on codes whose scores are known and against scikit-learn."""

import itertools

import numpy as np
import pytest

import aejax as ae
from aejax.evaluation import disentanglement as metrics

SIZES = (3, 4, 5)
GRID = np.array(list(itertools.product(*(range(n) for n in SIZES))))
FACTORS = np.tile(GRID, (50, 1))  # i[3000, 3], every combination of values equally often
# The factors in another order and on other scales, beside a latent without information.
PERFECT = np.concatenate([-2.0 * FACTORS[:, [2]], 1 + FACTORS[:, :2], np.zeros((3000, 1))], axis=1)
NOISE = np.random.default_rng(5).uniform(-1, 1, (3000, 4))
POINTS = {"train": 600, "test": 600}

# Twelve examples: z_0 determines factor 0, z_1 a part of factor 1, and z_2 parts of both.
SMALL = np.array([[0, 0, 0], [0, 1, 1], [0, 0, 1], [0, 1, 0], [1, 0, 2], [1, 1, 3], [1, 2, 3],
                  [1, 2, 2], [2, 3, 4], [2, 3, 5], [2, 2, 5], [2, 3, 4.0]])  # fmt: skip
SMALL_FACTORS = np.array([[0, 0], [0, 1], [0, 0], [0, 1], [1, 0], [1, 1], [1, 2], [1, 2], [2, 2],
                          [2, 0], [2, 1], [2, 2]])  # fmt: skip


class TestPerfectCodes:
    """Each latent encodes one factor, and each factor is in one latent."""

    def test_score_one(self):
        """Fails if the gap is not divided by the factor's entropy, or by one in another base."""
        assert metrics.mig_of_means(PERFECT, FACTORS) == pytest.approx(1.0, abs=1e-6)
        narrow = np.full(PERFECT.shape, -5.0)
        assert metrics.mig_of_samples(PERFECT, narrow, FACTORS, samples=3000) == pytest.approx(
            1.0, abs=1e-6
        )
        assert metrics.sap_of_regression(PERFECT, FACTORS) == pytest.approx(1.0, abs=1e-6)
        assert metrics.beta_vae_score(PERFECT, FACTORS, **POINTS) == 1.0
        assert metrics.factor_vae_score(PERFECT, FACTORS, **POINTS) == 1.0

    def test_modularity_is_one_where_no_latent_is_silent(self):
        """A latent without information counts as 0, as in disentanglement_lib: three of four."""
        assert metrics.modularity(PERFECT[:, :3], FACTORS) == pytest.approx(1.0, abs=1e-6)
        assert metrics.modularity(PERFECT, FACTORS) == pytest.approx(0.75, abs=1e-6)

    def test_dci_is_one(self):
        found = metrics.dci(PERFECT, FACTORS, train=200, test=200)
        assert found.informativeness == 1.0
        assert found.disentanglement == pytest.approx(1.0, abs=1e-3)
        assert found.completeness == pytest.approx(1.0, abs=1e-3)
        assert found.importance.shape == (4, 3)

    def test_twenty_values_are_told_apart_by_twenty_bins(self):
        """Fails if edges put two values into one bin."""
        factors = np.tile(np.array(list(itertools.product(range(20), range(2)))), (10, 1))
        assert metrics.mig_of_means(factors.astype(float), factors) == pytest.approx(1.0, abs=1e-6)
        many = np.tile(np.array(list(itertools.product(range(40), range(2)))), (10, 1))
        # With two values in a bin, log 2 nats are lost of factor 0's log 40.
        expected = 0.5 * (1 + (1 - np.log(2) / np.log(40)))
        assert metrics.mig_of_means(many.astype(float), many) == pytest.approx(expected, abs=1e-6)

    def test_binary_factors_by_threshold(self):
        """The second latent is right half the time: 1 - 1/2.

        Fails if chance is subtracted twice.
        """
        factors = np.tile(np.array(list(itertools.product(range(2), range(2)))), (100, 1))
        codes = 4.0 * factors - 2.0
        found = metrics.sap_of_threshold(codes, factors, train=200, test=200)
        assert found == pytest.approx(0.5, abs=0.1)


class TestIndependentCodes:
    """The scores of codes without information."""

    def test_gaps_are_about_zero(self):
        assert 0 <= metrics.mig_of_means(NOISE, FACTORS) < 0.02
        assert 0 <= metrics.sap_of_regression(NOISE, FACTORS) < 0.01
        assert 0 <= metrics.sap_of_threshold(NOISE, FACTORS, train=400, test=2000) < 0.05
        found = metrics.mig_of_samples(NOISE, np.zeros(NOISE.shape), FACTORS, samples=500)
        assert 0 <= found < 0.02

    def test_posteriors_that_do_not_look_tell_nothing(self):
        """The score is exactly 0.

        Fails if log q(z | v) is averaged over other examples than those with v.
        """
        alike = np.zeros((3000, 2))
        found = metrics.mig_of_samples(alike, alike, FACTORS, samples=300)
        assert found == pytest.approx(0.0, abs=1e-9)

    def test_dci_is_about_zero(self):
        found = metrics.dci(NOISE, FACTORS, train=300, test=1500)
        assert found.disentanglement < 0.05
        assert found.completeness < 0.05
        # The mean accuracy of guesses is the mean of 1/3, 1/4 and 1/5.
        assert found.informativeness == pytest.approx(np.mean(1 / np.array(SIZES)), abs=0.05)

    @pytest.mark.parametrize("metric", [metrics.beta_vae_score, metrics.factor_vae_score])
    def test_which_factor_is_still_is_a_guess_among_three(self, metric):
        """Within four standard errors of 2,000 guesses.

        Fails if points contain the fixed factor.
        """
        found = metric(NOISE, FACTORS, train=300, test=2000)
        assert found == pytest.approx(1 / 3, abs=4 * (2 / 9 / 2000) ** 0.5)

    def test_modularity_of_noise(self):
        """The score of noise is not 0, and is simulated here from its law.

        For independent codes 2 N I(z; v) is chi-square with (bins - 1)(values - 1) degrees of
        freedom.
        """
        generator = np.random.default_rng(0)
        degrees = 19 * (np.array(SIZES) - 1)
        squares = np.square(generator.chisquare(degrees, (20_000, 3)))
        best = squares.max(1)
        expected = np.mean(1 - (squares.sum(1) - best) / (2 * best))
        assert 0.4 < expected < 0.7
        codes = generator.uniform(-1, 1, (3000, 60))
        assert metrics.modularity(codes, FACTORS) == pytest.approx(expected, abs=0.05)


@pytest.mark.parametrize("bins", [20, 5])
def test_mig_and_modularity_against_scikit_learn(bins):
    """They are computed as in disentanglement_lib.

    Fails if the mean is over latents, if squares are left out, or if a value on the edge of two of
    five bins falls into the lower one.
    """
    from sklearn.metrics import mutual_info_score

    def binned(column):
        return np.digitize(column, np.histogram(column, bins)[1][:-1])

    matrix = np.array([[mutual_info_score(f, binned(z)) for f in SMALL_FACTORS.T] for z in SMALL.T])
    entropy = np.array([mutual_info_score(f, f) for f in SMALL_FACTORS.T])
    ordered = np.sort(matrix, axis=0)[::-1]
    mig = np.mean((ordered[0] - ordered[1]) / entropy)
    assert metrics.mig_of_means(SMALL, SMALL_FACTORS, bins=bins) == pytest.approx(mig, abs=1e-9)
    squares = matrix**2
    best = squares.max(1)
    modularity = np.mean(1 - (squares.sum(1) - best) / best)
    found = metrics.modularity(SMALL, SMALL_FACTORS, bins=bins)
    assert found == pytest.approx(modularity, abs=1e-9)
    assert 0.05 < mig < 0.9
    assert 0.05 < modularity < 0.95


def test_the_two_migs_are_two_metrics():
    """Wide posteriors lower the MIG of samples, but not that of means."""
    wide = np.full(PERFECT.shape, 0.0)
    low = metrics.mig_of_samples(PERFECT, wide, FACTORS, samples=500)
    assert low < 0.7 < metrics.mig_of_means(PERFECT, FACTORS)


def test_chens_mig_against_loops():
    """The draws are the same, and loops run over examples.

    Fails if q(z | v) is taken over other examples than those with the value, or if a deviation is
    left out; its weight cancels in the gap.
    """
    generator = np.random.default_rng(3)
    mean, log_std = generator.normal(size=(12, 3)) + SMALL, generator.normal(size=(12, 3)) * 0.2
    found = metrics.mig_of_samples(mean, log_std, SMALL_FACTORS, seed=4)
    again = np.random.default_rng(4)
    rows = again.permutation(12)
    z = mean[rows] + np.exp(log_std[rows]) * again.normal(size=(12, 3))

    def density(value, n, j):
        std = np.exp(log_std[n, j])
        return np.exp(-0.5 * ((value - mean[n, j]) / std) ** 2) / std

    gaps = []
    for k in range(2):
        information = []
        for j in range(3):
            total = 0.0
            for s, row in enumerate(rows):
                same = [n for n in range(12) if SMALL_FACTORS[n, k] == SMALL_FACTORS[row, k]]
                given = np.mean([density(z[s, j], n, j) for n in same])
                total += np.log(given / np.mean([density(z[s, j], n, j) for n in range(12)]))
            information.append(total / 12)
        share = np.bincount(SMALL_FACTORS[:, k]) / 12
        first, second = sorted(information)[::-1][:2]
        gaps.append((first - second) / -np.sum(share * np.log(share)))
    assert found == pytest.approx(np.mean(gaps), abs=1e-9)


def test_each_factor_s_gap_is_divided_by_its_own_entropy():
    """A binary factor that is encoded perfectly and one of twenty values that is not encoded: 1/2.

    Fails if the mean gap is divided by the mean entropy, which gives 0.188.
    """
    factors = np.tile(np.array(list(itertools.product(range(2), range(20)))), (10, 1))
    codes = np.stack([10.0 * factors[:, 0], np.zeros(len(factors))], axis=1)
    assert metrics.mig_of_means(codes, factors) == pytest.approx(0.5, abs=1e-9)
    found = metrics.mig_of_samples(codes, np.zeros(codes.shape), factors)
    assert found == pytest.approx(0.5, abs=1e-4)


class Fixed:
    """A classifier with given importances."""

    rows = iter(())

    def fit(self, x, y):
        self.feature_importances_ = next(Fixed.rows)

    def score(self, x, y):
        return 0.5


def test_dci_by_hand():
    """Importances are [[3/4, 0], [1/4, 1/2], [0, 1/2]] for 3 latents and 2 factors.

    Fails if disentanglement and completeness are swapped, or if rows have equal weights.
    """
    Fixed.rows = iter([np.array([0.75, 0.25, 0.0]), np.array([0.0, 0.5, 0.5])])
    found = metrics.dci(SMALL, SMALL_FACTORS, classifier=Fixed)

    def entropy(*shares):
        return -sum(p * np.log(p) for p in shares)

    latents = 0.75 * 1.0 + 0.75 * (1 - entropy(1 / 3, 2 / 3) / np.log(2)) + 0.5 * 1.0
    assert found.disentanglement == pytest.approx(latents / 2)
    factors = 2 - (entropy(0.75, 0.25) + entropy(0.5, 0.5)) / np.log(3)
    assert found.completeness == pytest.approx(factors / 2)
    assert found.informativeness == 0.5


def test_sap_by_regression_against_numpy():
    """Fails if r is not squared, or if the gap runs over the factors."""
    r = np.corrcoef(SMALL.T, SMALL_FACTORS.T)[:3, 3:] ** 2
    ordered = np.sort(r, axis=0)
    expected = np.mean(ordered[-1] - ordered[-2])
    assert metrics.sap_of_regression(SMALL, SMALL_FACTORS) == pytest.approx(expected)


def test_sap_by_threshold_judges_by_other_points_and_weighs_the_classes_evenly():
    """Mean gaps over seeds are those of held-out points.

    Fails if the training points are judged: eight are so few that a latent without information fits
    some of them. Fails also if a rare value has less weight.
    """

    def gap(factors, train):
        codes = 4.0 * factors - 2.0
        seeds = range(20)
        found = [
            metrics.sap_of_threshold(codes, factors, train=train, test=300, seed=seed)
            for seed in seeds
        ]
        return np.mean(found)

    rng = np.random.default_rng(0)
    even = rng.integers(0, 2, (1000, 2))
    assert gap(even, 8) == pytest.approx(0.5, abs=0.06)
    rare = np.stack([rng.random(1000) < 0.1, rng.random(1000) < 0.1], axis=1).astype(int)
    assert gap(rare, 300) > 0.3


def test_latents_that_hardly_vary_are_not_asked():
    """Fails if the latent that varies least wins every vote."""
    tiny = 1e-3 * np.random.default_rng(0).normal(size=(3000, 1))
    both = np.concatenate([PERFECT, tiny], axis=1)
    assert metrics.factor_vae_score(both, FACTORS, **POINTS) == 1.0
    assert metrics.factor_vae_score(tiny, FACTORS, **POINTS) == 0.0


def test_latents_are_pruned_by_their_deviation_and_compared_by_their_share():
    """Codes have noise.

    Fails if the variance is compared with `prune`, or if the latent of the smallest scale wins
    every vote.
    """
    rng = np.random.default_rng(0)
    codes = FACTORS / FACTORS.std(axis=0) + 0.3 * rng.normal(size=FACTORS.shape)
    assert metrics.factor_vae_score(0.1 * codes, FACTORS, **POINTS) > 0.99
    assert metrics.factor_vae_score(codes * [1, 10, 100], FACTORS, **POINTS) > 0.99


def test_votes_are_judged_by_other_points():
    """Codes are noise.

    Fails if the judged points vote themselves: most of so few agree by chance.
    """
    found = [
        metrics.factor_vae_score(NOISE, FACTORS, train=100, test=6, batch=8, seed=seed)
        for seed in range(60)
    ]
    assert np.mean(found) == pytest.approx(1 / 3, abs=0.1)


@pytest.mark.parametrize(
    ("codes", "factors", "said"),
    [
        (PERFECT[:5], FACTORS, "for the same N examples"),
        (PERFECT * np.nan, FACTORS, "NaN or infinite"),
        (PERFECT, FACTORS * [1, 0, 1], "factor 1 has only one value"),
        (PERFECT, FACTORS[:, :1], "only one factor"),
    ],
)
def test_refusals(codes, factors, said):
    with pytest.raises(ae.UserError, match=said):
        metrics.mig_of_means(codes, factors)


@pytest.mark.parametrize(
    ("metric", "options", "said"),
    [
        (metrics.factor_vae_score, {"test": 0}, "test is 0"),
        (metrics.beta_vae_score, {"batch": 0}, "batch is 0"),
        (metrics.beta_vae_score, {"train": 1}, "train is 1"),
        (metrics.dci, {"test": 0}, "test is 0"),
        (metrics.sap_of_threshold, {"train": -1}, "train is -1"),
    ],
)
def test_numbers_of_points_that_cannot_be_are_refused(metric, options, said):
    """Fails if the score is NaN, or if scikit-learn raises the error."""
    with pytest.raises(ae.UserError, match=said):
        metric(PERFECT, FACTORS, **options)


def test_posteriors_that_are_not_finite_and_no_samples_are_refused():
    """Fails if the gap is NaN."""
    with pytest.raises(ae.UserError, match="log_std are not finite"):
        metrics.mig_of_samples(PERFECT, PERFECT * np.nan, FACTORS)
    with pytest.raises(ae.UserError, match="samples is 0"):
        metrics.mig_of_samples(PERFECT, PERFECT, FACTORS, samples=0)
