"""Switches latents of a finished lm-sae run on or off, and shows what the model then writes.

    python -m experiments steer runs/lm-sae --latent 1234 --strength 8 --prompt "Once upon a time"
    python -m experiments steer runs/lm-sae --latent 17 --ablate --prompt "The weather today"
    python -m experiments steer runs/lm-sae --latent 17 4093 --clamp 6 --prompt "I think that"
    python -m experiments steer runs/lm-sae --latent 1234 --curve --words " red" " blue"

RUN is the folder of the run, or of one of its dictionaries, such as runs/lm-sae/batchtopk. Each
prompt is continued without and with the edit, with the same random draws. `--curve` measures the
effect over many test prompts: the KL divergence of the next token, the rate of a class of words in
the generated text, and the perplexity of the text under the unedited model, for several strengths.
It compares the latent's direction with random directions of equal norm and with the difference of
class means.
"""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from aejax import language as lm
from aejax.errors import UserError
from aejax.files import json_fields, read_json, write_json
from aejax.language.steering import Effect, at_perplexity, effect
from experiments.shared.finished_lm import Opened, open_dictionary
from experiments.shared.lm import rows_of
from experiments.shared.place import Place, say

RANDOM = 3  # number of random directions that a latent's direction is compared with
PROMPT = 16  # number of tokens of a test prompt
LABELS = "features/labels.json"  # the rules that lm-features wrote
# The check of the rules in that file; a latent without a rule has None.
_RULE = {"attribute": json_fields.text(), "values": json_fields.list_of(json_fields.anything)}
_RULES = {"rules": json_fields.list_of(json_fields.optional(json_fields.record_of(_RULE)))}


def command(
    run: pathlib.Path,
    latent: tuple[int, ...] = (),
    prompt: tuple[str, ...] = (),
    strength: float = 8.0,
    ablate: bool = False,
    clamp: float | None = None,
    count: int = 40,
    temperature: float = 0.0,
    seed: int = 0,
    member: int = 0,
    model: pathlib.Path | None = None,
    curve: bool = False,
    words: tuple[str, ...] = (),
    strengths: tuple[float, ...] = (-8.0, 2.0, 4.0, 8.0, 16.0),
    prompts: int = 32,
    data_dir: str | None = None,
    manual_dir: str | None = None,
    own: bool = False,
) -> None:
    """Prints texts without and with the edit side by side, or measures the edit.

    Args:
      run: the folder of a finished run of lm-sae or of one of its dictionaries.
      latent: the indices of the latents to edit.
      prompt: one text or more, each in quotes.
      strength: the edit adds this multiple of each latent's decoder row, at every token.
      ablate: sets the latents to zero instead.
      clamp: sets the latents to this value instead.
      count: the number of tokens to write.
      temperature: the temperature of the draws; with 0 the most likely token is chosen.
      seed: the seed of the draws.
      member: the index of the dictionary if the run trained several seeds.
      model: the language model, if it is no longer where the run found it.
      curve: measures the effect over test prompts instead of continuing prompts.
      words: for the curve, the texts of the tokens whose rate is measured, such as " red"; by
        default the list of words that lm-features found for the latent, if it did.
      strengths: the strengths of the curve.
      prompts: the number of test prompts of the curve.
      data_dir: the folder of prepared data sets; that of tensorflow-datasets by default.
      manual_dir: the folder with the raw files of the corpora.
      own: trusts the run: follows the paths in its config.json.
    """
    if not latent:
        raise UserError("there is no latent to edit: give one or more by --latent")
    if ablate and clamp is not None:
        raise UserError("--ablate and --clamp contradict each other: give one of them")
    if not curve and (not prompt or any(not text.strip() for text in prompt)):
        raise UserError("there is no prompt, or an empty one: give a text by --prompt")
    opened = open_dictionary(run, model, member, own)
    edit = edited(opened, latent, strength, ablate, clamp)
    if curve:
        place = Place(data_dir=data_dir, manual_dir=manual_dir)
        _curve(run, opened, latent, words, strengths, prompts, count, seed, place)
        return
    given = lm.padded([opened.tokenizer.encode(text) for text in prompt])
    choose: Any = lm.greedy if temperature == 0 else lm.Sampling(temperature)
    made = [
        lm.generate(
            opened.model,
            opened.variables,
            given,
            jax.random.key(seed),
            count=count,
            choose=choose,
            ends=opened.tokenizer.ends,
            edits=edits,
        )
        for edits in ({}, {opened.writes: edit})
    ]
    for i, text in enumerate(prompt):
        say(f"{text!r}")
        for name, texts in zip(("without", "with"), made, strict=True):
            row = np.asarray(texts.tokens[i])[: int(texts.lengths[i])].tolist()
            say(f"  {name + ':':<9}{opened.tokenizer.decode(row)!r}")


