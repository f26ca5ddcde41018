"""`rescind demo` itself, with fewer purchases: every promise holds, and sabotage is found (P8, P12, P13)."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from demo.stage import rescind_command
from tests.waiting import until

PURCHASES = "60"


async def rescind_demo(tmp_path: Path, *arguments: str) -> asyncio.subprocess.Process:
    environment = {**os.environ, "TMPDIR": str(tmp_path), "NO_COLOR": "1"}
    return await asyncio.create_subprocess_exec(
        rescind_command(),
        "demo",
        "--purchases",
        PURCHASES,
        "--deadline",
        "300",
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=environment,
    )


@pytest.mark.timeout(400)
async def test_the_demo_holds_every_promise_and_leaves_nothing_behind(tmp_path: Path) -> None:
    process = await rescind_demo(tmp_path)
    printed = (await process.communicate())[0].decode()
    assert process.returncode == 0, printed
    assert "BROKEN" not in printed
    for said in ("checkout is on the off variant", "not one of", "the rollback settles", "the report adds up"):
        assert said in printed, printed
    assert list(tmp_path.iterdir()) == []


@pytest.mark.timeout(400)
async def test_sabotage_behind_our_back_is_found_by_name(tmp_path: Path) -> None:
    process = await rescind_demo(tmp_path, "--sabotage")
    printed = (await process.communicate())[0].decode()
    assert process.returncode == 3, printed
    assert "refund missing" in printed
    assert "refund doubled" in printed


@pytest.mark.timeout(400)
async def test_a_demo_that_is_interrupted_stops_what_it_started(tmp_path: Path) -> None:
    process = await rescind_demo(tmp_path)
    assert process.stdout is not None
    while "everything runs" not in (line := (await process.stdout.readline()).decode()):
        assert line, "the demo ended before everything ran"
    folder = next(tmp_path.iterdir())
    process.send_signal(signal.SIGTERM)
    await process.communicate()
    assert process.returncode == 130

    async def nothing_runs() -> bool:
        return not running_in(folder)

    await until(nothing_runs)


def running_in(folder: Path) -> list[str]:
    """Command lines of processes that name the folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if str(folder) in line:
                found.append(line)
    return found
