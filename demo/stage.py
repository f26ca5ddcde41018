"""Starts everything the demo needs, each in a process of its own on a free port of loopback, and stops it again.

Rescind itself (`rescind dev`), the world outside (payments, mail, partner), and the shop's three services. The services get
tokens that may evaluate and admit effects, and nothing else. One of them reaches Rescind over a link that can be cut.
"""

from __future__ import annotations

import asyncio
import secrets
import shutil
import sys
from base64 import b64encode
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import httpx

from demo.api import ENVIRONMENT, Api
from demo.ledgers import Ledgers, read
from demo.processes import Child, Children, StartError
from demo.world.link import Link

START_SECONDS = 60.0
CALL_SECONDS = 30.0
SERVICES = ("payments", "notifications", "checkout")
CUT_OFF = "notifications"
WORLD = ("payments", "mail", "partner")
PROCESSES = 1 + len(WORLD) + len(SERVICES)


def rescind_command() -> str:
    """The command `rescind` of this installation."""
    beside = Path(sys.executable).with_name("rescind")
    found = str(beside) if beside.exists() else shutil.which("rescind")
    if found is None:
        raise StartError("the command `rescind` is not installed beside this Python")
    return found


class Stage:
    """Everything that runs. What has no value at first has one once `start` has returned."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.children = Children(directory)
        self.url = ""
        self.token = ""
        self.api: Api
        self.http: httpx.AsyncClient
        self.link: Link
        self.started_count = 0
        self.on_started: Callable[[], None] = lambda: None
        self.services: dict[str, str] = {}
        self._control_token = secrets.token_hex(16)
        self._provider_key = f"sk_test_{secrets.token_hex(12)}"
        self._partner_secret = f"whsec_{b64encode(secrets.token_bytes(24)).decode()}"
        self._world: dict[str, dict[str, int]] = {}
        self._stack = AsyncExitStack()

    async def start(self) -> None:
        """Start. Raises `StartError` or `demo.api.ApiError`, perhaps in a group; `stop` is to be called in every case."""
        await self._stack.enter_async_context(self.children)
        limits = httpx.Limits(max_connections=100)
        client = httpx.AsyncClient(timeout=CALL_SECONDS, trust_env=False, limits=limits)
        self.http = await self._stack.enter_async_context(client)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._start_rescind())
            for name in WORLD:
                group.create_task(self._start_world(name))
        await self._set_up()
        await self._start_services()

    async def stop(self) -> None:
        """Stop what was started, Rescind last."""
        await self._stack.aclose()

    def _started(self) -> None:
        self.started_count += 1
        self.on_started()

    @property
    def payments_url(self) -> str:
        """The payment server."""
        return f"http://127.0.0.1:{self._world['payments']['http']}"

    @property
    def partner_url(self) -> str:
        """The partner."""
        return f"http://127.0.0.1:{self._world['partner']['http']}"

    @property
    def rescind_environment(self) -> dict[str, str]:
        """What the command line needs to find this Rescind."""
        return {"RESCIND_URL": self.url, "RESCIND_TOKEN": self.token, "RESCIND_ENVIRONMENT": ENVIRONMENT}

    async def ledgers(self) -> Ledgers:
        """What the world outside has kept until now."""
        return await read(
            self.http,
            payments=self.payments_url,
            mail=f"http://127.0.0.1:{self._world['mail']['http']}",
            partner=self.partner_url,
            control_token=self._control_token,
        )

    async def fault(self, path: str, fates: list[str], outage_seconds: float = 0.0) -> None:
        """Let the payment server do badly from now on."""
        answer = await self.http.post(
            f"{self.payments_url}/control/faults",
            json={"path": path, "fates": fates, "outage_seconds": outage_seconds},
            headers={"x-control-token": self._control_token},
        )
        answer.raise_for_status()

    async def _start_rescind(self) -> None:
        data = self.directory / "rescind"
        ports = [argument for name in ("http", "sync", "evaluation") for argument in (f"--{name}-port", "0")]
        child = await self.children.start(
            "dev",
            [rescind_command(), "dev", "--data", str(data), *ports],
            {"DEMO_PROVIDER_KEY": self._provider_key, "DEMO_PARTNER_SECRET": self._partner_secret},
            stop_last=True,
        )
        while "is ready" not in await child.line(timeout_seconds=START_SECONDS):
            pass
        child.drain()
        settings = dict(
            line.split("=", 1) for line in (data / "rescind.env").read_text().splitlines() if "=" in line and line[0] != "#"
        )
        self.url, self.token = settings["RESCIND_URL"], settings["RESCIND_TOKEN"]
        self.api = Api(self.http, self.url, self.token)
        self._started()

    async def _start_world(self, name: str) -> None:
        child = await self._module(
            name,
            f"demo.world.{name}",
            {
                "PAYMENTS_KEY": self._provider_key,
                "CONTROL_TOKEN": self._control_token,
                "PARTNER_SECRET": self._partner_secret,
            },
        )
        self._world[name] = await child.ports(timeout_seconds=START_SECONDS)
        self._started()

    async def _set_up(self) -> None:
        await self.api.set_up(payments=self.payments_url, smtp_port=self._world["mail"]["smtp"], partner=self.partner_url)
        self.link = Link(httpx.URL(self.url).port or 80)
        self._stack.push_async_callback(self.link.close)

    async def _start_services(self) -> None:
        linked = f"http://127.0.0.1:{await self.link.open()}"
        async with asyncio.TaskGroup() as group:
            for name in ("payments", "notifications"):
                group.create_task(self._start_service(name, linked if name == CUT_OFF else self.url))
        await self._start_service("checkout", self.url)

    async def _start_service(self, name: str, rescind_url: str) -> None:
        child = await self._module(
            f"service-{name}",
            f"demo.services.{name}",
            {
                "RESCIND_URL": rescind_url,
                "RESCIND_TOKEN": await self.api.service_token(name),
                "RESCIND_STATE_DIR": str(self.directory / "state"),
                "PROVIDER_URL": self.payments_url,
                "PROVIDER_KEY": self._provider_key,
                "SMTP_PORT": str(self._world["mail"]["smtp"]),
                "PARTNER_URL": self.partner_url,
                **{f"{service.upper()}_URL": url for service, url in self.services.items()},
            },
        )
        self.services[name] = f"http://127.0.0.1:{(await child.ports(timeout_seconds=START_SECONDS))['http']}"
        self._started()

    async def _module(self, name: str, module: str, env: dict[str, str]) -> Child:
        return await self.children.start(name, [sys.executable, "-m", module], env)
