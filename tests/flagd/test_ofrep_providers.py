"""The released OFREP providers against a real server: Python's, and those for node and for browsers, run by node (P4, P7)."""

from __future__ import annotations

import asyncio
import contextlib
import json
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from openfeature import api
from openfeature.contrib.provider.ofrep import OFREPProvider
from openfeature.evaluation_context import EvaluationContext

from tests.children import die_with_parent
from tests.flagd.world import PRODUCTION, VALUES, World, definition, flag
from tests.node import NODE, environment
from tests.waiting import CEILING_SECONDS

SCRIPTS = Path(__file__).parent / "node"
ZEROS: dict[str, Any] = {"boolean": False, "string": "", "integer": 0, "float": 0.0, "whole": 0.0, "object": {}}
"""What the caller gives as default."""
JS_KINDS = {
    **dict.fromkeys(("integer", "float", "whole"), "Number"),
    "boolean": "Boolean",
    "string": "String",
    "object": "Object",
}
PY_KINDS = {kind: kind for kind in VALUES} | {"whole": "float"}


async def put_all(world: World) -> None:
    """A flag of each kind of value, one that is disabled, one that splits."""
    kinds = [
        flag(kind, definition=definition(variants={"on": value, "off": value}, targeting={})) for kind, value in VALUES.items()
    ]
    disabled = flag("disabled", definition=definition(state="DISABLED"))
    split = flag("split", definition=definition(targeting={"fractional": [["on", 1]]}))
    await world.put(*kinds, disabled, split, flag("killed"))


class Script:
    """A script that answers lines with lines."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def ask(self, *question: Any) -> Any:
        """The answer to one question; what else is said before it is passed over."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(question).encode() + b"\n")
        return await self.heard(lambda said: "flagKey" in said)

    async def heard(self, is_it: Callable[[Any], bool]) -> Any:
        """The next line of this kind."""
        assert self._process.stdout is not None
        async with asyncio.timeout(CEILING_SECONDS):
            while line := await self._process.stdout.readline():
                if is_it(said := json.loads(line)):
                    return said
        raise AssertionError("the script has ended")


@contextlib.asynccontextmanager
async def running(
    node_modules: Path, script: str, client: httpx.AsyncClient, token: str, **options: Any
) -> AsyncIterator[Script]:
    """A script of this folder, against the server of this client."""
    variables = environment(
        NODE_PATH=str(node_modules), NODE_NO_WARNINGS="1", URL=str(client.base_url), TOKEN=token, OPTIONS=json.dumps(options)
    )
    process = await asyncio.create_subprocess_exec(
        NODE, "--experimental-eventsource", SCRIPTS / script, env=variables, stdin=PIPE, stdout=PIPE,
        preexec_fn=die_with_parent,
    )  # fmt: skip
    try:
        yield Script(process)
        assert process.stdin is not None
        process.stdin.close()
        async with asyncio.timeout(CEILING_SECONDS):
            assert await process.wait() == 0
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def test_the_python_provider_gets_every_kind_of_answer(world: World, client: httpx.AsyncClient) -> None:
    await put_all(world)
    token = await world.token("evaluate")
    provider = OFREPProvider(str(client.base_url), headers_factory=lambda: {"Authorization": f"Bearer {token}"}, timeout=60)
    api.set_provider(provider, "rescind-tests")
    asked = api.get_client("rescind-tests")

    def ask(kind: str, key: str, default: Any, context: EvaluationContext | None = None) -> Any:
        return getattr(asked, f"get_{kind}_details")(key, default, context or EvaluationContext("u", {"plan": "paid"}))

    def ask_all() -> dict[str, Any]:
        return {kind: ask(PY_KINDS[kind], kind, ZEROS[kind]) for kind in VALUES}

    try:
        found = await asyncio.to_thread(ask_all)
        assert {kind: one.value for kind, one in found.items()} == VALUES
        assert {(one.variant, str(one.reason.value), one.error_code) for one in found.values()} == {("on", "STATIC", None)}
        disabled = await asyncio.to_thread(ask, "boolean", "disabled", True)
        assert (disabled.value, disabled.reason.value, disabled.error_code) == (True, "DISABLED", None)
        missing = await asyncio.to_thread(ask, "boolean", "kiled", True)
        assert (missing.value, missing.error_code.value) == (True, "FLAG_NOT_FOUND")
        assert "'killed'" in missing.error_message
        keyless = await asyncio.to_thread(ask, "boolean", "split", True, EvaluationContext(None, {"plan": "paid"}))
        assert (keyless.value, keyless.error_code.value) == (True, "TARGETING_KEY_MISSING")
        assert (await asyncio.to_thread(ask, "boolean", "killed", False)).value is True
        await world.replicas.refresh(PRODUCTION, await world.kill("killed"))
        killed = await asyncio.to_thread(ask, "boolean", "killed", True)
        assert (killed.value, killed.variant, killed.flag_metadata["rescind.killed"]) == (False, "off", True)
    finally:
        provider.session.close()
        api.clear_providers()


