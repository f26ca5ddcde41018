"""What an effect needs of the client it belongs to: a way to the core's loop from wherever its body runs."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, Protocol, TypeVar

from rescind.core import Core

T = TypeVar("T")


class Face(Protocol):
    """The synchronous or the asynchronous client."""

    core: Core

    async def on_core(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` on the core's loop; cancelled with the caller."""

    def block_on_core(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` on the core's loop and wait for it in a thread that has no loop."""

    def in_background(self, work: Coroutine[Any, Any, Any]) -> None:
        """Run `work` on the core's loop and do not wait."""
