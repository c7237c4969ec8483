"""Scores of dictionaries of a language model, and of what they are compared with.

What is scored is a `Reading`. It computes units, such as latents, from the activations at a hook (a
named place in the language model), and may reconstruct activations from the units. It is a trained
or an untrained dictionary, principal components, a linear map, or the neurons themselves (the
activations without a change).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import aejax as ae
from aejax import evaluation
from aejax import language as lm
from aejax.evaluation.absorption import absorption
from aejax.evaluation.probing import enough, probe
from aejax.evaluation.recovered import recovered
from aejax.evaluation.sparsity import merged, variance
from aejax.evaluation.uniqueness import shared_latents
from aejax.language.token_losses import TokenLosses, spliced, token_losses, unless
from experiments.shared.experiment import Members, Splits
from experiments.shared.lm import SINK, Labelled, LanguageNumbers, rows_of
from experiments.shared.place import say
from experiments.shared.spelling import Spelled, spelled

CHUNK = 4_096  # tokens that are encoded at a time
PROBED = 8_192  # words on which a probe of parts of speech is fitted, and as many that test it
FEWEST = 50  # parts of speech with fewer words in either of these two sets are left out
CONTEXT = 32  # the most tokens in a context, whose mean activation is one example of a topic
FEWEST_CONTEXTS = 20  # topics with fewer contexts in either of two such sets are left out
COUNTS = (1, 2, 5, 16)  # the numbers of units that sparse probes read
RANK = 32  # the number of principal components
COMPONENTS = 100_000  # train tokens from which the principal components are computed


class Hooks(NamedTuple):
    """The hook whose values are read, and the one whose values are reconstructed from them."""

    reads: str
    writes: str  # the same hook, except for a transcoder

    @property
    def same(self) -> bool:
        """Returns whether both are the same hook."""
        return self.reads == self.writes


@dataclasses.dataclass(frozen=True)
class Reading:
    """A function from activations to units, and perhaps one that reconstructs activations."""

    encode: Callable[[np.ndarray], np.ndarray]  # activations f32[n, D] -> units f32[n, M]
    # Activations f32[n, D] -> reconstruction f32[n, E]; None: the reading has none.
    rebuild: Callable[[np.ndarray], np.ndarray] | None
    rows: np.ndarray | None  # f[M, E], the decoder's rows; None: there are none
    # The function that replaces the values in the language model (aejax.language.token_losses).
    splice: Any = None


def of_dictionary(plain: ae.dictionary.Plain, hook: str) -> Reading:
    """Returns the `Reading` of a dictionary that encodes the values at a hook."""
    encode = jax.jit(lambda x: ae.dictionary.encode(plain, x))
    rebuild = jax.jit(lambda x: ae.dictionary.reconstruct(plain, x))
    return Reading(
        lambda x: np.asarray(encode(x)),
        lambda x: np.asarray(rebuild(x)),
        np.asarray(plain.W_dec),
        spliced(plain, hook),
    )


def of_components(x: np.ndarray, hook: str, rank: int = RANK) -> Reading:
    """Returns a `Reading` whose units are principal components of activations f32[N, D]."""
    found = evaluation.principal(x, rank)
    mean, directions = (jnp.asarray(a, jnp.float32) for a in (found.mean, found.directions))

    def splice(seen: Any) -> Any:
        rows = seen[hook] - mean[None, None]
        return (rows @ directions.T) @ directions + mean[None, None]

    return Reading(
        lambda x: evaluation.project(found, x).astype(np.float32),
        lambda x: evaluation.rebuild(found, evaluation.project(found, x)).astype(np.float32),
        found.directions,
        splice,
    )


NEURONS = Reading(lambda x: x, None, None)  # the raw neurons: the units are the activations


def untrained(job: Any, train: ae.data.Split, seed: int) -> ae.dictionary.Plain:
    """Returns a job's dictionary as it is before the first training step."""
    single = ae.learner(job.model, job.objective, job.tx, initialise=job.initialise)
    batch = next(train.take(CHUNK).batches(CHUNK))
    state = jax.jit(single.init)(jax.random.key(1_000 + seed), batch)
    return ae.fold(job.model, single.variables(state))


