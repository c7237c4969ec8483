"""The report page, report.html: sections of text, pictures and tables in one HTML file."""

from __future__ import annotations

import base64
import html
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from aejax.files import with_policy
from aejax.report.clips import Clip, players
from aejax.report.css import CSS
from aejax.report.drawing.style import DARK, DENSITY, LIGHT, png
from aejax.report.results import by_group, by_seed, figures, groups, notes, together

# The width in CSS pixels above which a picture scrolls on a narrow screen instead of shrinking.
WIDE = 480


class Picture(NamedTuple):
    """A plot, as a function that draws it, and its caption."""

    name: str  # the name of its file figures/NAME.png: lower-case letters, digits and hyphens
    caption: str  # what the plot shows and how to read it
    draw: Callable[..., Any]  # draw(theme=Theme) -> matplotlib Figure


class Table(NamedTuple):
    """A table of the report page; columns that contain only numbers are right-aligned."""

    header: Sequence[str]
    rows: Sequence[Sequence[Any]]
    caption: str = ""


class Section(NamedTuple):
    """A section of the report page: a title, then optional text, pictures, sounds and a table."""

    title: str
    text: str = ""  # paragraphs, separated by empty lines
    figures: Sequence[Picture] = ()  # the plots
    table: Table | None = None
    clips: Sequence[Clip] = ()  # sounds, each with its spectrogram and a player


class Drawn(NamedTuple):
    """A picture after it was drawn, as two PNG files."""

    picture: Picture
    light: bytes  # the PNG file of the light theme
    dark: bytes  # the PNG file of the dark theme
    width: int  # the width in CSS pixels
    height: int  # the height in CSS pixels


def draw(picture: Picture) -> Drawn:
    """Draws a picture in the light and in the dark theme."""
    light, dark = (png(picture.draw(theme=theme)) for theme in (LIGHT, DARK))
    # The header of a PNG file stores the width and the height at these offsets.
    width, height = (int.from_bytes(light[at : at + 4], "big") for at in (16, 20))
    return Drawn(picture, light, dark, round(width / DENSITY), round(height / DENSITY))


def render(
    title: str,
    sections: Sequence[Section],
    drawn: Mapping[str, Drawn],
    summary: str = "",
    results: Mapping[str, Any] | None = None,
    config: Mapping[str, Any] | None = None,
    environment: Mapping[str, Any] | None = None,
) -> str:
    """Builds the HTML of the report page.

    Args:
      title: the experiment's name.
      sections: the sections, in the order of the page.
      drawn: name of a picture -> the drawn picture, for every picture of the sections.
      summary: one sentence below the title.
      results: name of a result, such as "nll" -> {"mean": ..., "std": ..., "values": [per seed]} or
        a number; or name of another model -> a mapping of its results, for comparison.
      config: the run's configuration: field -> value, which may be a nested mapping.
      environment: the versions and the machine: field -> value, which may be a nested mapping.

    Returns:
      HTML without scripts, in which all text is escaped, and pictures and sounds are embedded. Its
      Content-Security-Policy keeps a browser from running or fetching anything else.
    """
    parts = [f"<header><h1>{_text(title)}</h1>"]
    if summary:
        parts.append(f'<p class="lead">{_text(summary)}</p>')
    parts.append("</header>")
    if tables := _results(results or {}):
        parts.append(f'<section id="results"><h2>Results</h2>{tables}</section>')
    if len(sections) > 2:
        links = (f'<a href="#s{i}">{_text(s.title)}</a>' for i, s in enumerate(sections))
        parts.append(f"<nav>{' '.join(links)}</nav>")
    parts += [_section(i, section, drawn) for i, section in enumerate(sections)]
    for name, fields in (("Config", config), ("Environment", environment)):
        if fields:
            rows = [(key, value) for key, value in flattened(fields)]
            table = _table(Table(("field", "value"), rows), as_text=True)
            parts.append(f"<details><summary>{name}</summary>{table}</details>")
    # The policy forbids attributes `style`, so that each width has a class.
    widths = "".join(f".w{w}{{--w:{w}px}}" for w in sorted({each.width for each in drawn.values()}))
    style = f"<style>{CSS}{widths}</style>"
    return with_policy(
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{_text(title)}</title>{style}</head>\n<body><main>"
        + "\n".join(parts)
        + "</main></body></html>\n",
        trusted=style,
    )


