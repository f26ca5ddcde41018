"""What goes wrong at the ledger's door.

LedgerFault
└── TooManyItems    a batch over its limit: 413
"""

from __future__ import annotations


class LedgerFault(Exception):  # noqa: N818 - the root of a tree, as in runtime.errors
    """Root of the tree above."""


class TooManyItems(LedgerFault):
    """A batch of `count` where `limit` is the most."""

    def __init__(self, count: int, limit: int) -> None:
        super().__init__(f"{count} items in one batch; at most {limit}")
        self.count = count
        self.limit = limit
