"""Runs an exported program; it needs jax and nothing else.

python run_exported.py            # runs the program in the same folder
python run_exported.py FILE 256   # runs another program, with 256 examples
"""

import pathlib
import sys
import time

import jax
import numpy as np
from jax import export


def main(arguments):
    """Runs the program on random inputs and prints what it computes."""
    here = pathlib.Path(__file__).parent
    path = pathlib.Path(arguments[0]) if arguments else next(iter(sorted(here.glob("*.stablehlo"))))
    count = int(arguments[1]) if len(arguments) > 1 else 64
    program = export.deserialize(bytearray(path.read_bytes()))
    ((inputs,), _) = jax.tree.unflatten(program.in_tree, program.in_avals)
    outputs = jax.tree.unflatten(program.out_tree, program.out_avals)
    for title, specs in (("takes", inputs), ("gives", outputs)):
        print(path.name, title, ", ".join(f"{n} {s.str_short()}" for n, s in specs.items()))
    run = jax.jit(program.call)
    random = np.random.default_rng(0)
    given = {name: drawn(random, name, count, spec) for name, spec in sorted(inputs.items())}
    found = run(given)
    for name in inputs:  # a decoder with a prior decodes latents that the prior has drawn
        if name[0] == "z" and "draw" + name[1:] in found:
            given[name] = found["draw" + name[1:]]
    run(given)
    start = time.perf_counter()
    found = jax.device_get(run(given))
    print(f"{count} examples in {1000 * (time.perf_counter() - start):.1f} ms")
    for name, value in sorted(found.items()):
        print(f"{name:<10} {value.shape!s:<16} mean {float(np.mean(value)):.5f}")


def drawn(random, name, count, spec):
    """Draws an input: uniform numbers in [0, 1), or zeros for latents and contexts."""
    shape = (count, *spec.shape[1:])
    uniform = random.random(shape, np.float32)
    return (uniform if name in ("noise", "x") else np.zeros(shape)).astype(spec.dtype)


if __name__ == "__main__":
    main(sys.argv[1:])
