"""The flags of a fixture: what was set, the overrides above it, the kills above those. Pure.

A kill wins over whatever is set or overridden beneath it (P4), and with every kill and lift a flag's epoch rises.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

from rescind.current import Containment, with_kill
from rescind.errors import ConfigurationError
from rescind.evaluation import check, in_scope
from rescind.wire import OFF, Kill, Revision, SnapshotFlag

ON = "on"


class Override:
    """One override while it stands; two of the same flag are two."""

    __slots__ = ("flag",)

    def __init__(self, flag: SnapshotFlag) -> None:
        self.flag = flag


class Laid(Struct):
    """One flag: from below, what was set, its overrides, its kills."""

    base: SnapshotFlag | None = None
    overrides: list[Override] = []
    kills: list[Kill] = []
    epoch: int = 1
    opened: Revision = Revision()
    """When the present epoch opened."""

    @property
    def top(self) -> SnapshotFlag | None:
        """What is evaluated where no kill stands."""
        return self.overrides[-1].flag if self.overrides else self.base

    def effective(self) -> SnapshotFlag | None:
        """What is evaluated."""
        top = self.top
        if top is None:
            return None
        everyone = next((kill for kill in self.kills if not kill.scope), None)
        if everyone is not None:
            contained = Containment(
                epoch=everyone.closes_epoch, off_variant=everyone.off_variant, rollback_id=everyone.rollback_id
            )
            top = with_kill(top, contained)
        return msgspec.structs.replace(top, epoch=self.epoch, kills=list(self.kills))

    def kill(self, revision: Revision, rollback_id: str, scope: Mapping[str, Any]) -> Kill:
        """Close the present epoch for everyone in `scope`."""
        assert self.top is not None
        kill = Kill(
            rollback_id=rollback_id,
            off_variant=self.top.off_variant,
            closes_epoch=self.epoch,
            revision=revision,
            scope=dict(scope),
        )
        self.kills.append(kill)
        self.epoch += 1
        return kill

    def lift(self, revision: Revision) -> None:
        """Take every kill away and open a new epoch."""
        self.kills.clear()
        self.epoch += 1
        self.opened = revision

    def covers(self, attributes: Mapping[str, Any]) -> Kill | None:
        """The standing kill that an effect with these attributes falls under."""
        return next((kill for kill in self.kills if in_scope(attributes, kill.scope.items())), None)


def plain(value: Any, off: Any = None) -> SnapshotFlag:
    """A flag that is `value` for everyone. Killed it is `off`, which only a boolean need not name."""
    if off is None and isinstance(value, bool):
        off = False
    variants = {ON: value} if off is None else {ON: True if value is False else value, OFF: off}
    return defined(definition_of(variants, OFF if value is off or value == off else ON))


def showing(flag: SnapshotFlag | None, value: Any, off: Any = None) -> SnapshotFlag:
    """`flag` with the variant that has `value` for everyone; a plain one where there is no such variant."""
    variants = flag.definition.get("variants", {}) if flag is not None else {}
    name = next((name for name, known in variants.items() if known == value and type(known) is type(value)), None)
    if flag is None or name is None or off is not None:
        return plain(value, off)
    return msgspec.structs.replace(flag, definition=definition_of(variants, name))


def definition_of(variants: Mapping[str, Any], default: str) -> dict[str, Any]:
    """A flagd flag object without targeting."""
    return {"state": "ENABLED", "variants": dict(variants), "defaultVariant": default}


def defined(definition: Mapping[str, Any], evaluators: Mapping[str, Any] | None = None, **more: Any) -> SnapshotFlag:
    """A flag of this flagd definition, as a server would accept it. Raises `ConfigurationError` with every fault."""
    faults = check(dict(definition), evaluators=evaluators)
    if faults:
        raise ConfigurationError("; ".join(f"{fault.pointer}: {fault.detail}" for fault in faults))
    return SnapshotFlag(definition=dict(definition), **more)
