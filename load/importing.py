"""How long importing the SDK takes in a fresh interpreter, beside the peers that are installed: medians over repeats.

    ./run --group peers python load/importing.py [REPEATS]

Each figure is the time of the statement alone, in a process of its own with warm bytecode, without the interpreter's start.
The CPU's share tells on a machine that has other work to do. Last of ours, whole processes, less ones that run nothing.
"""

from __future__ import annotations

import importlib.util
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence

PROCESSES = 20
OURS = {
    "import rescind": "import rescind",
    "the client": "from rescind import Client",
    "both clients, sagas, ASGI middleware": "from rescind import AsyncClient, Client, Saga; import rescind.asgi",
    "a client made (no I/O)": "import rescind; rescind.Client(url='http://127.0.0.1:1', token='t')",
    "its tests (rescind.testing)": "import rescind.testing",
}
PEERS = {
    "httpx": "import httpx",
    "openfeature-sdk": "import openfeature.api",
    "launchdarkly-server-sdk": "import ldclient",
    "growthbook": "import growthbook",
    "flagsmith": "import flagsmith",
    "unleashclient": "import UnleashClient",
    "statsig-python-core": "import statsig_python_core",
}
PROGRAM = (
    "import time; a, b = time.perf_counter(), time.process_time(); {}; print(time.perf_counter() - a, time.process_time() - b)"
)


def milliseconds(statement: str) -> tuple[float, float]:
    """One fresh interpreter's time for the statement, and the CPU's share of it."""
    command = [sys.executable, "-c", PROGRAM.format(statement)]
    wall, cpu = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-2:]
    return float(wall) * 1e3, float(cpu) * 1e3


def print_processes(statements: Sequence[str], repeats: int) -> None:
    """The wall from start to end, in turns with an empty process, so that what else the machine does meets both."""
    print(f"{'a whole process, less an empty one':<48}{'median':>8}{'least':>8}")
    taken: dict[str, list[float]] = {statement: [] for statement in ("pass", *statements)}
    for _ in range(repeats):
        for statement, walls in taken.items():
            begun = time.perf_counter()
            subprocess.run([sys.executable, "-c", statement], check=True)
            walls.append((time.perf_counter() - begun) * 1e3)
    empty = taken.pop("pass")
    for statement, walls in taken.items():
        median, least = statistics.median(walls) - statistics.median(empty), min(walls) - min(empty)
        print(f"  {statement[:44]:<46}{median:>8.1f}{least:>8.1f}")


def print_times(title: str, statements: dict[str, str], repeats: int) -> None:
    print(f"{title:<48}{'median':>8}{'least':>8}{'CPU':>8}")
    for name, statement in statements.items():
        milliseconds(statement)
        walls, cpus = zip(*(milliseconds(statement) for _ in range(repeats)), strict=True)
        print(f"  {name:<46}{statistics.median(walls):>8.1f}{min(walls):>8.1f}{statistics.median(cpus):>8.1f}")


def is_installed(statement: str) -> bool:
    top = statement.removeprefix("import ").partition(".")[0]
    return importlib.util.find_spec(top) is not None


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 9
    print_times("rescind, milliseconds", OURS, count)
    print_processes(["import rescind", OURS["the client"], OURS["a client made (no I/O)"]], PROCESSES)
    print_times("peers that are installed", {name: text for name, text in PEERS.items() if is_installed(text)}, count)
