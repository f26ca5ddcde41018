"""The house itself: every query fits the schema, the documents name what exists, and nothing foreign is recorded."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from runtime.postgres import Postgres
from runtime.queries import all_queries

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("runtime", "flagd", "sagas", "server", "server.rollbacks")
QUERIES = {f"{origin}:{name}": text for origin, name, text in all_queries(ROOMS)}
REGISTRY = re.compile(r"https?://[^/\s\"']+/(simple\b|packages/[0-9a-f]{2}/|[^\s\"']*\.(whl|tgz)\b)")


async def test_every_named_query_prepares_against_the_migrated_schema(pg: Postgres) -> None:
    """A query that names a column that is not there is found here, not at night."""
    faults = []
    async with pg.connection() as connection:
        for name, text in QUERIES.items():
            try:
                await connection.prepare(text)
            except Exception as error:
                faults.append(f"{name}: {error}")
    assert len(QUERIES) > 100
    assert not faults, "\n".join(faults)


def tracked() -> list[Path]:
    names = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    return [ROOT / name for name in names if (ROOT / name).is_file()]


def test_no_file_records_the_address_of_a_registry() -> None:
    found = []
    for path in tracked():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        if path.name in {"uv.lock", "pylock.toml"} or REGISTRY.search(text):
            found.append(str(path.relative_to(ROOT)))
    assert found == []


@pytest.mark.parametrize("document", ["README.md", "ARCHITECTURE.md", "load/README.md", "docs/compatibility.md"])
def test_every_link_of_a_document_leads_to_a_file(document: str) -> None:
    path = ROOT / document
    links = re.findall(r"\]\((?!https?:)([^)#]+)", path.read_text(encoding="utf-8"))
    assert [link for link in links if not (path.parent / link).exists()] == []


def test_both_distributions_and_the_changelog_name_one_version() -> None:
    versions = {
        tomllib.loads((ROOT / name).read_text())["project"]["version"] for name in ("pyproject.toml", "sdk/pyproject.toml")
    }
    assert len(versions) == 1
    assert f"## {versions.pop()} " in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_sdk_brings_msgspec_mmh3_and_one_http_client() -> None:
    """It lives in other people's processes. h11 is what httpx itself reads HTTP with."""
    dependencies = tomllib.loads((ROOT / "sdk" / "pyproject.toml").read_text())["project"]["dependencies"]
    assert {re.split(r"[<>=\[]", name)[0] for name in dependencies} == {"h11", "httpx", "mmh3", "msgspec"}
