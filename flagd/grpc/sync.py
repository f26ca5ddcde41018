"""What `flagd.sync.v1` sends: the environment as one flagd document, in which kills are plain flagd terms (P4, P7).

The document is made once per revision, however many ask. `sync_context` is empty: a client's evaluator sees the contexts
that ours sees, and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
from rescind import wire

from flagd.broadcast import Event
from flagd.core.plain import plain_document
from flagd.grpc.messages import SYNC
from flagd.replica import Replica

_encode = msgspec.json.Encoder().encode


class Documents:
    """The document of the present snapshot, kept until there is another."""

    def __init__(self) -> None:
        self._kept: tuple[wire.Snapshot, str, bytes] | None = None

    def text(self, replica: Replica) -> str:
        """JSON."""
        return self._of(replica)[0]

    def message(self, replica: Replica) -> bytes:
        """A `SyncFlagsResponse`."""
        return self._of(replica)[1]

    def _of(self, replica: Replica) -> tuple[str, bytes]:
        snapshot = replica.snapshot
        if self._kept is None or self._kept[0] is not snapshot:
            text = _encode(plain_document(snapshot)).decode()
            response: Any = SYNC["SyncFlagsResponse"](flag_configuration=text)
            response.sync_context.SetInParent()
            self._kept = (snapshot, text, response.SerializeToString())
        return self._kept[1:]


class SyncFeed:
    """One stream of documents: the present one at once, then each newer one. A slower reader skips to the newest."""

    def __init__(self, replica: Replica, documents: Documents) -> None:
        self._replica = replica
        self._documents = documents
        self._sent = replica.revision

    def first(self) -> Iterable[bytes]:
        """The present document."""
        self._sent = self._replica.revision
        return [self._documents.message(self._replica)]

    def following(self, event: Event) -> Iterable[bytes]:
        """The newest document, unless it was sent (P2)."""
        if self._replica.revision <= self._sent:
            return []
        return self.first()
