"""HTTP to the server: JSON calls and event streams, for the SDK's core and for the command line.

`Api` blocks, `AsyncApi` awaits; both turn problem+json into `ApiError` and a server that cannot be reached into
`Unreachable`. httpx is imported at the first call: importing `rescind` must cost nothing.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar
from urllib.parse import urlencode

import msgspec

from rescind.answers import Answer, age_of, answer_of, problem_of, unreachable
from rescind.errors import Unreachable
from rescind.events import EventStream
from rescind.sse import Event, EventParser
from rescind.threads import in_thread
from rescind.version import __version__

T = TypeVar("T")

CONNECT_SECONDS = 2.0


class Api:
    """Blocking calls, for the command line and for scripts. Safe to use from several threads.

    >>> api = Api("http://127.0.0.1:8016", "rsc_…", "production")
    >>> api.request("GET", api.within("/flags"))["flags"]
    """

    def __init__(self, url: str, token: str, environment: str | None = None) -> None:
        self.url = url.rstrip("/")
        self.environment = environment
        self._headers = default_headers(token, environment)
        self._client: Any = None

    def within(self, path: str) -> str:
        """`/v1/environments/<environment><path>`."""
        return f"/v1/environments/{self.environment or 'production'}{path}"

    def request(
        self,
        method: str,
        path: str,
        *,
        json: object = None,
        params: dict[str, Any] | None = None,
        timeout_seconds: float = 30.0,
    ) -> Any:
        """The decoded JSON answer, or None where there is no body. Raises `ApiError` and `Unreachable`."""
        answer = self.send(method, path, json=json, params=params, timeout_seconds=timeout_seconds)
        return msgspec.json.decode(answer.content) if answer.content else None

    def send(
        self,
        method: str,
        path: str,
        *,
        json: object = None,
        params: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
        timeout_seconds: float = 30.0,
    ) -> Answer:
        """The answer as it came. Raises `ApiError` for a status of 400 or more, and `Unreachable`."""
        import httpx

        try:
            response = self._http().request(
                method,
                self.url + path,
                content=None if json is None else msgspec.json.encode(json),
                params=present(params),
                headers=headers,
                timeout=httpx.Timeout(timeout_seconds, connect=min(CONNECT_SECONDS, timeout_seconds)),
            )
        except httpx.HTTPError as error:
            raise unreachable(self.url, error) from error
        return answer_of(response)

    def stream(self, path: str, *, params: dict[str, Any] | None = None, timeout_seconds: float = 30.0) -> Iterator[Event]:
        """Yield the events of an SSE stream until it ends; silence longer than the timeout is `Unreachable`."""
        import httpx

        timeout = httpx.Timeout(timeout_seconds, connect=min(CONNECT_SECONDS, timeout_seconds))
        parser = EventParser()
        try:
            with self._http().stream(
                "GET", self.url + path, params=present(params), headers={"accept": "text/event-stream"}, timeout=timeout
            ) as response:
                if response.status_code >= 400:
                    response.read()
                    answer_of(response)
                for chunk in response.iter_raw():
                    yield from parser.feed(chunk)
        except httpx.HTTPError as error:
            raise unreachable(self.url, error) from error

    def close(self) -> None:
        """Close the connections. The next call opens new ones."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def _http(self) -> Any:
        if self._client is None:
            import httpx

            self._client = httpx.Client(headers=self._headers, verify=self.url.startswith("https:"))
        return self._client