def of_map(x: np.ndarray, y: np.ndarray, hook: str) -> Reading:
    """Returns a `Reading` by the ridge regression of targets y f32[N, E] on inputs x f32[N, D]."""
    mean, other = x.mean(axis=0, dtype=np.float64), y.mean(axis=0, dtype=np.float64)
    centred = x - mean[None]
    square = centred.T @ centred
    ridge = 1e-4 * np.trace(square) / len(square) * np.eye(len(square))
    kernel = np.linalg.solve(square + ridge, centred.T @ (y - other[None])).astype(np.float32)
    offset = (other - mean @ kernel).astype(np.float32)

    def rebuild(x: Any) -> Any:
        return x @ kernel + offset

    def splice(seen: Any) -> Any:
        return seen[hook] @ jnp.asarray(kernel) + jnp.asarray(offset)[None, None]

    return Reading(rebuild, rebuild, None, splice)


def readings(trained: Members, train: ae.data.Split, hooks: Hooks) -> dict[str, list[Reading]]:
    """Returns the readings to compare: name of a row of the result -> a `Reading` for each seed.

    Principal components, the linear map and the neurons have one `Reading`, because they do not
    depend on a seed.
    """
    hook = hooks.reads
    found: dict[str, list[Reading]] = {}
    for name, done in trained.items():
        members = evaluation.each(done.variables, done.seeds)
        found[name] = [of_dictionary(ae.fold(done.job.model, v), hook) for v in members]
    name, done = next(iter(trained.items()))
    found[f"{name}, untrained"] = [
        of_dictionary(untrained(done.job, train, seed), hook) for seed in range(done.seeds)
    ]
    batches = list(train.take(COMPONENTS).batches(CHUNK))
    x, y = (np.concatenate([np.asarray(getattr(b, k)) for b in batches]) for k in ("x", "target"))
    if hooks.same:
        rank = min(RANK, *x.shape)
        found[f"{rank} principal components"] = [of_components(x, hook, rank)]
    else:
        found["linear map"] = [of_map(x, y, hook)]
    found["raw neurons"] = [NEURONS]
    return found


def judged(
    config: LanguageNumbers, found: Mapping[str, Sequence[Reading]], splits: Splits, hooks: Hooks
) -> dict[str, dict[str, np.ndarray]]:
    """Computes the scores of all readings.

    Args:
      config: the experiment's settings.
      found: name of a row of the result -> a `Reading` for each seed.
      splits: train, validation and test activations.
      hooks: the hooks whose values are read and reconstructed.

    Returns:
      name of a row -> name of a score -> f64[seeds].
    """
    hook = hooks.reads
    net, variables, tokenizer = lm.load(config.model)
    fit, test = rows_of(splits[1]), rows_of(splits[2])
    words = None
    # A transcoder's decoder rows are directions at another hook than the one that it reads.
    if config.words and hooks.same:
        words = spelled(net, variables, tokenizer, hook, config.words, config.length)
        say(f"spelling: {words.accuracy:.1%} of {words.words} first letters are right")
    losses = measured_losses(config, net, variables, test, found, splits[0], hooks)
    result: dict[str, dict[str, np.ndarray]] = {}
    dense = probes(NEURONS, fit, test, hook, (None,))
    for name, members in found.items():
        rows = []
        for seed, reading in enumerate(members):
            row = fidelity(reading, test, hooks)
            if reading.splice is not None:
                row |= lost(losses, f"{name} {seed}", test)
            row |= probes(reading, fit, test, hook, COUNTS)
            for figure, all_ in dense.items():
                few = row.get(figure.replace("all", str(COUNTS[-1])), np.nan)
                row[figure.replace("all", f"{COUNTS[-1]}_of_dense")] = few / all_
            if reading.rows is not None and words is not None:
                row |= letters(reading, words)
            rows.append(row)
            say(f"{name}: {', '.join(f'{k} {v:.4g}' for k, v in row.items())}")
        result[name] = {key: np.array([row[key] for row in rows]) for key in rows[0]}
        decoders = [reading.rows for reading in members if reading.rows is not None]
        if len(decoders) > 1:
            pairs = [shared_latents(a, b).share for a in decoders for b in decoders if a is not b]
            result[name]["shared_over_seeds"] = np.array(pairs)
    whole = dense if words is None else {**dense, "first_letters_right": words.accuracy}
    result["dense probe"] = {name: np.array([value]) for name, value in whole.items()}
    return result


