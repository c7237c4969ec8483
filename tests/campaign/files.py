"""Damaged and edited files of every format: each is read rightly or refused in one sentence.

A hook of the interpreter shows that reading runs no code, opens no connection, starts no process
and writes to no file outside the folder; it is set after one good file of each format was read.
"""

from __future__ import annotations

import dataclasses
import gzip
import io
import json
import os
import pathlib
import random
import shutil
import signal
import struct
import sys
import tarfile
import time
import warnings
import zipfile
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import soundfile
import tokenizers

import aejax as ae
from aejax import interop, report
from aejax.data.activations import ActivationWriter
from aejax.data.activations.store import activations as open_store
from aejax.data.pictures import faces, folder, store, upstream
from aejax.data.sound.folder import read_folder as read_sounds
from aejax.data.sound.recordings import Recordings, read_recordings, write_recordings
from aejax.data.synthetic.store import synthetic, truth
from aejax.data.synthetic.superposition import Superposition
from aejax.errors import UserError
from aejax.files import members, reading
from aejax.language.gguf import load_gguf
from aejax.language.huggingface import load_huggingface
from aejax.language.tokenizer import load_tokenizer
from aejax.runs import metrics
from aejax.runs.run import Run
from tests.harm import resident
from tests.interop.damage_test import FORMATS
from tests.language.parity import reference
from tests.language.tokenizer_test import byte_level
from tests.language.weights_test import write_gguf

SECONDS, ROOM = 5.0, 2**30


class Kind(NamedTuple):
    """A format: how good files are made, and how they are read."""

    make: Callable[[pathlib.Path], Any]  # writes good files into an empty folder
    read: Callable[[pathlib.Path], Any]  # reads the folder
    # Whether hashes cover everything, so that what is read is what was written.
    proved: bool = False
    share: int = 4  # how many cases it gets of a round; those that take long get fewer


def prepared(place: pathlib.Path) -> None:
    pixels = np.arange(96, dtype=np.uint8).reshape(6, 4, 4, 1)
    data = store.Prepared("d", {"train": {"image": pixels}}, 255.0, ("a",), "o")
    store.write_prepared(place / "aejax.npz", data)


def sounds(place: pathlib.Path) -> None:
    parts = [np.arange(9, dtype=np.int16), np.arange(5, dtype=np.int16)]
    names = {"label": ("a", "b")}
    columns = {"label": np.array([0, 1], np.int32)}
    write_recordings(place / "a.npz", Recordings("d", parts, columns, names, 8000, "o", {}))


def activations(place: pathlib.Path) -> None:
    with ActivationWriter(place, provenance={"model": "m"}, shard_tokens=16) as writer:
        for i in range(3):
            writer.append({"h": np.full((16, 4), 0.5 + i, np.float32)})
        writer.finish()


def idx(place: pathlib.Path) -> None:
    content = struct.pack(">HBBII", 0, 8, 2, 3, 5) + bytes(range(15))
    (place / "a.gz").write_bytes(gzip.compress(content, mtime=0))


def pictures(place: pathlib.Path) -> None:
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 255, (8, 8, 3)).astype(np.uint8)
    for ending in ("png", "jpg", "gif", "bmp", "tif", "webp"):
        Image.fromarray(pixels).save(place / f"a.{ending}")


def waves(place: pathlib.Path) -> None:
    samples = (3_000 * np.sin(np.arange(800))).astype(np.int16)
    for ending in ("wav", "flac"):
        soundfile.write(place / f"a.{ending}", samples, 8_000)


MODEL = ae.Autoencoder(ae.nets.MLP((3,)), ae.Point(2), ae.nets.MLP((3,), shape=(4,)))


def state(step: int) -> ae.State:
    x = jnp.ones((2, 4))
    params = MODEL.init(jax.random.key(0), ae.Batch(x, x))["params"]
    return ae.State(jnp.int32(step), jax.random.key(0), params, {}, {})


