"""The command: it goes on with a campaign where it was stopped, and keeps the numbers of cases."""

from __future__ import annotations

import argparse
import collections
import importlib
import pathlib
import sys
import tempfile

from aejax.files import read_json, write_json
from aejax.files.json_fields import count, table_of

NAMES = ("files", "commands", "kills", "experiment")
OFTEN = 25  # cases between two writes of their numbers
FIELDS = {"done": count, "cases": table_of(count)}


def main(arguments: list[str]) -> None:
    """Runs the cases `--first` to `--count` - 1, and prints how many there are of each kind."""
    parser = argparse.ArgumentParser(prog="python -m tests.campaign")
    parser.add_argument("name", choices=NAMES)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--first", type=int, default=0, help="so that several can run at once")
    parser.add_argument("--out", type=pathlib.Path, required=True)
    given = parser.parse_args(arguments)
    given.out.mkdir(parents=True, exist_ok=True)
    path = given.out / f"{given.name}.json"
    kept = read_json(path, FIELDS) if path.exists() else {"done": 0, "cases": {}}
    cases = collections.Counter(kept["cases"])

    def keep() -> None:
        write_json(path, {"done": sum(cases.values()), "cases": dict(sorted(cases.items()))})

    module = importlib.import_module(f"tests.campaign.{given.name}")
    with tempfile.TemporaryDirectory(prefix="campaign-") as folder:
        rest = range(given.first + kept["done"], given.count)
        try:
            for name in module.units(rest, pathlib.Path(folder)):
                cases[name] += 1
                if sum(cases.values()) % OFTEN == 0:
                    keep()
        finally:
            keep()
    print(f"{given.name}: {sum(cases.values())} cases: {dict(sorted(cases.items()))}")


if __name__ == "__main__":
    main(sys.argv[1:])
