"""The data, the flags and the protocol of all programs whose training `bench-sae` times.

It needs only numpy, since interpreters with other libraries import it too. A program first prints
one line of JSON with the versions of its libraries. Then, for each line of JSON {"steps": n,
"dead": m} on standard input, it trains for n steps with m dead latents and prints its measurements
as a line of JSON.
"""

import argparse
import json
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

BATCHES = 4  # number of batches that each program cycles through
SILENT = 1_000_000  # number of steps since a dead latent was last active
BIAS = -2.0  # encoder bias of a dead latent, so low that it stays dead


def arguments() -> argparse.Namespace:
    """Parses the flags --code, --size D, --latents m, --k and --batch B."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--code", choices=["topk", "batchtopk", "jumprelu"], required=True)
    for name in ("size", "latents", "k", "batch"):
        parser.add_argument(f"--{name}", type=int, required=True)
    return parser.parse_args()


def activations(size: int, batch: int) -> np.ndarray:
    """Returns T = 4 batches of synthetic activations with mean square 1, f32[T, B, D].

    Each example is a sum of about 20 of 4 D random directions, with exponentially distributed
    weights.
    """
    generator = np.random.default_rng(0)
    directions = generator.normal(size=(4 * size, size)).astype(np.float32)
    active = generator.random((BATCHES * batch, 4 * size)) < 20 / (4 * size)
    weights = active * generator.exponential(size=active.shape)
    x = weights.astype(np.float32) @ directions
    return (x / np.sqrt(np.mean(np.square(x)))).reshape(BATCHES, batch, size)


def answer(versions: dict[str, str], run: Callable[[int, int], dict[str, Any]]) -> None:
    """Answers requests on standard input until it ends.

    Args:
      versions: name of a library -> its version.
      run: (steps, dead latents) -> measurements, among them the "seconds" that the steps took.
    """
    _say(versions)
    for line in sys.stdin:
        wanted = json.loads(line)
        found = run(wanted["steps"], wanted["dead"])
        # Linux reports ru_maxrss in kilobytes.
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        _say({**found, "peak_bytes": peak})


def timed(steps: Callable[[], Any]) -> float:
    """Calls a function and returns how many seconds the call takes."""
    start = time.perf_counter()
    steps()
    return time.perf_counter() - start


def _say(record: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(record) + "\n")
    sys.stdout.flush()