def fidelity(reading: Reading, test: Labelled, hooks: Hooks) -> dict[str, float]:
    """Computes L0, explained variance and the share of dead units on test tokens.

    Attention sinks are left out.
    """
    x = test.values(hooks.reads)[test.kept]
    target = x if hooks.same else test.values(hooks.writes)[test.kept]
    used, active, sums = 0, 0.0, None
    for start in range(0, len(x), CHUNK):
        some = x[start : start + CHUNK]
        codes = reading.encode(some)
        used = used + np.count_nonzero(codes, axis=0)
        active += np.count_nonzero(codes)
        if reading.rebuild is not None:
            own = variance(target[start : start + CHUNK], reading.rebuild(some))
            sums = own if sums is None else merged(sums, own)
    row = {"l0": active / len(x), "dead": float(np.mean(np.equal(used, 0)))}
    return row if sums is None else {**row, "explained_variance": sums.explained()}


def measured_losses(
    config: LanguageNumbers,
    net: lm.Transformer,
    variables: Any,
    test: Labelled,
    found: Mapping[str, Sequence[Reading]],
    train: ae.data.Split,
    hooks: Hooks,
) -> TokenLosses:
    """Computes the model's losses if each reading's reconstruction replaces the values at a hook.

    Attention sinks keep their values, except in losses whose names end in " + sinks".
    """
    hook = hooks.writes
    mean = jnp.asarray(train.moments["target"][0].mean, jnp.float32)
    limit = SINK * float(np.median(test.store.norms(hook)))
    plain: dict[str, Any] = {
        "zero": lambda seen: jnp.zeros_like(seen[hook]),
        "mean": lambda seen: jnp.broadcast_to(mean[None, None], seen[hook].shape),
    }
    for name, members in found.items():
        for seed, reading in enumerate(members):
            if reading.splice is not None:
                plain[f"{name} {seed}"] = reading.splice
    replaced = {name: unless(r, hook, limit, 1) for name, r in plain.items()}
    replaced |= {f"{name} + sinks": r for name, r in plain.items()}
    batches = test.packed(config.evaluated)
    return token_losses(net, variables, batches, hook, replaced, reads=(hooks.reads,))


def lost(losses: TokenLosses, name: str, test: Labelled) -> dict[str, float]:
    """Returns the shares of cross-entropy and KL that a reading's reconstruction recovers.

    In scores named "..._with_sinks", all tokens are replaced and counted. In the others, attention
    sinks keep their values and the predictions at them are not counted.
    """
    own = test.kept[: len(losses.position), :-1] & (losses.position >= 0)
    found: dict[str, float] = {}
    for end, suffix, counted in (
        ("", "", own),
        (" + sinks", "_with_sinks", losses.position >= 0),
    ):
        clean, spliced_ = losses.nll["clean"], losses.nll[name + end]
        by = {
            other: recovered(clean, spliced_, losses.nll[other + end], counted)
            for other in ("zero", "mean")
        }
        kl = recovered(
            np.zeros_like(clean), losses.kl[name + end], losses.kl["zero" + end], counted
        )
        found |= {
            f"ce_recovered{suffix}": by["zero"].share,
            f"ce_recovered_of_mean{suffix}": by["mean"].share,
            f"kl_recovered{suffix}": kl.share,
            f"nats_lost{suffix}": by["zero"].lost,
        }
        if not suffix:
            found["nats_lost_error"] = by["zero"].lost_error
    return found


