"""Forks in one of several ways, and says on standard output what parent and child see, a line of JSON each time.

    python -m tests.sdk.forking.process multiprocessing|os|locked|twice

The parent says what it sees when it is ready. The child says it right after the fork, when it sees the kill, and does an effect
once the flag is lifted. The parent goes on with its own stream: it says when it sees kill and lift.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from collections.abc import Callable

import msgspec
import rescind

FLAG = "checkout.new-flow"
CEILING_SECONDS = 60.0
client = rescind.Client(service="shop")


def say(what: str) -> None:
    """One line."""
    value = client.boolean(FLAG, True, {"targetingKey": what})
    line = {"what": what, "pid": os.getpid(), "value": value, **msgspec.to_builtins(client.status())}
    sys.stdout.write(msgspec.json.encode(line).decode() + "\n")
    sys.stdout.flush()


def until(value: bool) -> None:
    """Return once the flag has this value, and the stream is there."""
    end = time.monotonic() + CEILING_SECONDS
    while client.boolean(FLAG, not value) is not value or not client.status().connected:
        if time.monotonic() > end:
            sys.exit(f"the flag is not {value} in {os.getpid()}: {client.status()}")
        time.sleep(0.01)


def see(who: str) -> None:
    """The kill, then the lift."""
    until(False)
    say(f"{who} saw the kill")
    until(True)
    say(f"{who} saw the lift")


def child() -> None:
    """A child's life."""
    say("child")
    see("child")
    with client.effect("payment.capture", flag=FLAG, key=f"capture:{os.getpid()}", payload={}) as effect:
        effect.result = {"pid": os.getpid()}
    say("child did an effect")
    client.close()


def grandchild() -> None:
    """Forks once more, and waits for it."""
    wait(in_python(child))


def in_python(work: Callable[[], None]) -> int:
    """As Python forks."""
    return run(os.fork(), work)


def with_locks_held(work: Callable[[], None]) -> int:
    """While another thread, which is not in the child, would hold them."""
    with client.core.current.lock, client._starting:
        pid = os.fork()
    return run(pid, work)


def with_multiprocessing(work: Callable[[], None]) -> int:
    """As its pools and processes begin."""
    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    assert process.pid is not None
    return process.pid


def run(pid: int, work: Callable[[], None]) -> int:
    """In the child `work`, then its end."""
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        except SystemExit as end:
            print(end, file=sys.stderr, flush=True)
        finally:
            os._exit(code)
    return pid


def wait(pid: int) -> None:
    """For its end, which must be a good one."""
    if os.waitpid(pid, 0)[1] != 0:
        sys.exit("the child failed")


def main() -> None:
    """Parent and child."""
    ways = {"multiprocessing": with_multiprocessing, "os": in_python, "locked": with_locks_held, "twice": in_python}
    if not client.wait_ready(CEILING_SECONDS):
        sys.exit("not ready")
    until(True)
    say("parent")
    pid = ways[sys.argv[1]](grandchild if sys.argv[1] == "twice" else child)
    see("parent")
    wait(pid)
    say("parent is still there")
    client.close()


if __name__ == "__main__":
    main()
