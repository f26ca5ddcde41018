"""Processes of the demo end with it, however it ends."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from demo.processes import Child, Children, StartError
from tests.waiting import until

SLEEPER = "import time; print('ready', flush=True); time.sleep(600)"
PARENT = """
import asyncio, sys
from pathlib import Path
from demo.processes import Children

async def main():
    children = Children(Path(sys.argv[1]))
    child = await children.start("sleeper", [sys.executable, "-c", sys.argv[2]], {})
    await child.line(timeout_seconds=60)
    print(child.process.pid, flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return "State:\tZ" in Path(f"/proc/{pid}/status").read_text()


async def test_leaving_stops_what_was_started(tmp_path: Path) -> None:
    async with Children(tmp_path) as children:
        child = await children.start("sleeper", [sys.executable, "-c", SLEEPER], {})
        assert await child.line(timeout_seconds=60) == "ready"
        assert children.dead() == []
    assert child.process.returncode == -signal.SIGTERM


async def test_children_die_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PARENT, str(tmp_path), SLEEPER, stdout=asyncio.subprocess.PIPE
    )
    assert parent.stdout is not None
    pid = int(await parent.stdout.readline())
    assert not gone(pid)
    parent.kill()
    await parent.wait()

    async def child_gone() -> bool:
        return gone(pid)

    await until(child_gone)


async def test_a_process_that_does_not_come_up_says_why(tmp_path: Path) -> None:
    child = await Child.start("broken", [sys.executable, "-c", "raise SystemExit('no luck')"], env={}, directory=tmp_path)
    with pytest.raises(StartError, match="no luck"):
        await child.line(timeout_seconds=60)
    await child.stop()
