"""The releases that docs/compatibility.md names; the last of them as it was: a worktree of its commit, its own environment.

Whatever stands in the way of having one (an export without history, a shallow clone, no network) is said with the way out.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from msgspec import Struct

ROOT = Path(__file__).resolve().parents[2]
TABLE = ROOT / "docs" / "compatibility.md"
ROW = re.compile(r"^\| (\d+\.\d+\.\d+) \| `([0-9a-f]{40})` \|", re.MULTILINE)


class NoRelease(Exception):  # noqa: N818 - what is missing, and how to get it
    """The release cannot be had here."""


class Release(Struct, frozen=True, kw_only=True):
    """A row of the table."""

    version: str
    commit: str


class Version(Struct, frozen=True, kw_only=True):
    """One version of the whole system, ready to run: its tree, and the interpreter in which its packages are installed."""

    name: str
    root: Path
    python: str

    @property
    def cli(self) -> list[str]:
        """The command `rescind` of this version; run it in `root`."""
        return [self.python, "-m", "rescind.cli"]


TODAY = Version(name="today", root=ROOT, python=sys.executable)


def releases(table: Path = TABLE) -> list[Release]:
    """Every release, oldest first."""
    return [Release(version=version, commit=commit) for version, commit in ROW.findall(table.read_text(encoding="utf-8"))]


def check_out(release: Release, folder: Path, repository: Path = ROOT) -> Version:
    """The release in `folder`, installed. Raises `NoRelease`. Give it back with `give_back`."""
    check_history(release, repository)
    root = folder / "tree"
    git(repository, "worktree", "prune")
    git(repository, "worktree", "add", "--quiet", "--detach", str(root), release.commit)
    return Version(name=release.version, root=root, python=install(release, root, folder / "environment"))


def give_back(version: Version, repository: Path = ROOT) -> None:
    """Remove the worktree."""
    git(repository, "worktree", "remove", "--force", str(version.root))


def check_history(release: Release, repository: Path) -> None:
    """Raises `NoRelease` where the commit is not here, saying how to get it."""
    needed = f"the compatibility tests run release {release.version} from its commit {release.commit}"
    if ask_git(repository, "rev-parse", "--git-dir").returncode:
        raise NoRelease(f"{needed}, and {repository} is no git repository: run them in a clone (git clone)")
    if ask_git(repository, "cat-file", "-e", f"{release.commit}^{{commit}}").returncode:
        is_shallow = ask_git(repository, "rev-parse", "--is-shallow-repository").stdout.strip() == "true"
        way = "git fetch --unshallow" if is_shallow else f"git fetch origin {release.commit}"
        raise NoRelease(f"{needed}, which this clone does not have: {way}")


def install(release: Release, root: Path, environment: Path) -> str:
    """The interpreter of a new environment with the release's two distributions. Raises `NoRelease`."""
    clean = {name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME")}
    command = [uv(), "sync", "--quiet", "--no-dev", "--all-packages", "--python", sys.executable, "--project", str(root)]
    done = subprocess.run(
        command, cwd=root, capture_output=True, text=True, check=False,
        env={**clean, "UV_PROJECT_ENVIRONMENT": str(environment), "UV_PYTHON_DOWNLOADS": "never"},
    )  # fmt: skip
    if done.returncode:
        raise NoRelease(f"release {release.version} cannot be installed: {done.stderr.strip()}")
    return str(environment / "bin" / "python")


def uv() -> str:
    """The uv that runs these tests, else the one on the path or the one that `./run` fetched. Raises `NoRelease`."""
    fetched = ROOT / ".tools" / "uv" / "bin" / "uv"
    found = os.environ.get("UV") or shutil.which("uv") or (str(fetched) if fetched.exists() else None)
    if found is None:
        raise NoRelease("uv is not here: run the tests with ./run pytest")
    return found


def git(repository: Path, *arguments: str) -> str:
    """What git says. Raises `NoRelease` where it refuses."""
    done = ask_git(repository, *arguments)
    if done.returncode:
        raise NoRelease(f"git {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout


def ask_git(repository: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run git on a repository, whatever repository a hook that calls us stands in."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command = ["git", "-C", str(repository), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={**clean, "LC_ALL": "C"})
