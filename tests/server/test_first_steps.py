"""A production server from nothing, by public commands alone: migrate, serve, the first token, the first environment."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
from collections.abc import Iterator

import httpx
import pytest

from tests.conftest import with_database
from tests.server.processes import Process, rescind
from tests.server.serving import definition

FLAG = "checkout.new-flow"
FIRST = ("token", "create", "admin", "--scope", "admin", "--direct", "--reason", "first token")


@pytest.fixture
def started() -> Iterator[list[Process]]:
    """What a test has started; stopped at its end."""
    processes: list[Process] = []
    yield processes
    for process in processes:
        process.end(signal.SIGKILL)


async def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """A command to its end, without a traceback."""
    done = await asyncio.to_thread(rescind, *arguments, **variables)
    assert "Traceback" not in done.stderr, done.stderr
    return done


async def test_a_new_installation_is_used_through_public_commands_alone(
    empty_database_url: str, redis_url: str, started: list[Process]
) -> None:  # P20
    database = {"RESCIND_DATABASE_URL": empty_database_url}
    early = await run(*FIRST, **database)
    assert (early.returncode, "rescind migrate" in early.stderr) == (2, True), early
    assert (await run("migrate", **database)).returncode == 0
    process = Process(["serve", "--http-port", "0"], variables={**database, "RESCIND_REDIS_URL": redis_url})
    started.append(process)
    url = await asyncio.to_thread(process.wait_ready)

    made = await run(*FIRST, **database)
    assert made.returncode == 0, made
    admin = {"RESCIND_URL": url, "RESCIND_TOKEN": made.stdout.strip()}
    assert (await run("environments", "create", "production", "--reason", "our shop", **admin)).returncode == 0
    flag = json.dumps({"key": FLAG, "definition": definition(), "services": ["checkout"]})
    assert (await run("set", flag, "--reason", "new", **admin)).returncode == 0
    assert (await run("kill", FLAG, "--reason", "bad", "--yes", **admin)).returncode == 0
    async with httpx.AsyncClient(base_url=url, headers={"authorization": f"Bearer {admin['RESCIND_TOKEN']}"}) as client:
        entries = (await client.get("/v1/audit")).json()["entries"]
    oldest = entries[-1]
    assert (oldest["action"], oldest["reason"], oldest["actor"].partition(":")[0]) == ("token.create", "first token", "direct")
    assert "environment.create" in [entry["action"] for entry in entries]


async def test_a_token_made_directly_is_held_to_the_same_rules(database_url: str) -> None:
    database = {"RESCIND_DATABASE_URL": database_url}
    wrong = await run("token", "create", "x", "--scope", "coffee", "--direct", "--reason", "x", **database)
    assert (wrong.returncode, "coffee" in wrong.stderr) == (1, True), wrong
    bound = await run("token", "create", "x", "--scope", "kill", "--direct", "--reason", "x", "--json", **database,
                      RESCIND_ENVIRONMENT="staging")  # fmt: skip
    assert json.loads(bound.stdout)["environment"] == "staging", bound


@pytest.mark.parametrize("command", [
    ("serve", "--http-port", "0"), ("migrate",), FIRST, ("kill", FLAG, "--reason", "x", "--direct"),
], ids=["serve", "migrate", "token", "kill"])  # fmt: skip
async def test_a_database_that_does_not_exist_is_said_in_a_sentence(
    database_url: str, redis_url: str, command: tuple[str, ...]
) -> None:
    absent = with_database(database_url, "not_there")
    done = await run(*command, RESCIND_DATABASE_URL=absent, RESCIND_REDIS_URL=redis_url)
    assert done.returncode in (1, 2), done
    assert "does not exist" in done.stderr, done
    assert "Create the database" in done.stderr, done
