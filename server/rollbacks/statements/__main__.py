"""Judging in a process of its own: `python -m server.rollbacks.statements`, migrations in on standard input, findings out.

The grammar is C, and what it reads is other people's text: what it does to its process, it does to this one.
"""

from __future__ import annotations

import sys

import msgspec

from server.rollbacks.statements.classes import Migration
from server.rollbacks.statements.judging import judge


def main() -> None:
    """One list of migrations, one list of findings, as JSON."""
    migrations = msgspec.json.decode(sys.stdin.buffer.read(), type=list[Migration])
    sys.stdout.buffer.write(msgspec.json.encode(judge(migrations)))


if __name__ == "__main__":
    main()
