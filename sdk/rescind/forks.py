"""A process that forks: the child goes on with the warm snapshot, and with work, connections and names of its own.

Python tells of its own forks (`os.register_at_fork`). One made in C, as uWSGI's are, tells nobody; a page of memory that the
kernel wipes in a child (`MADV_WIPEONFORK`, Linux 4.14) does, for the price of reading one byte at the first use.
"""

from __future__ import annotations

import asyncio
import logging
import mmap
import os
import sys
import threading
import weakref
from collections.abc import Iterable
from typing import Any, Protocol

logger = logging.getLogger("rescind")

WIPE_ON_FORK = 18
"""`MADV_WIPEONFORK` of <sys/mman.h>, which the module mmap does not name."""
RECOVER_SECONDS = 1.0
OWN = 1


class Forks(Protocol):
    """Whoever has to begin anew in a child."""

    def forked(self) -> None:
        """This is the child: only the thread that forked is there, and nothing may be waited for."""


class ProcessNumber:
    """Where the kernel wipes no page: compares the process's number, which costs a call."""

    def __init__(self) -> None:
        self._pid = os.getpid()

    def __getitem__(self, index: int) -> int:
        return OWN if os.getpid() == self._pid else 0

    def __setitem__(self, index: int, value: int) -> None:
        self._pid = os.getpid()


def new_page() -> mmap.mmap | ProcessNumber:
    """Reads `OWN` at 0 in this process, and 0 in a child until it is set there."""
    if sys.platform == "linux":
        page = mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        try:
            page.madvise(WIPE_ON_FORK)
        except OSError:  # a kernel that cannot
            page.close()
        else:
            page[0] = OWN
            return page
    return ProcessNumber()


page = new_page()
inherited: list[object] = []
"""In a child: what belongs to the parent's event loop. Kept, so that nothing of it is finalized or closed here."""
_first: list[Forks] = []
_forking: weakref.WeakSet[Forks] = weakref.WeakSet()
_recovering = threading.Lock()


def follow(one: Forks) -> None:
    """Tell `one` of every fork from now on, for as long as it lives."""
    _forking.add(one)


def follow_first(one: Forks) -> None:
    """Tell `one`, which lives as long as the process, before all those that build on it and may begin work at once."""
    _first.append(one)


def recover() -> None:
    """`page` says that this is a child that nobody told: tell everyone. Once, whichever thread comes first."""
    if _recovering.acquire(timeout=RECOVER_SECONDS):
        try:
            if page[0] != OWN:
                _tell()
        finally:
            _recovering.release()


def let_go(files: Iterable[tuple[int, int]]) -> None:
    """Give up the parent's sockets (descriptor and inode) without a word on them: the parent goes on with its own.

    The number stays taken, by /dev/null: what is closed in passing later must not be somebody else's file.
    """
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for descriptor, inode in files:
        try:
            if os.fstat(descriptor).st_ino == inode:
                os.dup2(null, descriptor, inheritable=False)
        except OSError:
            continue
    os.close(null)


def abandon(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Tasks of the parent's loop never run here: no word about it when they are finalized."""
    for task in tasks:
        task._log_destroy_pending = False  # type: ignore[attr-defined]  # as asyncio.gather does
        inherited.append(task)


def _tell() -> None:
    page[0] = OWN
    for one in [*_first, *_forking]:
        try:
            one.forked()
        except Exception:  # one client's trouble is not the next one's
            logger.exception("a client could not begin anew after a fork")


def _in_child() -> None:
    global _recovering
    _recovering = threading.Lock()
    _tell()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
