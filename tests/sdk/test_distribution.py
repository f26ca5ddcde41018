"""What `pip install rescind` brings, what importing it costs in modules, and what type checkers make of it."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import rescind

from tests.sdk.distribution import ROOT, distributions, installed_wheel, run

TYPED = Path(__file__).parent / "typed"
HTTPX_BRINGS = {"anyio", "certifi", "h11", "httpcore", "idna"}
BACKPORTS = {"typing-extensions"}
"""What anyio needs on a Python before 3.13."""
HEAVY = {"httpx", "httpcore", "anyio", "h11", "asyncio", "ssl", "logging", "typing", "msgspec", "mmh3", "importlib.metadata"}
NEVER = {"httpx", "httpcore", "anyio", "h11", "idna", "click", "rich", "yaml", "pytest", "openfeature", "opentelemetry"}


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter that has the wheel and nothing else of ours."""
    return installed_wheel(tmp_path_factory.mktemp("wheel"))


def modules_after(python: Path | str, statement: str) -> set[str]:
    """The modules that a statement brings into a fresh interpreter."""
    program = f"import sys, json; before = set(sys.modules); {statement}; print(json.dumps(sorted(set(sys.modules) - before)))"
    return set(json.loads(run([str(python), "-I", "-c", program])))


def test_installing_brings_msgspec_mmh3_and_one_http_client(python: Path) -> None:
    brought = distributions(python) - BACKPORTS
    assert brought == {"rescind", "msgspec", "mmh3", "httpx"} | HTTPX_BRINGS


def test_the_wheel_says_that_it_is_typed_and_holds_nothing_but_the_package(python: Path) -> None:
    (site,) = (python.parent.parent / "lib").glob("python*/site-packages")
    assert (site / "rescind" / "py.typed").exists()
    assert (site / "rescind" / "__init__.pyi").exists()
    files = (next(site.glob("rescind-*.dist-info")) / "RECORD").read_text(encoding="utf-8").splitlines()
    assert {line.partition(",")[0].split("/")[0].partition("-")[0] for line in files} == {"rescind", ".."}


def test_every_public_name_is_there_in_a_fresh_environment(python: Path) -> None:
    program = "import rescind; [getattr(rescind, name) for name in rescind.__all__]; print(rescind.__version__)"
    assert run([str(python), "-I", "-c", program]).strip() == rescind.__version__


def test_importing_rescind_imports_nothing_else(python: Path) -> None:
    brought = modules_after(python, "import rescind")
    assert {name for name in brought if name.startswith("rescind")} == {"rescind"}
    assert brought & HEAVY == set()


@pytest.mark.parametrize(
    "statement",
    [
        "from rescind import Client, AsyncClient, Saga",
        "import rescind.testing",
        "import rescind.asgi, rescind.wire",
        "import rescind.wsgi, rescind.messages, rescind.arq",
    ],
)
def test_what_a_service_imports_brings_no_http_client_and_no_extra(python: Path, statement: str) -> None:
    tops = {name.partition(".")[0] for name in modules_after(python, statement)}
    assert tops & NEVER == set()
    assert {"rescind", "msgspec", "mmh3"} >= {name for name in tops if name not in sys.stdlib_module_names} - {
        "typing_extensions"
    }


def test_the_pytest_plugin_costs_nothing_until_it_is_used() -> None:
    brought = modules_after(sys.executable, "import pytest; before = set(sys.modules); import rescind.pytest_plugin")
    assert {name for name in brought if name.startswith("rescind")} == {"rescind", "rescind.pytest_plugin"}


def test_the_stub_names_what_the_package_has_and_where_it_lives() -> None:
    stub = ast.parse((ROOT / "sdk" / "rescind" / "__init__.pyi").read_text(encoding="utf-8"))
    named = {
        alias.asname: f"{node.module}:{alias.name}"
        for node in ast.walk(stub)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    homes = vars(rescind)["_HOMES"]
    assert named == {name: f"{home}:{name}" for name, home in homes.items()}
    assert sorted(named) == rescind.__all__


def test_each_public_name_is_listed_once() -> None:
    listed = dir(rescind)
    assert set(rescind.__all__) <= set(listed)
    assert len(listed) == len(set(listed))


def refused_lines(text: str, pattern: str) -> set[int]:
    """The lines of the file with errors that a checker names."""
    return {int(number) for number in re.findall(pattern, text)}


def check(command: list[str], folder: Path, name: str) -> str:
    """What a type checker says of a file that stands in a team's own folder."""
    shutil.copy(TYPED / name, folder)
    done = subprocess.run([*command, name], cwd=folder, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


@pytest.fixture(params=["mypy", "pyright"])
def checker(request: pytest.FixtureRequest, python: Path, tmp_path: Path) -> list[str]:
    """The command of a strict checker, as a team runs it on the installed wheel."""
    binaries = Path(sys.executable).parent
    if request.param == "mypy":
        cache = ["--cache-dir", str(tmp_path / "cache")]
        return [str(binaries / "mypy"), "--strict", "--python-executable", str(python), *cache]
    (tmp_path / "pyrightconfig.json").write_text('{"typeCheckingMode": "strict"}', encoding="utf-8")
    return [str(binaries / "basedpyright"), "--pythonpath", str(python), "--level", "error"]


def test_a_checker_infers_the_types_that_we_say(checker: list[str], tmp_path: Path) -> None:
    said = check(checker, tmp_path, "usage.py")
    assert "Success: no issues found" in said or "0 errors" in said, said


def test_a_checker_refuses_what_is_wrong(checker: list[str], tmp_path: Path) -> None:
    said = check(checker, tmp_path, "misuse.py")
    lines = (TYPED / "misuse.py").read_text(encoding="utf-8").splitlines()
    assert refused_lines(said, r"misuse\.py:(\d+):.*error") == {n for n, line in enumerate(lines, 1) if "# refused" in line}