def probes(
    reading: Reading, fit: Labelled, test: Labelled, hook: str, counts: Sequence[int | None]
) -> dict[str, float]:
    """Returns the balanced accuracy of probes of parts of speech and of topics.

    Each entry of `counts` is the number of units that a probe reads; None: all units. If no part of
    speech, or no topic, has enough examples, its scores are left out.
    """
    found: dict[str, float] = {}
    for name, fewest, examples, known in (
        ("speech", FEWEST, _words, fit.tags),
        ("topic", FEWEST_CONTEXTS, _contexts, fit.topics),
    ):
        if not known:  # a user's own corpus may have no labels
            continue
        (x, y), (other, truth) = (examples(reading, part, hook) for part in (fit, test))
        if not len(enough(y[y >= 0], truth[truth >= 0], fewest)):
            continue
        for k in counts:
            if k is None or k <= x.shape[1]:
                score = probe(x, y, other, truth, k, fewest).accuracy
                found[f"{name}_{'all' if k is None else k}"] = score
    return found


def _words(reading: Reading, part: Labelled, hook: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns the units f32[n, M] and the part of speech i32[n] of each of n random words.

    The choice of the words is the same in every call.
    """
    there = np.flatnonzero((part.kept & (part.tag >= 0)).reshape(-1))
    chosen = np.sort(np.random.default_rng(0).permutation(there)[:PROBED])
    x = part.values(hook)
    return _encoded(reading, x.reshape(-1, x.shape[-1])[chosen]), part.tag.reshape(-1)[chosen]


def _contexts(reading: Reading, part: Labelled, hook: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns the mean units f32[n, M] and topics i32[n] of contexts, each within one document."""
    x = part.values(hook)
    size = min(CONTEXT, part.token.shape[1])
    length = part.token.shape[1] // size * size

    def cut(values: np.ndarray) -> np.ndarray:
        return values[:, :length].reshape(-1, size, *values.shape[2:])

    kept, document, topic = cut(part.kept), cut(part.document), cut(part.topic)
    whole = np.flatnonzero((document == document[:, :1]).all(axis=1) & kept.any(axis=1))
    if not len(whole):  # all documents are shorter than a context
        return np.zeros((0, 1), np.float32), np.zeros(0, np.int32)
    means = []
    for start in range(0, len(whole), CHUNK // size):
        some = whole[start : start + CHUNK // size]
        codes = reading.encode(cut(x)[some].reshape(-1, x.shape[-1]))
        codes = codes.reshape(len(some), size, -1) * kept[some][..., None]
        means.append(codes.sum(axis=1) / kept[some].sum(axis=1)[:, None])
    return np.concatenate(means), topic[whole, 0]


def letters(reading: Reading, words: Spelled) -> dict[str, float]:
    """Returns the absorption of first letters, and the F1 scores of probes that predict them."""
    assert reading.rows is not None
    train = np.arange(len(words.x)) % 2 == 0
    codes = _encoded(reading, words.x)
    found = absorption(words.x, words.letters, codes, reading.rows, train)
    return {
        "absorption": found.full,
        "letters_measured": float(len(found.letters)),
        "letter_f1_dense": found.probe,
        "letter_f1_latents": found.latents,
    }


def _encoded(reading: Reading, x: np.ndarray) -> np.ndarray:
    parts = [reading.encode(x[i : i + CHUNK]) for i in range(0, len(x), CHUNK)]
    return np.concatenate(parts)
