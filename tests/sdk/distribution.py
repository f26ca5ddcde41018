"""The SDK as teams get it: its wheel, and a fresh environment in which nothing but the wheel was asked for."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def installed_wheel(folder: Path) -> Path:
    """The interpreter of a new environment with the wheel in it."""
    environment = folder / "environment"
    run([uv(), "build", "--quiet", "--wheel", "--out-dir", str(folder), str(ROOT / "sdk")])
    (wheel,) = folder.glob("*.whl")
    run([uv(), "venv", "--quiet", "--python", sys.executable, str(environment)])
    python = environment / "bin" / "python"
    run([uv(), "pip", "install", "--quiet", "--python", str(python), str(wheel)])
    return python


def distributions(python: Path) -> set[str]:
    """The names of what is installed."""
    lines = run([uv(), "pip", "freeze", "--python", str(python)]).splitlines()
    return {line.partition("==")[0].partition(" @ ")[0].lower() for line in lines}


def run(command: list[str], cwd: Path = ROOT) -> str:
    """What a command says; it must end well. Nothing of the environment of these tests leaks into it."""
    hidden = ("VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME", "UV_PROJECT_ENVIRONMENT")
    clean = {name: value for name, value in os.environ.items() if name not in hidden}
    environment = {**clean, "UV_PYTHON_DOWNLOADS": "never"}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def uv() -> str:
    """The uv that runs these tests, else one on the path, else the one that `./run` fetched."""
    found = os.environ.get("UV") or shutil.which("uv") or str(ROOT / ".tools" / "uv" / "bin" / "uv")
    assert Path(found).exists(), "uv is not here: run the tests with ./run pytest"
    return found
