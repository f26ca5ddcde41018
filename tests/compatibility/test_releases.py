"""What docs/compatibility.md says of releases is so, and where one cannot be had the way to have it is said."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.compatibility.releases import ROOT, NoRelease, Release, Version, check_out, git, releases

GOLDEN = Path(__file__).parent / "golden"


def test_every_release_has_its_fixtures_and_every_fixture_its_release() -> None:
    assert [release.version for release in releases()] == sorted(path.name for path in GOLDEN.iterdir())


def test_the_release_is_that_of_its_commit(last_release: Version) -> None:
    release = releases()[-1]
    assert git(last_release.root, "rev-parse", "HEAD").strip() == release.commit
    assert f'version = "{release.version}"' in (last_release.root / "pyproject.toml").read_text(encoding="utf-8")


def test_the_fixtures_are_still_those_that_were_recorded(last_release: Version) -> None:
    release = releases()[-1].version
    for path in (GOLDEN / release).iterdir():
        then = last_release.root / "tests" / "compatibility" / "golden" / release / path.name
        assert not then.exists() or then.read_bytes() == path.read_bytes(), f"{path.name} was edited"


def test_an_export_without_history_says_that_a_clone_is_needed(tmp_path: Path) -> None:
    with pytest.raises(NoRelease, match="git clone"):
        check_out(releases()[-1], tmp_path / "release", tmp_path)


def test_a_shallow_clone_says_how_to_get_the_history(tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", "--depth", "1", ROOT.as_uri(), str(clone)], check=True, capture_output=True)
    with pytest.raises(NoRelease, match="git fetch --unshallow"):
        check_out(releases()[-1], tmp_path / "release", clone)


def test_an_unknown_commit_says_what_to_fetch(tmp_path: Path) -> None:
    with pytest.raises(NoRelease, match=f"git fetch origin {'0' * 40}"):
        check_out(Release(version="0.0.1", commit="0" * 40), tmp_path / "release")