def edited(
    opened: Opened, latent: tuple[int, ...], strength: float, ablate: bool, clamp: float | None
) -> Any:
    """Returns the edit of the language model that the flags ask for.

    Raises:
      UserError: if a latent does not exist.
    """
    plain, reads = opened.dictionary, opened.reads
    if ablate:
        return lm.scale(plain, latent, 0.0, reads=reads)
    if clamp is not None:
        return lm.clamp(plain, latent, clamp, reads=reads)
    lm.scale(plain, latent, 1.0)  # refuses latents that do not exist
    return lm.add(strength * np.asarray(plain.W_dec)[list(latent)].sum(axis=0))


def _curve(
    run: pathlib.Path,
    opened: Opened,
    latent: tuple[int, ...],
    words: tuple[str, ...],
    strengths: tuple[float, ...],
    prompts: int,
    count: int,
    seed: int,
    place: Place,
) -> None:
    """Measures an edit at several strengths, prints its effects and writes them to a JSON file."""
    splits = opened.experiment.data(opened.config, place)
    test = rows_of(splits[2])
    chosen = class_of(run, opened, latent, words)
    some = np.random.default_rng(seed).permutation(test.token.reshape(-1, PROMPT))[:prompts]
    row = np.asarray(opened.dictionary.W_dec)[list(latent)].sum(axis=0)
    norm = float(np.linalg.norm(row))
    directions = {"latent": row}
    random = np.random.default_rng([seed, 1])
    for i in range(RANDOM):
        drawn = random.normal(size=row.shape)
        directions[f"random {i}"] = drawn / np.linalg.norm(drawn) * norm
    x = test.values(opened.writes)
    of_class = test.kept[:, :-1] & chosen[test.token[:, 1:]]  # tokens that precede the class
    if of_class.any():
        others = test.kept[:, :-1] & ~of_class
        means = x[:, :-1][of_class].mean(axis=0) - x[:, :-1][others].mean(axis=0)
        directions["difference of class means"] = means / np.linalg.norm(means) * norm

    def measured(edits: Mapping[str, Any]) -> Effect:
        key = jax.random.key(seed)
        return effect(
            opened.model, opened.variables, some.tolist(), edits, chosen, key=key, count=count
        )

    # A direction of zeros changes nothing, and shares its compiled programs with the others.
    clean = measured({opened.writes: lm.add(0.0 * row)})
    say(f"class of {chosen.sum()} tokens, {len(some)} prompts, norm of the row {norm:.4g}")
    say(
        f"{'direction':<28}{'strength':>9}{'KL':>9}{'mass':>9}{'rate':>9}{'±':>8}{'perplexity':>12}"
    )
    _say("clean", 0.0, clean)
    result: dict[str, Any] = {"clean": clean._asdict(), "norm": norm, "curves": {}}
    curves: dict[str, list[Effect]] = {}
    for name, direction in directions.items():
        found = []
        for strength in strengths:
            value = measured({opened.writes: lm.add(strength * direction)})
            _say(name, strength, value)
            found.append((strength, value))
        rising = sorted((s, v) for s, v in found if s > 0)
        curves[name] = [clean, *(v for _, v in rising)]
        result["curves"][name] = [{"strength": s, **v._asdict()} for s, v in found]
    ablated = measured({opened.writes: edited(opened, latent, 0.0, True, None)})
    _say("latent, ablated", 0.0, ablated)
    result["ablated"] = ablated._asdict()
    common = min(max(e.perplexity for e in curve) for curve in curves.values())
    level = min(common, 2.0 * clean.perplexity)
    rates = {name: at_perplexity(curve, level) for name, curve in curves.items()}
    result["at_equal_perplexity"] = {"perplexity": level, "rates": rates}
    said = ", ".join(f"{name} {rate:.4f}" for name, rate in rates.items())
    say(f"rates at perplexity {level:.4g}: {said}")
    path = run / f"steer-{'-'.join(map(str, latent))}.json"
    write_json(path, result)
    say(f"written: {path}")


def _say(name: str, strength: float, e: Effect) -> None:
    say(
        f"{name:<28}{strength:>9.3g}{e.kl:>9.4f}{e.mass:>9.4f}{e.rate:>9.4f}{e.rate_error:>8.4f}"
        f"{e.perplexity:>12.4g}"
    )


def class_of(
    run: pathlib.Path, opened: Opened, latent: tuple[int, ...], words: tuple[str, ...]
) -> np.ndarray:
    """Returns whether each token of the vocabulary is in the class to measure, bool[vocabulary].

    The class has the tokens of the flag --words or, without it, of the first latent's rule.

    Raises:
      UserError: if a word is not one token, or there is neither flag nor rule.
    """
    tokens: list[int] = []
    for text in words:
        ids = opened.tokenizer.encode(text)
        if len(ids) != 1:
            raise UserError(
                f"--words {text!r} is {len(ids)} tokens: give texts of one token, such as ' red'"
            )
        tokens += ids
    if not words:
        path = run / LABELS
        rules = read_json(path, _RULES)["rules"] if path.is_file() else []
        rule = rules[latent[0]] if latent[0] < len(rules) else None
        if rule is None or rule["attribute"] != "word":
            raise UserError(
                f"latent {latent[0]} has no rule that is a list of words in {path}: state the "
                "class by --words"
            )
        tokens = rule["values"]
    found = np.zeros(opened.model.config.vocabulary, bool)
    found[tokens] = True
    return found
