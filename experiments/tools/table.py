"""Writes the tables of experiments/README.md from experiments/results/*.json.

    python -m experiments table

A table of measured figures is written between <!-- figures: NAME --> and <!-- end -->, where NAME
is the name of a results file. A table that compares with published results is written between
<!-- published: NAME --> and <!-- end -->, where NAME is in experiments/shared/published.py. A table
of one figure over several runs is written between <!-- runs: NAME FIGURE --> and <!-- end -->: its
columns are the results files whose names start with NAME, and the last one is their mean.
"""

from __future__ import annotations

import contextlib
import math
import pathlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from aejax.errors import UserError
from aejax.files import read_json, write_bytes
from aejax.report.results import together
from experiments.shared.place import say
from experiments.shared.published import TABLES, Row
from experiments.tools.keep import RESULTS

PLACE = re.compile(
    r"<!-- (?P<kind>figures|published|runs): (?P<name>[\w-]+)(?: (?P<figure>\w+))? -->\n"
    r".*?<!-- end -->",
    re.DOTALL,
)


def command(readme: pathlib.Path = pathlib.Path("experiments/README.md")) -> None:
    """Replaces the tables of a Markdown file by new ones.

    Args:
      readme: path of the Markdown file.
    """
    try:
        text = readme.read_text()
    except OSError as error:
        raise UserError(
            f"--readme {readme} cannot be read ({error.strerror}): give the path of a Markdown file"
        ) from error
    write_bytes(readme, filled(text).encode())
    say(f"tables: {readme}")


def filled(text: str) -> str:
    """Returns a README's text with each table made again from the results that its comment names.

    Raises:
      UserError: if a results file that a comment names does not exist.
    """

    def one(match: re.Match[str]) -> str:
        name = match["name"]
        if match["kind"] == "published":
            content = beside(TABLES[name])
        elif match["kind"] == "runs":
            content = over_runs(name, str(match["figure"]))
        else:
            content = made(read_json(RESULTS / f"{name}.json", {}))
        return f"{match[0].splitlines()[0]}\n{content}<!-- end -->"

    return PLACE.sub(one, text)


def made(result: Mapping[str, Any]) -> str:
    """Formats a results file as Markdown: the command, hardware and minutes, then its figures."""
    minutes = f", {result['minutes']:g} minutes" if "minutes" in result else ""
    versions = [
        f"{p} {result['versions'][p]}" for p in ("jax", "libtpu") if p in result["versions"]
    ]
    facts = ", ".join([result["hardware"], *versions])
    lines = [f"`{result['command']}` ({facts}{minutes})", ""]
    rows = {name: row for name, row in result.items() if isinstance(row, dict)}
    speeds = list(_contests(result))
    parts = {name: row for name, row in rows.items() if _is_part(row)}
    single = {name: row for name, row in rows.items() if "mean" in row}
    if speeds:
        lines += _speeds(speeds)
    if single:
        lines += _single(single)
    for i, joined in enumerate(together(parts)):
        lines += [*([""] if single or i else []), *_parts(joined)]
    return "\n".join(lines) + "\n"


def beside(rows: Sequence[Row]) -> str:
    """Formats published results and ours as a Markdown table; "not run" stands for missing ones."""
    lines = [
        "| model | published | ours | seeds | epochs | training minutes | hardware | command |",
        "|---|---:|---:|---:|---:|---:|---|---|",
    ]
    for row in rows:
        first = f"| {row.model} | {row.published} |"
        # A further file such as NAME.longer.json, of a longer run, becomes a further line.
        paths = sorted(
            [*RESULTS.glob(f"{row.results}.json"), *RESULTS.glob(f"{row.results}.*.json")]
        )
        for path in paths:
            lines.append(f"{first} {' | '.join(_ours(read_json(path, {})))} |")
        if not paths:
            lines.append(f"{first} not run |  |  |  |  | `{row.command}` |")
    return "\n".join(lines) + "\n"


def over_runs(name: str, figure: str) -> str:
    """Formats one figure of several runs as a Markdown table with a column for each run.

    Args:
      name: the start of the names of the results files, each of which ends with -WORD.
      figure: the name of the figure; rows that lack it in one of the files are left out.

    Raises:
      UserError: if there is no such file, or no row is left.
    """
    found = {path.stem.removeprefix(f"{name}-"): path for path in RESULTS.glob(f"{name}-*.json")}
    if not found:
        raise UserError(
            f"{RESULTS} has no file {name}-*.json: keep the runs that the table shows, or correct "
            "its comment"
        )
    runs = {word: read_json(found[word], {}) for word in sorted(found)}
    first = next(iter(runs.values()))
    rows = [row for row in first if all(_has(run.get(row), figure) for run in runs.values())]
    if not rows:
        raise UserError(
            f"the results {name}-*.json have no row with the figure {figure!r} in common: correct "
            "the comment"
        )
    seeds = max(len(first[row][figure]["values"]) for row in rows)
    lines = [f"Means over {seeds} seeds, of `{first['command']}` and others like it", ""]
    lines += [
        f"| {_words(figure)} | {' | '.join(runs)} | mean |",
        f"|---|{'---:|' * (len(runs) + 1)}",
    ]
    for row in rows:
        cells = [run[row][figure] for run in runs.values()]
        means = [float(cell["mean"]) for cell in cells]
        words = [*(f"{mean:.3f}" for mean in means), f"{sum(means) / len(means):.3f}"]
        lines.append(f"| {_words(row)} | {' | '.join(words)} |")
    return "\n".join(lines) + "\n"


