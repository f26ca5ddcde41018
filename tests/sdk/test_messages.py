"""The revision in messages: plain headers, Celery and arq, with real brokers and workers (P3)."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import rescind
import rescind.celery
from celery import Celery
from rescind.messages import consumer, inject, receiving
from rescind.testing import FlagsFixture
from rescind.wire import HEADER

from runtime.embedded import EmbeddedValkey
from tests.children import die_with_parent
from tests.sdk.conftest import FLAG, Site
from tests.sdk.distribution import ROOT, installed_wheel, run, uv
from tests.sdk.serving import cut_off
from tests.sdk.test_forks import service, variables
from tests.waiting import CEILING_SECONDS, until

ARQ = "arq==0.28.0"
LETTERS = Path(__file__).parent / "messaging" / "letters.py"


def test_headers_of_a_message_say_what_the_sender_has_seen() -> None:
    # P3
    client = FlagsFixture({FLAG: True}).client
    value = f"testing.{client.core.current.revision}"
    assert inject(client, {}) == {HEADER: value, "baggage": f"rescind.rev={value}"}
    told = {"Baggage": "tenant=blue", "x": "kept"}
    assert inject(client, told) == {HEADER: value, "Baggage": f"rescind.rev={value},tenant=blue", "x": "kept"}
    flags = FlagsFixture({FLAG: True})
    with receiving(flags.client, {}):
        flags.set(FLAG, False)
        assert flags.client.boolean(FLAG, False) is True
        assert inject(flags.client, {})[HEADER] == value


async def test_what_a_consumer_does_is_not_older_than_its_message(site: Site) -> None:
    # P3
    with rescind.Client(**site.options) as client:
        cut_off(client)

        def headers(message: Any) -> Any:
            return message.headers

        @consumer(client, headers=headers, trust=False)
        def handle_outside(message: Any) -> bool:
            return client.boolean(FLAG, False)

        @consumer(client, headers=headers, budget_seconds=5)
        def handle(message: Any) -> bool:
            return client.boolean(FLAG, False)

        @consumer(client, headers=headers, budget_seconds=5)
        async def handle_async(message: Any) -> bool:
            return client.boolean(FLAG, False)

        odd = SimpleNamespace(headers=[(HEADER, 5), (b"\xff", None), (HEADER, f"{site.environment}.1.777".encode())])
        assert await asyncio.to_thread(handle, odd) is True
        value = f"{site.environment}.{(await asyncio.to_thread(site.kill))['revision']}"
        outside = SimpleNamespace(headers={HEADER: value, "baggage": f"a=1,rescind.rev={value}"})
        assert handle_outside(outside) is True
        assert outside.headers == {"baggage": "a=1"}
        assert await handle_async(SimpleNamespace(headers=[("Baggage", f"rescind.rev={value}".encode())])) is False
        await asyncio.to_thread(site.lift)
        value = f"{site.environment}.1.3"
        assert await asyncio.to_thread(handle, SimpleNamespace(headers={HEADER: value})) is True
        async with receiving(client, None):
            assert client.boolean(FLAG, False) is True


async def test_an_asyncclient_is_not_waited_for_where_it_works(site: Site) -> None:
    # P3: it serves off variants there, and catches up from another thread
    async with rescind.AsyncClient(**site.options) as client:
        told = {HEADER: f"{site.environment}.1.2"}
        with receiving(client, told, budget_seconds=5):
            assert client.boolean_details(FLAG, True).reason == "STALE"

        def handle() -> str:
            with receiving(client, told, budget_seconds=5):
                return client.boolean_details(FLAG, False).reason

        await asyncio.to_thread(site.kill)
        await until(lambda: client.core.current.revision.n == 2)
        assert await asyncio.to_thread(handle) == "STATIC"
        told = {HEADER: f"{site.environment}.1.3"}
        lifting = asyncio.create_task(asyncio.to_thread(site.lift))
        assert await asyncio.to_thread(handle) == "STATIC"
        await lifting


@asynccontextmanager
async def celery_app(site: Site, broker: str, folder: Path, trust: str, pool: str) -> AsyncIterator[Celery]:
    """One who sends tasks to a real worker whose client is cut off."""
    more = {"BROKER": broker, "QUEUE": site.environment, "TRUST": trust}
    quiet = ("--without-mingle", "--without-gossip", "--without-heartbeat")
    command = ("celery", "-A", "tests.sdk.messaging.mails", "worker", "-P", pool, "-c", "1", "-Q", site.environment, *quiet)
    with service(command, site, folder / "log", **more), Celery("shop", broker=broker, backend=broker) as app:
        app.conf.update(task_default_queue=site.environment, result_backend_thread_safe=True)
        yield app
        app.backend.result_consumer.stop()  # Celery leaves its connections to the garbage collector
        app.backend.client.connection_pool.disconnect()


def done(app: Celery, name: str) -> Any:
    """What a task gave. Blocks."""
    return app.send_task(name).get(timeout=CEILING_SECONDS)


@pytest.mark.parametrize(("trust", "pool"), [("yes", "prefork"), ("no", "threads")])
async def test_celerys_tasks_are_not_older_than_who_sent_them(
    site: Site, tmp_path: Path, valkey_server: EmbeddedValkey, trust: str, pool: str
) -> None:
    # P3
    async with celery_app(site, valkey_server.url, tmp_path, trust, pool) as app:
        with rescind.Client(**site.options) as client:
            assert await asyncio.to_thread(done, app, "deafen") == "1.1"
            stop = rescind.celery.instrument(client)
            try:
                revision = (await asyncio.to_thread(site.kill))["revision"]
                await until(lambda: str(client.core.current.revision) == revision)
                seen = await asyncio.to_thread(done, app, "look")
                other = app.AsyncResult(await asyncio.to_thread(done, app, "pass on"))
                passed_on = await asyncio.to_thread(other.get, timeout=CEILING_SECONDS)
                retried = await asyncio.to_thread(done, app, "again")
            finally:
                stop()
            unsaid = await asyncio.to_thread(done, app, "look")
    value = f"{site.environment}.{revision}"
    told = {HEADER: value, "baggage": f"rescind.rev={value}"}
    if trust == "yes":
        assert seen == {"value": False, "reason": "STATIC", "headers": told}
        assert passed_on["headers"] == retried["headers"] == told
        assert unsaid == {"value": False, "reason": "STATIC", "headers": None}
    else:
        assert seen["value"] is True
        assert seen["headers"] == {}
        assert retried["headers"] == {}
        assert passed_on["headers"] == {}


@pytest.fixture(scope="module")
def with_arq(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter that has the SDK's wheel and arq."""
    python = installed_wheel(tmp_path_factory.mktemp("arq"))
    run([uv(), "pip", "install", "--quiet", "--python", str(python), ARQ], cwd=python.parent)  # without our own pins
    return python


@pytest.mark.parametrize("trust", ["yes", "no"])
async def test_arqs_jobs_are_not_older_than_who_enqueued_them(
    site: Site, with_arq: Path, valkey_server: EmbeddedValkey, trust: str
) -> None:
    # P3
    process = await asyncio.create_subprocess_exec(
        str(with_arq), str(LETTERS), valkey_server.url, trust, site.environment,
        cwd=ROOT, env=variables(site, PYTHONPATH=""), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        preexec_fn=die_with_parent,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    assert await process.stdout.readline() == b"ready\n"
    revision = (await asyncio.to_thread(site.kill))["revision"]
    said, _ = await process.communicate(f"{revision}\n".encode())
    assert process.returncode == 0
    value = trust == "no"
    assert msgspec.json.decode(said) == {
        "seen": [
            {"name": "started", "value": value, "reason": "hook"},
            {"name": "first", "value": value, "reason": "STATIC"},
            {"name": "started", "value": value, "reason": "hook"},
            {"name": "second", "value": value, "reason": "STATIC"},
        ],
        "result": "first",
    }
