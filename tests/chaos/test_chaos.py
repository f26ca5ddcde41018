"""The loop, short: every promise holds under every kind of fault (P8 to P18); docs/proof.md says how it runs for longer."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from load.chaos.faults import KINDS
from load.chaos.history import History
from tests.conftest import ROOT
from tests.server.processes import environment

SEED = 1
MINUTES = 0.25
LOOP = [sys.executable, "-m", "load.chaos", "--seed", str(SEED), "--minutes", str(MINUTES)]


@pytest.mark.timeout(300)
def test_every_promise_holds_under_faults(tmp_path: Path) -> None:
    saved = tmp_path / "history.json"
    said = subprocess.run(
        [*LOOP, "--save", str(saved)], cwd=ROOT, env=environment(), capture_output=True, text=True, check=False, timeout=280
    )
    assert said.returncode == 0, said.stdout + said.stderr
    assert all(kind in said.stdout for kind in KINDS)
    assert "every promise held" in said.stdout
    history = msgspec.json.decode(saved.read_bytes(), type=History)
    assert history.started
    assert any(instance.state == "done" for instance in history.instances)
