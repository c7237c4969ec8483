"""Synthetic activations whose features are known, in an activation store, the truth beside it.

    store, truth = synthetic(folder, Superposition(features=64, size=24), tokens=100_000)
    train, validation, test = store.splits(HOOK, validation=0.05, test=0.05)
    truth.dictionary                     # f32[G, d], unit rows
    truth.features(95_000, 100_000)      # f32[5000, G], what tokens 95,000 to 99,999 are made of
    known(test).features(0, 5_000)       # the same, counted from the first token of the split

A recipe is a frozen dataclass of numbers with two methods, `dictionary()` and `block(i)`; both are
pure functions of its numbers, so any block of rows can be made again, anywhere.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from aejax.checks import at_least
from aejax.data import json_fields
from aejax.data.activations.store import Activations, activations
from aejax.data.activations.tokens import Tokens
from aejax.data.activations.writer import ActivationWriter
from aejax.data.split import Split, fingerprint
from aejax.errors import UserError
from aejax.files import plain, read_json, replacing, write_bytes, write_json, writing

HOOK = "synthetic"
FOLDER = "truth"
ABOUT = "recipe.json"
# Tokens that a recipe makes together; part of what its numbers mean.
ROWS = 4096
# Blocks of rows in one append and one file of features.
BLOCKS = 16
# What a field of recipe.json may be.
_FIELDS = {
    "recipe": json_fields.table,
    "tokens": json_fields.some,
    "file_tokens": json_fields.some,
    "dictionary_sha256": json_fields.sha256,
    "features_sha256": json_fields.list_of(json_fields.sha256),
}


class Active(NamedTuple):
    """The active features of n tokens, those of one token after those of another."""

    counts: np.ndarray  # i32[n], active features of each token
    indices: np.ndarray  # i32[sum of counts]
    values: np.ndarray  # f32[sum of counts], above zero

    def dense(self, features: int) -> np.ndarray:
        """f32[n, G]."""
        full = np.zeros((len(self.counts), features), np.float32)
        full[np.repeat(np.arange(len(self.counts)), self.counts), self.indices] = self.values
        return full

    def part(self, start: int, stop: int) -> Active:
        """Tokens start to stop - 1."""
        ends = np.concatenate([[0], np.cumsum(self.counts)])
        inside = slice(ends[start], ends[stop])
        return Active(self.counts[start:stop], self.indices[inside], self.values[inside])


class Recipe(Protocol):
    """How synthetic activations are made; a frozen dataclass of numbers."""

    @property
    def features(self) -> int:
        """G, how many there are."""
        ...

    def dictionary(self) -> np.ndarray:
        """The features' directions, f32[G, d], unit rows."""
        ...

    def constant(self) -> np.ndarray:
        """What is added to every token, f32[d]."""
        ...

    def block(self, number: int) -> Active:
        """The features of tokens number * ROWS to (number + 1) * ROWS - 1."""
        ...


def sparse(dense: np.ndarray) -> Active:
    """The entries above zero of dense activations [n, G]."""
    rows, columns = np.nonzero(dense > 0)
    counts = np.bincount(rows, minlength=len(dense)).astype(np.int32)
    return Active(counts, columns.astype(np.int32), dense[rows, columns].astype(np.float32))


