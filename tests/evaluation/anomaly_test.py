"""Tests of the measures of anomaly detection, against scikit-learn and loops over thresholds."""

import numpy as np
import pytest
from scipy import ndimage
from sklearn import metrics

from aejax.errors import UserError
from aejax.evaluation import anomaly


@pytest.fixture(scope="module")
def items():
    """Scores with many ties, and labels, of 300 items."""
    random = np.random.default_rng(0)
    anomalous = random.random(300) < 0.2
    return np.round(random.normal(size=300) + anomalous, 1), anomalous


@pytest.fixture(scope="module")
def pictures():
    """Maps with ties and masks, two of whose regions touch at a corner; one mask is empty."""
    random = np.random.default_rng(1)
    masks = np.zeros((4, 12, 9), bool)
    masks[0, 2:5, 2:4] = masks[0, 5:7, 4:6] = masks[1, 0, :] = masks[2, 8:, 3:5] = True
    masks[2, 0:2, 0:2] = True
    return np.round(random.normal(size=masks.shape) + masks, 1), masks


def test_image_measures_are_those_of_scikit_learn(items):
    """Fails if ties are broken by order, or if AUPR sums rectangles."""
    scores, anomalous = items
    found = {name: cell.value for name, cell in anomaly.image_measures(*items, draws=0).items()}
    precision, recall, _ = metrics.precision_recall_curve(anomalous, scores)
    f1 = [metrics.f1_score(anomalous, scores >= t) for t in np.unique(scores)]
    expected = {
        "auroc": metrics.roc_auc_score(anomalous, scores),
        "aupr": metrics.auc(recall, precision),
        "f1max": max(f1),
    }
    assert found == pytest.approx(expected, abs=1e-6)
    single = (anomaly.auroc(*items), anomaly.aupr(*items), anomaly.f1max(*items))
    assert single == tuple(found.values())


def overlap(maps, masks, limit):
    """AUPRO by its definition, with a loop over thresholds and regions."""
    found = [(0.0, 0.0)]
    for t in np.unique(maps)[::-1]:
        above, shares = maps >= t, []
        for marked, mask in zip(above, masks, strict=True):
            regions, count = ndimage.label(mask, structure=np.ones((3, 3)))
            shares += [marked[regions == i + 1].mean() for i in range(count)]
        found.append((above[~masks].mean(), np.mean(shares)))
    rate, pro = np.array(found).T
    area = 0.0
    for i in range(len(rate) - 1):  # trapezoids between neighbouring thresholds, cut at the limit
        right = min(rate[i + 1], limit)
        if rate[i] < right:
            share = (right - rate[i]) / (rate[i + 1] - rate[i])
            end = pro[i] + share * (pro[i + 1] - pro[i])
            area += (right - rate[i]) * (pro[i] + end) / 2
    return area / limit


@pytest.mark.parametrize("limit", [1.0, 0.3, 0.05])
def test_aupro_is_the_mean_overlap_of_regions(pictures, limit):
    """Fails if all pixels weigh the same, if regions are 4-connected, or without interpolation."""
    assert anomaly.aupro(*pictures, limit) == pytest.approx(overlap(*pictures, limit), abs=1e-9)


def test_measures_are_those_of_anomalib():
    """Fails if a region is one of another connectivity; the figures are anomalib 2.7's."""
    random = np.random.default_rng(7)
    masks = np.zeros((6, 32, 32), bool)
    for mask, (top, left, height, width) in zip(
        masks[1:], random.integers(2, 12, (5, 4)), strict=True
    ):
        mask[top : top + height, left : left + width] = True
        mask[24 : 24 + height % 7, 20:25] = True
    maps = (random.normal(size=masks.shape) + 1.5 * masks).astype(np.float32)
    found = anomaly.pixel_measures(list(maps), list(masks), draws=0)
    assert found["aupro_0.3"].value == pytest.approx(0.667053, abs=1e-5)
    assert found["aupro_0.05"].value == pytest.approx(0.332100, abs=1e-5)
    assert found["pixel_auroc"].value == pytest.approx(0.867400, abs=1e-5)
    image = anomaly.image_measures(maps.reshape(-1), masks.reshape(-1), draws=0)
    assert image["f1max"].value == pytest.approx(0.405507, abs=1e-5)
    # anomalib joins the points of the curve by lines; the average precision is a sum of steps.
    assert image["aupr"].value == pytest.approx(0.383150, abs=2e-3)


