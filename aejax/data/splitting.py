"""Three splits out of one data set: who goes where, and what is binarised once and for ever."""

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
# The seed of the draws that are made once; recorded in environment.json.
BINARISE_SEED = 20_080_705


def divide(
    columns: Mapping[str, np.ndarray],
    name: str,
    *,
    shares: Mapping[str, float],
    seed: int,
    groups: np.ndarray | None = None,
) -> list[dict[str, np.ndarray]]:
    """Divides columns [N, ...] at random into train and the named parts, each in its old order.

    A share below 1 is a share of the examples, else it is their number. Examples of one group,
    numbered by groups i32[N], stay together: a group too large for what a part still lacks goes to
    the next part or to train, so that a part may stay below its share.
    """
    examples = len(next(iter(columns.values())))
    held = {
        part: round(share * examples) if -1 < share < 1 else int(share)
        for part, share in shares.items()
    }
    counts = [examples - sum(held.values()), *held.values()]
    if min(counts) < 1:
        wanted = ", ".join(f"{count} to {part}" for part, count in held.items())
        raise UserError(
            f"{name} has {examples} examples, too few to give {wanted} and the rest to train; "
            "each part needs 1 or more"
        )
    if groups is None:
        cuts = np.split(permutation(examples, seed, 0), np.cumsum(counts)[:-1])
    else:
        cuts = _whole_groups(groups, counts, seed)
    for part, cut in zip(held, cuts[1:], strict=True):
        if not len(cut):
            raise UserError(
                f"{name} has no group of examples small enough for {part}: each group goes whole "
                "to one part, so give that part a larger share"
            )
    return [{key: column[np.sort(cut)] for key, column in columns.items()} for cut in cuts]


def _whole_groups(groups: np.ndarray, counts: Sequence[int], seed: int) -> list[np.ndarray]:
    """Example numbers of each part; where each group has one example, as without groups."""
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
) -> Splits:
    """Three splits, binarised as asked: the one place where that is decided.

    Args:
      name: of the data set.
      parts: columns [N, ...] of train, validation and test; `row` i32[N] where there is a reader.
      field: the column, or the reader's array, that is x.
      scale: the stored value that means one.
      binarise: "dynamic" draws train anew each step, the other two once; "static" draws all once.
      classes: names of the labels.
      origin: where the data came from.
      reader: of a data set that does not fit memory.
      content: sha256 over all that the reader gives.

    Returns:
      Train, validation, test.

    Raises:
      UserError: binarise is something else.
    """
    if binarise not in ("dynamic", "static", "none"):
        raise UserError(f"binarise {binarise!r}: give dynamic, static or none")
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
    """Some examples of a reader, binarised once where `stream` is given."""

    reader: Reader
    rows: np.ndarray  # i32[N]
    field: str
    scale: float
    stream: tuple[int, ...] | None

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int, /) -> Mapping[str, Any]:
        example = dict(self.reader[int(self.rows[index])])
        if self.stream is not None:
            example[self.field] = drawn(example[self.field], self.scale, (*self.stream, index))
        return example


def drawn(x: np.ndarray, scale: float, stream: tuple[int, ...]) -> np.ndarray:
    """Bernoulli draws, the same for ever.

    Args:
      x: [...], stored values from 0 to scale.
      scale: the stored value that means one.
      stream: which of the streams of BINARISE_SEED; the part, for one example also its number.

    Returns:
      u8[...], 0 or 1, with mean x / scale to 2^-32.
    """
    pairs = random_words(BINARISE_SEED, stream, (x.size + 1) // 2)
    words = pairs.astype("<u8").view("<u4")[: x.size]
    threshold = x.reshape(-1).astype(np.float64) * (2.0**32 / scale)
    return (words < threshold).astype(np.uint8).reshape(x.shape)
