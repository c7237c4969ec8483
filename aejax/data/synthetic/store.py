"""Writes an activation store of synthetic activations, together with their true features.

    store, truth = synthetic(folder, Superposition(features=64, size=24), tokens=100_000)
    train, validation, test = store.splits(HOOK, validation=0.05, test=0.05)
    truth.dictionary                     # f32[G, d], whose rows have norm 1
    truth.features(95_000, 100_000)      # f32[5000, G], the features of tokens 95,000 to 99,999
    truth_of(test).features(0, 5_000)    # the same features, indexed within the split

A recipe, such as `Superposition`, is a frozen dataclass of numbers that defines the distribution of
the tokens. Its methods `dictionary()`, `constant()` and `block(i)` are pure functions of these
numbers, so that any block of tokens can be computed again on any machine.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from aejax.checks import at_least
from aejax.data.activations.store import Activations, activations
from aejax.data.activations.tokens import Tokens
from aejax.data.activations.writer import ActivationWriter
from aejax.data.split import Split, fingerprint
from aejax.errors import UserError
from aejax.files import (
    MALFORMED,
    as_json,
    file_sha256,
    json_fields,
    read_json,
    read_npy,
    read_npz,
    reading,
    reason,
    replacing,
    write_bytes,
    write_json,
    writing,
)

HOOK = "synthetic"
FOLDER = "truth"
ABOUT = "recipe.json"
# The number of tokens in a block of a recipe; changing it would change the tokens that are drawn.
ROWS = 4096
# The number of blocks that are appended to the store at a time; a file of features has as many.
BLOCKS = 16
# Field of recipe.json -> the function that checks its value.
_FIELDS = {
    "recipe": json_fields.table,
    "tokens": json_fields.positive_count,
    "file_tokens": json_fields.positive_count,
    "dictionary_sha256": json_fields.sha256,
    "features_sha256": json_fields.list_of(json_fields.sha256),
}


class Active(NamedTuple):
    """The active features of n tokens, concatenated token by token."""

    counts: np.ndarray  # i32[n], the number of active features of each token
    indices: np.ndarray  # i32[sum of counts], the indices of the active features
    values: np.ndarray  # f32[sum of counts], their activations, above zero

    def dense(self, features: int) -> np.ndarray:
        """Returns the activations of all features, f32[n, G], where G = `features`."""
        full = np.zeros((len(self.counts), features), np.float32)
        full[np.repeat(np.arange(len(self.counts)), self.counts), self.indices] = self.values
        return full

    def between(self, start: int, stop: int) -> Active:
        """Returns the active features of tokens start to stop - 1."""
        ends = np.concatenate([[0], np.cumsum(self.counts)])
        inside = slice(ends[start], ends[stop])
        return Active(self.counts[start:stop], self.indices[inside], self.values[inside])


class Recipe(Protocol):
    """A distribution of synthetic activations, as a frozen dataclass of its parameters."""

    @property
    def features(self) -> int:
        """Returns the number of features, G."""
        ...

    def dictionary(self) -> np.ndarray:
        """Returns the features' directions, f32[G, d], whose rows have norm 1."""
        ...

    def constant(self) -> np.ndarray:
        """Returns the constant vector that is added to every token, f32[d]."""
        ...

    def block(self, number: int) -> Active:
        """Draws the active features of tokens number * ROWS to (number + 1) * ROWS - 1."""
        ...


def sparse(dense: np.ndarray) -> Active:
    """Converts dense activations f[n, G] to a record of those that are above zero."""
    rows, columns = np.nonzero(dense > 0)
    counts = np.bincount(rows, minlength=len(dense)).astype(np.int32)
    return Active(counts, columns.astype(np.int32), dense[rows, columns].astype(np.float32))


