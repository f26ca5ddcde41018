"""A parent that leaves an outcome in its journal and ends, while a child that it forked lives on until its input ends."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from rescind import forks
from rescind.journal import Journal
from rescind.wire import EffectReport


def main() -> None:
    """`python -m tests.sdk.forking.orphan FOLDER`."""
    journal = Journal(Path(sys.argv[1]), "parent")
    journal.append([EffectReport(effect_id="e", token="t", outcome="succeeded")])
    if os.fork() == 0:
        forks.let_go(journal.files())
        print("child", flush=True)
        sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    main()