def test_pixels_of_all_pictures_are_pooled(pictures):
    """Fails if the AUROC is averaged over pictures."""
    maps, masks = pictures
    expected = metrics.roc_auc_score(masks.reshape(-1), maps.reshape(-1))
    assert anomaly.pixel_auroc(maps, masks) == pytest.approx(expected, abs=1e-9)


def test_bootstrap_is_that_of_repeated_pictures(items, pictures):
    """Fails if a weight does not count as many copies, or if the draws are not stratified."""
    scores, anomalous = items
    copies = np.random.default_rng(2).integers(0, 3, len(scores))
    ranked = anomaly._ranked(scores, anomalous)
    again = np.repeat(scores, copies), np.repeat(anomalous, copies)
    for name in ("_area", "_precision_area", "_best_f1"):
        function = getattr(anomaly, name)
        repeated = function(anomaly._ranked(*again))
        assert function(ranked, copies.astype(float)) == pytest.approx(repeated, abs=1e-9), name
    found = anomaly.image_measures(*items, draws=200)
    assert all(cell.low < cell.value < cell.high for cell in found.values())
    few = anomaly.image_measures(np.arange(9.0), np.arange(9) == 8, draws=50)
    assert few["auroc"] == (1.0, 1.0, 1.0)  # one anomalous picture, which every draw holds
    pixels = anomaly.pixel_measures(*pictures, draws=50)
    assert list(pixels) == ["pixel_auroc", "aupro_0.3", "aupro_0.05"]
    assert all(cell.low <= cell.value <= cell.high for cell in pixels.values())


def test_interval_covers_the_true_value():
    """Fails if the interval is of another width; the AUROC of N(1, 1) against N(0, 1) is known."""
    random, inside = np.random.default_rng(3), 0
    true = 0.7602499389065233  # Phi(1 / sqrt 2)
    for i in range(80):
        scores = np.concatenate([random.normal(size=80), random.normal(size=60) + 1])
        found = anomaly.image_measures(scores, np.arange(140) >= 80, draws=100, seed=i)["auroc"]
        inside += found.low <= true <= found.high
    assert 0.86 <= inside / 80 <= 0.99


def test_threshold_keeps_its_promise():
    """Fails for a plain quantile, which is exceeded too often by new parts."""
    random, share = np.random.default_rng(4), []
    for _ in range(4_000):
        limit = anomaly.threshold(random.normal(size=39), false_alarms=0.05)
        share.append((random.normal(size=50) > limit).mean())
    assert np.mean(share) == pytest.approx(0.05, abs=0.002)
    found = anomaly.on_the_line(np.array([1, 2, 3, 4.0]), np.array([0, 0, 1, 1]), limit=3.0)
    assert found[:2] == (3.0, 0.0)
    assert found[2] == pytest.approx(1000 * np.sqrt(0.25 * 0.75 / 4))  # 1 of 4 in place of 0 of 2
    assert found[3:] == pytest.approx((500.0, 1000 * np.sqrt(0.25 / 4)))
    np.testing.assert_array_equal(anomaly.nearest_to(np.array([5.0, 1, 3]), 2.9, 2), [2, 1])


def test_refusals(items, pictures):
    scores, anomalous = items
    with pytest.raises(UserError, match="all items are good"):
        anomaly.auroc(scores, np.zeros_like(anomalous))
    with pytest.raises(UserError, match="score 0 is nan"):
        anomaly.f1max(np.full(3, np.nan), np.array([1, 0, 1]))
    with pytest.raises(UserError, match="hold out at least 99"):
        anomaly.threshold(scores[:20], 0.01)
    with pytest.raises(UserError, match=r"mask 0 has shape \(12, 8\)"):
        anomaly.aupro(pictures[0], [mask[:, :8] for mask in pictures[1]])
    with pytest.raises(UserError, match="there are 300 scores and 3 labels"):
        anomaly.aupr(scores, anomalous[:3])
    with pytest.raises(UserError, match="give a share above 0"):
        anomaly.aupro(*pictures, limit=0.0)
