"""Sends the task `look` to the queue named as argument, once for each line of input, and prints what it gave."""

from __future__ import annotations

import os
import sys

from celery import Celery

CEILING_SECONDS = 60.0


def main() -> None:
    """Until the input ends."""
    broker = os.environ["BROKER"]
    app = Celery("ask", broker=broker, backend=broker)
    for _ in sys.stdin:
        print(app.send_task("look", queue=sys.argv[1]).get(timeout=CEILING_SECONDS), flush=True)


if __name__ == "__main__":
    main()
