"""Divides a data set into three splits, and binarises those whose pixels are drawn only once."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

import numpy as np

from aejax.data.order import permutation
from aejax.data.reading import Reader
from aejax.data.split import Split, fingerprint
from aejax.data.to_batch import Prepare
from aejax.data.words import random_words
from aejax.errors import UserError

Binarise: TypeAlias = Literal["dynamic", "static", "none"]
Splits: TypeAlias = tuple[Split, Split, Split]  # train, validation, test
PARTS = ("train", "validation", "test")
# The seed of the pixels that are drawn only once; environment.json records it.
BINARISE_SEED = 20_080_705


def divide(
    columns: Mapping[str, np.ndarray],
    name: str,
    *,
    shares: Mapping[str, float],
    seed: int,
    groups: np.ndarray | None = None,
    ordered: bool = False,
) -> list[dict[str, np.ndarray]]:
    """Divides examples into train and other splits; within a split they keep their order.

    Args:
      columns: the arrays of the data set by name, [N, ...].
      name: the name of the data set, for error messages.
      shares: split name -> its share (below 1) or number of the examples; train gets the rest.
      seed: the seed of the random division.
      ordered: whether the splits are consecutive blocks of examples, instead of random ones.
      groups: an integer for each example, i32[N]; examples with equal integers go to the same
        split. None: no groups. A group that does not fit into the rest of a split goes to another
        split or to train, so a split may get less than its share.

    Returns:
      The columns of train, then those of the splits in `shares`.

    Raises:
      UserError: if a split would be empty.
    """
    examples = len(next(iter(columns.values())))
    held = {part: count_of(part, share, examples) for part, share in shares.items()}
    counts = [examples - sum(held.values()), *held.values()]
    if min(counts) < 1:
        wanted = ", ".join(f"{count} to {part}" for part, count in held.items())
        raise UserError(
            f"{name} has {examples} examples, too few to give {wanted} and the rest to train: "
            "change the shares so that each split has 1 or more"
        )
    if ordered and groups is not None:
        raise UserError(f"{name} is to be divided in order and by groups: give one of the two")
    if groups is None:
        order = np.arange(examples) if ordered else permutation(examples, seed, 0)
        cuts = np.split(order, np.cumsum(counts)[:-1])
    else:
        cuts = _whole_groups(groups, counts, seed)
    for part, count, cut in zip(held, counts[1:], cuts[1:], strict=True):
        if groups is not None and not len(cut):
            sizes = np.bincount(np.unique(groups, return_inverse=True)[1])
            raise UserError(
                f"no group of {name} fits into the {count} examples for {part}: there are "
                f"{len(sizes)} groups of {sizes.min()} to {sizes.max()} examples, and a group is "
                "never divided, so give smaller groups, a larger share, or 0 for no such split"
            )
    return [{key: column[np.sort(cut)] for key, column in columns.items()} for cut in cuts]


def count_of(part: str, share: float, examples: int) -> int:
    """Returns the number of examples of a split, given as a share below 1 or as a number.

    Raises:
      UserError: if a number of 1 or more is not whole.
    """
    if -1 < share < 1:
        return round(share * examples)
    if share != int(share):
        raise UserError(f"{part} is {share:g}: give a share below 1, or a whole number of examples")
    return int(share)


def _whole_groups(groups: np.ndarray, counts: Sequence[int], seed: int) -> list[np.ndarray]:
    """Returns the indices of each split's examples, so that no group is in two splits.

    Args:
      groups: the group of each example, i32[N].
      counts: the number of examples that each split is to have, train first.
      seed: the seed of the random division.
    """
    _, group, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    waiting, part = permutation(len(sizes), seed, 0)[::-1].tolist(), np.zeros(len(sizes), np.int8)
    for i in reversed(range(1, len(counts))):
        room, left = counts[i], []
        for number in waiting:
            if sizes[number] <= room:
                part[number], room = i, room - sizes[number]
            else:
                left.append(number)
        waiting = left
    return [np.flatnonzero(part[group] == i) for i in range(len(counts))]


def splits(
    name: str,
    parts: Sequence[Mapping[str, np.ndarray]],
    *,
    field: str,
    scale: float,
    binarise: Binarise,
    classes: tuple[str, ...] = (),
    origin: str = "arrays",
    reader: Reader | None = None,
    content: str | None = None,
    **prepare: Any,
) -> Splits:
    """Returns train, validation and test as Splits, whose pixels are binarised as requested.

    Args:
      name: the name of the data set.
      parts: the columns [N, ...] of train, validation and test; with a reader they hold `row`
        i32[N], the indices of the examples in the reader.
      field: the name of the column, or of the reader's array, that becomes x.
      scale: the stored value that becomes 1.0.
      binarise: "dynamic" draws the pixels of train anew at every step, and the pixels of validation
        and test once; "static" draws the pixels of all three once; "none" draws nothing.
      classes: the names of the labels.
      origin: where the data came from.
      reader: the reader of a data set that does not fit in memory, or None.
      content: sha256 over all examples of the reader.
      **prepare: further fields of `Prepare`.

    Returns:
      Train, validation and test.

    Raises:
      UserError: if `binarise` has another value.
    """
    if binarise not in ("dynamic", "static", "none"):
        raise UserError(f"binarise is {binarise!r}: give 'dynamic', 'static' or 'none'")
    made = []
    for i, (part, columns) in enumerate(zip(PARTS, parts, strict=True)):
        once = binarise == "static" or (binarise == "dynamic" and part != "train")
        stream = (i,) if once else None
        if reader is None:
            arrays = dict(columns)
            if stream is not None:
                arrays[field] = drawn(arrays[field], scale, stream)
            chosen, sha256 = None, fingerprint(arrays)
        else:
            arrays = {key: column for key, column in columns.items() if key != "row"}
            chosen = Chosen(reader, columns["row"], field, scale, stream)
            sha256 = hashlib.sha256(
                f"{content} {fingerprint({'row': columns['row']})} {stream}".encode()
            ).hexdigest()
        made.append(
            Split(
                name=f"{name}/{part}",
                arrays=arrays,
                prepare=Prepare(
                    field=field,
                    scale=1.0 if once else scale,
                    draws=binarise == "dynamic" and not once,
                    **prepare,
                ),
                fingerprint=sha256,
                binarised=binarise,
                binarise_seed=BINARISE_SEED if once else None,
                classes=classes,
                origin=origin,
                reader=chosen,
            )
        )
    return made[0], made[1], made[2]


@dataclasses.dataclass(frozen=True, eq=False)
class Chosen:
    """A reader of some of the examples of a given reader, perhaps binarised with a fixed seed."""

    reader: Reader
    rows: np.ndarray  # i32[N], the indices of the examples in `reader`
    field: str  # the name of the array that is binarised
    scale: float  # the stored value that becomes 1.0
    stream: tuple[int, ...] | None  # the random stream of the draws, or None to draw nothing

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int, /) -> Mapping[str, Any]:
        example = dict(self.reader[int(self.rows[index])])
        if self.stream is not None:
            example[self.field] = drawn(example[self.field], self.scale, (*self.stream, index))
        return example


def drawn(x: np.ndarray, scale: float, stream: tuple[int, ...]) -> np.ndarray:
    """Draws Bernoulli values with a fixed seed, the same on every machine.

    Args:
      x: stored values from 0 to scale, [...].
      scale: the stored value that becomes 1.0.
      stream: the random stream: the index of the split and, for a single example, its index.

    Returns:
      Zeros and ones, u8[...], with mean x / scale (accurate to 2^-32).
    """
    pairs = random_words(BINARISE_SEED, stream, (x.size + 1) // 2)
    words = pairs.astype("<u8").view("<u4")[: x.size]
    threshold = x.reshape(-1).astype(np.float64) * (2.0**32 / scale)
    return (words < threshold).astype(np.uint8).reshape(x.shape)
