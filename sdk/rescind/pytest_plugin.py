"""pytest finds this where `rescind` is installed (entry point `pytest11`). Until a test asks for it, nothing is imported."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import pytest


@pytest.fixture
def rescind_flags() -> Any:
    """A `rescind.testing.FlagsFixture` of this test's own, with no flag in it."""
    return import_module("rescind.testing").FlagsFixture()
