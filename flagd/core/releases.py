"""Releases as people write them: services with their artifacts, migrations, flags. Pure; every fault of a document at once.

Whether `migrations` is left out or empty is a difference: left out, nobody has said whether there were any.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec
from msgspec import Struct, field
from rescind import wire

from flagd.core.documents import is_key, pointer, unknown_fields

SERVICES_MAX = 64
FLAGS_MAX = 64
MIGRATIONS_MAX = 200
SQL_LENGTH_MAX = 1024 * 1024
"""Of all migrations of a release together."""
TEXT_LENGTH_MAX = 2000
NAME_LENGTH_MAX = 255
CLASSES = ("additive", "needs_backfill", "destructive", "unknown")
COMMANDS = ("traffic", "previous", "hotfix")
ARTIFACT = re.compile(r"(?:[^\s@]{1,512}@)?(?:sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})")
TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._/+-]{0,199}")
CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class Artifacts(Struct, frozen=True, kw_only=True):
    """What of one service ships, and what ran before; immutable, by digest. `commands` are the team's own, by rung."""

    artifact: str | None = None
    previous: str | None = None
    commands: dict[str, str] = {}


class ReleaseMigration(Struct, frozen=True, kw_only=True):
    """One migration: its text, or the class that CI gave it."""

    name: str
    sql: str | None = None
    given_class: str | None = field(default=None, name="class")


class Release(Struct, frozen=True, kw_only=True):
    """What ships together."""

    services: dict[str, Artifacts] = {}
    migrations: list[ReleaseMigration] | None = None
    flags: list[str] = []
    tag: str | None = None
    """The tag in version control that the artifacts were built from: a hotfix begins there."""
    deployed_at: datetime | None = None
    description: str = ""


class Reading:
    """Takes a document apart, and notes what is wrong."""

    def __init__(self) -> None:
        self.faults: list[wire.Fault] = []

    def fault(self, at: str, code: str, detail: str) -> None:
        """One more."""
        self.faults.append(wire.Fault(pointer=at, code=code, detail=detail))

    def known(self, document: Mapping[str, Any], names: tuple[str, ...], at: str) -> None:
        """No field but these."""
        self.faults += unknown_fields(document, dict.fromkeys(names), at)

    def text(self, value: object, at: str, length_max: int = TEXT_LENGTH_MAX) -> str | None:
        """A text of one line."""
        if isinstance(value, str) and 0 < len(value) <= length_max and not CONTROL.search(value):
            return value
        self.fault(at, "wrong_type", f"a text of one line and at most {length_max} characters")
        return None

    def matching(self, value: object, at: str, form: re.Pattern[str], detail: str) -> str | None:
        """A text of this form, or null."""
        if value is None or (isinstance(value, str) and form.fullmatch(value)):
            return value
        self.fault(at, "wrong_form", detail)
        return None

    def items(self, value: object, at: str, number_max: int) -> list[Any]:
        """A list of so many items at most."""
        if not isinstance(value, list):
            self.fault(at, "wrong_type", "a list")
            return []
        if len(value) > number_max:
            self.fault(at, "too_many", f"at most {number_max}, not {len(value)}")
            return []
        return value


def name_faults(name: str) -> list[wire.Fault]:
    """What is wrong with a release's name, which stands in paths."""
    detail = "a name has no control characters, none of / ? # %, and no space at its ends"
    return [] if is_key(name) else [wire.Fault(pointer="/name", code="bad_name", detail=detail)]


def read(document: object, at: str = "/release") -> tuple[Release, list[wire.Fault]]:
    """A release as it was written at `at`, and everything that is wrong with it: with a fault it is not whole."""
    reading = Reading()
    if not isinstance(document, dict):
        reading.fault(at, "wrong_type", "a release is an object")
        return Release(), reading.faults
    reading.known(document, Release.__struct_fields__, at)
    given = document.get("migrations")
    release = Release(
        services=_services(reading, document.get("services", {}), f"{at}/services"),
        migrations=None if given is None else _migrations(reading, given, f"{at}/migrations"),
        flags=_flags(reading, document.get("flags", []), f"{at}/flags"),
        tag=reading.matching(document.get("tag"), f"{at}/tag", TAG, "a tag of version control, such as v2.4.0"),
        deployed_at=_instant(reading, document.get("deployed_at"), f"{at}/deployed_at"),
        description=(reading.text(document["description"], f"{at}/description") or "") if document.get("description") else "",
    )
    return release, reading.faults


