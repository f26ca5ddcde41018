"""WSGI as servers drive it: one revision holds while the body is made, and nothing is left behind in the thread (P3)."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from wsgiref.util import FileWrapper, setup_testing_defaults
from wsgiref.validate import validator

import pytest
import requests
from rescind.testing import FlagsFixture
from rescind.wire import HEADER
from rescind.wsgi import RescindMiddleware

from tests.sdk.conftest import FLAG
from tests.sdk.serving import wsgiref_serving
from tests.waiting import CEILING_SECONDS


def call(app: Callable[..., Any], **more: Any) -> Iterable[bytes]:
    """What a server gets to send."""
    environ: dict[str, Any] = dict(more)
    setup_testing_defaults(environ)
    return app(environ, lambda *_: lambda data: None)  # type: ignore[no-any-return]


def pin_of(flags: FlagsFixture) -> Any:
    """What holds in this thread."""
    return flags.client.core.context.pin.get()


@pytest.fixture
def flags() -> FlagsFixture:
    """One flag that is on."""
    return FlagsFixture({FLAG: True})


async def test_one_revision_holds_while_the_body_is_made(flags: FlagsFixture) -> None:
    # P3, by a real server and checked by the standard library's validator
    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterator[bytes]:
        start_response("200 OK", [("content-type", "text/plain")])
        yield str(flags.client.boolean(FLAG, False)).encode()
        flags.set(FLAG, False)
        yield str(flags.client.boolean(FLAG, False)).encode()
        flags.kill(FLAG)
        yield str(flags.client.boolean(FLAG, True)).encode()

    wrapped: Any = validator(RescindMiddleware(validator(app), flags.client))  # type: ignore[arg-type]
    revision = f"testing.{flags.client.core.current.revision}"
    async with wsgiref_serving(wrapped) as url:
        reply = await asyncio.to_thread(requests.get, url, timeout=CEILING_SECONDS)
    assert reply.text == "TrueTrueFalse"
    assert reply.headers[HEADER] == revision


def test_a_body_that_is_ready_goes_to_the_server_as_it_is(flags: FlagsFixture) -> None:
    ready = [b"x"]
    file = FileWrapper(io.BytesIO(b"x"))
    for body in (ready, (b"x",), file):
        got = call(
            RescindMiddleware(lambda environ, start, body=body: body, flags.client), **{"wsgi.file_wrapper": FileWrapper}
        )
        assert got is body
    assert pin_of(flags) is None


def test_nothing_stays_behind_whatever_becomes_of_the_request(flags: FlagsFixture) -> None:
    # P3
    pins: list[Any] = []
    closed: list[bool] = []

    def failing(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        pins.append(pin_of(flags))
        raise ZeroDivisionError

    def streaming(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterator[bytes]:
        try:
            pins.append(pin_of(flags))
            yield b"x"
            yield b"y"
        finally:
            closed.append(pin_of(flags) is pins[-1])

    with pytest.raises(ZeroDivisionError):
        call(RescindMiddleware(failing, flags.client))
    body: Any = call(RescindMiddleware(streaming, flags.client))
    assert next(iter(body)) == b"x"
    assert pin_of(flags) is None
    assert not pins[-1].ended
    body.close()
    body.close()
    assert closed == [True]
    assert [pin.ended for pin in pins] == [True, True]
