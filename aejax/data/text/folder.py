"""Reads a user's own texts: a folder of text files or of JSON lines, with or without labels."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from aejax.data.text.corpus import Document
from aejax.data.text.source import Grouped, Source, read_lines, read_text
from aejax.errors import UserError
from aejax.files import parse_json

TEXT = (".txt", ".md")
LINES = (".jsonl", ".ndjson")


def source(path: Path) -> Source:
    """Returns the Source of the texts in a folder, or in one file of JSON lines.

    A text file is one document, and the names of subfolders, if there are any, are the labels. In
    a file of JSON lines each line is one document: {"text": ..., "label": ..., "id": ..., "group":
    ...}. Only `text` is required. A label, id or group is a string or an integer. Either every line
    has a label or no line has one. Lines with the same group go to the same split.

    Args:
      path: a folder, or a file that ends in .jsonl or .ndjson.

    Raises:
      UserError: if the folder does not exist, holds no texts, or mixes text files and JSON lines.
        Reading the documents also raises it for a text that is empty or not UTF-8, and for a line
        that is not such an object.
    """
    if path.is_file() and path.suffix.lower() in LINES:
        return _lines(path, path.parent, (path,))
    if not path.is_dir():
        raise UserError(
            f"{path} is neither a folder nor a file of JSON lines ({' '.join(LINES)}): give the "
            "name of a corpus, a folder of text files, or JSON lines"
        )
    found = sorted(
        file
        for file in path.rglob("*")
        if file.suffix.lower() in TEXT + LINES and not file.name.startswith(".")
    )
    lines = [file for file in found if file.suffix.lower() in LINES]
    if not found:
        raise UserError(f"{path} holds no texts: put files in it ({' '.join(TEXT + LINES)})")
    if lines and len(lines) < len(found):
        other = next(file for file in found if file not in lines)
        raise UserError(
            f"{path} holds both text files, such as {other.name}, and JSON lines, such as "
            f"{lines[0].name}: move one kind into another folder"
        )
    return _lines(path, path, tuple(lines)) if lines else _texts(path, tuple(found))


def _texts(folder: Path, files: tuple[Path, ...]) -> Source:
    direct = [file for file in files if file.parent == folder]
    if direct and len(direct) < len(files):
        raise UserError(
            f"{folder} holds both texts, such as {direct[0].name}, and subfolders with texts: "
            "subfolders are labels, so move either all texts into subfolders or none"
        )

    def documents() -> Iterator[Grouped]:
        for file in files:
            parts = file.relative_to(folder).parts
            text = read_text(file)
            if not text.strip():
                raise UserError(f"{file} is empty: delete it or add text to it")
            yield Document("/".join(parts), text, None if direct else parts[0]), ()

    return Source(folder.resolve().name, folder, files, documents, "text files")


def _lines(path: Path, folder: Path, files: tuple[Path, ...]) -> Source:
    def documents() -> Iterator[Grouped]:
        # Whether the first line has a label, and the name of that line.
        labelled: tuple[bool, str] | None = None
        for file in files:
            name = file.relative_to(folder).as_posix()
            for number, (_, line) in enumerate(read_lines(file), 1):
                if not line.strip():
                    continue
                document, keys = _document(line, f"{name}:{number}", f"line {number} of {file}")
                has = document.label is not None
                labelled = labelled or (has, f"line {number} of {file}")
                if has != labelled[0]:
                    without, having = f"line {number} of {file}", labelled[1]
                    without, having = (having, without) if has else (without, having)
                    raise UserError(
                        f"{without} has no label while {having} has one: "
                        "give every line a field 'label', or none"
                    )
                yield document, keys

    return Source(path.resolve().stem, folder, files, documents, "JSON lines")


def _document(line: str, default: str, where: str) -> Grouped:
    try:
        fields = parse_json(line)
    except ValueError as error:
        raise UserError(f"{where} is not JSON ({error}): write one object per line") from error
    if not isinstance(fields, dict) or "text" not in fields:
        there = (
            f"it has {', '.join(fields) or 'no field'}"
            if isinstance(fields, dict)
            else "it is not an object"
        )
        raise UserError(f"{where} has no field 'text' ({there}): write {{\"text\": ...}}")
    text = fields["text"]
    if not (isinstance(text, str) and text.strip()):
        raise UserError(f"{where} has {text!r:.40} as its text: give a string that is not blank")
    if not _whole(text):
        raise UserError(f"{where} has half of a surrogate pair in its text: write it as UTF-8")
    label, id_, group = (_name(fields.get(key), key, where) for key in ("label", "id", "group"))
    keys = () if group is None else (f"group {group}",)
    return Document(default if id_ is None else id_, text, label), keys


def _name(value: Any, key: str, where: str) -> str | None:
    """Returns a label, an id or a group as a string, or None if it is missing."""
    if value is None:
        return None
    known = isinstance(value, str | int) and not isinstance(value, bool)
    if not known or not str(value).strip() or not _whole(str(value)):
        raise UserError(f"{where} has {value!r:.40} as its {key}: give a string or an integer")
    return str(value)


def _whole(text: str) -> bool:
    """Returns whether the text can be encoded as UTF-8; half of a surrogate pair cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