class AsyncApi:
    """The same calls on an event loop, with typed answers. Built at its first call, on the loop that calls.

    Over connections of its own (`rescind.lines`); through httpx where a proxy stands between.
    """

    def __init__(self, url: str, token: str, environment: str | None = None) -> None:
        self.url = url.rstrip("/")
        self.environment = environment
        self._headers = default_headers(token, environment)
        self._opening: asyncio.Task[None] | None = None
        self._is_open = False
        self._is_closed = False
        self._client: Any = None
        self._httpx: Any = None
        self._lines: Any = None
        self.call_count = 0
        """Requests sent, streams aside."""

    def within(self, path: str) -> str:
        """`/v1/environments/<environment><path>`."""
        return f"/v1/environments/{self.environment or 'production'}{path}"

    async def call(
        self,
        method: str,
        path: str,
        body: object,
        answer_type: type[T],
        *,
        timeout_seconds: float = 10.0,
        params: dict[str, Any] | None = None,
    ) -> T:
        """Send `body` as JSON (None: no body), read the answer as `answer_type`. Raises `ApiError`, `Unreachable`."""
        answer = await self.send(method, path, body, timeout_seconds=timeout_seconds, params=params)
        return self._read(answer.content, answer_type)

    async def repeatable(self, path: str, body: object, answer_type: type[T], *, timeout_seconds: float) -> T:
        """`POST` what may arrive twice: where its connection broke, it is sent again. Raises as `call` does."""
        answer = await self.send("POST", path, body, timeout_seconds=timeout_seconds, may_repeat=True)
        return self._read(answer.content, answer_type)

    async def send(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        timeout_seconds: float = 10.0,
        params: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
        may_repeat: bool = False,
    ) -> Answer:
        """The answer as it came. Raises `ApiError` for a status of 400 or more, and `Unreachable`."""
        self.call_count += 1
        content = b"" if body is None else msgspec.json.encode(body)
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._open()
                if self._lines is None:
                    return await self._through_proxy(method, with_query(path, params), content, headers or {}, timeout_seconds)
                status, told, content = await self._lines.call(
                    method,
                    with_query(path, params),
                    content,
                    (headers or {}).items(),
                    may_repeat=may_repeat or method != "POST",
                )
        except OSError as error:  # TimeoutError is one
            raise unreachable(self.url, error) from error
        if status >= 400:
            raise problem_of(status, content, told.get("retry-after"))
        return Answer(status=status, headers=told, content=content)

    @asynccontextmanager
    async def events(
        self, path: str, *, params: dict[str, Any], headers: dict[str, str], silence_seconds: float
    ) -> AsyncIterator[EventStream]:
        """An open SSE stream. Silence longer than `silence_seconds` is `Unreachable`, as is its end by a broken line."""
        asked = {"accept": "text/event-stream", "cache-control": "no-store", **headers}
        target = with_query(path, params)
        try:
            async with asyncio.timeout(silence_seconds):
                await self._open()
        except OSError as error:
            raise unreachable(self.url, error) from error
        opened = self._proxied_stream if self._lines is None else self._stream
        async with opened(target, asked, silence_seconds) as source:
            yield source

    def close_idle(self) -> None:
        """Close those connections of our own that rest, without waiting for anything. Nothing rests from then on."""
        self._is_closed = True
        if self._lines is not None:
            self._lines.close()

    def files(self) -> list[tuple[int, int]]:
        """Descriptor and inode of every connection that is open; those of httpx are its own."""
        return self._lines.files() if self._lines is not None else []

    def tasks(self) -> list[asyncio.Task[Any]]:
        """What is under way for all calls."""
        opening = [self._opening] if self._opening is not None else []
        return [*opening, *(self._lines.tasks() if self._lines is not None else [])]

    async def close(self) -> None:
        """Close the connections. A call that comes later opens one for itself."""
        self._is_closed = True
        if self._client is not None:
            await self._client.aclose()
        self.close_idle()
        self._opening, self._is_open = None, False

    @asynccontextmanager
    async def _stream(self, target: str, headers: dict[str, str], silence_seconds: float) -> AsyncIterator[EventStream]:
        try:
            async with asyncio.timeout(silence_seconds):
                line, status, told = await self._lines.stream(target, headers.items())
        except OSError as error:
            raise unreachable(self.url, error) from error
        source = EventStream(self.url, line.more, silence_seconds, line.abort, age_seconds=age_of(told))
        try:
            if status >= 400:
                raise problem_of(status, await source.rest(), told.get("retry-after"))
            yield source
        finally:
            source.close()
            self._lines.release(line)

    @asynccontextmanager
    async def _proxied_stream(self, target: str, headers: dict[str, str], silence_seconds: float) -> AsyncIterator[EventStream]:
        timeout = self._httpx.Timeout(silence_seconds, connect=CONNECT_SECONDS)
        try:
            async with self._client.stream("GET", self.url + target, headers=headers, timeout=timeout) as response:
                if response.status_code >= 400:
                    await response.aread()
                    answer_of(response)
                parts = response.aiter_raw()

                async def more() -> bytes:
                    async for part in parts:
                        return bytes(part)
                    return b""

                yield EventStream(self.url, more, age_seconds=age_of(dict(response.headers)))
        except self._httpx.HTTPError as error:
            raise unreachable(self.url, error) from error

    async def _through_proxy(
        self, method: str, target: str, content: bytes, headers: dict[str, str], timeout_seconds: float
    ) -> Answer:
        timeout = self._httpx.Timeout(timeout_seconds, connect=min(CONNECT_SECONDS, timeout_seconds))
        try:
            response = await self._client.request(
                method, self.url + target, content=content or None, headers=headers, timeout=timeout
            )
        except self._httpx.HTTPError as error:
            raise unreachable(self.url, error) from error
        return answer_of(response)

    async def _open(self) -> None:
        """Raises `OSError` where what is needed cannot be had, for example certificates that cannot be read."""
        if self._is_open:
            return
        if self._opening is None or self._opening.done():
            self._opening = asyncio.ensure_future(in_thread(self._prepare))
        try:
            await asyncio.shield(self._opening)
        except (ImportError, ValueError) as error:
            raise OSError(str(error)) from error
        self._is_open = True

    def _prepare(self) -> None:
        """What takes its time (imports, certificates), in a thread."""
        lines, context = importlib.import_module("rescind.lines"), None
        if self.url.startswith("https:"):
            context = importlib.import_module("httpx").create_ssl_context()
        if lines.is_direct(self.url):
            self._lines = lines.Lines(self.url, self._headers, context)
            if self._is_closed:
                self._lines.close()
            return
        self._httpx = httpx = importlib.import_module("httpx")
        with suppress(ImportError):  # what httpx would import at its first request, on the event loop: 40 ms
            importlib.import_module("anyio._backends._asyncio")
        kept_max = 0 if self._is_closed else 16
        limits = httpx.Limits(max_connections=64, max_keepalive_connections=kept_max, keepalive_expiry=30)
        self._client = httpx.AsyncClient(headers=self._headers, verify=context or False, limits=limits)

    def _read(self, content: bytes, answer_type: type[T]) -> T:
        try:
            return msgspec.json.decode(content or b"null", type=answer_type)
        except msgspec.MsgspecError as error:
            raise Unreachable(f"{self.url} answered something that is not {answer_type.__name__}: {error}") from error


def default_headers(token: str, environment: str | None) -> dict[str, str]:
    """What every call carries. The environment's name matters to tokens that are good for all of them."""
    headers = {
        "authorization": f"Bearer {token}",
        "accept": "application/json",
        "content-type": "application/json",
        "user-agent": f"rescind-python/{__version__}",
        "accept-encoding": "identity",
    }
    return {**headers, "x-rescind-environment": environment} if environment else headers


def with_query(path: str, params: dict[str, Any] | None) -> str:
    """The path with the parameters that have a value."""
    query = urlencode(present(params) or {})
    return f"{path}?{query}" if query else path


def present(params: dict[str, Any] | None) -> dict[str, Any] | None:
    """The parameters that have a value."""
    return {name: value for name, value in params.items() if value is not None} if params else None
