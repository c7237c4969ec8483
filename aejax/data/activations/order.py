"""Shuffling more tokens than memory holds: blocks over the whole store, then tokens in a pool.

    epoch      a permutation of all blocks of 256 tokens, by (seed, epoch)
    pool       256 of them, from everywhere in the store: 65,536 tokens, read into memory
    batch      the next tokens of a permutation of the pool, by (seed, epoch, pool)

Nothing of this is state: position p of the stream is a function of (seed, p), so batch t is one of
(seed, t), and a run resumes without a buffer to restore. Every token comes once an epoch, epochs
are concatenated. Tokens of one block stay in one pool; a pool that holds all tokens is a plain
permutation.
"""

from __future__ import annotations

import functools

import numpy as np

from aejax.data.activations.tokens import BLOCK
from aejax.data.order import permutation
from aejax.data.words import shuffled


def stream(tokens: int, seed: int, start: int, count: int, pool: int) -> np.ndarray:
    """A piece of the endless stream of token numbers.

    Args:
      tokens: N.
      seed: 0 or more.
      start: the first position, 0 or more; position p lies in epoch p // N.
      count: how many positions.
      pool: tokens that are shuffled together, in whole blocks.

    Returns:
      i64[count].
    """
    pieces, position, stop = [np.empty(0, np.int64)], start, start + count
    per_pool = blocks_of(pool)
    while position < stop:
        epoch, inside = divmod(position, tokens)
        number = _pool_at(tokens, seed, epoch, inside, per_pool)
        skipped = inside - _start(tokens, seed, epoch, number, per_pool)
        order = _pool(tokens, seed, epoch, number, per_pool)
        pieces.append(order[skipped : skipped + stop - position])
        assert len(pieces[-1])  # else this would never end
        position += len(pieces[-1])
    return np.concatenate(pieces)


def blocks_of(pool: int) -> int:
    """Blocks of a pool of so many tokens, 1 or more."""
    return max(1, pool // BLOCK)


def pool_tokens(tokens: int, pool: int) -> int:
    """The true size of a pool: whole blocks, and no more than the N = tokens that there are."""
    return min(tokens, blocks_of(pool) * BLOCK)


@functools.lru_cache(maxsize=32)
def _short(tokens: int, seed: int, epoch: int) -> int:
    """Where in the epoch's order the last block stands, which may be short."""
    order = permutation(-(-tokens // BLOCK), seed, epoch)
    return int(np.flatnonzero(order == len(order) - 1)[0])


def _start(tokens: int, seed: int, epoch: int, number: int, per_pool: int) -> int:
    """The epoch's position at which a pool starts."""
    lacking = -tokens % BLOCK if _short(tokens, seed, epoch) < number * per_pool else 0
    return number * per_pool * BLOCK - lacking


def _pool_at(tokens: int, seed: int, epoch: int, inside: int, per_pool: int) -> int:
    """The pool that holds an epoch's position; a short block before it moves it by one at most."""
    number = inside // (per_pool * BLOCK)
    # Past the last pool nothing starts before N, so that `inside` is never beyond it.
    return number + int(_start(tokens, seed, epoch, number + 1, per_pool) <= inside)


# With many seeds side by side each is in a pool of its own.
@functools.lru_cache(maxsize=32)
def _pool(tokens: int, seed: int, epoch: int, number: int, per_pool: int) -> np.ndarray:
    """The tokens of one pool in the order in which they come, i64[n]; not writable."""
    order = permutation(-(-tokens // BLOCK), seed, epoch)
    blocks = order[number * per_pool : (number + 1) * per_pool].astype(np.int64)
    inside = (blocks[:, None] * BLOCK + np.arange(BLOCK)).reshape(-1)
    inside = inside[inside < tokens]
    found = inside[shuffled(seed, (epoch, number), len(inside))]
    found.flags.writeable = False
    return found
