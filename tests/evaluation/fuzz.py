"""A fuzz target: whatever bytes become a flag and a context, nothing raises, and check, evaluation and explanation agree.

    ./run python tests/evaluation/fuzz.py -runs=100000

Guided by coverage with atheris (libFuzzer's options apply); where atheris is not installed, by chance alone (`-runs` applies).
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import random
import sys
from collections.abc import Callable
from typing import Any

HAS_ATHERIS = importlib.util.find_spec("atheris") is not None
DEPTH_MAX = 6
INPUT_MAX = 512
RUNS = 10_000
NAMES = ["country", "plan", "age", "tags", "targetingKey", "user.name", "$flagd.flagKey", "$flagd.timestamp", "", "x"]
ATTRIBUTES = ("country", "plan", "age", "tags", "targetingKey", "user", "x")
SCALARS: list[Any] = [
    None, True, False, 0, 1, -1, 2**53, 2**63, 10**30, 0.0, -0.0, 1.5, float("nan"), float("inf"), "", "on", "off", "a", "10",
    "1.2.3", "é", "\ud800", "DE",
]  # fmt: skip
SHARED: list[dict[str, Any]] = [
    {"adult": {">=": [{"var": "age"}, 18]}, "german": {"==": [{"var": "country"}, "DE"]}},
    {"adult": {"!": [{"$ref": "german"}]}, "german": {"$ref": "adult"}},
]
"""The rules that flags share: good ones, and a circle."""

Target = Callable[[bytes], None]


class Source:
    """Choices, read off bytes; when they are used up every choice is the first."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def number(self, below: int) -> int:
        """Less than `below`."""
        byte = self._data[self._at] if self._at < len(self._data) else 0
        self._at += 1
        return byte % below

    def of(self, values: list[Any]) -> Any:
        """One of them."""
        return values[self.number(len(values))]


def value(source: Source, depth: int = 0) -> Any:
    """A JSON value, seldom something else."""
    kind = source.number(8 if depth < DEPTH_MAX else 5)
    if kind < 5:
        return source.of(SCALARS)
    if kind == 5:
        return [value(source, depth + 1) for _ in range(source.number(4))]
    if kind == 6:
        return {source.of(NAMES): value(source, depth + 1) for _ in range(source.number(3))}
    return source.of([{1, 2}, b"x", object(), (1, "a"), {1: 2}])


def rule(source: Source, operators: list[str], depth: int = 0) -> Any:
    """A rule, seldom a well-formed one."""
    if depth >= DEPTH_MAX or source.number(4) == 0:
        return {"var": source.of(NAMES)} if source.number(2) else source.of(SCALARS)
    operator = source.of(operators)
    if operator == "$ref":
        return {"$ref": source.of(["adult", "german", "gone"])}
    arguments = [rule(source, operators, depth + 1) for _ in range(source.number(6))]
    if operator == "fractional":
        arguments = [[one, source.number(9)] if source.number(3) else [one] for one in arguments]
    return {operator: arguments[0] if len(arguments) == 1 and source.number(2) else arguments}


def target() -> Target:
    """What is run with each input."""
    evaluation = importlib.import_module("rescind.evaluation")
    known = [*importlib.import_module("rescind.evaluation.grammar").KNOWN, "quantum", "log"]
    specification = importlib.import_module("rescind.wire").SnapshotFlag
    msgspec = importlib.import_module("msgspec")

    def agree(definition: Any, context: Any, shared: dict[str, Any]) -> None:
        faults = evaluation.check_document({"flags": {"flag": definition}, "$evaluators": shared})
        flag = specification(definition=definition)
        evaluator = evaluation.Evaluator({"flag": flag}, shared, now=lambda: 1_800_000_000)
        found, told = evaluator.evaluate("flag", context, None), evaluator.explain("flag", context)
        answers = [(one.variant, one.reason, one.error_code) for one in (found, told)]
        assert answers[0] == answers[1], answers
        assert faults or found.error_code != "PARSE_ERROR", found
        assert evaluator.boolean("flag", True, context) is evaluator.evaluate("flag", context, True, "boolean").value
        msgspec.json.encode(told)

    def run(data: bytes) -> None:
        source = Source(data[:INPUT_MAX])
        if source.number(4) == 0:
            with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                document = msgspec.json.decode(data[1:])
                evaluation.check_document(document)
                agree(document, {}, {})
            return
        definition = {
            "state": "ENABLED", "variants": {"on": True, "off": False, "true": True, "false": False}, "defaultVariant": "off",
            "targeting": rule(source, known),
        }  # fmt: skip
        shared = source.of(SHARED)
        agree(
            definition,
            {name: value(source) for name in ("country", "plan", "age", "tags", "targetingKey", "user", "x")},
            shared,
        )

    return run


def by_chance(runs: int) -> None:
    """The target with random bytes, the same ones every time."""
    chance, run = random.Random(0), target()
    for _ in range(runs):
        run(chance.randbytes(chance.randrange(INPUT_MAX)))


def main() -> None:
    """Run until an input fails, or as often as was asked for."""
    if not HAS_ATHERIS:
        runs = next((int(one.removeprefix("-runs=")) for one in sys.argv if one.startswith("-runs=")), RUNS)
        by_chance(runs)
        return
    import atheris

    with atheris.instrument_imports(include=["rescind.evaluation"]):
        run = target()
    atheris.Setup([*sys.argv, f"-max_len={INPUT_MAX}", "-len_control=0"], run)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