async def test_the_javascript_provider_gets_every_kind_of_answer(
    world: World, client: httpx.AsyncClient, node_modules: Path
) -> None:
    await put_all(world)
    context = {"targetingKey": "u", "plan": "paid"}
    async with running(node_modules, "ofrep_server.cjs", client, await world.token("evaluate")) as script:
        for kind, value in VALUES.items():
            details = await script.ask(JS_KINDS[kind], kind, ZEROS[kind], context)
            assert (details["value"], details["variant"], details["reason"]) == (value, "on", "STATIC")
        disabled = await script.ask("Boolean", "disabled", True, context)
        assert disabled["value"] is True
        missing = await script.ask("Boolean", "kiled", True, context)
        assert (missing["value"], missing["errorCode"]) == (True, "FLAG_NOT_FOUND")
        keyless = await script.ask("Boolean", "split", True, {})
        assert (keyless["value"], keyless["errorCode"]) == (True, "TARGETING_KEY_MISSING")
        assert (await script.ask("Boolean", "killed", False, context))["value"] is True
        await world.replicas.refresh(PRODUCTION, await world.kill("killed"))
        killed = await script.ask("Boolean", "killed", True, context)
        assert (killed["value"], killed["variant"], killed["flagMetadata"]["rescind.killed"]) == (False, "off", True)


async def test_the_web_provider_gets_every_kind_of_answer(world: World, client: httpx.AsyncClient, node_modules: Path) -> None:
    await put_all(world)
    async with running(node_modules, "ofrep_web.cjs", client, await world.token("evaluate")) as script:
        for kind, value in VALUES.items():
            details = await script.ask(JS_KINDS[kind], kind, ZEROS[kind])
            assert (details["value"], details["variant"], details["reason"]) == (value, "on", "STATIC")
        disabled = await script.ask("Boolean", "disabled", True)
        assert (disabled["value"], disabled["reason"], disabled.get("errorCode")) == (True, "DISABLED", None)
        missing = await script.ask("Boolean", "no-such", True)
        assert (missing["value"], missing["errorCode"]) == (True, "FLAG_NOT_FOUND")


@pytest.mark.parametrize("options", [{}, {"changeDetection": "polling", "pollInterval": 50}], ids=["stream", "polling"])
async def test_a_kill_reaches_the_web_provider_and_its_tag_saves_what_is_known(
    world: World, client: httpx.AsyncClient, node_modules: Path, options: dict[str, Any]
) -> None:  # P4
    await put_all(world)
    async with running(node_modules, "ofrep_web.cjs", client, await world.token("evaluate"), **options) as script:
        first = await script.heard(lambda said: "status" in said)
        assert (first["status"], first["known"]) == (200, None)
        again = await script.heard(lambda said: "status" in said)  # of the stream's first event, or of a poll
        assert again["status"] == 304
        assert again["known"]
        assert (await script.ask("Boolean", "killed", False))["value"] is True
        killed = await world.kill("killed")
        await world.replicas.refresh(PRODUCTION, killed)
        fetched = await script.heard(lambda said: said.get("status") == 200)
        assert fetched["known"] == again["known"]
        assert fetched["query"] == ("" if options else f"?flagConfigEtag={killed}")
        assert (await script.heard(lambda said: "changed" in said))["changed"] == ["killed"]
        details = await script.ask("Boolean", "killed", True)
        assert (details["value"], details["variant"], details["flagMetadata"]["rescind.killed"]) == (False, "off", True)