def _ours(result: Mapping[str, Any]) -> list[str]:
    nll = result["nll"]
    several = len(nll["values"]) > 1
    return [
        f"{nll['mean']:.2f}" + (f" ± {nll['std']:.2f}" if several else ""),
        str(len(nll["values"])),
        _number(result["epochs"]["mean"]) if "epochs" in result else "",
        f"{result['minutes']:g}",
        result["hardware"],
        f"`{result['command']}`",
    ]


def _has(row: Any, figure: str) -> bool:
    return isinstance(row, dict) and figure in row


def _is_part(row: Mapping[str, Any]) -> bool:
    return bool(row) and all(isinstance(cell, dict) and "mean" in cell for cell in row.values())


def _single(rows: Mapping[str, Any]) -> list[str]:
    lines = ["| figure | mean | std | seeds |", "|---|---:|---:|---:|"]
    for name, row in rows.items():
        std = _number(row["std"]) if len(row["values"]) > 1 else ""
        lines.append(f"| {_words(name)} | {_number(row['mean'])} | {std} | {len(row['values'])} |")
    return lines


def _parts(parts: Mapping[str, Any]) -> list[str]:
    columns = list(dict.fromkeys(name for row in parts.values() for name in row))
    lines = [f"| | {' | '.join(map(_words, columns))} |", f"|---|{'---:|' * len(columns)}"]
    for name, row in parts.items():
        cells = [_cell(row[column]) if column in row else "" for column in columns]
        lines.append(f"| {_words(name)} | {' | '.join(cells)} |")
    return lines


def _contests(result: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yields each speed comparison in a result: its heading, and name of a program -> its row."""
    rows = {name: row for name, row in result.items() if isinstance(row, dict)}
    contest = {name: row for name, row in rows.items() if _rate(row)}
    if contest:
        yield path, {**contest, "ratios": result.get("ratios", {})}
        return
    for name, row in rows.items():
        yield from _contests(row, f"{path} {name}".strip())


def _rate(row: Mapping[str, Any]) -> str:
    return next((name for name in row if name.endswith("s_per_second")), "")


# Optional columns of speed tables: heading -> function from a program's row to its cell. Columns
# without cells are left out.
COLUMNS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "with dead latents": lambda row: f"{row['with_dead'][_rate(row)]:,.0f}",
    "dead": lambda row: f"{row['with_dead']['dead']:,}",
    "peak MiB": lambda row: f"{row['peak_bytes'] / 2**20:,.0f}",
    "share of the matmul rate": lambda row: f"{row['share_of_matmul']:.2f}",
}


def _speeds(contests: Sequence[tuple[str, Mapping[str, Any]]]) -> list[str]:
    rates = {_rate(row) for _, rows in contests for row in rows.values()} - {""}
    unit = rates.pop().removesuffix("_per_second")
    lines, found = [], set()
    for path, rows in contests:
        if path:
            lines.append([f"**{_words(path)}**", "", {}, ""])
        for name, row in rows.items():
            if name == "ratios":
                continue
            cells = {}
            for heading, cell in COLUMNS.items():
                with contextlib.suppress(KeyError):
                    cells[heading] = cell(row)
            found |= cells.keys()
            ratio = f"{rows['ratios'][name]:.2f}" if name in rows["ratios"] else ""
            lines.append([name, f"{row[_rate(row)]:,.0f}", cells, ratio])
    kept = [heading for heading in COLUMNS if heading in found]
    texts = [["", f"{unit}/s", *kept, "learner / this row"]]
    texts += [[n, rate, *(cells.get(h, "") for h in kept), r] for n, rate, cells, r in lines]
    table = [f"| {' | '.join(text)} |" for text in texts]
    return [table[0], f"|---|{'---:|' * (len(texts[0]) - 1)}", *table[1:]]


def _cell(row: Mapping[str, Any]) -> str:
    if len(row["values"]) == 1:
        return _number(row["mean"])
    mean, std = float(row["mean"]), float(row["std"])
    # Equal values may have a mean that is rounded, and so a standard deviation that is not quite 0.
    return f"{_number(mean)} ± {_number(0.0 if std < 1e-12 * abs(mean) else std)}"


def _words(name: str) -> str:
    return name.replace("_", " ")


def _number(value: float | str) -> str:
    value = float(value)  # JSON holds NaN as text
    if math.isnan(value):
        return ""
    if value and abs(value) < 1e-2:
        return f"{value:.2e}"
    return f"{value:,.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
