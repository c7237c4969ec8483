"""The task that all contestants of bench-sae share: its data, its flags, and how they answer.

Needs numpy alone, as interpreters that have other libraries read it too. A contestant first prints
one line of JSON with its versions; then for each line {"steps": n, "dead": m} on standard input it
takes n steps with m latents dead and prints what it measured.
"""

import argparse
import json
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

BATCHES = 4  # batches of data that contestants cycle through
SILENT = 1_000_000  # steps since a dead latent was last active
BIAS = -2.0  # of a dead latent: below what others reach, so that it stays dead


def arguments() -> argparse.Namespace:
    """--code, --size D, --latents m, --k, --batch B."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--code", choices=["topk", "batchtopk", "jumprelu"], required=True)
    for name in ("size", "latents", "k", "batch"):
        parser.add_argument(f"--{name}", type=int, required=True)
    return parser.parse_args()


def activations(size: int, batch: int) -> np.ndarray:
    """Sums of a few of 4 D directions with exponential weights, mean square 1, f32[T, B, D]."""
    generator = np.random.default_rng(0)
    directions = generator.normal(size=(4 * size, size)).astype(np.float32)
    active = generator.random((BATCHES * batch, 4 * size)) < 20 / (4 * size)
    weights = active * generator.exponential(size=active.shape)
    x = weights.astype(np.float32) @ directions
    return (x / np.sqrt(np.mean(np.square(x)))).reshape(BATCHES, batch, size)


def answer(versions: dict[str, str], run: Callable[[int, int], dict[str, Any]]) -> None:
    """Serves standard input until it ends.

    Args:
      versions: of the libraries.
      run: (steps, dead) -> a dictionary with "seconds" that these steps took.
    """
    _say(versions)
    for line in sys.stdin:
        wanted = json.loads(line)
        found = run(wanted["steps"], wanted["dead"])
        # Kilobytes on Linux.
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        _say({**found, "peak_bytes": peak})


def timed(steps: Callable[[], Any]) -> float:
    """Seconds that a call takes."""
    start = time.perf_counter()
    steps()
    return time.perf_counter() - start


def _say(record: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(record) + "\n")
    sys.stdout.flush()
