"""`var`, `missing` and `missing_some`: reading the data of a rule by dotted path, as JsonLogic does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from rescind.evaluation.values import number, text

_INDEX_DIGITS_MAX: Final = 10


def path_of(key: Any) -> tuple[str, ...]:
    """The steps of a `var` key: "a.b" is ("a", "b"), 1 is ("1",), null and "" are ()."""
    if key is None or key == "":
        return ()
    return tuple(text(key).split("."))


def dig(data: Any, path: tuple[str, ...], default: Any = None) -> Any:
    """The value at `path` in `data`, or `default` where it is absent or null.

    >>> dig({"user": {"emails": ["a@b"]}}, ("user", "emails", "0"))
    'a@b'
    """
    for step in path:
        if isinstance(data, Mapping):
            data = data.get(step)
        elif isinstance(data, list | tuple | str):
            data = _item(data, step)
        else:
            return default
        if data is None:
            return default
    return default if data is None else data


def _item(data: list[Any] | tuple[Any, ...] | str, step: str) -> Any:
    if step == "length":
        return len(data)
    if not step.isdecimal() or len(step) > _INDEX_DIGITS_MAX or not step.isascii() or (step[0] == "0" and step != "0"):
        return None
    index = int(step)
    return data[index] if index < len(data) else None


def look_up(data: Any, key: Any, default: Any = None) -> Any:
    """`var` whose key is itself computed."""
    return dig(data, path_of(key), default)


def missing(data: Any, keys: Any) -> list[Any]:
    """Those of `keys` that `data` does not have, or has as null or ""."""
    if keys and isinstance(keys[0], list):
        keys = keys[0]
    found = ((key, look_up(data, key)) for key in keys)
    return [key for key, value in found if value is None or (isinstance(value, str) and not value)]


def missing_some(data: Any, need: Any, keys: Any) -> list[Any]:
    """[] when at least `need` of `keys` are there, else the missing ones."""
    if not isinstance(keys, list):
        return []
    absent = missing(data, [keys])
    return [] if len(keys) - len(absent) >= number(need) else absent


def whole(context: Mapping[str, Any], flag_key: str, timestamp: int) -> dict[str, Any]:
    """The data of a flag's targeting: the context with what flagd adds to it."""
    data = dict(context)
    data["$flagd"] = {"flagKey": flag_key, "timestamp": timestamp}
    data.setdefault("targetingKey", None)
    return data
