"""How teams use the SDK, with the types that a checker must infer. Never run: mypy and pyright read it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, MutableMapping
from typing import Any, assert_type

import rescind
import rescind.arq
import rescind.wsgi
from rescind import barrier
from rescind.asgi import RescindMiddleware
from rescind.messages import consumer, inject, receiving
from rescind.testing import FlagsFixture, RecordedEffect, RecordedEvaluation

order = rescind.Saga("order", version="1", flag="checkout.new-flow")


@order.step(kind="payment.capture", key="capture:{order_id}")
async def capture(order_id: str, amount_cents: int) -> dict[str, str]:
    """A step keeps the signature of its function."""
    return {"charge": f"{order_id}:{amount_cents}"}


@capture.compensation
async def refund(effect: rescind.Effect) -> None:
    """A compensation keeps its own."""
    assert_type(effect.payload, dict[str, Any])
    assert_type(effect.action_key, str | None)


def evaluations(client: rescind.Client | rescind.AsyncClient) -> None:
    assert_type(client.boolean("flag", False), bool)
    assert_type(client.string("flag", "", {"targetingKey": "ann"}), str)
    assert_type(client.integer("flag", 0), int)
    assert_type(client.float("flag", 0.0), float)
    details = client.boolean_details("flag", False)
    assert_type(details, rescind.Resolution)
    assert_type(details.variant, str | None)
    assert_type(details.reason, str)
    assert_type(client.on_change("flag", print), Callable[[], None])
    assert_type(client.status(), rescind.Status)
    assert_type(client.status().ready, bool)
    assert_type(client.status().declared, list[str])
    client.declare("flag", "other")


def synchronous() -> None:
    with rescind.Client(url="http://127.0.0.1:8016", token="t", service="checkout", sagas=[order]) as client:
        assert_type(client, rescind.Client)
        assert_type(client.wait_ready(timeout_seconds=5), bool)
        with client.effect("mail", flag="flag", key="k", payload={"to": "ann"}, subject="ann", step="mail") as effect:
            assert_type(effect, rescind.Effect)
            assert_type(effect.replayed, bool)
            assert_type(effect.provider_key, str)


async def asynchronous() -> None:
    async with rescind.AsyncClient(service="checkout") as client:
        assert_type(client, rescind.AsyncClient)
        assert_type(await client.wait_ready(), bool)
        async with client.effect("mail", flag="flag", key="k", payload={}, saga=("order", "1", "4711")) as effect:
            assert_type(effect, rescind.Effect)
    assert_type(await capture("4711", amount_cents=1299), dict[str, str])


async def sagas() -> None:
    async with rescind.AsyncClient(service="checkout") as client:
        handle = await client.start(order, id="4711", input={"order_id": "4711", "amount_cents": 1299})
        assert_type(handle, rescind.AsyncHandle)
        assert_type(await handle.result(timeout_seconds=5), dict[str, Any])
        assert_type(await client.result(order, "4711"), dict[str, Any])
        assert_type(await client.run(order, id="4712", input={}, subject="ann"), dict[str, Any])
        assert_type(await client.start(), None)
        await client.work(order, order, concurrency=4)
        assert_type(rescind.current_effect(), rescind.Effect)
    with rescind.Client(service="checkout") as synchronous:
        assert_type(synchronous.start(order, id="4711", input={}), rescind.Handle)
        assert_type(synchronous.run(order, id="4711", input={}), dict[str, Any])
        assert_type(synchronous.result("order", "4711"), dict[str, Any])


async def barriers(connection: Any, effect: rescind.Effect) -> None:
    assert_type(await barrier.enter(connection, effect, verb="act"), barrier.Entry)
    assert_type(barrier.enter_sync(connection, effect, verb="undo"), barrier.Entry)


def refusals() -> None:
    try:
        synchronous()
    except rescind.EffectKilled as error:
        assert_type(error.off_variant, str | None)
        assert_type(error.rollback_id, str | None)
    except rescind.SagaUndone as error:
        assert_type(error.cause, dict[str, Any])
    except rescind.ApiError as error:
        assert_type(error.status, int)


def testing() -> None:
    flags = FlagsFixture({"flag": True})
    assert_type(flags.client, rescind.Client)
    assert_type(flags.async_client, rescind.AsyncClient)
    assert_type(flags.effects, list[RecordedEffect])
    assert_type(flags.evaluations, list[RecordedEvaluation])
    with flags.override("flag", False), flags.refusing("mail", "in_progress"):
        assert_type(flags.kill("flag"), None)


async def app(scope: Any, receive: Any, send: Any) -> None:
    """An ASGI application."""


def wsgi_app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """A WSGI application."""
    return [b""]


class Message:
    """What a queue hands over."""

    headers: dict[str, str]


def headers_of(message: Message) -> dict[str, str]:
    """Where a message says the revision."""
    return message.headers


messages = FlagsFixture().client


@consumer(messages, headers=headers_of)
def handle(message: Message) -> int:
    """A consumer keeps the signature of its function."""
    with receiving(messages, message.headers):
        return 1


@consumer(messages, headers=headers_of, trust=False)
async def handle_async(message: Message) -> str:
    """And so does a coroutine function."""
    async with receiving(messages, [("rescind-revision", b"production.1.42")]):
        return ""


class Pool:
    """As arq's."""

    job_serializer: Callable[[dict[str, Any]], bytes] | None = None


@rescind.arq.worker(messages)
class WorkerSettings:
    """As arq takes them."""

    functions = [handle_async]


async def consumers() -> None:
    assert_type(handle(Message()), int)
    assert_type(await handle_async(Message()), str)
    assert_type(inject(messages, {}), MutableMapping[str, str])
    assert_type(rescind.arq.instrument(Pool(), messages), Pool)
    assert_type(WorkerSettings(), WorkerSettings)


assert_type(rescind.wsgi.RescindMiddleware(wsgi_app, messages, trust=False), rescind.wsgi.RescindMiddleware)
assert_type(RescindMiddleware(app, FlagsFixture().async_client), RescindMiddleware)
assert_type(rescind.__version__, str)
