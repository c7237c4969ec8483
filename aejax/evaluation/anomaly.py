"""Measures of anomaly detection on pictures, in the conventions of anomalib.

    image_measures(scores, anomalous)["auroc"]     # Interval(value, low, high)
    pixel_measures(maps, masks)["aupro_0.3"]
    limit = threshold(scores_of_held_out_good, false_alarms=0.01)
    on_the_line(scores, anomalous, limit)          # false alarms and misses in a thousand parts

A higher score means that a picture or pixel is more anomalous. Ties count half, as in scikit-learn.
The intervals are percentiles of a bootstrap over pictures, in which good and anomalous pictures are
drawn separately, so that every draw contains both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from aejax.errors import UserError

LIMITS = (0.3, 0.05)  # the false positive rates up to which AUPRO is integrated
COVERAGE = 0.95  # the share of the bootstrap's values that an interval contains


class Interval(NamedTuple):
    """A measured value and its confidence interval; without a bootstrap both ends are the value."""

    value: float
    low: float
    high: float


class Line(NamedTuple):
    """How many parts a threshold would judge wrongly in production."""

    threshold: float
    false_alarms: float  # good parts that are called anomalous, in a thousand good parts
    false_alarms_error: float  # the standard error of that number
    misses: float  # anomalous parts that are called good, in a thousand anomalous parts
    misses_error: float  # the standard error of that number


class Ranked(NamedTuple):
    """N items in the order of their scores, the highest first; there are n different scores."""

    order: np.ndarray  # i[N], the indices of the items
    positive: np.ndarray  # f64[N], the weight of an item among positives; 0 for negatives
    negative: np.ndarray  # f64[N], the weight of an item among negatives; 0 for positives
    last: np.ndarray  # i[n], the place of the last item of each run of equal scores


def auroc(scores: np.ndarray, anomalous: np.ndarray) -> float:
    """Returns the area under the ROC curve: how probably an anomalous item scores higher.

    Args:
      scores: f[N].
      anomalous: bool[N].

    Raises:
      UserError: if a score is not finite, or not both kinds of items are there.
    """
    return _area(_ranked(scores, anomalous))


def aupr(scores: np.ndarray, anomalous: np.ndarray) -> float:
    """Returns the area under the precision-recall curve, by trapezoids as in anomalib.

    Scikit-learn's `average_precision_score` sums rectangles instead, which gives a slightly
    different number. Arguments and errors are those of `auroc`.
    """
    return _precision_area(_ranked(scores, anomalous))


def f1max(scores: np.ndarray, anomalous: np.ndarray) -> float:
    """Returns the largest F1 score over all thresholds, which therefore are chosen on the data.

    Arguments and errors are those of `auroc`.
    """
    return _best_f1(_ranked(scores, anomalous))


def pixel_auroc(maps: Sequence[np.ndarray], masks: Sequence[np.ndarray]) -> float:
    """Returns the AUROC of the pixels of all pictures together.

    Args:
      maps: N anomaly maps f[H, W], whose sizes may differ.
      masks: N arrays bool[H, W], true at anomalous pixels.

    Raises:
      UserError: if a mask has another size than its map, a score is not finite, or not both kinds
        of pixels are there.
    """
    return _area(_ranked_pixels(maps, masks)[0])


def aupro(
    maps: Sequence[np.ndarray], masks: Sequence[np.ndarray], limit: float = LIMITS[0]
) -> float:
    """Returns the area under the curve of per-region overlap against false positive rate.

    A region is an 8-connected component of a mask. Its overlap is the share of its pixels above the
    threshold, and the overlaps of all regions are averaged. The curve is integrated up to the false
    positive rate `limit`, with linear interpolation there, and the area is divided by `limit`
    (Bergmann et al. 2021, section 5.2).

    Arguments and errors are those of `pixel_auroc`.
    """
    _check_share("limit", limit)
    return _area(_ranked_pixels(maps, masks)[1], limit=limit)


def image_measures(
    scores: np.ndarray, anomalous: np.ndarray, draws: int = 1_000, seed: int = 0
) -> dict[str, Interval]:
    """Returns AUROC, AUPR and F1max of pictures with confidence intervals.

    Args:
      scores: f[N], the score of each picture.
      anomalous: bool[N].
      draws: the number of bootstrap draws; 0: no intervals.
      seed: the seed of the bootstrap.

    Raises:
      UserError: in the cases that `auroc` names.
    """
    ranked = _ranked(scores, anomalous)
    measures = {"auroc": _area, "aupr": _precision_area, "f1max": _best_f1}

    def measure(weight: np.ndarray | None) -> dict[str, float]:
        return {name: function(ranked, weight) for name, function in measures.items()}

    return _bootstrapped(measure, np.asarray(anomalous, bool), draws, seed)


def pixel_measures(
    maps: Sequence[np.ndarray],
    masks: Sequence[np.ndarray],
    limits: Sequence[float] = LIMITS,
    draws: int = 100,
    seed: int = 0,
) -> dict[str, Interval]:
    """Returns pixel AUROC and AUPRO with confidence intervals; pictures are drawn, not pixels.

    Args:
      maps: N anomaly maps f[H, W], whose sizes may differ.
      masks: N arrays bool[H, W], true at anomalous pixels.
      limits: the false positive rates up to which AUPRO is integrated.
      draws: the number of bootstrap draws; 0: no intervals.
      seed: the seed of the bootstrap.

    Raises:
      UserError: in the cases that `pixel_auroc` names.
    """
    for limit in limits:
        _check_share("limit", limit)
    pixels, regions = _ranked_pixels(maps, masks)
    picture = np.repeat(np.arange(len(masks)), [np.size(mask) for mask in masks])

    def measure(weight: np.ndarray | None) -> dict[str, float]:
        each = None if weight is None else weight[picture]
        found = {"pixel_auroc": _area(pixels, each)}
        return found | {f"aupro_{limit:g}": _area(regions, each, limit) for limit in limits}

    marked = np.array([bool(np.any(mask)) for mask in masks])
    return _bootstrapped(measure, marked, draws, seed)


def threshold(good: np.ndarray, false_alarms: float = 0.01) -> float:
    """Returns a threshold that a new good part's score exceeds with at most a given probability.

    It is the score of rank ceil((N + 1) (1 - share)) among held-out good parts. The promise holds
    for parts that were drawn like these, on average over draws (Vovk et al. 2005, proposition 4.1),
    and no anomalous part is needed.

    Args:
      good: f[N], the scores of good parts on which the detector was not fitted.
      false_alarms: the share of good parts that may be called anomalous.

    Raises:
      UserError: if there are too few parts for this share, or a score is not finite.
    """
    _check_share("false_alarms", false_alarms)
    good = np.sort(_finite(good))
    rank = math.ceil((len(good) + 1) * (1 - false_alarms) - 1e-9)
    if rank > len(good):
        raise UserError(
            f"{len(good)} held-out good pictures do not determine a threshold for a share of "
            f"{false_alarms:g} false alarms: hold out at least {math.ceil(1 / false_alarms) - 1}, "
            "or allow a larger share"
        )
    return float(good[rank - 1])


def on_the_line(scores: np.ndarray, anomalous: np.ndarray, limit: float) -> Line:
    """Returns how many parts a threshold would judge wrongly, in a thousand of each kind.

    The standard errors count one further part that is judged wrongly and one that is not, so that
    they are not 0 where all parts were judged rightly (Laplace's rule of succession).

    Args:
      scores: f[N], the scores of test parts; a part is called anomalous if its score exceeds
        `limit`.
      anomalous: bool[N], which parts are anomalous; NaN results if there are none of a kind.
      limit: the threshold.
    """
    scores, anomalous = np.asarray(scores), np.asarray(anomalous, bool)
    found = []
    for wrong in (scores[~anomalous] > limit, scores[anomalous] <= limit):
        share = float(wrong.mean()) if len(wrong) else math.nan
        near = (wrong.sum() + 1) / (len(wrong) + 2)
        error = math.sqrt(near * (1 - near) / (len(wrong) + 2)) if len(wrong) else math.nan
        found += [1_000 * share, 1_000 * error]
    return Line(float(limit), *found)


def nearest_to(scores: np.ndarray, limit: float, count: int) -> np.ndarray:
    """Returns the indices of the items whose scores are closest to a threshold, i64[count]."""
    return np.argsort(np.abs(np.asarray(scores) - limit), kind="stable")[:count]


def _ranked(scores: np.ndarray, anomalous: np.ndarray, weight: np.ndarray | None = None) -> Ranked:
    """Sorts items by score; `weight` f[N] is the weight of an item if it is positive (None: 1)."""
    scores, anomalous = _finite(scores), np.asarray(anomalous, bool).reshape(-1)
    if scores.shape != anomalous.shape:
        raise UserError(
            f"there are {len(scores)} scores and {len(anomalous)} labels: give one of each for "
            "every item"
        )
    if anomalous.all() or not anomalous.any():
        kind = "anomalous" if anomalous.all() else "good"
        raise UserError(f"all items are {kind}: a measure of detection needs items of both kinds")
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    last = np.append(np.flatnonzero(ranked[1:] != ranked[:-1]), len(ranked) - 1)
    sign = anomalous[order]
    positive = sign.astype(np.float64) if weight is None else np.where(sign, weight[order], 0.0)
    return Ranked(order, positive, (~sign).astype(np.float64), last)


def _ranked_pixels(
    maps: Sequence[np.ndarray], masks: Sequence[np.ndarray]
) -> tuple[Ranked, Ranked]:
    """Sorts the pixels of all pictures, once with equal weights and once with those of AUPRO.

    The mean overlap of the regions is a true positive rate in which every pixel has the weight
    1 / size of its region; so AUPRO needs no loop over thresholds.
    """
    from scipy import ndimage

    if len(maps) != len(masks):
        raise UserError(f"there are {len(maps)} maps and {len(masks)} masks: give one for each")
    weights = []
    for i, (values, mask) in enumerate(zip(maps, masks, strict=True)):
        if np.shape(values) != np.shape(mask):
            raise UserError(
                f"mask {i} has shape {np.shape(mask)} and its map {np.shape(values)}: resize one "
                "of them"
            )
        regions = np.zeros(np.shape(mask), np.int32)
        ndimage.label(np.asarray(mask, bool), structure=np.ones((3, 3)), output=regions)
        sizes = np.bincount(regions.reshape(-1))
        weights.append((1.0 / np.maximum(sizes, 1))[regions].reshape(-1))
    scores = np.concatenate([np.reshape(values, -1) for values in maps])
    marked = np.concatenate([np.reshape(mask, -1) for mask in masks]).astype(bool)
    pixels = _ranked(scores, marked)
    by_region = np.concatenate(weights)[pixels.order]
    return pixels, pixels._replace(positive=np.where(pixels.positive > 0, by_region, 0.0))


def _curve(ranked: Ranked, weight: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Returns the total weight of positives and of negatives above each threshold, f64[n + 1]."""
    each = 1.0 if weight is None else weight[ranked.order]
    above = [np.cumsum(part * each)[ranked.last] for part in (ranked.positive, ranked.negative)]
    return np.append(0.0, above[0]), np.append(0.0, above[1])


def _area(ranked: Ranked, weight: np.ndarray | None = None, limit: float = 1.0) -> float:
    """Integrates the true positive rate over false positive rates up to `limit`, by trapezoids."""
    true, false = _curve(ranked, weight)
    true, false = true / true[-1], false / false[-1]
    if limit < 1.0:
        within = int(np.searchsorted(false, limit, side="right"))
        true = np.append(true[:within], np.interp(limit, false, true))
        false = np.append(false[:within], limit)
    return float(np.trapezoid(true, false) / limit)


def _precision_recall(ranked: Ranked, weight: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    true, false = _curve(ranked, weight)
    there = true + false > 0
    true, false = true[there], false[there]
    return true / (true + false), true / true[-1]


def _precision_area(ranked: Ranked, weight: np.ndarray | None = None) -> float:
    precision, recall = _precision_recall(ranked, weight)
    return float(np.trapezoid(np.append(1.0, precision), np.append(0.0, recall)))


def _best_f1(ranked: Ranked, weight: np.ndarray | None = None) -> float:
    precision, recall = _precision_recall(ranked, weight)
    there = recall > 0
    return float(np.max(2.0 / (1.0 / precision[there] + 1.0 / recall[there])))


def _bootstrapped(
    measure: Callable[[np.ndarray | None], Mapping[str, float]],
    anomalous: np.ndarray,
    draws: int,
    seed: int,
) -> dict[str, Interval]:
    """Returns a measure's results on all pictures, with intervals over bootstrap draws of them."""
    values = measure(None)
    if not draws:
        return {name: Interval(value, value, value) for name, value in values.items()}
    random = np.random.default_rng(seed)
    groups = [np.flatnonzero(anomalous == kind) for kind in (False, True)]
    found = []
    for _ in range(draws):
        chosen = np.concatenate(
            [random.choice(group, len(group)) for group in groups if len(group)]
        )
        found.append(measure(np.bincount(chosen, minlength=len(anomalous)).astype(np.float64)))
    ends = (0.5 - COVERAGE / 2, 0.5 + COVERAGE / 2)
    return {
        name: Interval(value, *np.quantile([row[name] for row in found], ends).tolist())
        for name, value in values.items()
    }


def _finite(scores: np.ndarray) -> np.ndarray:
    scores = np.asarray(scores, np.float64).reshape(-1)
    if not len(scores):
        raise UserError("there are no scores: give those of one or more items")
    if not np.isfinite(scores).all():
        place = int(np.argmin(np.isfinite(scores)))
        raise UserError(f"score {place} is {scores[place]}: a score must be a finite number")
    return scores


def _check_share(name: str, value: float) -> None:
    if not 0 < value < 1 and not (name == "limit" and value == 1):
        raise UserError(f"{name} is {value}: give a share above 0 and below 1")