def _services(reading: Reading, value: object, at: str) -> dict[str, Artifacts]:
    if not isinstance(value, dict):
        reading.fault(at, "wrong_type", 'an object by service, such as {"checkout": {"artifact": "sha256:..."}}')
        return {}
    if len(value) > SERVICES_MAX:
        reading.fault(at, "too_many", f"at most {SERVICES_MAX}, not {len(value)}")
        return {}
    return {name: _artifacts(reading, name, one, at + pointer(name)) for name, one in value.items()}


def _artifacts(reading: Reading, name: str, value: object, at: str) -> Artifacts:
    if not is_key(name):
        reading.fault(at, "bad_name", "a service's name has no control characters, none of / ? # %, and no space at its ends")
    if not isinstance(value, dict):
        reading.fault(at, "wrong_type", "an object with `artifact` and `previous`")
        return Artifacts()
    reading.known(value, Artifacts.__struct_fields__, at)
    form = "an immutable digest, sha256:<64 hex digits>, behind the image's name and @ if you like"
    artifact = reading.matching(value.get("artifact"), f"{at}/artifact", ARTIFACT, form)
    previous = reading.matching(value.get("previous"), f"{at}/previous", ARTIFACT, form)
    if artifact is not None and artifact == previous:
        reading.fault(f"{at}/previous", "same", "the previous artifact is this one")
    return Artifacts(
        artifact=artifact, previous=previous, commands=_commands(reading, value.get("commands", {}), f"{at}/commands")
    )


def _commands(reading: Reading, value: object, at: str) -> dict[str, str]:
    if not isinstance(value, dict):
        reading.fault(at, "wrong_type", f"an object with commands for {', '.join(COMMANDS)}")
        return {}
    reading.known(value, COMMANDS, at)
    read = {name: reading.text(value[name], f"{at}/{name}") for name in COMMANDS if name in value}
    return {name: text for name, text in read.items() if text is not None}


def _flags(reading: Reading, value: object, at: str) -> list[str]:
    read: list[str] = []
    for index, key in enumerate(reading.items(value, at, FLAGS_MAX)):
        if not isinstance(key, str) or not is_key(key):
            reading.fault(f"{at}/{index}", "bad_key", "the key of a flag")
        elif key in read:
            reading.fault(f"{at}/{index}", "twice", f"flag `{key}` is named twice")
        else:
            read.append(key)
    return read


def _migrations(reading: Reading, value: object, at: str) -> list[ReleaseMigration]:
    items = reading.items(value, at, MIGRATIONS_MAX)
    read = [one for index, item in enumerate(items) if (one := _migration(reading, item, f"{at}/{index}")) is not None]
    names = [one.name for one in read]
    for name in sorted({name for name in names if names.count(name) > 1}):
        reading.fault(at, "twice", f"migration `{name}` is named twice")
    if sum(len(one.sql or "") for one in read) > SQL_LENGTH_MAX:
        reading.fault(at, "too_long", f"at most {SQL_LENGTH_MAX} characters of SQL in all: judge them in CI and give `class`")
    return read


def _migration(reading: Reading, item: object, at: str) -> ReleaseMigration | None:
    if not isinstance(item, dict):
        reading.fault(at, "wrong_type", "an object with `name`, and `sql` or `class`")
        return None
    reading.known(item, ("name", "sql", "class"), at)
    name = reading.text(item.get("name"), f"{at}/name", NAME_LENGTH_MAX)
    sql, given = item.get("sql"), item.get("class")
    if (sql is None) == (given is None):
        reading.fault(at, "one_of", "either `sql`, its text, or `class`, which CI gave it")
    if sql is not None and not isinstance(sql, str):
        reading.fault(f"{at}/sql", "wrong_type", "a text")
    if given is not None and given not in CLASSES:
        reading.fault(f"{at}/class", "unknown_class", f"one of {', '.join(CLASSES)}")
    if name is None or not isinstance(sql, str | None) or not isinstance(given, str | None):
        return None
    return ReleaseMigration(name=name, sql=sql, given_class=given)


def _instant(reading: Reading, value: object, at: str) -> datetime | None:
    try:
        found = msgspec.convert(value, datetime | None)
    except msgspec.ValidationError:
        found = None
    if value is not None and (found is None or found.tzinfo is None or not 1970 < found.year < 9000):
        reading.fault(at, "wrong_type", "an instant with its zone (RFC 3339), such as 2026-11-25T03:00:00Z")
        return None
    return found