def joined(parts: list[Active]) -> Active:
    """Tokens one after the other."""
    return Active(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


@dataclasses.dataclass(frozen=True, eq=False)
class Truth:
    """What a synthetic store is made of."""

    folder: Path
    recipe: dict[str, Any]  # the recipe's name and numbers
    dictionary: np.ndarray  # f32[G, d], unit rows
    tokens: int  # N
    file_tokens: int  # whose features stand in one file
    sha256: tuple[str, ...]  # over each file's bytes

    def features(self, start: int, stop: int) -> np.ndarray:
        """The feature activations of tokens start to stop - 1, f32[stop - start, G].

        Raises:
          UserError: tokens that there are not, or a file that is missing or damaged.
        """
        return self.active(start, stop).dense(len(self.dictionary))

    def active(self, start: int, stop: int) -> Active:
        """The same, the active ones only."""
        if not 0 <= start < stop <= self.tokens:
            raise UserError(f"{self.folder}: tokens {start} to {stop} of {self.tokens}")
        size, parts = self.file_tokens, []
        for i in range(start // size, -(-stop // size)):
            path, last = self.folder / _file(i), min(size, self.tokens - i * size)
            held = _read(path, self.sha256[i])
            if len(held.counts) != last:
                raise UserError(
                    f"{path} has {len(held.counts)} tokens instead of {last}, which "
                    f"{self.folder / ABOUT} says: make the store anew"
                )
            parts.append(held.part(max(0, start - i * size), min(last, stop - i * size)))
        return joined(parts)


def synthetic(
    folder: str | Path, recipe: Recipe, tokens: int, dtype: str = "float32"
) -> tuple[Activations, Truth]:
    """Makes a store of synthetic activations, or opens the one that was made before.

    A run that was killed is continued; the store and the truth are the same to the bit.

    Args:
      folder: of the store; the truth lies in its subfolder `truth`.
      recipe: `Superposition`, `SynthBench` or any other.
      tokens: N.
      dtype: of the store; the truth stays f32.

    Returns:
      The store, with the one hook HOOK, and its truth.

    Raises:
      UserError: a folder with other data, or one that cannot be written.
    """
    at_least(1, "synthetic tokens:", tokens)
    folder = Path(folder).expanduser()
    about = _about(recipe, tokens)
    dictionary, constant = recipe.dictionary(), recipe.constant()
    size, beside = ROWS * BLOCKS, folder / FOLDER
    with ActivationWriter(folder, provenance=about, dtype=dtype, shard_tokens=size) as writer:
        beside.mkdir(exist_ok=True)
        sha256 = fingerprint({"dictionary": dictionary})
        with writing(beside), replacing(beside / "dictionary.npy") as file:
            np.save(file, dictionary, allow_pickle=False)
        kept = {**about, "file_tokens": size, "dictionary_sha256": sha256}
        hashes = _hashes(beside / ABOUT)[: writer.appends]
        write_json(beside / ABOUT, {**kept, "features_sha256": hashes})
        # A file without a hash is made again: whoever reads it could not tell what was written.
        for i in range(len(hashes), -(-tokens // size)):
            stop = min(tokens, (i + 1) * size)
            blocks = range(i * BLOCKS, -(-stop // ROWS))
            made = [recipe.block(number) for number in blocks]
            held = joined(made).part(0, stop - i * size)
            # Truth first: what stands in the store always has its truth.
            file = io.BytesIO()
            np.savez(file, allow_pickle=False, **held._asdict())
            write_bytes(beside / _file(i), file.getvalue())
            hashes.append(hashlib.sha256(file.getvalue()).hexdigest())
            write_json(beside / ABOUT, {**kept, "features_sha256": hashes})
            if i >= writer.appends:
                x = np.concatenate([_rows(active, dictionary, constant) for active in made])
                writer.append({HOOK: x[: stop - i * size]})
    return activations(folder), truth(folder)


def truth(folder: str | Path) -> Truth:
    """The truth of a store that `synthetic` made.

    Raises:
      UserError: there is none, or it is damaged.
    """
    beside = Path(folder).expanduser() / FOLDER
    about = _described(beside / ABOUT)
    tokens, size, hashes = about["tokens"], about["file_tokens"], about["features_sha256"]
    if len(hashes) != -(-tokens // size):
        raise UserError(
            f"{beside / ABOUT} has {len(hashes)} files of {size} tokens for {tokens}: call "
            "`synthetic` as before, which makes the others"
        )
    try:
        dictionary = np.load(beside / "dictionary.npy", allow_pickle=False)
        whole = fingerprint({"dictionary": dictionary}) == about["dictionary_sha256"]
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{beside} is damaged ({error}): make the store anew") from error
    if not whole:
        raise UserError(f"{beside / 'dictionary.npy'} is damaged: make the store anew")
    return Truth(beside, about["recipe"], dictionary, tokens, size, tuple(hashes))


class Known(NamedTuple):
    """The truth of one split of a synthetic store."""

    dictionary: np.ndarray  # f32[G, d], unit rows
    # (start, stop), counted from the split's first token -> f32[stop - start, G]
    features: Callable[[int, int], np.ndarray]


def known(split: Split) -> Known:
    """What the tokens of a split are made of.

    Raises:
      UserError: the split is of no synthetic store, or of one whose truth is missing or damaged.
    """
    tokens = split.arrays.get(HOOK)
    if not isinstance(tokens, Tokens):
        raise UserError(f"{split.name} is no split of a synthetic store: its truth is not known")
    # Shards lie in the store's folder or one below it.
    whole, first = truth(_store(tokens.paths[0])), tokens.first
    return Known(whole.dictionary, lambda start, stop: whole.features(first + start, first + stop))


def _store(shard: Path) -> Path:
    return next((p for p in shard.parents if (p / FOLDER).is_dir()), shard.parent)


def _file(number: int) -> str:
    return f"features-{number:05d}.npz"


def _described(path: Path) -> dict[str, Any]:
    """What recipe.json says.

    Raises:
      UserError: it is missing, damaged, or of a version that kept no hashes.
    """
    about = read_json(path, "truth of a synthetic store")
    try:
        json_fields.check_fields(path.name, about, _FIELDS)
    except ValueError as error:
        raise UserError(
            f"{path} is damaged or of an older version ({error}): call `synthetic` as before, "
            "which writes it anew"
        ) from error
    return about


def _hashes(path: Path) -> list[str]:
    """Of the files of features that are there, in order, as far as recipe.json tells."""
    try:
        return _described(path)["features_sha256"]
    except UserError:
        return []


def _about(recipe: Recipe, tokens: int) -> dict[str, Any]:
    numbers = dataclasses.asdict(recipe)  # type: ignore[call-overload]
    return plain({"recipe": {"name": type(recipe).__name__, **numbers}, "tokens": tokens})


def _rows(active: Active, dictionary: np.ndarray, constant: np.ndarray) -> np.ndarray:
    """f32[ROWS, d]: always a whole block, since a product's bits may depend on its shape."""
    return active.dense(len(dictionary)) @ dictionary + constant


def _read(path: Path, sha256: str) -> Active:
    try:
        return _held(path, path.stat().st_mtime_ns, sha256)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} cannot be read ({error}): make the store anew") from error


# By its time too, since a store may be made anew in the same folder.
@functools.lru_cache(maxsize=4)
def _held(path: Path, time: int, sha256: str) -> Active:
    del time
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != sha256:
        raise ValueError("its sha256 is not that of what was written")
    with np.load(io.BytesIO(content), allow_pickle=False) as file:
        return Active(file["counts"], file["indices"], file["values"])
