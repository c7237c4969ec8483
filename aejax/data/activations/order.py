"""The order of a store's tokens in training, shuffled although they do not fit in memory.

    epoch      a permutation of all blocks of 256 tokens, determined by (seed, epoch)
    pool       256 consecutive blocks of that permutation: 65,536 tokens, read into memory
    batch      the next tokens of a permutation of the pool, determined by (seed, epoch, pool)

The endless sequence of tokens, epoch after epoch, is called the stream. Its token at position p is
a function of (seed, p), so batch t is a function of (seed, t), and a run resumes without restoring
a buffer. Every token occurs once per epoch. The tokens of a block are always in the same pool. If
one pool holds all tokens, the order is a uniform permutation.
"""

from __future__ import annotations

import functools

import numpy as np

from aejax.data.activations.tokens import BLOCK
from aejax.data.order import permutation
from aejax.data.words import shuffled


def stream(tokens: int, seed: int, start: int, count: int, pool: int) -> np.ndarray:
    """Returns the indices of tokens in the order of training, from position `start` on.

    Args:
      tokens: the number of tokens, N.
      seed: the seed, 0 or more.
      start: the first position, 0 or more; position p belongs to epoch p // N.
      count: the number of positions.
      pool: the number of tokens to shuffle together. It is rounded down to a multiple of BLOCK, the
        number of tokens that are read at once, but not below BLOCK.

    Returns:
      The tokens' indices in the store, i64[count].
    """
    pieces, position, stop = [np.empty(0, np.int64)], start, start + count
    per_pool = blocks_of(pool)
    while position < stop:
        epoch, inside = divmod(position, tokens)
        number = _pool_at(tokens, seed, epoch, inside, per_pool)
        skipped = inside - _start(tokens, seed, epoch, number, per_pool)
        order = _pool(tokens, seed, epoch, number, per_pool)
        pieces.append(order[skipped : skipped + stop - position])
        assert len(pieces[-1])  # an empty piece would make this loop endless
        position += len(pieces[-1])
    return np.concatenate(pieces)


def blocks_of(pool: int) -> int:
    """Returns the number of blocks of 256 tokens that fit into `pool` tokens, but 1 or more."""
    return max(1, pool // BLOCK)


def pool_tokens(tokens: int, pool: int) -> int:
    """Returns the number of tokens that are shuffled together.

    It is `pool`, rounded down to whole blocks of 256 tokens, but at most `tokens`, which are all.
    """
    return min(tokens, blocks_of(pool) * BLOCK)


@functools.lru_cache(maxsize=32)
def _short(tokens: int, seed: int, epoch: int) -> int:
    """Returns the position of the store's last block in the order of blocks of an epoch.

    This block may have fewer tokens than the others.
    """
    order = permutation(-(-tokens // BLOCK), seed, epoch)
    return int(np.flatnonzero(order == len(order) - 1)[0])


def _start(tokens: int, seed: int, epoch: int, number: int, per_pool: int) -> int:
    """Returns the position in the epoch's order of tokens at which pool `number` starts."""
    lacking = -tokens % BLOCK if _short(tokens, seed, epoch) < number * per_pool else 0
    return number * per_pool * BLOCK - lacking


def _pool_at(tokens: int, seed: int, epoch: int, inside: int, per_pool: int) -> int:
    """Returns the index of the pool that holds position `inside` of the epoch's order of tokens."""
    # If the short block lies before the position, this estimate may be one too small. Pools after
    # the last one start at N or later, so the result never exceeds the last pool.
    number = inside // (per_pool * BLOCK)
    return number + int(_start(tokens, seed, epoch, number + 1, per_pool) <= inside)


# The cache holds several pools, because models trained together with different seeds (`seeds`) each
# read from a pool of their own.
@functools.lru_cache(maxsize=32)
def _pool(tokens: int, seed: int, epoch: int, number: int, per_pool: int) -> np.ndarray:
    """Returns the indices of the tokens of pool `number` in shuffled order, i64[n], read-only."""
    order = permutation(-(-tokens // BLOCK), seed, epoch)
    blocks = order[number * per_pool : (number + 1) * per_pool].astype(np.int64)
    inside = (blocks[:, None] * BLOCK + np.arange(BLOCK)).reshape(-1)
    inside = inside[inside < tokens]
    found = inside[shuffled(seed, (epoch, number), len(inside))]
    found.flags.writeable = False
    return found
