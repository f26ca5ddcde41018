"""Forks as uWSGI does by itself: in C, and Python is not told. The child finds out at its first use.

One thread alone is at work here, with an `AsyncClient` on its event loop: in a process with several, Python itself does not
survive a fork that it is not told of (its lock is copied while others wait for it).
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import sys
import traceback

import msgspec
import rescind

FLAG = "checkout.new-flow"
CEILING_SECONDS = 60.0
client = rescind.AsyncClient(service="shop")


def say(what: str) -> None:
    """One line."""
    value = client.boolean(FLAG, True, {"targetingKey": what})
    line = {"what": what, "pid": os.getpid(), "value": value, **msgspec.to_builtins(client.status())}
    sys.stdout.write(msgspec.json.encode(line).decode() + "\n")
    sys.stdout.flush()


async def until(value: bool) -> None:
    """Return once the flag has this value, and the stream is there."""
    async with asyncio.timeout(CEILING_SECONDS):
        while client.boolean(FLAG, not value) is not value or not client.status().connected:
            await asyncio.sleep(0.01)


async def see(who: str) -> None:
    """The kill, then the lift."""
    await until(False)
    say(f"{who} saw the kill")
    await until(True)
    say(f"{who} saw the lift")


async def child() -> None:
    """A child's life, on a loop of its own."""
    await see("child")
    async with client.effect("payment.capture", flag=FLAG, key=f"capture:{os.getpid()}", payload={}) as effect:
        effect.result = {"pid": os.getpid()}
    say("child did an effect")
    await client.close()


async def main() -> None:
    """Parent and child."""
    assert await client.wait_ready(CEILING_SECONDS)
    await until(True)
    say("parent")
    pid = ctypes.PyDLL(None).fork()
    if pid == 0:
        code = 1
        try:
            say("child")
            asyncio.run(child())
            code = 0
        except BaseException:
            traceback.print_exc()
            raise
        finally:
            os._exit(code)
    await see("parent")
    if (await asyncio.to_thread(os.waitpid, pid, 0))[1] != 0:
        sys.exit("the child failed")
    say("parent is still there")
    await client.close()


if __name__ == "__main__":
    asyncio.run(main())
