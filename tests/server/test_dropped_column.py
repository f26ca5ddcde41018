"""The background's Q11 and Q12 with real processes: a spike behind a flag, and the same where the release dropped a column.

A team's repository with two releases and their tags, its own database, its service as a process, `rescind dev` and the command
line. The answer to the first is a kill; to the second "do not roll back", and it is shown what becomes of who does it.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.embedded import EmbeddedPostgres
from tests.conftest import run_on, with_database
from tests.server.processes import Process, environment, rescind
from tests.server.test_dev import PORTS, settings

SERVICE = '''
"""Handles five orders; says how many were answered with 500, and by which error."""
import asyncio, collections, json, os, sys
import asyncpg, rescind

async def handle(connection, client, number):
    fast = client.boolean("checkout.fast-path", False, {"targetingKey": str(number)})
    BODY

async def main():
    errors = collections.Counter()
    connection = await asyncpg.connect(os.environ["SHOP_URL"])
    async with rescind.AsyncClient(service="checkout", service_version="VERSION") as client:
        assert await client.wait_ready(20)
        for number in range(5):
            try:
                await handle(connection, client, number)
            except Exception as error:
                errors[type(error).__name__] += 1
    await connection.close()
    print(json.dumps(errors))

asyncio.run(main())
'''
READS_NOTE = 'await connection.fetch("SELECT id, note FROM orders")'
READS_REMARK = 'await connection.fetch("SELECT id, remark FROM orders")'
FAILS = "raise ZeroDivisionError"
OLD = READS_NOTE
BAD_BEHIND_FLAG = f"if fast: {FAILS}\n    {READS_NOTE}"
BAD = f"{READS_REMARK}\n    {FAILS}"
MENDED = READS_REMARK
FLAG = {
    "key": "checkout.fast-path",
    "definition": {"state": "ENABLED", "variants": {"on": True, "off": False}, "defaultVariant": "on"},
}
EXPAND = "CREATE TABLE orders (id bigint PRIMARY KEY, note text);\n"
CONTRACT = (
    "ALTER TABLE orders ADD COLUMN remark text;\nUPDATE orders SET remark = note;\nALTER TABLE orders DROP COLUMN note;\n"
)
ARTIFACTS = {"artifact": "shop/checkout@sha256:" + "b" * 64, "previous": "shop/checkout@sha256:" + "a" * 64}


class Team:
    """A team's repository, database and command line."""

    def __init__(self, folder: Path, variables: dict[str, str], shop_url: str) -> None:
        self.repository = folder
        self._variables = variables
        self._shop_url = shop_url
        self.git("init", "--quiet", "--initial-branch", "main")
        for name, value in (("user.name", "team"), ("user.email", "team@example.com")):
            self.git("config", name, value)

    def git(self, *arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=self.repository, check=True, capture_output=True, text=True).stdout

    def commit(self, body: str, version: str, *, tag: bool = True, **files: str) -> None:
        (self.repository / "service.py").write_text(SERVICE.replace("BODY", body).replace("VERSION", version))
        for name, text in files.items():
            (self.repository / name.replace("_sql", ".sql")).write_text(text)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", version)
        if tag:
            self.git("tag", version)

    def serve(self) -> dict[str, int]:
        """Run the service that is checked out; how many of its five orders failed, by error."""
        done = subprocess.run(
            [sys.executable, "service.py"], cwd=self.repository, capture_output=True, text=True, timeout=100, check=False,
            env=environment(**self._variables, SHOP_URL=self._shop_url, RESCIND_STATE_DIR=str(self.repository / ".state")),
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        errors: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
        return errors

    def rescind(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        done = rescind(*arguments, cwd=self.repository, **self._variables)
        assert "Traceback" not in done.stderr, done.stderr
        return done

    def release(self, name: str, **fields: object) -> subprocess.CompletedProcess[str]:
        document = {"name": name, "tag": name, "services": {"checkout": ARTIFACTS}, **fields}
        (self.repository / ".git" / "release.json").write_text(json.dumps(document))
        return self.rescind("releases", "set", ".git/release.json", "--reason", "ship")

    async def apply(self, *statements: str) -> None:
        await run_on(self._shop_url, *statements)


@pytest.fixture
async def shop_url(postgres_server: EmbeddedPostgres) -> str:
    await run_on(postgres_server.url, "DROP DATABASE IF EXISTS shop", "CREATE DATABASE shop")
    return with_database(postgres_server.url, "shop")


@pytest.fixture
def team(tmp_path: Path, shop_url: str) -> Iterator[Team]:
    dev = Process(["dev", "--data", str(tmp_path / "dev"), *PORTS])
    try:
        dev.wait_ready()
        repository = tmp_path / "shop"
        repository.mkdir()
        yield Team(repository, settings(tmp_path / "dev") | {"RESCIND_ENVIRONMENT": "production"}, shop_url)
    finally:
        assert dev.end() == 0, dev.output


async def test_a_spike_behind_a_flag_is_over_with_one_kill_of_the_release(team: Team) -> None:  # background Q11
    await team.apply(EXPAND)
    assert team.rescind("set", json.dumps(FLAG), "--reason", "new").returncode == 0
    team.commit(OLD, "v2.3.0")
    team.commit(BAD_BEHIND_FLAG, "v2.4.0")
    assert team.release("v2.4.0", migrations=[], flags=["checkout.fast-path"]).returncode == 0
    assert team.serve() == {"ZeroDivisionError": 5}
    told = team.rescind("recover", "checkout")
    assert "The code may be rolled back. Begin with: flag." in told.stdout, told
    (command,) = re.findall(r"^flag: (rescind kill .*)$", told.stdout, re.MULTILINE)
    killed = team.rescind(*shlex.split(command.replace("TEXT", "spike"))[1:], "--yes", "--wait", "settled")
    assert killed.returncode == 0, killed
    assert "release v2.4.0 (checkout.fast-path)" in killed.stdout
    assert team.serve() == {}


async def test_a_release_that_dropped_a_column_is_not_rolled_back(team: Team) -> None:  # background Q12
    await team.apply(EXPAND, "INSERT INTO orders SELECT number, 'ring twice' FROM generate_series(1, 5) AS number")
    team.commit(OLD, "v2.3.0")
    team.commit(BAD, "v2.4.0", contract_sql=CONTRACT)
    team.commit(BAD, "main", tag=False, unreleased="what nobody has released yet")

    checked = team.rescind("migrations", "check", "contract.sql")
    assert (checked.returncode, "contract.sql:3" in checked.stdout) == (1, True), "CI would have kept it out of this release"

    await team.apply(CONTRACT)
    shipped = team.release("v2.4.0", migrations=[{"name": "contract.sql", "sql": CONTRACT}])
    assert "roll forward only" in shipped.stdout, shipped
    team.git("checkout", "--quiet", "v2.4.0")
    assert team.serve() == {"ZeroDivisionError": 5}

    told = team.rescind("recover", "checkout")
    for words in (
        "Do not roll the code back: roll forward. Begin with: hotfix.",
        "did it run a destructive migration? yes",
        "contract.sql:3  ALTER TABLE orders DROP COLUMN note",
        f"kubectl set image deployment/checkout checkout={ARTIFACTS['previous']}  # NOT SAFE",
    ):
        assert words in told.stdout, told.stdout
    answer = json.loads(team.rescind("recover", "checkout", "--json").stdout)
    assert (answer["destructive_migration"], answer["recommended"]) == ("yes", "hotfix")
    nothing = team.rescind("kill", "--release", "v2.4.0", "--reason", "spike", "--yes")
    assert (nothing.returncode, "rescind recover checkout" in nothing.stderr) == (1, True), nothing

    team.git("checkout", "--quiet", "v2.3.0")
    assert team.serve() == {"UndefinedColumnError": 5}, "who rolls the code back all the same is no better off"

    (command,) = re.findall(r"^hotfix: (git .*)$", told.stdout, re.MULTILINE)
    team.git(*shlex.split(command)[1:])
    assert not (team.repository / "unreleased").exists(), "the hotfix begins at what runs, not at main"
    team.commit(MENDED, "v2.4.1")
    assert team.serve() == {}
