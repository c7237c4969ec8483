"""Pages on a dictionary's latents: one self-contained HTML file, and the same data as JSON.

    record = feature_record("Latents of a run", "...", tokens, word, active, found, ...)
    write_features(folder, record)         # features.html and features.json

The file shows a list of all latents, which can be searched by token and sorted, and a page on each
latent under the link `features.html#latent=17`. It renders only what is on the screen, so that even
a file with thousands of latents opens quickly. It loads no other file and sends no data.
"""

from __future__ import annotations

import html
import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from aejax.errors import UserError
from aejax.evaluation.firings import Firings
from aejax.evaluation.profiles import Profile
from aejax.files import as_json, read_json, with_policy, write_bytes, writing

TEMPLATE = pathlib.Path(__file__).with_name("features.html")
AROUND = 24  # activations are stored for this many tokens to each side of a context's centre


class Label(NamedTuple):
    """A description of what activates a latent."""

    text: str
    kind: str  # where the label comes from; it ends the sentence "The label is ..."
    score: float | None = None  # its balanced accuracy on held-out tokens; None: not scored


class Effects(NamedTuple):
    """The tokens whose logits each latent's decoder row raises or lowers most, as token indices."""

    up: np.ndarray  # i[m, count], the promoted tokens
    down: np.ndarray  # i[m, count], the suppressed tokens


def feature_record(
    title: str,
    about: str,
    tokens: np.ndarray,
    word: Callable[[int], str],
    active: Firings,
    found: Sequence[Profile],
    effects: Effects | None = None,
    labels: Sequence[Label | None] | None = None,
    probes: Mapping[str, np.ndarray] | None = None,
) -> dict[str, Any]:
    """Returns all data of a dictionary's latents that features.html shows, as JSON values.

    Args:
      title: the heading of the page.
      about: one sentence below the heading.
      tokens: i[R, P], the token indices of the corpus from which the contexts are taken.
      word: a function that returns the text of a token index.
      active: the activations of the latents; its token r * P + p has row r and position p.
      found: the profile of each latent.
      effects: the tokens that each latent promotes and suppresses; None: not known.
      labels: a label for each latent, or None.
      probes: name -> f[m], scores by which the latents can be sorted.

    Raises:
      UserError: if the numbers of latents or tokens differ between the arguments.
    """
    m, (rows, length) = active.latents, tokens.shape
    sizes = [len(found), *(len(x) for x in (labels,) if x is not None)]
    sizes += [] if effects is None else [len(effects.up), len(effects.down)]
    sizes += [len(v) for v in (probes or {}).values()]
    if any(size != m for size in sizes) or rows * length != active.tokens:
        raise UserError(
            f"`active` has {m} latents and {active.tokens} tokens, but the other arguments have "
            f"{sizes} latents and {rows} x {length} tokens: give all for the same dictionary and "
            "corpus"
        )
    used = (
        [tokens.reshape(-1)] if effects is None else [tokens.reshape(-1), *map(np.ravel, effects)]
    )
    vocabulary = np.unique(np.concatenate(used))
    latents = []
    scores = None if not probes else np.round(np.stack(list(probes.values()), axis=1), 3)
    for j, profile in enumerate(found):
        token, value = active.of(j)
        label = None if labels is None else labels[j]
        latents.append(
            {
                "id": j,
                "frequency": profile.frequency,
                "max": _short(profile.most),
                "histogram": profile.histogram,
                "places": profile.places,
                "contexts": [
                    [
                        c.token // length,
                        c.token % length,
                        _short(c.value),
                        c.band,
                        _around(c.token, token, value, length),
                    ]
                    for c in profile.contexts
                ],
                "up": [] if effects is None else np.searchsorted(vocabulary, effects.up[j]),
                "down": [] if effects is None else np.searchsorted(vocabulary, effects.down[j]),
                "near": [[i, _short(x)] for i, x in profile.near],
                "together": [[i, _short(x)] for i, x in profile.together],
                "label": None if label is None else label._asdict(),
                "probes": None if scores is None else scores[j],
            }
        )
    return as_json(
        {
            "title": title,
            "about": about,
            "words": [word(int(t)) for t in vocabulary],
            "rows": np.searchsorted(vocabulary, tokens),
            "probes": list(probes or {}),
            "latents": latents,
        }
    )


def _around(centre: int, token: np.ndarray, value: np.ndarray, length: int) -> list[list[float]]:
    """Returns [position in the row, activation] of tokens near `centre` that activate a latent.

    Args:
      centre: the index of a token.
      token: the indices of the tokens at which one latent is active, in ascending order.
      value: the latent's activations at these tokens.
      length: the number of tokens in a row; tokens of other rows are left out.
    """
    start = centre // length * length
    low, high = np.searchsorted(
        token, [max(start, centre - AROUND), min(start + length, centre + AROUND + 1)]
    )
    pairs = zip(token[low:high], value[low:high], strict=True)
    return [[int(t) - start, _short(float(v))] for t, v in pairs]


def _short(value: float) -> float:
    """Rounds a number to four digits, because thousands of latents share one file."""
    return float(f"{value:.4g}")


def write_features(folder: pathlib.Path, record: Mapping[str, Any]) -> pathlib.Path:
    """Writes features.html and features.json, each completely or not at all.

    Returns:
      The path of features.html.

    Raises:
      UserError: if the folder cannot be written.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(record, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    write_bytes(folder / "features.json", text.encode())
    # A "<" inside the script element could end it; U+2028 and U+2029 are line ends to JavaScript.
    safe = text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    template = TEMPLATE.read_text()
    page = with_policy(template, trusted=template)
    page = page.replace("%TITLE%", html.escape(str(record["title"]))).replace("%DATA%", safe)
    write_bytes(folder / "features.html", page.encode())
    return folder / "features.html"


def read_labels(path: pathlib.Path, latents: int) -> dict[int, Mapping[str, Any]]:
    """Reads labels that another program wrote: {"17": {"label": "colours", "words": ["red"]}}.

    `words` are the texts of tokens, such as " red" with its space, at which the latent should be
    active. If they are given, the label's accuracy can be scored.

    Args:
      path: the JSON file.
      latents: the number of the dictionary's latents.

    Raises:
      UserError: if the file is missing, not of this form, or names a latent that does not exist.
    """
    if not path.is_file():
        raise UserError(f"there is no file of labels {path}: give a JSON file")
    data = read_json(path, {})
    found = {}
    for name, entry in data.items():
        words = entry.get("words", []) if isinstance(entry, Mapping) else None
        right = isinstance(entry, Mapping) and isinstance(entry.get("label"), str)
        if not right or not isinstance(words, list) or not all(isinstance(w, str) for w in words):
            raise UserError(
                f"the entry {name!r:.40} of {path} is not of the form "
                '{"label": text, "words": [texts]}: rewrite it'
            )
        if not name.isascii() or not name.isdigit() or int(name) >= latents:
            raise UserError(
                f"{path} names the latent {name!r:.40}, but the dictionary has 0 to {latents - 1}: "
                "remove this entry"
            )
        found[int(name)] = entry
    return found
