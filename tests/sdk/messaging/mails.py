"""A Celery worker as people write it, whose client hears of no change by itself once it is told so."""

from __future__ import annotations

import os
import time
from typing import Any

import msgspec
import rescind
import rescind.celery
from celery import Celery

FLAG = "checkout.new-flow"
app = Celery("mails", broker=os.environ["BROKER"], backend=os.environ["BROKER"])
app.conf.task_default_queue = os.environ["QUEUE"]
client = rescind.Client(service="mails")
rescind.celery.instrument(client, trust=os.environ["TRUST"] == "yes", budget_seconds=5)


@app.task(name="deafen")
def deafen() -> str:
    """From now on there is no stream; what it knew then."""
    client.wait_ready(60)
    (following,) = (task for task in client.core.tasks if task.get_name() == "Follower.run")
    following.get_loop().call_soon_threadsafe(following.cancel)
    while not following.done():
        time.sleep(0.01)
    return client.status().revision


@app.task(name="look", bind=True)
def look(self: Any) -> dict[str, Any]:
    """What a task sees."""
    details = client.boolean_details(FLAG, False)
    return {"value": details.value, "reason": details.reason, "headers": self.request.headers}


@app.task(name="pass on")
def pass_on() -> str:
    """Sends the other one; its id."""
    return str(look.delay().id)


@app.task(name="again", bind=True, max_retries=1)
def again(self: Any) -> dict[str, Any]:
    """Tries a second time; what that saw."""
    if self.request.retries == 0:
        raise self.retry(countdown=0)
    return msgspec.to_builtins(look.apply().result) | {"headers": self.request.headers}
