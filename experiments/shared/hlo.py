"""Counts what a compiled program does, from its text in the format HLO, with the trips of loops.

XLA's own analysis counts a loop's body once, however many trips it makes. The functions here read
the number of trips from the text, and count the bodies by a model of their own: an operation reads
its operands and writes its result, of which slices and gathers touch only a part.
"""

from __future__ import annotations

import functools
import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

BITS = {"pred": 8, "bf16": 16, "c64": 64, "c128": 128, "token": 0, "opaque": 0}
SHAPE = re.compile(r"\b(pred|bf16|token|opaque|[sufc]\d+\w*)\[([\d,]*)\]")
COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.-]+) \(.*\{$")
NAME = re.compile(r"%([\w.-]+)")
CALLED = re.compile(r"\b(?:calls|to_apply|body)=%?([\w.-]+)")
BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}|(?:true|false)_computation=%?([\w.-]+)")
# Operations that move nothing, or whose counterpart already counts what they move.
FREE = {
    *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "iota"),
    *("partition-id", "replica-id", "while", "conditional", "call", "opt-barrier"),
}
COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
# Calls that only name or place a buffer, or that state a fact about their operand.
NAMED_ONLY = {
    *("AllocateBuffer", "AssumeGatherIndicesInBound", "ConcatBitcast", "Sharding"),
    *("AsyncCollectiveStart", "AsyncCollectiveDone", "GatherScatterIndicesBitpacked"),
    *("SPMDFullToShardShape", "SPMDShardToFullShape"),
}


class Counts(NamedTuple):
    """What one run of a program does on each device."""

    flops: float = 0.0  # of matrix products
    bytes: float = 0.0  # read and written
    collectives: Counter[str] = Counter()  # noqa: RUF012 (never written); operation -> bytes
    # A call or a sort, which XLA's analysis cannot price -> how often it runs.
    unpriced: Counter[str] = Counter()  # noqa: RUF012 (never written)

    def plus(self, other: Counts, times: int = 1) -> Counts:
        """Returns the sum with `times` runs of another program."""
        added = (Counter({n: times * v for n, v in c.items()}) for c in other[2:])
        collectives, unpriced = (a + b for a, b in zip(self[2:], added, strict=True))
        flops, moved = self.flops + times * other.flops, self.bytes + times * other.bytes
        return Counts(flops, moved, collectives, unpriced)


class Operation(NamedTuple):
    """A line of a program."""

    name: str
    result: str  # its shape
    kind: str  # such as "fusion"
    operands: tuple[str, ...]  # their names
    rest: str  # the attributes


def counted(text: str, trips: bool = True) -> Counts:
    """Counts what a program does.

    A condition counts as the largest of its branches in each respect. An asynchronous operation
    counts where it starts.

    Args:
      text: the program, as `compiled.as_text()` returns it.
      trips: whether the body of a loop counts as often as it runs; otherwise it counts once.

    Raises:
      ValueError: if the number of trips of a loop cannot be read.
    """
    programs, entry = parsed(text)

    @functools.cache
    def total(name: str) -> Counts:
        found, shapes = Counts(), {one.name: one.result for one in programs[name]}
        for one in programs[name]:
            if one.kind == "while":
                body, condition = (_attribute(one, word) for word in ("body", "condition"))
                times = _trips(one, programs, condition) if trips else 1
                found = found.plus(total(body), times).plus(total(condition), times)
            elif one.kind == "conditional":
                names = [a or b for a, b in BRANCHES.findall(one.rest)]
                found = found.plus(_largest([total(n) for n in NAME.findall(_percent(names))]))
            elif one.kind == "call":
                found = found.plus(total(CALLED.findall(one.rest)[0]))
            else:
                found = found.plus(_of(one, shapes, programs))
        return found

    return total(entry)


def loops(text: str) -> list[int]:
    """Returns the number of trips of each loop of a program, in no particular order."""
    programs, _ = parsed(text)
    found = (one for program in programs.values() for one in program if one.kind == "while")
    return [_trips(one, programs, _attribute(one, "condition")) for one in found]


def parsed(text: str) -> tuple[dict[str, list[Operation]], str]:
    """Returns name -> operations of each computation of a program, and the name of the first one.

    Args:
      text: the program, as `compiled.as_text()` returns it.
    """
    programs: dict[str, list[Operation]] = {}
    entry = name = ""
    for line in text.splitlines():
        start = COMPUTATION.match(line)
        if start:
            name = start[2]
            programs[name] = []
            entry = name if start[1] else entry
        elif line.startswith("  ") and " = " in line and name:
            programs[name].append(_operation(line))
    return programs, entry


def size(shape: str) -> int:
    """Returns the bytes of a shape such as f32[8,128]{1,0}, or of a tuple of such shapes."""
    return sum(
        _bits(dtype) * math.prod(_numbers(numbers)) // 8 for dtype, numbers in SHAPE.findall(shape)
    )


def _operation(line: str) -> Operation:
    left, right = re.sub(r"/\*.*?\*/", "", line.strip()).removeprefix("ROOT ").split(" = ", 1)
    end = _closing(right, 0) if right.startswith("(") else right.index(" ")
    result, right = right[: end + 1], right[end + 1 :].lstrip()
    open_ = right.index("(")
    close = _closing(right, open_)
    operands = tuple(NAME.findall(right[open_ : close + 1]))
    if right[:open_] in ("constant", "parameter"):
        operands = (right[open_ + 1 : close],)  # the value or the place
    return Operation(left.lstrip("%"), result, right[:open_], operands, right[close + 1 :])


