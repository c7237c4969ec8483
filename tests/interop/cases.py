"""Files of other libraries, written here byte by byte, and their outputs in float64."""

import json
import struct
import zipfile

import numpy as np
from safetensors.numpy import save_file

SIZE, LATENTS, OUTPUT, BATCH = 6, 14, 5, 9


def draw(*shape, seed=0, scale=0.5):
    return (np.random.default_rng(seed).normal(size=shape) * scale).astype(np.float32)


def inputs(seed=100):
    """Makes inputs whose mean is far from 0, so that a missing b_dec or mean shows."""
    return draw(BATCH, SIZE, seed=seed, scale=1.0) + np.float32(0.7)


def weights(output=SIZE, seed=1):
    """Makes weights named as in the reference: W_enc (d, m), W_dec (m, d_out), biases,
    threshold.
    """
    return {
        "W_enc": draw(SIZE, LATENTS, seed=seed),
        "W_dec": draw(LATENTS, output, seed=seed + 1),
        "b_enc": draw(LATENTS, seed=seed + 2),
        "b_dec": draw(output, seed=seed + 3),
        "threshold": np.abs(draw(LATENTS, seed=seed + 4)) + np.float32(0.1),
        "b_gate": draw(LATENTS, seed=seed + 5),
        "b_mag": draw(LATENTS, seed=seed + 6),
        "r_mag": draw(LATENTS, seed=seed + 7),
        "W_skip": draw(SIZE, output, seed=seed + 8),  # used as x @ W_skip
    }


def output_of(kind, w, x, *, subtract, k=3, rescale=False, skip=False, layer_norm=False):
    """Computes the reconstruction by the papers' formulas, f64[B, d_out], for each example
    alone.
    """
    w = {name: value.astype(np.float64) for name, value in w.items()}
    rows = []
    for row in x.astype(np.float64):
        mean, std = 0.0, 1.0
        seen = row
        if layer_norm:
            mean = row.mean()
            std = np.sqrt(((row - mean) ** 2).sum() / (len(row) - 1))
            seen = (row - mean) / (std + 1e-5)
        centred = seen - w["b_dec"] if subtract else seen
        if kind == "matching_pursuit":
            code = pursuit_of(centred, w["W_dec"], threshold=0.4)
        else:
            code = _activation(kind, w, centred @ w["W_enc"], k, rescale)
        out = w["b_dec"] + code @ w["W_dec"]
        rows.append(out * std + mean + (row @ w["W_skip"] if skip else 0.0))
    return np.stack(rows)


def pursuit_of(x, atoms, threshold, steps=None, repeats=False):
    """Matching pursuit of one example: the code, by the loop of the definition."""
    code, residual = np.zeros(len(atoms)), x
    for _ in range(len(x) if steps is None else steps):
        products = atoms @ residual
        best = int(np.argmax(products))
        known, value = code[best] != 0, max(products[best], 0.0)
        code[best] += value
        residual = residual - value * atoms[best]
        if (known and not repeats) or value == 0 or np.linalg.norm(residual) < threshold:
            break
    return code


def _activation(kind, w, z, k, rescale):
    if kind == "gated":
        return (z + w["b_gate"] > 0) * np.maximum(np.exp(w["r_mag"]) * z + w["b_mag"], 0)
    pre = z + w["b_enc"]
    if kind == "relu":
        return np.maximum(pre, 0)
    if kind == "jumprelu":
        return np.maximum(pre, 0) * (pre > w["threshold"])
    score = np.abs(pre) if kind == "abstopk" else pre
    if rescale:
        score = score * np.sqrt((w["W_dec"] ** 2).sum(axis=1))
    keep = np.argsort(-score, kind="stable")[:k]
    code = np.zeros_like(pre)
    code[keep] = pre[keep] if kind == "abstopk" else np.maximum(pre[keep], 0)
    return code


def write_saelens(folder, tensors, **config):
    """Writes the folder of one SAE as SAELens 6 does."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(
        {name: np.ascontiguousarray(value) for name, value in tensors.items()},
        folder / "sae_weights.safetensors",
    )
    whole = {"d_in": SIZE, "d_sae": LATENTS, "dtype": "float32", **config}
    (folder / "cfg.json").write_text(json.dumps(whole))
    return folder


def write_torch(path, state):
    """Writes a file like torch.save: tensors, numbers, strings and dictionaries, without
    PyTorch.
    """
    storages = []
    program = b"\x80\x02" + _pickled(state, storages) + b"."
    write_archive(path, program, storages)
    return path


def write_archive(path, program, storages=()):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("archive/data.pkl", program)
        archive.writestr("archive/byteorder", "little")
        for i, array in enumerate(storages):
            archive.writestr(f"archive/data/{i}", np.ascontiguousarray(array).tobytes())
        archive.writestr("archive/version", "3\n")


def _pickled(value, storages):
    if isinstance(value, dict):
        items = b"".join(_pickled(k, storages) + _pickled(v, storages) for k, v in value.items())
        return b"ccollections\nOrderedDict\n)R(" + items + b"u"
    if isinstance(value, str):
        return b"X" + struct.pack("<I", len(value.encode())) + value.encode()
    if isinstance(value, int):
        return b"J" + struct.pack("<i", value)
    return _tensor(np.asarray(value), storages)


def _tensor(array, storages):
    kinds = {"float32": "Float", "int32": "Int", "int64": "Long", "float16": "Half"}
    # A transposed view is stored as it lies in memory, with its strides, as in PyTorch.
    base = array.T if array.ndim == 2 and array.flags.f_contiguous else array
    storages.append(base)
    strides = tuple(s // array.itemsize for s in array.strides)
    storage = (
        b"("
        + _pickled("storage", storages)
        + f"ctorch\n{kinds[str(array.dtype)]}Storage\n".encode()
        + _pickled(str(len(storages) - 1), storages)
        + _pickled("cpu", storages)
        + _pickled(int(array.size), storages)
        + b"tQ"
    )
    numbers = [
        b"(" + b"".join(_pickled(int(n), storages) for n in t) + b"t"
        for t in (array.shape, strides)
    ]
    return (
        b"ctorch._utils\n_rebuild_tensor_v2\n("
        + storage
        + _pickled(0, storages)
        + numbers[0]
        + numbers[1]
        + b"\x89ccollections\nOrderedDict\n)RtR"
    )
