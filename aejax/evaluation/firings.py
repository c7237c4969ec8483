"""The nonzero activations of each latent of a sparse code in a corpus, and their tokens.

found = firings(encode(x[i : i + 4096]) for i in range(0, len(x), 4096))
tokens, values = found.of(17)          # i64[n] in ascending order, f32[n]
found.frequency                        # f64[m]
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from aejax.errors import UserError


class Firings(NamedTuple):
    """The E nonzero activations of m latents on N tokens, in the order of the latents."""

    token: np.ndarray  # i64[E], the token of each activation, ascending for each latent
    value: np.ndarray  # f32[E], the activation
    start: np.ndarray  # i64[m + 1]; start[j] to start[j + 1] - 1 are the entries of latent j
    tokens: int  # N, the number of tokens

    @property
    def latents(self) -> int:
        """The number of latents, m."""
        return len(self.start) - 1

    @property
    def frequency(self) -> np.ndarray:
        """The share of the tokens at which each latent is active, f64[m]."""
        return np.diff(self.start) / max(self.tokens, 1)

    def of(self, latent: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the tokens at which a latent is active, i64[n], and its activations, f32[n].

        Raises:
          UserError: if there is no such latent.
        """
        if not 0 <= latent < self.latents:
            raise UserError(
                f"there is no latent {latent}: the dictionary has 0 to {self.latents - 1}"
            )
        own = slice(self.start[latent], self.start[latent + 1])
        return self.token[own], self.value[own]

    def column(self, latent: int) -> np.ndarray:
        """Returns the activations of one latent on all tokens, f32[N]."""
        dense = np.zeros(self.tokens, np.float32)
        token, value = self.of(latent)
        dense[token] = value
        return dense


def firings(chunks: Iterable[np.ndarray]) -> Firings:
    """Collects the nonzero activations of codes.

    Args:
      chunks: the codes of consecutive tokens, f[n, m] each.

    Raises:
      UserError: if `chunks` is empty.
    """
    tokens, latents, values = [], [], []
    count, size = 0, 0
    for chunk in chunks:
        codes = np.asarray(chunk)
        row, column = np.nonzero(codes)
        tokens.append(row + count)
        latents.append(column)
        values.append(codes[row, column].astype(np.float32))
        count, size = count + len(codes), codes.shape[1]
    if not tokens:
        raise UserError("there are no codes: give the codes of one chunk of tokens or more")
    latent = np.concatenate(latents)
    order = np.argsort(latent, kind="stable")
    start = np.concatenate([[0], np.cumsum(np.bincount(latent, minlength=size))])
    return Firings(np.concatenate(tokens)[order], np.concatenate(values)[order], start, count)
