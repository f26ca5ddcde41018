"""Saga instances found by what they are and how they stand (P19, P20)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, get_args
from uuid import UUID

import asyncpg
import msgspec
from litestar import Controller, Response, get
from litestar.di import NamedDependency, Provide
from litestar.params import FromPath, FromQuery, Parameter
from msgspec import Struct
from rescind.wire import Fault

from runtime.postgres import Postgres
from runtime.problem import fault_of
from runtime.tokens import Principal
from sagas.http.bodies import LIMIT_MAX, AnyRequest, answer, refused
from sagas.instances import search
from sagas.instances.search import Filter, State

STATES: tuple[str, ...] = get_args(State)
Limit = Annotated[int, Parameter(ge=1, le=LIMIT_MAX)]
Texts = Annotated[list[str] | None, Parameter(max_items=search.ATTRIBUTES_MAX)]


class Asked(Struct, frozen=True, kw_only=True):
    """What a query asks for, as it came."""

    values: dict[str, Any]
    attributes: Sequence[str] | None
    after: str | None
    limit: int


def asked(
    version: FromQuery[str | None] = None,
    status: FromQuery[str | None] = None,
    paused: FromQuery[bool | None] = None,
    flag: FromQuery[str | None] = None,
    subject: FromQuery[str | None] = None,
    attribute: FromQuery[Texts] = None,
    cause: FromQuery[str | None] = None,
    error: FromQuery[str | None] = None,
    started_after: FromQuery[str | None] = None,
    started_before: FromQuery[str | None] = None,
    after: FromQuery[str | None] = None,
    limit: FromQuery[Limit] = 100,
) -> Asked:
    """The parameters that both searches share."""
    values = {
        "version": version, "status": status, "paused": paused, "flag": flag, "subject": subject, "cause": cause,
        "error": error, "started_after": started_after, "started_before": started_before,
    }  # fmt: skip
    return Asked(values=values, attributes=attribute, after=after, limit=limit)


class SearchController(Controller):
    """Instances of one saga, or of all."""

    path = "/v1/environments/{environment:str}"
    tags = ["instances"]
    dependencies = {"asked": Provide(asked, sync_to_thread=False)}

    @get("/sagas/{saga:str}/instances", summary="List instances of a saga")
    async def of_one(
        self,
        request: AnyRequest,
        environment: FromPath[str],
        saga: FromPath[str],
        pg: NamedDependency[Postgres],
        principal: NamedDependency[Principal],
        asked: NamedDependency[Asked],
    ) -> Response[bytes]:
        """The youngest first. `next` is the `after` of the next page, null on the last; one that looked at many and found few
        may be short, or empty, and have one. `attribute=key:value`, as often as wanted; `cause`: why one waits or turned back;
        `error`: the type of the error of the step that did it."""
        principal.require("read", environment)
        return answer(request, await _found(pg, environment, saga, asked))

    @get("/saga-instances", summary="List instances of all sagas")
    async def of_all(
        self,
        request: AnyRequest,
        environment: FromPath[str],
        pg: NamedDependency[Postgres],
        principal: NamedDependency[Principal],
        asked: NamedDependency[Asked],
        saga: FromQuery[str | None] = None,
    ) -> Response[bytes]:
        """As the instances of one saga, each with its saga."""
        principal.require("read", environment)
        return answer(request, await _found(pg, environment, saga, asked))


async def _found(pg: Postgres, environment: str, saga: str | None, asked: Asked) -> dict[str, Any]:
    faults: list[Fault] = []
    wanted, below = filter_of(asked.values, asked.attributes, faults), _id(asked.after, faults)
    if saga is not None and "\0" in saga:
        faults.append(Fault(pointer="/saga", detail="holds a NUL"))
    if wanted is None or faults:
        raise refused(faults, "Not a filter")
    try:
        async with pg.transaction() as connection:
            page = await search.page(connection, environment, saga, wanted, below=below, limit=asked.limit)
    except asyncpg.QueryCanceledError:
        raise search.too_broad() from None
    return {
        "instances": [{name: value for name, value in row.items() if name != "laid"} for row in page.rows],
        "next": page.next,
    }


def filter_of(given: dict[str, Any], attributes: Sequence[str] | None, faults: list[Fault]) -> Filter | None:
    """The filter in the parameters of a query, else null and what is wrong with each."""
    values = {name: value for name, value in given.items() if value is not None}
    faults += [Fault(pointer=f"/{name}", detail="holds a NUL") for name, value in values.items() if "\0" in str(value)]
    pairs = [pair.partition(":") for pair in attributes or ()]
    if any(not name or not colon or "\0" in name + text for name, colon, text in pairs):
        faults.append(Fault(pointer="/attribute", detail="is key:value"))
    elif pairs:
        values["attributes"] = {name: _scalar(text) for name, _, text in pairs}
    if faults:
        return None
    if values.get("status") not in (None, *STATES):
        faults.append(Fault(pointer="/status", detail=f"is one of {', '.join(STATES)}"))
    for name, value in values.items():
        try:
            msgspec.convert({name: value}, Filter)
        except msgspec.ValidationError as error:
            if name != "status":
                faults.append(Fault(pointer=f"/{name}", detail=fault_of(error).detail))
    return None if faults else msgspec.convert(values, Filter)


def _scalar(text: str) -> str | int | float | bool:
    """The JSON scalar that the text is, else the text itself."""
    try:
        value = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError):
        return text
    return value if isinstance(value, str | int | float | bool) else text


def _id(text: str | None, faults: list[Fault]) -> UUID | None:
    try:
        return UUID(text) if text else None
    except ValueError:
        faults.append(Fault(pointer="/after", detail="is not an id"))
        return None
