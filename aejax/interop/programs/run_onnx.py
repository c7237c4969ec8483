"""Runs an exported program; it needs onnxruntime and numpy and nothing else.

python run_exported.py            # runs the program in the same folder
python run_exported.py FILE 256   # runs another program, with 256 examples
"""

import pathlib
import sys
import time

import numpy as np

TYPES = {"tensor(float)": np.float32, "tensor(int32)": np.int32, "tensor(int64)": np.int64}


def main(arguments):
    """Runs the program on random inputs and prints what it computes."""
    import onnxruntime  # here, so that the API reference can read this file without it

    here = pathlib.Path(__file__).parent
    path = pathlib.Path(arguments[0]) if arguments else next(iter(sorted(here.glob("*.onnx"))))
    count = int(arguments[1]) if len(arguments) > 1 else 64
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # small programs gain nothing from more
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    inputs, outputs = session.get_inputs(), session.get_outputs()
    for title, specs in (("takes", inputs), ("gives", outputs)):
        print(path.name, title, ", ".join(f"{s.name} {s.type[7:-1]}{s.shape}" for s in specs))
    for name, text in session.get_modelmeta().custom_metadata_map.items():
        print(f"{name}: {text}")
    names = [spec.name for spec in outputs]
    random = np.random.default_rng(0)
    given = {s.name: drawn(random, s, count) for s in sorted(inputs, key=lambda s: s.name)}
    found = dict(zip(names, session.run(names, given), strict=True))
    for name in given:  # a decoder with a prior decodes latents that the prior has drawn
        if name[0] == "z" and "draw" + name[1:] in found:
            given[name] = found["draw" + name[1:]]
    start = time.perf_counter()
    found = dict(zip(names, session.run(names, given), strict=True))
    print(f"{count} examples in {1000 * (time.perf_counter() - start):.1f} ms")
    for name, value in sorted(found.items()):
        print(f"{name:<10} {value.shape!s:<16} mean {float(np.mean(value)):.5f}")


def drawn(random, spec, count):
    """Draws an input: uniform numbers in [0, 1), or zeros for latents and contexts."""
    shape = (count, *spec.shape[1:])
    uniform = random.random(shape, np.float32)
    return (uniform if spec.name in ("noise", "x") else np.zeros(shape)).astype(TYPES[spec.type])


if __name__ == "__main__":
    main(sys.argv[1:])
