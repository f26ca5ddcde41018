"""How long one evaluation takes in the process: medians over repeats, for the flags of the performance page.

Run it from the checkout: `python load/evaluation.py [REPEATS]`. Also printed: how long a set of flags takes to construct, to
compile and to change, what a compiled flag weighs, and how long hostile definitions keep the check.
"""

from __future__ import annotations

import gc
import statistics
import sys
import time
import timeit
import tracemalloc
from collections.abc import Callable
from typing import Any

from rescind.evaluation import Evaluator, check
from rescind.wire import Kill, Revision, SnapshotFlag

CALLS = 100_000
FLAGS = 10_000
VARIANTS = {"on": True, "off": False}
CONTEXT = {"targetingKey": "user-4711", "country": "DE", "plan": "pro", "email": "ada@example.com"}
KILLED = Kill(rollback_id="r", off_variant="off", closes_epoch=1, revision=Revision(1, 1), scope={"country": "FR"})


def flag(*rules: Any, kills: list[Kill] | None = None) -> SnapshotFlag:
    """A boolean flag whose targeting is the chain of `rules`."""
    definition: dict[str, Any] = {"state": "ENABLED", "variants": VARIANTS, "defaultVariant": "off"}
    if rules:
        definition["targeting"] = {"if": [*rules, "off"]}
    return SnapshotFlag(definition=definition, kills=kills or [])


def rule(*countries: str, plan: str = "pro") -> list[Any]:
    """A list of countries and a plan, then 25 %."""
    condition = {"and": [{"in": [{"var": "country"}, list(countries)]}, {"==": [{"var": "plan"}, plan]}]}
    return [condition, {"fractional": [["on", 25], ["off", 75]]}]


def flags() -> dict[str, SnapshotFlag]:
    others = [part for number in range(19) for part in rule(f"X{number}", f"Y{number}", f"Z{number}")]
    return {
        "plain boolean": flag(),
        "country list and plan, then 25 %": flag(*rule("AT", "CH", "DE")),
        "20 such rules, last matches": flag(*others, *rule("AT", "CH", "DE")),
        "plain boolean under a narrowed kill": flag(kills=[KILLED]),
    }


def microseconds(call: Callable[..., Any], *arguments: Any, repeats: int) -> tuple[float, float]:
    """Median and least time of one call."""
    names = {"call": call, **{f"a{index}": value for index, value in enumerate(arguments)}}
    statement = f"call({', '.join(f'a{index}' for index in range(len(arguments)))})"
    times = timeit.repeat(statement, globals=names, number=CALLS, repeat=repeats)
    return statistics.median(times) / CALLS * 1e6, min(times) / CALLS * 1e6


def milliseconds(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return (time.perf_counter() - start) * 1e3


def print_evaluations(repeats: int) -> None:
    evaluator = Evaluator(flags(), environment="production")
    print(f"{'one evaluation, microseconds':<40}{'boolean':>10}{'(least)':>10}{'evaluate':>10}{'(least)':>10}")
    for key in evaluator.flags:
        boolean = microseconds(evaluator.boolean, key, False, CONTEXT, repeats=repeats)
        whole = microseconds(evaluator.evaluate, key, CONTEXT, False, "boolean", repeats=repeats)
        print(f"{key:<40}{boolean[0]:>10.3f}{boolean[1]:>10.3f}{whole[0]:>10.3f}{whole[1]:>10.3f}")


def print_sets() -> None:
    many = {f"flag-{n}": flag(*rule(f"X{n}", f"Y{n}", plan=f"plan-{n}")) for n in range(FLAGS)}
    made: list[Evaluator] = []
    print(f"\n{FLAGS} flags: construct {milliseconds(lambda: made.append(Evaluator(many))):.2f} ms", end="")
    evaluator = made[0]
    print(f", compile all {milliseconds(evaluator.compile):.0f} ms", end="")
    print(f", change one {milliseconds(lambda: evaluator.updated({'flag-1': many['flag-1']})):.2f} ms", end="")
    evaluator = Evaluator(many)
    gc.collect()
    tracemalloc.start()
    evaluator.compile(list(many)[:1000])
    print(f", a compiled flag weighs {tracemalloc.get_traced_memory()[0] / 1000:.0f} bytes")
    tracemalloc.stop()


def hostile() -> dict[str, Any]:
    deep: Any = {"var": "a"}
    for _ in range(1_000_000):
        deep = {"!": deep}
    cycle: dict[str, Any] = {}
    cycle["!"] = cycle
    doubled: Any = ["a"]
    for _ in range(60):
        doubled = [doubled, doubled]
    return {
        "a million levels": deep,
        "a cycle": cycle,
        "sixty doublings": {"in": ["a", doubled]},
        "a million shares": {"fractional": [["on", 1]] * 1_000_000},
        "10 MB of text": {"==": ["x" * 10_000_000, 1]},
        "9,000 unknown operators": {"or": [{f"operator-{number}": number} for number in range(9_000)]},
    }


def print_hostile() -> None:
    print("\na hostile definition is refused within")
    for name, targeting in hostile().items():
        definition = {"state": "ENABLED", "variants": VARIANTS, "targeting": targeting}
        took = milliseconds(lambda checked=definition: check(checked))  # type: ignore[misc]
        print(f"{name:<40}{took:>10.2f} ms")


if __name__ == "__main__":
    print_evaluations(int(sys.argv[1]) if len(sys.argv) > 1 else 9)
    print_sets()
    print_hostile()
