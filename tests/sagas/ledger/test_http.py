"""The ledger, definitions and connections over HTTP: outcomes, bad input, and who may."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import msgspec
import pytest
from litestar import Litestar

from runtime import audit, tokens
from runtime.clock import Clock
from runtime.problem import litestar_handlers
from runtime.tokens import Verifier
from sagas.breakers import Breakers, Told
from sagas.http import ledger as routes
from sagas.http.environments import Environments
from tests.sagas.ledger.world import FLAG, World

HERE = "/v1/environments/production"
SAGA: dict[str, Any] = {
    "saga": "order",
    "version": "1",
    "flag": FLAG,
    "steps": [
        {
            "name": "confirm",
            "kind": "mail.confirm",
            "key": "confirm:{order_id}",
            "compensation": {
                "executor": "email",
                "connection": "mail",
                "to": "{{ effect.payload.to }}",
                "subject": "Sorry",
                "body": "{{ rollback.reason }}",
            },
        }
    ],
}
REFUND = {
    "name": "capture",
    "kind": "payment.capture",
    "key": "c:{id}",
    "compensation": {"executor": "refund", "connection": "p"},
}
STRIPE = {"type": "stripe", "url": "http://127.0.0.1:1", "secret": "env:KEY"}


class Api:
    """Calls with one token."""

    def __init__(self, http: httpx.AsyncClient, token: str) -> None:
        self._http = http
        self._headers = {"authorization": f"Bearer {token}"}

    async def call(self, method: str, path: str, body: object = None, **options: Any) -> httpx.Response:
        """One call within the environment."""
        return await self._http.request(method, f"{HERE}{path}", json=body, headers=self._headers, **options)

    async def http(self, method: str, path: str) -> httpx.Response:
        """One call of no environment."""
        return await self._http.request(method, path, headers=self._headers)


class Apis:
    """An admin's calls and a service's."""

    def __init__(self, admin: Api, service: Api, nobody: Api) -> None:
        self.admin = admin
        self.service = service
        self.nobody = nobody


@pytest.fixture
async def apis(world: World) -> AsyncIterator[Apis]:
    """The application, asked with three tokens."""
    async with world.pg.connection() as connection:
        admin, _ = await tokens.create(connection, "admin", None, ["admin"], "tests")
        service, _ = await tokens.create(connection, "checkout", "production", ["effects", "define:order"], "tests")
        nobody, _ = await tokens.create(connection, "reader", "production", ["evaluate"], "tests")

    async def environments() -> list[str]:
        async with world.pg.connection() as connection:
            return [row["name"] for row in await connection.fetch("SELECT name FROM flagd.environments")]

    router = routes.build(
        pg=world.pg, ledger=world.ledger, verifier=Verifier(world.pg, Clock()), environments=Environments(environments)
    )
    app = Litestar([router], exception_handlers=litestar_handlers, openapi_config=None, logging_config=None)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://rescind") as http:  # type: ignore[arg-type]
        yield Apis(Api(http, admin), Api(http, service), Api(http, nobody))


async def test_effects_are_admitted_reported_and_listed(apis: Apis, world: World) -> None:
    saga = {"name": "order", "version": "1", "id": "4711"}
    answer = await apis.service.call(
        "POST", "/effects:admit", {"effects": [world.item("k", saga=saga), {"key": 1}], "instance": "i"}
    )
    assert answer.status_code == 200
    admitted, invalid = answer.json()["results"]
    assert (admitted["outcome"], admitted["epoch"], admitted["start_within_ms"]) == ("admitted", 1, 2000)
    assert invalid["outcome"] == "invalid"
    assert invalid["error"]["pointer"] == "/key"
    report = {"effect_id": admitted["effect_id"], "token": admitted["token"], "outcome": "succeeded", "result": {"id": "pi_1"}}
    answer = await apis.service.call("POST", "/effects:report", {"reports": [report]})
    assert answer.json() == {"results": [{"outcome": "recorded"}]}
    replayed = await apis.service.call("POST", "/effects:admit", {"effects": [world.item("k", saga=saga)]})
    assert replayed.json()["results"][0]["result"] == {"id": "pi_1"}
    listed = (await apis.admin.call("GET", f"/effects?flag={FLAG}&saga=order&status=succeeded&epoch=1")).json()
    assert listed["next"] is None
    [effect] = listed["effects"]
    assert (effect["effect_id"], effect["saga"], effect["result"]) == (admitted["effect_id"], saga, {"id": "pi_1"})
    assert "token" not in effect


@pytest.mark.parametrize("odd", ["x", None, 5, True, [], ["key"], {}])
async def test_an_item_that_is_no_object_fails_alone(apis: Apis, world: World, odd: object) -> None:
    answer = await apis.service.call("POST", "/effects:admit", {"effects": [odd, world.item("k"), odd]})
    assert [one["outcome"] for one in answer.json()["results"]] == ["invalid", "admitted", "invalid"]
    admitted = answer.json()["results"][1]
    report = {"effect_id": admitted["effect_id"], "token": admitted["token"], "outcome": "succeeded"}
    answer = await apis.service.call("POST", "/effects:report", {"reports": [odd, report]})
    invalid, recorded = answer.json()["results"]
    assert (invalid["outcome"], recorded["outcome"]) == ("invalid", "recorded")
    assert invalid["error"]["detail"]


async def test_lists_of_effects_page_by_their_ids(apis: Apis, world: World) -> None:
    for _ in range(5):
        await world.ask()
    seen: list[str] = []
    after = ""
    for _ in range(3):
        page = (await apis.admin.call("GET", f"/effects?limit=2{after}")).json()
        seen += [effect["id"] for effect in page["effects"]]
        after = f"&after={page['next']}"
    assert page["next"] is None
    assert len(set(seen)) == 5
    assert seen == sorted(seen)


async def test_messagepack_is_answered_to_whoever_asks(apis: Apis) -> None:
    answer = await apis.admin._http.get(f"{HERE}/sagas", headers={**apis.admin._headers, "accept": "application/msgpack"})
    assert msgspec.msgpack.decode(answer.content) == {"sagas": [], "kinds": [], "next": None}


@pytest.mark.parametrize(
    ("body", "status"),
    [({"effects": [{}] * 257}, 413), ({"effects": "x"}, 422), ([], 422), ({"effects": [{"key": "x" * 9_000_000}]}, 413)],
    ids=["too many", "wrong type", "no object", "too large"],
)
async def test_a_bad_batch_is_refused_as_a_whole(apis: Apis, body: object, status: int) -> None:
    answer = await apis.service.call("POST", "/effects:admit", body)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")


async def test_a_bad_filter_names_every_fault(apis: Apis) -> None:
    answer = await apis.admin.call("GET", "/effects?status=lost&after=x&rollback=y")
    assert answer.status_code == 422
    assert {fault["pointer"] for fault in answer.json()["errors"]} == {"/status", "/after", "/rollback"}


async def test_each_door_asks_for_its_scope(apis: Apis) -> None:
    for method, path, body in [
        ("POST", "/effects:admit", {"effects": []}),
        ("POST", "/effects:report", {"reports": []}),
        ("GET", "/effects", None),
        ("GET", "/sagas", None),
        ("PUT", "/sagas/order/versions/1", SAGA),
        ("GET", "/connections/", None),
        ("PUT", "/connections/p", STRIPE),
    ]:
        assert (await apis.nobody.call(method, path, body)).status_code == 403, path
    assert (await apis.service.call("PUT", "/connections/p", STRIPE)).status_code == 403
    assert (await apis.service.call("PUT", "/sagas/other/versions/1", {**SAGA, "saga": "other"})).status_code == 403


async def test_a_definition_is_registered_once_and_tuned_beside_its_version(apis: Apis, world: World) -> None:  # P15
    path = "/sagas/order/versions/1"
    assert (await apis.service.call("PUT", path, {"document": SAGA, "reason": "registered"})).status_code == 201
    again = await apis.service.call("PUT", path, SAGA)
    assert (again.status_code, again.json()["outcome"]) == (200, "unchanged")
    tuned = {**SAGA, "steps": [{**SAGA["steps"][0], "retry": {"first_seconds": 5}, "pace": {"per_second": 2}}]}
    answer = await apis.service.call("PUT", path, tuned)
    assert (answer.status_code, answer.json()["outcome"]) == (200, "tuned")
    assert answer.json()["document"]["steps"][0]["retry"] == {"first_seconds": 5.0}
    other = {**SAGA, "steps": [{**SAGA["steps"][0], "key": "c:{order_id}"}]}
    answer = await apis.service.call("PUT", path, other)
    assert (answer.status_code, answer.json()["code"]) == (409, "version_differs")
    assert (await apis.service.call("GET", path)).json()["document"]["steps"][0]["key"] == "confirm:{order_id}"
    actions = await world.value("SELECT array_agg(action ORDER BY id) FROM runtime.audit")
    assert actions == ["definition.create", "definition.tune"]
    listed = (await apis.admin.call("GET", "/sagas")).json()
    assert [(one["name"], one["version"]) for one in listed["sagas"]] == [("order", "1")]


async def test_arguments_are_added_to_what_a_release_without_them_registered(apis: Apis, world: World) -> None:  # P15, P21
    path = "/sagas/order/versions/1"
    await apis.service.call("PUT", path, SAGA)
    said = {**SAGA, "steps": [{**SAGA["steps"][0], "arguments": ["order_id"]}]}
    assert (await apis.service.call("PUT", f"{path}?dry_run=true", said)).status_code == 200
    assert (await apis.service.call("PUT", path, said)).json()["outcome"] == "tuned"
    for document in (said, SAGA):  # who knows no arguments takes none away
        answer = await apis.service.call("PUT", path, document)
        assert (answer.status_code, answer.json()["outcome"]) == (200, "unchanged")
        assert answer.json()["document"]["steps"][0]["arguments"] == ["order_id"]
    other = {**SAGA, "steps": [{**SAGA["steps"][0], "arguments": ["order"]}]}
    for query in ("", "?dry_run=true"):
        assert (await apis.service.call("PUT", path + query, other)).status_code == 409
    kept = await world.value("SELECT document::text FROM sagas.definitions")
    assert "arguments" not in kept, "0.1.0 beside this server reads it, and refuses what it does not know"


async def test_a_version_that_leaves_work_without_a_worker_warns(apis: Apis, world: World) -> None:  # P15
    path = "/sagas/order/versions/{}"
    assert "warnings" not in (await apis.service.call("PUT", path.format(1), SAGA)).json(), "there is no worker at all"
    async with world.pg.connection() as connection:
        await connection.execute("INSERT INTO sagas.workers (environment, id, saga, version, steps) VALUES"
                                 " ('production', 'w', 'order', '0', '{confirm}')")  # fmt: skip
        await connection.execute("INSERT INTO sagas.ready (environment, saga, version, due_at, uid, step) VALUES"
                                 " ('production', 'order', '1', now(), uuidv7(), 'confirm')")  # fmt: skip
    for answer in (
        await apis.service.call("PUT", f"{path.format(2)}?dry_run=true", {**SAGA, "version": "2"}),
        await apis.service.call("PUT", path.format(2), {**SAGA, "version": "2"}),
    ):
        served, ready = (warning["detail"] for warning in answer.json()["warnings"] if warning["code"] == "no_worker")
        assert ("serve 0" in served, "'2'" in served) == (True, True)
        assert "version '1'" in ready


async def test_the_schema_of_definitions_is_read_with_the_right_to_read(apis: Apis) -> None:
    answer = await apis.admin.http("GET", "/v1/schemas/saga")
    assert answer.json()["$id"] == "urn:rescind:schema:saga"
    assert (await apis.nobody.http("GET", "/v1/schemas/saga")).status_code == 403
    missing = await apis.admin.http("GET", "/v1/schemas/sagas")
    assert (missing.status_code, missing.json()["suggestion"]) == (404, "saga")


async def test_a_bad_definition_is_refused_with_every_fault_at_once(apis: Apis) -> None:
    body = {
        "saga": "other",
        "version": "1",
        "flag": FLAG,
        "steps": [
            {
                "name": "a",
                "kind": "k",
                "key": "{",
                "compensation": {"executor": "email", "connection": "m", "to": "{{", "subject": "s"},
            },
            {"name": "b", "kind": "", "key": "k", "class": "pivott", "compensation": {"executor": "fax"}},
        ],
    }
    answer = await apis.service.call("PUT", "/sagas/order/versions/1", body)
    assert answer.status_code == 422
    pointers = [fault["pointer"] for fault in answer.json()["errors"]]
    assert {"/saga", "/steps/0/compensation/body", "/steps/1/kind", "/steps/1/class", "/steps/1/compensation/executor"} <= set(
        pointers
    )
    assert (await apis.admin.call("GET", "/sagas")).json()["sagas"] == []


async def test_relations_inside_a_definition_are_checked_at_once(apis: Apis) -> None:
    steps = [
        {"name": "a", "kind": "k", "key": "{x.y}", "class": "retriable"},
        {"name": "a", "kind": "k", "key": "k", "class": "pivot", "in_doubt": "look_up", "notice_approved": True},
        {
            "name": "c",
            "kind": "k",
            "key": "k",
            "compensation": {"executor": "webhook", "connection": "w", "body": "{{ nobody }}"},
        },
    ]
    answer = await apis.service.call("PUT", "/sagas/order/versions/1", {**SAGA, "steps": steps})
    assert sorted(fault["pointer"] for fault in answer.json()["errors"]) == [
        "/steps/0/class",
        "/steps/0/key",
        "/steps/1/in_doubt",
        "/steps/1/name",
        "/steps/1/notice_approved",
        "/steps/2/class",
        "/steps/2/compensation/body",
    ]


async def test_what_moves_money_needs_a_connection_granted_to_it(apis: Apis) -> None:
    body = {**SAGA, "steps": [REFUND]}
    path = "/sagas/order/versions/1"
    for connection, code in [(None, "unknown_connection"), (STRIPE, "not_granted"), ({**STRIPE, "granted": ["order"]}, None)]:
        if connection is not None:
            assert (await apis.admin.call("PUT", "/connections/p", connection)).status_code == 200
        answer = await apis.service.call("PUT", path, body)
        if code is None:
            assert answer.status_code == 201
        else:
            assert answer.status_code == 422
            assert [(fault["pointer"], fault["code"]) for fault in answer.json()["errors"]] == [
                ("/steps/0/compensation/connection", code)
            ]


async def test_a_loose_kind_has_one_steps_format(apis: Apis) -> None:
    body = {"class": "irreversible", "notice": {"executor": "webhook", "connection": "w"}, "notice_approved": True}
    assert (await apis.admin.call("PUT", "/kinds/webhook.partner/versions/2", body)).status_code == 201
    answer = (await apis.admin.call("GET", "/kinds/webhook.partner/versions/2")).json()
    assert (answer["name"], answer["version"], answer["document"]["kind"]) == ("webhook.partner", "2", "webhook.partner")
    assert (await apis.admin.call("PUT", "/kinds/k/versions/1", {"steps": []})).status_code == 422


async def test_an_unknown_name_is_404_with_a_suggestion(apis: Apis) -> None:
    await apis.service.call("PUT", "/sagas/order/versions/1", SAGA)
    await apis.admin.call("PUT", "/connections/payments", STRIPE)
    for path, suggestion in [
        ("/sagas/ordr/versions/1", "order"),
        ("/sagas/order/versions/2", "1"),
        ("/connections/payment", "payments"),
    ]:
        answer = await apis.admin.call("GET", path)
        assert (answer.status_code, answer.json()["suggestion"]) == (404, suggestion), path


async def test_a_dry_run_checks_and_keeps_nothing(apis: Apis) -> None:
    assert (await apis.service.call("PUT", "/sagas/order/versions/1?dry_run=true", SAGA)).json()["ok"] is True
    assert (await apis.service.call("GET", "/sagas/order/versions/1")).status_code == 404


async def test_connections_are_kept_with_references_and_listed(apis: Apis) -> None:
    answer = await apis.admin.call("PUT", "/connections/p", {"connection": STRIPE, "reason": "set up"})
    assert answer.json()["document"] == {**STRIPE}
    assert [row["name"] for row in (await apis.admin.call("GET", "/connections")).json()["connections"]] == ["p"]
    assert (await apis.admin.call("DELETE", "/connections/p?reason=gone")).status_code == 200
    assert (await apis.admin.call("DELETE", "/connections/p")).status_code == 404


@pytest.mark.parametrize(
    ("document", "pointers"),
    [
        ({"type": "stripe", "secret": "sk_live_abc"}, ["/secret"]),
        ({"type": "smtp", "port": 70000}, ["/host", "/port", "/sender"]),
        ({"type": "webhook", "url": "https://u:p@host/x"}, ["/url"]),
        ({"type": "webhook", "url": "https://host/x", "allow_hosts": ["other"]}, ["/allow_hosts"]),
        ({"type": "fax"}, ["/type"]),
    ],
)
async def test_a_bad_connection_is_refused_with_every_fault(apis: Apis, document: object, pointers: list[str]) -> None:
    answer = await apis.admin.call("PUT", "/connections/p", document)
    assert answer.status_code == 422
    assert sorted(fault["pointer"] for fault in answer.json()["errors"]) == pointers
    assert "sk_live_abc" not in answer.text


async def test_a_breaker_is_seen_and_reset_by_name(world: World, apis: Apis) -> None:  # P20
    breakers = Breakers(Clock(), "undo", failures_max=2)
    await breakers.tell(world.pg.connection, [Told(place=("production", "mail"), is_good=False, error="boom")] * 2)
    [row] = (await apis.admin.call("GET", "/breakers")).json()["breakers"]
    assert (row["kind"], row["side"], row["state"], row["failures"], row["last_error"]) == ("mail", "undo", "open", 2, "boom")
    word = {"reason": "the host is back"}
    assert (await apis.service.call("POST", "/breakers/mail/reset", word)).status_code == 403
    assert (await apis.admin.call("POST", "/breakers/mail/reset", {})).status_code == 422
    unknown = await apis.admin.call("POST", "/breakers/mial/reset", word)
    assert (unknown.status_code, unknown.json()["suggestion"]) == (404, "mail")
    for changed in (["undo"], []):
        assert (await apis.admin.call("POST", "/breakers/mail/reset", word)).json() == {"kind": "mail", "changed": changed}
    assert (await apis.admin.call("GET", "/breakers")).json() == {"breakers": []}
    async with world.pg.connection() as connection:
        entry = (await audit.newest(connection, object="breaker/mail"))[-1]
    assert (entry.action, entry.reason, entry.detail) == ("breaker.reset", "the host is back", {"changed": ["undo"]})