def run(place: pathlib.Path) -> None:
    with Run(place, {"steps": 2}, model=MODEL, checkpoint_seconds=0) as open_run:
        open_run.restore(state(0))
        for step in (1, 2):
            open_run.log(state(step), {"loss": np.ones(1)})
            open_run.save(state(step))
            open_run._writer.wait()
        open_run.finish({"loss": 1.0}, state(2))


def opened(place: pathlib.Path) -> Any:
    found = ae.load(place)
    metrics.read(place)
    report.history(place)
    with Run(place, {"steps": 2}, model=MODEL) as again:
        if again.result is None:
            again.restore(state(0))
    return found.variables


def texts(place: pathlib.Path) -> None:
    (place / "in").mkdir()
    lines = [json.dumps({"text": f"text {i}", "label": str(i % 2)}) for i in range(30)]
    (place / "in" / "a.jsonl").write_text("\n".join(lines))
    ae.data.texts(place / "in", data_dir=place / "data")


def read_texts(place: pathlib.Path) -> Any:
    parts = ae.data.texts(place / "in", data_dir=place / "data")
    return [document.text for part in parts[:3] for document in part]


def synthetic_truth(place: pathlib.Path) -> Any:
    found = truth(place)
    return found.features(0, found.tokens)


def archives(place: pathlib.Path) -> None:
    with zipfile.ZipFile(place / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("one/1.txt", "first" * 20)
        archive.writestr("2.txt", "second")
    for ending in ("tar", "tar.gz", "tar.bz2", "tar.xz"):
        with tarfile.open(place / f"b.{ending}", f"w:{ending[4:]}") as archive:
            for name in ("one/1.txt", "2" * 120):
                entry = tarfile.TarInfo(name)
                entry.size = 500
                archive.addfile(entry, io.BytesIO(bytes(range(250)) * 2))


def unpacked(place: pathlib.Path) -> Any:
    for path in sorted(place.iterdir()):
        with reading(path, "fetch it again"):
            dict(members(path))


def shards(place: pathlib.Path) -> None:
    shutil.copytree(reference.HERE / "gemma3", place, dirs_exist_ok=True)
    with safetensors.safe_open(place / "model.safetensors", framework="numpy") as file:
        places = dict.fromkeys(file.keys(), "model-1.safetensors")
    (place / "model.safetensors").rename(place / "model-1.safetensors")
    (place / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))


def tokenizer(place: pathlib.Path) -> None:
    inner = tokenizers.Tokenizer(tokenizers.models.BPE(unk_token="<unk>"))
    inner.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel()
    inner.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=60, special_tokens=["<unk>", "<s>"])
    inner.train_from_iterator(["a few words of a text", "some words more"], trainer)
    inner.save(str(place / "tokenizer.json"))
    about = {"bos_token": "<s>", "eos_token": {"content": "<unk>"}, "chat_template": "{{ x }}"}
    (place / "tokenizer_config.json").write_text(json.dumps(about))


def spelled(place: pathlib.Path) -> Any:
    found = load_tokenizer(next(iter(place.glob("*.gguf")), place))
    found.decode(found.encode("some words"))


KINDS = {
    **{name: Kind(make, interop.load) for name, make in FORMATS.items()},
    "prepared pictures": Kind(
        prepared, lambda p: store.read_prepared(p / "aejax.npz").columns, True
    ),
    "prepared sounds": Kind(sounds, lambda p: read_recordings(p / "a.npz").sounds),
    "prepared texts": Kind(texts, read_texts),
    "faces": Kind(
        lambda p: np.savez(p / "frey_faces.npz", images=np.zeros((9, 4, 4), np.uint8)),
        lambda p: faces._frames(p / "frey_faces.npz"),
    ),
    "idx": Kind(idx, lambda p: upstream.read_idx(p / "a.gz", (3, 5)), True),
    "pictures": Kind(pictures, lambda p: [folder.read_folder(p)]),
    "sounds": Kind(waves, lambda p: read_sounds(p, None, False).sounds),
    "activations": Kind(activations, lambda p: open_store(p).verify()),
    "synthetic": Kind(lambda p: synthetic(p, Superposition(8, 4, 2.0), 64), synthetic_truth),
    "run": Kind(run, opened, True, 2),
    "transformers": Kind(
        lambda p: shutil.copytree(reference.HERE / "llama", p, dirs_exist_ok=True),
        load_huggingface,
        share=1,
    ),
    "transformers, shards": Kind(shards, load_huggingface, share=1),
    "gguf": Kind(
        lambda p: write_gguf(p / "a.gguf", "llama"), lambda p: load_gguf(p / "a.gguf"), share=1
    ),
    "gguf, tokenizer": Kind(lambda p: byte_level(p / "a.gguf", "smollm"), spelled),
    "tokenizer": Kind(tokenizer, spelled),
    "archives": Kind(archives, unpacked),
}
ROUND = [name for i in range(4) for name, kind in KINDS.items() if i < kind.share]


