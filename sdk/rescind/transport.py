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

import msgspec

from rescind.errors import ApiError, Unreachable
from rescind.sse import Event, EventParser
from rescind.version import __version__
from rescind.wire import ProblemBody

T = TypeVar("T")

CONNECT_SECONDS = 2.0
PASSING_RETRY_SECONDS_MAX = 300.0


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """A reply below 400: status, lower-case headers, body as it came."""

    status: int
    headers: dict[str, str]
    content: bytes


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
    """The same calls on an event loop, with typed answers. Built at its first call, on the loop that calls."""

    def __init__(self, url: str, token: str, environment: str | None = None) -> None:
        self.url = url.rstrip("/")
        self.environment = environment
        self._headers = default_headers(token, environment)
        self._opening: asyncio.Task[Any] | None = None
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
        """`POST` what may arrive twice, on a connection that lasts: for what goes out often. Raises as `call` does."""
        await self._http()
        if self._lines is None:
            return await self.call("POST", path, body, answer_type, timeout_seconds=timeout_seconds)
        self.call_count += 1
        try:
            async with asyncio.timeout(timeout_seconds):
                status, headers, content = await self._lines.post(path, msgspec.json.encode(body))
        except OSError as error:
            raise unreachable(self.url, error) from error
        if status >= 400:
            raise problem_of(status, content, headers.get("retry-after"))
        return self._read(content, answer_type)

    async def send(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        timeout_seconds: float = 10.0,
        params: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
    ) -> Answer:
        """The answer as it came. Raises `ApiError` for a status of 400 or more, and `Unreachable`."""
        client = await self._http()
        timeout = self._httpx.Timeout(timeout_seconds, connect=min(CONNECT_SECONDS, timeout_seconds))
        content = None if body is None else msgspec.json.encode(body)
        self.call_count += 1
        try:
            async with asyncio.timeout(timeout_seconds):
                response = await client.request(
                    method, self.url + path, content=content, params=present(params), headers=headers, timeout=timeout
                )
        except (self._httpx.HTTPError, TimeoutError) as error:
            raise unreachable(self.url, error) from error
        return answer_of(response)

    @asynccontextmanager
    async def events(
        self, path: str, *, params: dict[str, Any], headers: dict[str, str], silence_seconds: float
    ) -> AsyncIterator[AsyncIterator[Event]]:
        """An open SSE stream. Silence longer than `silence_seconds` is `Unreachable`, as is its end by a broken line."""
        client = await self._http()
        timeout = self._httpx.Timeout(silence_seconds, connect=CONNECT_SECONDS)
        asked = {"accept": "text/event-stream", "cache-control": "no-store", **headers}
        try:
            async with client.stream(
                "GET", self.url + path, params=present(params), headers=asked, timeout=timeout
            ) as response:
                if response.status_code >= 400:
                    await response.aread()
                    answer_of(response)
                yield read_events(response.aiter_raw())
        except self._httpx.HTTPError as error:
            raise unreachable(self.url, error) from error

    async def close(self) -> None:
        """Close the connections."""
        if self._opening is not None and self._opening.done() and not self._opening.cancelled():
            await (await self._opening).aclose()
        if self._lines is not None:
            self._lines.close()
        self._opening = None

    async def _http(self) -> Any:
        if self._opening is None:
            self._opening = asyncio.ensure_future(asyncio.to_thread(self._open))
        return await asyncio.shield(self._opening)

    def _open(self) -> Any:
        self._httpx = httpx = importlib.import_module("httpx")
        with suppress(ImportError):  # what httpx would import at its first request, on the event loop: 40 ms
            importlib.import_module("anyio._backends._asyncio")
        context, lines = self.url.startswith("https:") and httpx.create_ssl_context(), importlib.import_module("rescind.lines")
        if lines.is_direct(self.url):
            self._lines = lines.Lines(self.url, self._headers, context or None)
        limits = httpx.Limits(max_connections=64, max_keepalive_connections=16, keepalive_expiry=30)
        return httpx.AsyncClient(headers=self._headers, verify=context, limits=limits)

    def _read(self, content: bytes, answer_type: type[T]) -> T:
        try:
            return msgspec.json.decode(content or b"null", type=answer_type)
        except msgspec.MsgspecError as error:
            raise Unreachable(f"{self.url} answered something that is not {answer_type.__name__}: {error}") from error


async def read_events(chunks: AsyncIterator[bytes]) -> AsyncIterator[Event]:
    """The events in a stream of bytes."""
    parser = EventParser()
    async for chunk in chunks:
        for event in parser.feed(chunk):
            yield event


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


def present(params: dict[str, Any] | None) -> dict[str, Any] | None:
    """The parameters that have a value."""
    return {name: value for name, value in params.items() if value is not None} if params else None


def answer_of(response: Any) -> Answer:
    """The answer of an httpx response that has been read. Raises `ApiError` from 400 on."""
    if response.status_code >= 400:
        raise problem_of(response.status_code, response.content, response.headers.get("retry-after"))
    return Answer(status=response.status_code, headers=dict(response.headers), content=response.content)


def problem_of(status: int, content: bytes, retry_after: str | None) -> ApiError:
    """The refusal as an error, whatever its body is (RFC 9457 where it comes from us, anything from a proxy)."""
    try:
        body = msgspec.json.decode(content, type=ProblemBody)
    except msgspec.MsgspecError:
        body = ProblemBody(status=status, code="http", detail=content[:200].decode("utf-8", "replace"))
    return ApiError(
        status,
        body.code,
        body.detail,
        title=body.title,
        errors=body.errors,
        suggestion=body.suggestion,
        next_step=body.next_step,
        retry_after_seconds=seconds_of(retry_after),
    )


def seconds_of(retry_after: str | None) -> float | None:
    """Retry-After in its form as seconds (RFC 9110, 10.2.3), at most five minutes; None for anything else."""
    if not retry_after or not retry_after.strip().isdecimal():
        return None
    return min(float(retry_after.strip()), PASSING_RETRY_SECONDS_MAX)


def unreachable(url: str, error: BaseException) -> Unreachable:
    """What to raise when the network said `error`."""
    return Unreachable(f"{url} could not be reached: {type(error).__name__} {error}".rstrip(": "))
