"""The rooms that bring tables, in the order in which their migrations apply."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ROOMS: tuple[Path, ...] = (
    ROOT / "runtime" / "migrations",
    ROOT / "flagd" / "migrations",
    ROOT / "sagas" / "migrations",
    ROOT / "server" / "rollbacks" / "migrations",
)
