"""How long hostile definitions keep the check, and how much memory it takes: refused in 100 ms is the mark.

    ./run python load/hostile.py [--repeats 5]

Each is checked as an API would: a flag by itself, a document as an import. Shown is the worst of the repeats, the
peak of memory as Python counts it, and how it is refused. What an SDK does with a definition that it was given all the same is
measured too, and what a context can do that is as large as a request may be.
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import msgspec
from rescind.evaluation import Evaluator, check, check_document
from rescind.wire import SnapshotFlag
from rich.console import Console
from rich.table import Table

MARK_MS = 100.0
MILLION = 1_000_000
VARIANTS = {"on": True, "off": False}


def flag(targeting: Any) -> dict[str, Any]:
    """A flag with this targeting."""
    return {"state": "ENABLED", "variants": VARIANTS, "defaultVariant": "off", "targeting": targeting}


def deep(levels: int) -> Any:
    rule: Any = {"var": "a"}
    for _ in range(levels):
        rule = {"!": rule}
    return rule


def cycle() -> Any:
    rule: dict[str, Any] = {}
    rule["!"] = rule
    return rule


def doubled(times: int) -> Any:
    value: Any = ["a"]
    for _ in range(times):
        value = [value, value]
    return value


def targetings() -> Iterator[tuple[str, Any]]:
    """Name and targeting."""
    yield "a million levels", deep(MILLION)
    yield "a cycle", cycle()
    yield "sixty doublings of a list", {"in": ["a", doubled(60)]}
    yield "a million shares", {"fractional": [["on", 1]] * MILLION}
    yield "as many shares as are allowed, each with a fault", {"fractional": [["on", -1]] * 6_600}
    yield "10 MB of text", {"==": ["x" * 10_000_000, 1]}
    yield "10 MB of names", {"x" * 10_000_000: [1]}
    yield "9,000 unknown operators", {"or": [{f"operator-{number}": number} for number in range(9_000)]}
    yield "6,000 references to an evaluator that is not there", {"or": [{"$ref": "gone"}] * 6_000}
    yield "a weight of a million digits", {"fractional": [["on", 10**MILLION]]}
    yield "as deep as is allowed, with a fault at the end", {"if": [deep(58), "gone"]}


def documents() -> Iterator[tuple[str, Any]]:
    """Name and flag set."""
    evaluators = {f"e{number}": {"or": [{"$ref": f"e{number + 1}"}] * 10} for number in range(20)}
    yield "evaluators that refer to each other", {"flags": {"f": flag({"$ref": "e0"})}, "$evaluators": evaluators}
    large = {"and": [{"==": [{"var": "a"}, 1]}] * 3_000}
    many = {"or": [{"$ref": "large"}] * 6_000}
    yield "6,000 references to a large evaluator", {"flags": {"f": flag(many)}, "$evaluators": {"large": large}}
    yield "400,000 flags", {"flags": {f"f{number}": 1 for number in range(400_000)}}
    yield "100,000 flags with a fault each", {"flags": {f"f{number}": {"state": "?"} for number in range(100_000)}}


def texts() -> Iterator[tuple[str, bytes]]:
    """Name and body, as it comes over the network."""
    yield "10 MB of opening brackets", b"[" * 10_000_000
    yield "10 MB of opening objects", b'{"!":' * 2_000_000
    yield "10 MB of digits", b"1" * 10_000_000


def contexts() -> Iterator[tuple[str, Any, dict[str, Any]]]:
    """Name, targeting, context."""
    tests = [{"==": [{"var": ""}, number]} for number in range(3_900)]
    yield "3,900 tests of each of 10,000 items", {"some": [{"var": "items"}, {"or": tests}]}, {"items": [-1] * 10_000}
    nested = {"map": [{"var": "items"}, {"map": [[0] * 5_000, {"map": [[0] * 5_000, 1]}]}]}
    yield "loops in loops", nested, {"items": [0] * 10_000}
    grown = {"reduce": [{"var": "items"}, {"cat": [{"var": "accumulator"}] * 9}, "x"]}
    yield "a text nine times as long at each of 10,000 items", grown, {"items": [0] * 10_000}
    yield "a number of a megabyte of digits", {"==": [{"var": "text"}, 1]}, {"text": "1" * 1_000_000}
    yield "a version of a megabyte", {"sem_ver": [{"var": "text"}, "=", "1.0.0"]}, {"text": "1." * 500_000}


def evaluated(rule: Any, context: dict[str, Any]) -> list[Any]:
    """What the evaluation says."""
    outcome = Evaluator({"f": SnapshotFlag(definition=flag({"if": [rule, "on", "off"]}))}).evaluate("f", context, None)
    return [f"{outcome.variant} {outcome.reason} {outcome.error_details or ''}"]


def decoded(body: bytes) -> list[Any]:
    """What reading the body says."""
    try:
        return list(check(msgspec.json.decode(body)))
    except (msgspec.DecodeError, RecursionError) as error:
        return [error]


def compiled(definition: dict[str, Any]) -> list[Any]:
    """What an SDK makes of it that was given it all the same."""
    outcome = Evaluator({"f": SnapshotFlag(definition=definition)}).evaluate("f", {}, None)
    return [f"{outcome.variant} {outcome.reason} {outcome.error_code}"]


def cases() -> Iterator[tuple[str, str, Callable[[], Sequence[Any]]]]:
    """Kind, name, and what is measured."""
    for name, targeting in targetings():
        definition = flag(targeting)
        yield "check of a flag", name, partial(check, definition, evaluators={})
        yield "compiled by an SDK", name, partial(compiled, definition)
    for name, document in documents():
        yield "check of a flag set", name, partial(check_document, document)
    for name, body in texts():
        yield "reading of a body", name, partial(decoded, body)
    for name, rule, context in contexts():
        yield "evaluation", name, partial(evaluated, rule, context)


def worst(call: Callable[[], Sequence[Any]], repeats: int) -> tuple[float, float, str]:
    """Milliseconds, megabytes, and the first of what is said."""
    said: Sequence[Any] = []
    took = 0.0
    for _ in range(repeats):
        gc.collect()
        begun = time.perf_counter()
        said = call()
        took = max(took, (time.perf_counter() - begun) * 1e3)
    tracemalloc.start()
    call()
    grown = tracemalloc.get_traced_memory()[1] / 2**20
    tracemalloc.stop()
    first = said[0] if said else "accepted"
    return took, grown, str(getattr(first, "detail", first))


def main() -> int:
    """Parse the arguments, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    table = Table(
        "what", "definition", "worst, ms", "memory, MB", "answer", title=f"hostile definitions; the mark: {MARK_MS:.0f} ms"
    )
    slowest = 0.0
    for kind, name, call in cases():
        took, grown, answer = worst(call, arguments.repeats)
        slowest = max(slowest, took)
        table.add_row(kind, name, f"{took:.2f}", f"{grown:.1f}", answer[:60])
    Console(width=160).print(table)
    print(f"slowest {slowest:.1f} ms: {'reached' if slowest <= MARK_MS else 'short'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
