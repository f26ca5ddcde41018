"""Flags and effects for the tests of services, without a server: the client is the real one, what it would ask stands here.

    from rescind.testing import FlagsFixture

    flags = FlagsFixture({"checkout.new-flow": True})
    with flags.override("checkout.new-flow", False):
        assert pay(flags.client, order) == "old path"
    flags.kill("checkout.new-flow")
    assert [effect.outcome for effect in flags.effects] == ["admitted"]

With pytest, the fixture `rescind_flags` is an empty one, there as soon as `rescind` is installed.
"""

from rescind.testing.fixture import FlagsFixture
from rescind.testing.records import RecordedEffect, RecordedEvaluation, RecordedOutcome

__all__ = ["FlagsFixture", "RecordedEffect", "RecordedEvaluation", "RecordedOutcome"]
