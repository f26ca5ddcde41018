"""The entry point of the command `rescind`: says what is missing where the `cli` extra is not installed."""

from __future__ import annotations

import sys
from collections.abc import Callable

try:
    from rescind.cli.app import run
except ModuleNotFoundError as error:
    if error.name is None or error.name.startswith("rescind"):
        raise
    MISSING = error.name
    run: Callable[[], int] = lambda: _say_what_is_missing()  # type: ignore[no-redef]  # noqa: E731


def _say_what_is_missing() -> int:
    print(f'the command line needs {MISSING}: pip install "rescind[cli]"', file=sys.stderr)
    return 2


def main() -> None:
    """Run the command line and exit with its code."""
    sys.exit(run())