def joined(parts: list[Active]) -> Active:
    """Returns one record of the active features of all tokens of several records, in order."""
    return Active(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


@dataclasses.dataclass(frozen=True, eq=False)
class Truth:
    """The true dictionary and features of a synthetic store."""

    folder: Path  # the folder of the truth, inside that of the store
    recipe: dict[str, Any]  # the class name and the fields of the recipe
    dictionary: np.ndarray  # f32[G, d], whose rows have norm 1
    tokens: int  # the number of tokens, N
    file_tokens: int  # the number of tokens whose features are in one file
    sha256: tuple[str, ...]  # the sha256 of each file of features

    def features(self, start: int, stop: int) -> np.ndarray:
        """Returns the feature activations of tokens start to stop - 1, f32[stop - start, G].

        Raises:
          UserError: if the tokens do not exist, or a file is missing or damaged.
        """
        return self.active(start, stop).dense(len(self.dictionary))

    def active(self, start: int, stop: int) -> Active:
        """Returns the active features of tokens start to stop - 1.

        Raises:
          UserError: if the tokens do not exist, or a file is missing or damaged.
        """
        if not 0 <= start < stop <= self.tokens:
            raise UserError(
                f"{self.folder} has no tokens from {start} to {stop}: choose 0 <= start < stop <= "
                f"{self.tokens}"
            )
        size, parts = self.file_tokens, []
        for i in range(start // size, -(-stop // size)):
            path, last = self.folder / _file(i), min(size, self.tokens - i * size)
            held = _read(path, self.sha256[i])
            if len(held.counts) != last:
                raise UserError(
                    f"{path} has {len(held.counts)} tokens instead of the {last} that "
                    f"{self.folder / ABOUT} states: delete the store and make it again"
                )
            parts.append(held.between(max(0, start - i * size), min(last, stop - i * size)))
        return joined(parts)


def synthetic(
    folder: str | Path, recipe: Recipe, tokens: int, dtype: str = "float32"
) -> tuple[Activations, Truth]:
    """Writes a store of synthetic activations, or opens it if it exists.

    If a call was killed, the next one continues its work, and the store is bitwise the same.

    Args:
      folder: the folder of the store; its subfolder `truth` holds the true features.
      recipe: the distribution of the activations: `Superposition`, `SynthBench` or another one.
      tokens: the number of tokens, N.
      dtype: the dtype of the store; the truth is always f32.

    Returns:
      The store, which has the single hook HOOK, and its true dictionary and features.

    Raises:
      UserError: if the folder holds other data or cannot be written.
    """
    at_least(1, "tokens", tokens)
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
        # Files whose hash was not recorded are written again, because they could not be verified.
        for i in range(len(hashes), -(-tokens // size)):
            stop = min(tokens, (i + 1) * size)
            blocks = range(i * BLOCKS, -(-stop // ROWS))
            made = [recipe.block(number) for number in blocks]
            held = joined(made).between(0, stop - i * size)
            # The features are written first, so that every token in the store has its features.
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
    """Opens the true dictionary and features of a store that `synthetic` wrote.

    Raises:
      UserError: if files are missing or damaged.
    """
    beside = Path(folder).expanduser() / FOLDER
    about = _described(beside / ABOUT)
    tokens, size, hashes = about["tokens"], about["file_tokens"], about["features_sha256"]
    if len(hashes) != -(-tokens // size):
        raise UserError(
            f"{beside / ABOUT} lists {len(hashes)} files of {size} tokens, too few for {tokens} "
            "tokens: call `synthetic` with the same arguments, which writes the other files"
        )
    try:
        dictionary = read_npy(beside / "dictionary.npy")
        whole = fingerprint({"dictionary": dictionary}) == about["dictionary_sha256"]
    except MALFORMED as error:
        raise UserError(
            f"{beside} is damaged ({reason(error)}): delete the store and make it again"
        ) from error
    if not whole:
        raise UserError(
            f"{beside / 'dictionary.npy'} is damaged: delete the store and make it again"
        )
    return Truth(beside, about["recipe"], dictionary, tokens, size, tuple(hashes))


class SplitTruth(NamedTuple):
    """The true dictionary and features of one split of a synthetic store."""

    dictionary: np.ndarray  # f32[G, d], whose rows have norm 1
    # Maps (start, stop) to the features of tokens start to stop - 1 of the split,
    # f32[stop - start, G].
    features: Callable[[int, int], np.ndarray]


def truth_of(split: Split) -> SplitTruth:
    """Opens the true dictionary and features of a split of a synthetic store.

    Raises:
      UserError: if the split is not of a synthetic store, or if files are missing or damaged.
    """
    tokens = split.arrays.get(HOOK)
    if not isinstance(tokens, Tokens):
        raise UserError(
            f"{split.name} is not a split of a synthetic store, so its true features are not "
            "known: give a split of a store that `synthetic` wrote"
        )
    # The shards are in the folder of the store or in a subfolder of it.
    whole, first = truth(_store(tokens.paths[0])), tokens.first
    return SplitTruth(
        whole.dictionary, lambda start, stop: whole.features(first + start, first + stop)
    )


def _store(shard: Path) -> Path:
    return next((p for p in shard.parents if (p / FOLDER).is_dir()), shard.parent)


def _file(number: int) -> str:
    return f"features-{number:05d}.npz"


def _described(path: Path) -> dict[str, Any]:
    """Reads and checks recipe.json.

    Raises:
      UserError: if the file is missing or damaged, or if an old version wrote it without hashes.
    """
    about = read_json(path, {}, "truth of a synthetic store")
    try:
        json_fields.check_fields(path.name, about, _FIELDS)
    except ValueError as error:
        raise UserError(
            f"{path} is damaged or of an older version ({error}): call `synthetic` with the same "
            "arguments, which writes it again"
        ) from error
    return about


def _hashes(path: Path) -> list[str]:
    """Returns the sha256s that recipe.json records for the files of true features.

    Args:
      path: the path of recipe.json; if it is missing or damaged, the result is [].
    """
    try:
        return _described(path)["features_sha256"]
    except UserError:
        return []


def _about(recipe: Recipe, tokens: int) -> dict[str, Any]:
    numbers = dataclasses.asdict(recipe)  # type: ignore[call-overload]
    return as_json({"recipe": {"name": type(recipe).__name__, **numbers}, "tokens": tokens})


def _rows(active: Active, dictionary: np.ndarray, constant: np.ndarray) -> np.ndarray:
    """Computes the activations of a block of tokens, f32[ROWS, d], from their active features.

    All blocks have ROWS tokens, because the rounding of a matrix product depends on its shape.
    """
    return active.dense(len(dictionary)) @ dictionary + constant


def _read(path: Path, sha256: str) -> Active:
    advice = "delete the store and make it again"
    with reading(path, advice, f"{path} cannot be read (it is missing): {advice}"):
        return _held(path, path.stat().st_mtime_ns, sha256)


# The modification time is an argument, so that a file that was written again is read again instead
# of being taken from the cache.
@functools.lru_cache(maxsize=4)
def _held(path: Path, time: int, sha256: str) -> Active:
    del time
    if file_sha256(path) != sha256:  # before it takes memory
        raise ValueError("its sha256 differs from the recorded one")
    arrays = read_npz(path)
    return Active(arrays["counts"], arrays["indices"], arrays["values"])