def units(cases: range, place: pathlib.Path) -> Iterator[str]:
    """Yields "FORMAT read" or "FORMAT refused" for each case."""
    good, watch = ready({ROUND[case % len(ROUND)] for case in cases}, place)
    for case in cases:
        yield tried(case, place, good, watch)


def ready(names: set[str], place: pathlib.Path) -> tuple[dict[str, list[bytes]], Watch]:
    """Writes good files of each format; returns what is read of them, and the watch."""
    good: dict[str, list[bytes]] = {}
    for name in names:
        (place / name).mkdir()
        KINDS[name].make(place / name)
        good[name] = numbers(KINDS[name].read(copied(place, name)))
    watch = Watch(place)
    sys.addaudithook(watch)
    signal.signal(signal.SIGALRM, _late)
    return good, watch


def tried(case: int, place: pathlib.Path, good: dict[str, list[bytes]], watch: Watch) -> str:
    """Damages a copy of the good files, reads it, and returns how that ended."""
    name = ROUND[case % len(ROUND)]
    where = copied(place, name)
    how = damage(where, random.Random(case))
    what = f"case {case}, {name}, {how}"
    before, begun = resident("VmRSS"), time.process_time()
    pathlib.Path("/proc/self/clear_refs").write_text("5")
    watch.seen = []
    signal.alarm(60)
    try:
        found = attempt(KINDS[name], where, watch, what)
    finally:
        signal.alarm(0)
    seconds = time.process_time() - begun  # on a shared machine the clock says less
    assert seconds < SECONDS, f"{what} took {seconds:.1f} s"
    assert resident("VmHWM") - before < ROOM, f"{what} took much memory"
    assert not watch.seen, f"{what} did {watch.seen}"
    if found is not None and KINDS[name].proved:
        assert found == good[name], f"{what} was read as something else"
    return f"{name} {'refused' if found is None else 'read'}"


def attempt(kind: Kind, where: pathlib.Path, watch: Watch, what: str) -> list[bytes] | None:
    """Reads a folder; returns what was read, or None if it was refused in one sentence."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        watch.on = True
        try:
            return numbers(kind.read(where))
        except UserError as error:
            said = str(error)
        except BaseException as error:
            raise AssertionError(f"{what} raised {type(error).__name__}: {error}") from error
        finally:
            watch.on = False
    assert "\n" not in said, what
    return None


class Watch:
    """Notes what code that reads files must not do."""

    def __init__(self, place: pathlib.Path):
        self.place, self.on, self.seen = str(place), False, []

    def __call__(self, event: str, given: tuple[Any, ...]) -> None:
        if not self.on:
            return
        if event == "open" and isinstance(given[2], int) and given[2] & (os.O_WRONLY | os.O_RDWR):
            if not str(given[0]).startswith(self.place):
                self.seen.append((event, str(given[0])))
        elif event in ("compile", "exec") and _by_dataclasses():
            return  # `load` makes a class of the settings, whose names must be identifiers
        elif event in ("compile", "exec", "subprocess.Popen", "os.system", "os.exec", "pty.spawn"):
            self.seen.append((event, str(given)[:200]))
        elif event in ("socket.connect", "socket.bind", "socket.getaddrinfo"):
            self.seen.append((event, ""))


def _by_dataclasses() -> bool:
    """Returns whether the standard library's dataclasses run the code of a method they made."""
    frame = sys._getframe()
    while frame is not None:
        if frame.f_code.co_filename == dataclasses.__file__:
            return True
        frame = frame.f_back
    return False


