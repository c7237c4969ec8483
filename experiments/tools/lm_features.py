"""Writes pages of all latents of a finished lm-sae run, and scores what the latents stand for.

    python -m experiments lm-features runs/lm-sae
    python -m experiments lm-features runs/lm-sae/batchtopk --labels labels.json

It finds where each latent is active in the validation and test documents of the run, labels each
latent by the rule that fits best on the validation documents (a list of words, of preceding words,
parts of speech, topics, or places in the sentence), and scores the labels by their balanced
accuracy on the test documents, against tokens of the same frequency. An untrained dictionary and
the raw neurons pass through the same procedure. RUN/features/features.html opens from the file;
features.json holds the same, and labels.json the rules and scores.
"""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from aejax.errors import UserError
from aejax.evaluation.firings import Firings, firings
from aejax.evaluation.logistic import balanced_accuracy
from aejax.evaluation.profiles import profiles
from aejax.evaluation.rules import Rule, Tokens, detection, fitted, frequencies, matched, spoken
from aejax.files import write_json
from aejax.language.promoted import promoted
from aejax.report.features import Effects, Label, feature_record, read_labels, write_features
from experiments.shared import inside
from experiments.shared.finished_lm import open_dictionary
from experiments.shared.lm import Labelled, rows_of
from experiments.shared.place import Place, say

BEST = 20  # latents whose rules fit best
RANDOM = 100  # latents drawn at random
GOOD = 0.8  # the balanced accuracy that a good label reaches
FEWEST = 200  # test tokens of a part of speech for which the pages can be sorted by its probe


def command(
    run: pathlib.Path,
    out: pathlib.Path | None = None,
    labels: pathlib.Path | None = None,
    member: int = 0,
    model: pathlib.Path | None = None,
    data_dir: str | None = None,
    manual_dir: str | None = None,
    own: bool = False,
) -> None:
    """Labels and scores the latents of a dictionary, and writes features.html and its data.

    Args:
      run: the folder of a finished run of lm-sae, or of one of its dictionaries.
      out: the folder of the pages; RUN/features by default.
      labels: a JSON file of labels that another program wrote, which replace the rules:
        {"17": {"label": "colours", "words": [" red", " blue"]}}.
      member: the index of the dictionary if the run trained several seeds.
      model: the language model, if it is no longer where the run found it.
      data_dir: the folder of prepared data sets; that of tensorflow-datasets by default.
      manual_dir: the folder with the raw files of the corpora.
      own: trusts the run: follows the paths in its config.json.
    """
    opened = open_dictionary(run, model, member, own)
    plain, hook = opened.dictionary, opened.reads
    given = {} if labels is None else read_labels(labels, plain.latents)
    place = Place(data_dir=data_dir, manual_dir=manual_dir, prepared_only=not own)
    splits = opened.experiment.data(opened.config, place)
    fit, test = rows_of(splits[1]), rows_of(splits[2])
    columns = [attributes(part) for part in (fit, test)]
    reading = inside.of_dictionary(plain, hook)
    active = [firings(_codes(reading, part, hook)) for part in (fit, test)]
    rules = fitted(active[0], columns[0])
    scores = detection(rules, active[1], columns[1])
    result: dict[str, Any] = {"trained": summary(rules, scores)}
    jobs = opened.experiment.build(opened.config, splits[0].event)
    fresh = inside.untrained(jobs.get(run.name, next(iter(jobs.values()))), splits[0], member)
    density = float(active[0].frequency.mean())
    others = {
        "untrained": inside.of_dictionary(fresh, hook),
        "raw neurons": sparse_neurons(fit, hook, density),
    }
    for name, other in others.items():
        fired = [firings(_codes(other, part, hook)) for part in (fit, test)]
        found = fitted(fired[0], columns[0])
        result[name] = summary(found, detection(found, fired[1], columns[1]))
    for name, row in result.items():
        _say(name, row)
        if name != "trained":
            row["trained_above"] = above(result["trained"]["random_scores"], row["random_scores"])
            say(f"a random trained latent scores above one of these in {row['trained_above']:.1%}")
    names = {
        "word": [_shown(opened.tokenizer.token(t)) for t in range(opened.tokenizer.size)],
        "speech": fit.tags,
        "topic": fit.topics,
    }
    names["after"] = names["word"]
    shown = [
        None if rule is None else Label(spoken(rule, names), "a rule", _score(score))
        for rule, score in zip(rules, scores, strict=True)
    ]
    for latent, entry in given.items():
        tokens = [opened.tokenizer.encode(word) for word in entry.get("words", [])]
        score = stated(active[1], latent, columns[1], tokens)
        shown[latent] = Label(entry["label"], f"read from {labels.name}", score)  # type: ignore
    rows = np.asarray(plain.W_dec)
    effects = None
    if not opened.writes.startswith("mlp_in"):  # all other hooks hold what the stream is made of
        effects = Effects(*promoted(opened.model, opened.variables, rows))
    record = feature_record(
        f"Latents of {run.name} at {hook}",
        f"{plain.latents:,} latents on {test.token.size:,} tokens of test documents; "
        f"{active[1].frequency.sum():.1f} are active for a token.",
        test.token,
        opened.tokenizer.token,
        active[1],
        profiles(active[1], test.place.reshape(-1), rows),
        effects,
        shown,
        speech_probes(active[1], test),
    )
    folder = run / "features" if out is None else out
    path = write_features(folder, record)
    kept = [None if rule is None else rule._asdict() for rule in rules]
    write_json(folder / "labels.json", {"summary": result, "rules": kept, "scores": scores})
    say(f"pages: {path} ({path.stat().st_size / 2**20:.1f} MiB)")


