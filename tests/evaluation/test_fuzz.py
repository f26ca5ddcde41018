"""The fuzz target, a bounded number of times; RESCIND_TEST_LONG=1 goes on for longer and elsewhere."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.children import die_with_parent
from tests.evaluation import fuzz

TARGET = Path(fuzz.__file__)
LONG = os.environ.get("RESCIND_TEST_LONG") == "1"
RUNS = 100_000 if LONG else 1_500


def test_no_input_makes_anything_raise_or_disagree(tmp_path: Path) -> None:  # P6, P7
    seed = "0" if LONG else "1"
    done = subprocess.run(
        [sys.executable, str(TARGET), f"-runs={RUNS}", f"-seed={seed}", f"-artifact_prefix={tmp_path}/"],
        capture_output=True,
        text=True,
        preexec_fn=die_with_parent,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-8_000:]


def test_chance_alone_finds_nothing_either() -> None:  # P6, P7
    fuzz.by_chance(1_000)