def copied(place: pathlib.Path, name: str) -> pathlib.Path:
    """Returns a fresh copy of the good files of a format."""
    shutil.rmtree(place / "copy", ignore_errors=True)
    shutil.copytree(place / name, place / "copy")
    return place / "copy"


def numbers(found: Any) -> list[bytes]:
    """Returns the bytes of all arrays of what was read."""
    leaves = jax.tree.leaves(found)
    return [np.asarray(leaf).tobytes() for leaf in leaves if hasattr(leaf, "dtype")]


def damage(where: pathlib.Path, chance: random.Random) -> str:
    """Damages one file of a folder, and says how."""
    path = chance.choice(sorted(p for p in where.rglob("*") if p.is_file()))
    whole = bytearray(path.read_bytes())
    how = chance.choice(
        ("cut", "flip", "flip", "noise", "insert", "double", "edit", "other", "link", "kind")
    )
    # Headers are at the two ends of a file, so that most changes are made there.
    end = min(len(whole), 300)
    at = chance.choice((chance.randrange(len(whole) or 1), chance.randrange(end or 1)))
    if chance.random() < 0.2:
        at = max(0, len(whole) - 1 - at)
    if how == "edit" and path.suffix in (".json", ".jsonl"):
        path.write_text(edited(path.read_text(), chance))
    elif how == "other":
        path.write_bytes(
            chance.choice((b"", b"null", b"[]", b"3", b"[" * 9_000, b"\x80\x02N.", b"PK", b"\0\n"))
        )
    elif how == "link":
        path.unlink()
        path.symlink_to(chance.choice(("/dev/zero", "/etc/hostname", "/nowhere", ".")))
    elif how == "kind":
        how = chance.choice(("fifo", "sparse", "folder"))
        if how != "sparse":
            path.unlink()
            (os.mkfifo if how == "fifo" else os.mkdir)(path)
        else:
            os.truncate(path, 2**31)  # zeros that take no room on the disk
    elif how == "cut":
        path.write_bytes(whole[:at])
    elif how == "insert":
        path.write_bytes(whole[:at] + chance.randbytes(chance.randrange(1, 40)) + whole[at:])
    elif how == "double":
        path.write_bytes(whole[:at] + whole[at // 2 :])
    elif whole:
        for i in range(at, min(len(whole), at + (16 if how == "noise" else 1))):
            whole[i] ^= chance.randrange(1, 256) if how == "noise" else 1 << chance.randrange(8)
        path.write_bytes(whole)
    return f"{how} at {at} of {path.relative_to(where)}"


VALUES = (
    None,
    [],
    {},
    3,
    -1,
    10**40,
    0,
    1.5,
    "x",
    "NaN",
    [None],
    {"a": {}},
    True,
    "\ud800",
    "../x",
)


def edited(text: str, chance: random.Random) -> str:
    """Returns JSON, or lines of JSON, in which one field of an object is another value or gone."""
    lines = text.splitlines()
    joined = not text.startswith("{\n") and len(lines) > 1
    chosen = chance.randrange(len(lines)) if joined else 0
    data = json.loads(lines[chosen] if joined else text)
    inner = data
    while isinstance(inner, dict) and inner:
        name = chance.choice(sorted(inner))
        if chance.random() < 0.4 or not isinstance(inner[name], dict):
            inner[name] = chance.choice(VALUES)
            if chance.random() < 0.2:
                del inner[name]
            break
        inner = inner[name]
    if not joined:
        return json.dumps(data)
    return "\n".join([*lines[:chosen], json.dumps(data), *lines[chosen + 1 :], ""])


def _late(number: int, frame: Any) -> None:
    raise TimeoutError("it took more than a minute")