def attributes(part: Labelled) -> Tokens:
    """Returns the attributes of all tokens from which rules are made, such as word and topic."""
    before = np.roll(part.token, 1, axis=1)
    same = np.roll(part.document, 1, axis=1) == part.document
    same[:, 0] = False
    after = np.where(same, before, -1)
    return Tokens(*(a.reshape(-1) for a in (part.token, after, part.tag, part.topic, part.place)))


def _codes(reading: inside.Reading, part: Labelled, hook: str) -> Any:
    """Yields the codes of consecutive tokens, with zeros at attention sinks."""
    x, kept = part.values(hook), part.kept.reshape(-1)
    x = x.reshape(-1, x.shape[-1])
    for start in range(0, len(x), inside.CHUNK):
        some = slice(start, start + inside.CHUNK)
        yield reading.encode(x[some]) * kept[some][:, None]


def sparse_neurons(fit: Labelled, hook: str, density: float) -> inside.Reading:
    """Returns a `Reading` of raw neurons, each set to zero except where it is largest.

    A neuron is then active for a share `density` of the tokens, as latents are on average.
    """
    limit = np.quantile(fit.values(hook)[fit.kept], 1.0 - density, axis=0)
    return inside.Reading(lambda x: np.maximum(x - limit[None], 0.0), None, None)


def summary(rules: Sequence[Rule | None], scores: np.ndarray) -> dict[str, Any]:
    """Summarises the test scores of the rules of all units, of the best and of random units.

    The best units are those whose rules fit best on the validation documents, not on the test
    documents. A unit without a rule has the score 0.5.
    """
    filled = np.where(np.isnan(scores), 0.5, scores)
    fit = np.array([-1.0 if rule is None else rule.fit for rule in rules])
    best = np.argsort(-fit, kind="stable")[:BEST]
    count = min(RANDOM, len(filled))
    drawn = filled[np.random.default_rng(0).permutation(len(filled))[:count]]
    return {
        "best": best,
        "best_scores": filled[best],
        "best_that_reach": int(np.sum(filled[best] >= GOOD)),
        "random_scores": np.sort(drawn),
        "random_quartiles": np.quantile(drawn, [0.25, 0.5, 0.75]),
        "all_that_reach": int(np.sum(filled >= GOOD)),
        "judged": int(np.sum(~np.isnan(scores))),
        "units": len(filled),
    }


def above(first: np.ndarray, second: np.ndarray) -> float:
    """Returns the share of pairs in which a score of `first` exceeds one of `second`; ties: 1/2."""
    apart = np.sign(np.asarray(first)[:, None] - np.asarray(second)[None])
    return float(0.5 + 0.5 * apart.mean())


def _say(name: str, row: dict[str, Any]) -> None:
    low, middle, high = row["random_quartiles"]
    say(
        f"{name:<12} {row['best_that_reach']} of the {len(row['best'])} best reach {GOOD}; "
        f"random units {middle:.3f} ({low:.3f} to {high:.3f}); {row['all_that_reach']} of "
        f"{row['units']} reach it, {row['judged']} judged"
    )


def stated(
    active: Firings, latent: int, tokens: Tokens, words: Sequence[Sequence[int]]
) -> float | None:
    """Scores a user's label of a latent, a list of words of one token each.

    Returns:
      The balanced accuracy with which the words distinguish tokens at which the latent is active
      from others; None if there are no words, or no such tokens.
    """
    if not words:
        return None
    several = [ids for ids in words if len(ids) != 1]
    if several:
        raise UserError(
            f"a word of latent {latent} is {len(several[0])} tokens: give texts of one token"
        )
    rule = Rule("word", tuple(ids[0] for ids in words), 0.0)
    positive, negative = matched(active, latent, frequencies(tokens.word), seed=1)
    if not len(positive) or not len(negative):
        return None
    there = rule.holds(tokens)
    truth = np.append(np.ones(len(positive), bool), np.zeros(len(negative), bool))
    return balanced_accuracy(np.append(there[positive], there[negative]), truth)


def speech_probes(active: Firings, test: Labelled) -> dict[str, np.ndarray]:
    """Computes how well each latent's activity detects each part of speech.

    Only the last tokens of words count, and only parts of speech with at least FEWEST such tokens.

    Returns:
      part of speech -> the balanced accuracy of each latent, f64[m].
    """
    if not test.tags:
        return {}
    tag = np.where(test.kept, test.tag, -1).reshape(-1)
    total = np.bincount(tag[tag >= 0], minlength=len(test.tags))
    latent = np.repeat(np.arange(active.latents), np.diff(active.start))
    own = tag[active.token]
    cells = latent[own >= 0] * len(total) + own[own >= 0]
    fired = np.bincount(cells, minlength=active.latents * len(total)).reshape(-1, len(total))
    all_ = fired.sum(axis=1)
    found = {}
    for i in np.flatnonzero(total >= FEWEST):
        inside_ = fired[:, i] / total[i]
        outside = (all_ - fired[:, i]) / max(total.sum() - total[i], 1)
        found[test.tags[i]] = 0.5 * (inside_ + 1.0 - outside)
    return found


def _score(score: float) -> float | None:
    return None if np.isnan(score) else round(float(score), 4)


def _shown(text: str) -> str:
    """Returns a token's text as a label names it, without its leading space."""
    stripped = text.removeprefix(" ")
    return stripped if stripped.strip() else repr(text)