def flattened(fields: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Returns (dotted name, value) of all nested fields as text, such as ("model.latents", "2")."""
    rows = []
    for name, value in fields.items():
        if isinstance(value, Mapping) and value:
            rows += flattened(value, f"{prefix}{name}.")
        elif isinstance(value, (list, tuple)) and all(isinstance(v, (int, str)) for v in value):
            rows.append((f"{prefix}{name}", ", ".join(map(str, value)) or "none"))
        else:
            rows.append((f"{prefix}{name}", "none" if value is None else str(value)))
    return rows


def _results(results: Mapping[str, Any]) -> str:
    """Returns HTML tables of result.json: the model's results, then the results of other models."""
    parts = []
    if own := figures(results):
        parts.append(_table(Table(*by_seed(own), notes(own)), classes="results"))
    for others in together(groups(results)):
        names = dict.fromkeys(name for group in others.values() for name in group)
        parts.append(_table(Table(*by_group(others), notes(names)), classes="groups"))
    return "".join(parts)


def _section(i: int, section: Section, drawn: Mapping[str, Drawn]) -> str:
    parts = [f'<section id="s{i}"><h2>{_text(section.title)}</h2>']
    parts += [f"<p>{_text(text)}</p>" for text in section.text.split("\n\n") if text.strip()]
    if section.figures:
        inner = "".join(_figure(drawn[picture.name]) for picture in section.figures)
        parts.append(f'<div class="figures">{inner}</div>')
    if section.clips:
        parts.append(players(section.clips))
    if section.table is not None:
        parts.append(_table(section.table))
    return "".join(parts) + "</section>"


def _figure(drawn: Drawn) -> str:
    light, dark = (
        "data:image/png;base64," + base64.b64encode(data).decode()
        for data in (drawn.light, drawn.dark)
    )
    caption = drawn.picture.caption
    # On a narrow screen labels would shrink with the picture, so a wide picture scrolls instead.
    wide = " wide" if drawn.width > WIDE else ""
    return (
        f'<figure class="w{drawn.width}{wide}" id="{_text(drawn.picture.name)}"><picture>'
        f'<source media="(prefers-color-scheme: dark)" srcset="{dark}">'
        f'<img src="{light}" width="{drawn.width}" height="{drawn.height}" '
        f'alt="{_text(caption)}"></picture><figcaption>{_text(caption)}</figcaption></figure>'
    )


def _table(table: Table, as_text: bool = False, classes: str = "") -> str:
    """Returns the HTML of a table; if `as_text` is True, numbers are left-aligned too."""
    numeric = [
        not as_text and all(_is_number(row[i]) for row in table.rows)
        for i in range(len(table.header))
    ]
    marks = [' class="n"' if number else "" for number in numeric]
    head = "".join(
        f"<th{m}>{_text(name)}</th>" for m, name in zip(marks, table.header, strict=True)
    )
    body = "".join(
        "<tr>"
        + "".join(f"<td{m}>{_text(str(c))}</td>" for m, c in zip(marks, row, strict=True))
        + "</tr>"
        for row in table.rows
    )
    caption = f"<caption>{_text(table.caption)}</caption>" if table.caption else ""
    return (
        f'<div class="scroll {classes}"><table>{caption}<thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _is_number(cell: Any) -> bool:
    if isinstance(cell, (int, float, np.number)):
        return True
    text = str(cell).strip("±%\u2007\u2008 ").replace("\u2212", "-").replace(",", "")
    try:
        float(text or 0)
    except ValueError:
        return False
    return True


def _text(text: str) -> str:
    return html.escape(text, quote=True)
