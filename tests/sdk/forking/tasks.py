"""The service as a Celery worker: tasks run in processes that were forked from the one that made the client."""

from __future__ import annotations

import os

from celery import Celery

from tests.sdk.forking import shop

app = Celery("shop", broker=os.environ["BROKER"], backend=os.environ["BROKER"])


@app.task(name="look")
def look() -> str:
    """What the task's process sees."""
    return shop.look().decode()