def _closing(text: str, start: int) -> int:
    """Returns the index of the bracket that closes the one at `start`."""
    depth = 0
    for i in range(start, len(text)):
        depth += (text[i] == "(") - (text[i] == ")")
        if depth == 0:
            return i
    raise ValueError(f"a bracket is not closed: {text[:80]}")


def _attribute(one: Operation, word: str) -> str:
    return re.findall(rf"\b{word}=%?([\w.-]+)", one.rest)[0]


def _percent(names: Sequence[str]) -> str:
    return " ".join(n if "%" in n else f"%{n}" for n in names)


def _trips(one: Operation, programs: dict[str, list[Operation]], condition: str) -> int:
    """Returns how often a loop runs: as the text states it, or by the constant of its condition."""
    known = re.search(r'"known_trip_count":\{"n":"(\d+)"\}', one.rest)
    if known:
        return int(known[1])
    bounds = [
        int(line.operands[0])
        for name in (condition, *(n for o in programs[condition] for n in CALLED.findall(o.rest)))
        for line in programs[name]
        if line.kind == "constant" and re.fullmatch(r"\d+", line.operands[0])
    ]
    if not bounds:
        raise ValueError(f"the number of trips of the loop {one.name} is not in its condition")
    return max(bounds)


def _largest(branches: Sequence[Counts]) -> Counts:
    collectives, unpriced = (
        functools.reduce(lambda a, b: a | b, counters)
        for counters in zip(*(b[2:] for b in branches), strict=True)
    )
    flops, moved = max(b.flops for b in branches), max(b.bytes for b in branches)
    return Counts(flops, moved, collectives, unpriced)


def _of(one: Operation, shapes: dict[str, str], programs: dict[str, list[Operation]]) -> Counts:
    """Counts one operation that is neither a loop nor a condition."""
    if one.kind in FREE or one.kind.endswith(("-done", "-update")):
        return Counts()
    inner = [programs[name] for name in CALLED.findall(one.rest) if name in programs]
    inner = inner if one.kind in ("fusion", "async-start") else []
    operands = [size(shapes.get(name, "")) for name in one.operands]
    found = Counts(_flops(one, shapes), _moved(one, operands, shapes, inner))
    kind = one.kind.removesuffix("-start")
    if kind in COLLECTIVES:
        # The result of a start holds its operand as well.
        result = size(one.result) - (sum(operands) if one.kind.endswith("-start") else 0)
        count = max(sum(operands), result)
        found = found.plus(Counts(collectives=Counter({kind: count})))
    target = re.search(r'custom_call_target="([^"]*)"', one.rest)
    call = target[1] if target else kind if kind == "sort" else ""
    if call and call not in NAMED_ONLY:
        found = found.plus(Counts(unpriced=Counter({call: 1})))
    for program in inner:
        own = {line.name: line.result for line in program}
        for line in program:
            found = found.plus(_of(line, own, programs)._replace(bytes=0.0))
    return found


def _moved(
    one: Operation,
    operands: Sequence[int],
    shapes: dict[str, str],
    inner: Sequence[Sequence[Operation]],
) -> float:
    """Returns the bytes that an operation reads and writes."""
    result = size(one.result)
    if one.kind in ("dynamic-slice", "slice", "gather"):
        return 2 * result
    if one.kind in ("dynamic-update-slice", "scatter"):
        return 2 * size(shapes.get(one.operands[1 if one.kind[0] == "d" else -1], ""))
    if not inner or one.kind != "fusion":
        return sum(operands) + result
    read, program = list(operands), inner[0]
    own = {line.name: line.result for line in program}
    for line in program:
        if line.kind == "parameter":
            users = [u for u in program if line.name in u.operands]
            part = ("dynamic-slice", "slice", "gather")
            if users and all(u.kind in part and u.operands[0] == line.name for u in users):
                place = int(line.operands[0])
                read[place] = min(read[place], sum(size(u.result) for u in users))
            updates = [u for u in users if u.kind == "dynamic-update-slice"]
            if users and len(updates) == len(users) and updates[0].operands[0] == line.name:
                update = size(own.get(updates[0].operands[1], ""))
                read[int(line.operands[0])] = 0
                result = min(result, 2 * update)
    return sum(read) + result


def _flops(one: Operation, shapes: dict[str, str]) -> float:
    """Returns the operations of a matrix product or a convolution, and 0 for all others."""
    if one.kind not in ("dot", "convolution"):
        return 0.0
    left, right = (_numbers(SHAPE.findall(shapes[name])[0][1]) for name in one.operands[:2])
    elements = math.prod(_numbers(SHAPE.findall(one.result)[0][1]))
    if one.kind == "dot":
        axes = _numbers(re.findall(r"lhs_contracting_dims=\{([\d,]*)\}", one.rest)[0])
        return 2.0 * elements * math.prod(left[axis] for axis in axes)
    kernel = re.findall(r"dim_labels=\w+_(\w+)->", one.rest)[0]
    return 2.0 * elements * math.prod(n for n, d in zip(right, kernel, strict=True) if d != "o")


def _numbers(text: str) -> list[int]:
    return [int(word) for word in text.split(",") if word]


def _bits(dtype: str) -> int:
    return BITS.get(dtype) or (0 if dtype in BITS else int(re.findall(r"\d+", dtype)[0]))
