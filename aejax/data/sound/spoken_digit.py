"""The Free Spoken Digit Dataset: 3,000 recordings of ten digits by six speakers at 8 kHz.

The builder of tensorflow-datasets decodes the files with ffmpeg and drops speaker and number; this
module reads the samples as they are stored, and keeps both.
"""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from aejax.data.builder import builder
from aejax.data.data_dir import check_prepared, locked_workspace, newest, quiet_tfds
from aejax.data.sound.files import MOST_BYTES, at_rate, read_sound
from aejax.data.sound.recordings import FILE, Recordings, read_recordings, write_recordings
from aejax.errors import UserError
from aejax.files import members, read_bytes, reading
from aejax.optional import needs

NAME = "spoken_digit"
SPEAKERS = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")
RATE = 8_000
COUNT = 3_000
URL = "https://github.com/Jakobovski/free-spoken-digit-dataset/archive/v1.0.9.tar.gz"
# sha256 over the names and samples of the 3,000 recordings of version 1.0.9.
SHA256 = "5322a890831e768963f5c8df2669fa196e2f77ffbc4515222a10dfc0424a1f89"


def spoken_digit(
    data_dir: Path, manual_dir: Path | None, prepared_only: bool = False
) -> Recordings:
    """Reads the prepared recordings, after preparing them if that was not done before.

    The columns are `label` (the digit), `label_digit`, `label_speaker` and `label_number`, which
    counts a speaker's recordings of a digit from 0 to 49.

    Args:
      data_dir: the folder of prepared data sets; it is created if it does not exist.
      manual_dir: a folder with the recordings, or with one tar archive of them.
      prepared_only: whether to raise instead of preparing them.

    Raises:
      UserError: if the recordings are missing or damaged, or data_dir cannot be written.
    """
    found = newest(data_dir, NAME, FILE)
    if found is not None:
        return read_recordings(found)
    check_prepared(NAME, data_dir, prepared_only)
    with locked_workspace(data_dir) as workspace:
        found = newest(data_dir, NAME, FILE)
        if found is not None:  # another process prepared it while this one waited for the lock
            return read_recordings(found)
        recordings = _read(manual_dir)
        print(f"preparing {NAME} in {data_dir}, once", file=sys.stderr)
        with quiet_tfds():
            made = _builder(recordings)(data_dir=str(workspace), file_format="array_record")
            made.download_and_prepare()
        folder = Path(made.data_dir)
        write_recordings(folder / FILE, recordings)
        target = data_dir / folder.relative_to(workspace)
        target.parent.mkdir(parents=True, exist_ok=True)
        folder.rename(target)
    return recordings


def _read(manual_dir: Path | None) -> Recordings:
    if manual_dir is None:
        raise UserError(
            f"the recordings of {NAME} are not prepared yet: fetch {URL}, and give its folder by "
            "--manual-dir (the archive need not be unpacked)"
        )
    sounds, rows, digest = [], [], hashlib.sha256()
    for name, content in sorted(_files(manual_dir)):
        parts = re.fullmatch(r"([0-9])_([a-z]+)_([0-9]+)\.wav", name)
        if parts is None or parts[2] not in SPEAKERS:
            raise UserError(
                f"{name} is not named as a recording of {NAME}, such as 7_jackson_32.wav: remove it"
            )
        sound = read_sound(content, name)
        if sound.rate != RATE:
            raise UserError(f"{name} has {sound.rate} Hz instead of {RATE}: fetch {URL} again")
        sounds.append(at_rate(sound, RATE, name))
        rows.append((int(parts[1]), SPEAKERS.index(parts[2]), int(parts[3])))
        digest.update(f"{name} {len(sounds[-1])}\n".encode() + sounds[-1].astype("<i2").tobytes())
    if not sounds:
        raise UserError(f"{manual_dir} holds neither .wav files nor a tar archive: fetch {URL}")
    digit, speaker, number = np.asarray(rows, np.int32).T
    factors = {"label_digit": digit, "label_speaker": speaker, "label_number": number}
    known = digest.hexdigest() == SHA256
    return Recordings(
        name=NAME,
        sounds=sounds,
        columns={"label": digit, **factors},
        names={"label_speaker": SPEAKERS, "label": tuple(map(str, range(10)))},
        rate=RATE,
        origin=f"from --manual-dir, {'content verified' if known else 'not the known content'}",
        facts={},
    )


def _files(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Yields name and bytes of each .wav file in a folder, or of one tar archive in it."""
    if not folder.is_dir():
        raise UserError(
            f"there is no folder {folder}: fetch {URL} and give its folder by --manual-dir"
        )
    waves = [path for path in folder.rglob("*.wav") if not path.name.startswith(".")]
    if waves:
        for path in waves:
            with reading(path, f"fetch {URL} again"):
                content = read_bytes(path, MOST_BYTES)
            yield path.name, content
        return
    for path in sorted(folder.glob("*.tar*")):
        with reading(path, f"fetch {URL} again", says="is damaged"):
            for name, content in members(path, lambda name: name.endswith(".wav")):
                yield Path(name).name, content
        return


def _builder(found: Recordings) -> type:
    """Returns the tfds builder class, which stores the samples as int16 tensors."""
    features = needs("tensorflow_datasets", f"preparing {NAME}").features
    columns = {name: found.columns[f"label_{name}"] for name in ("digit", "speaker", "number")}
    examples = (
        {"audio": sound, **{name: int(column[i]) for name, column in columns.items()}}
        for i, sound in enumerate(found.sounds)
    )
    kinds = {
        "audio": features.Tensor(shape=(None,), dtype=np.int16),
        "digit": features.ClassLabel(num_classes=10),
        "speaker": features.ClassLabel(names=list(SPEAKERS)),
        "number": features.Scalar(np.int32),
    }
    about = "Free Spoken Digit Dataset, as 16-bit samples at 8 kHz."
    return builder(NAME, about, kinds, {"train": examples}, rate=found.rate)
