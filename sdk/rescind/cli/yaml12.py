"""YAML as version 1.2 reads it: `on`, `off`, `yes` and `no` are texts, which is how variants are called.

PyYAML follows version 1.1, where `variants: {on: true, off: false}` has the keys true and false. A key that stands twice in a
mapping is refused: one of the two would be lost without a word.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

_TAGS = {
    "tag:yaml.org,2002:null": (r"~|null|Null|NULL|", "~nN\0"),
    "tag:yaml.org,2002:bool": (r"true|True|TRUE|false|False|FALSE", "tTfF"),
    "tag:yaml.org,2002:int": (r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    "tag:yaml.org,2002:float": (
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", "-+.0123456789",
    ),
}  # fmt: skip
NODES_MAX = 2_000_000
DEPTH_MAX = 200


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """The safe loader with the scalars of version 1.2's core schema."""

    yaml_implicit_resolvers: dict[Any, Any] = {}

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """As it is, unless a key is no text or stands there twice."""
        seen = set()
        for key, _ in node.value:
            name = self.construct_object(key, deep=True)
            if not isinstance(name, str):
                raise yaml.YAMLError(f"line {key.start_mark.line + 1}: the key {name!r} is no text: put it in quotes")
            if name in seen:
                raise yaml.YAMLError(f"line {key.start_mark.line + 1}: the key {name!r} stands twice")
            seen.add(name)
        return super().construct_mapping(node, deep)  # type: ignore[no-any-return]

    def construct_yaml_int(self, node: Any) -> int:
        """Octal is 0o17; 017 is seventeen."""
        text = self.construct_scalar(node)
        return int(text, 0) if text[:2] in ("0o", "0x") else int(text)


for _tag, (_pattern, _first) in _TAGS.items():
    _Loader.add_implicit_resolver(_tag, re.compile(f"^(?:{_pattern})$"), ["" if one == "\0" else one for one in _first])
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)


def decode(text: str) -> Any:
    """The document. Raises `ValueError` that says where it stops making sense."""
    try:
        document = yaml.load(text, Loader=_Loader)  # noqa: S506 - it is the safe loader
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from None
    if _size(document, {}, 0) > NODES_MAX:
        raise ValueError(f"more than {NODES_MAX} values, its aliases written out")
    return document


def _size(value: Any, known: dict[int, int], depth: int) -> int:
    """How many values there are with every alias written out; each shared one is counted once and remembered."""
    if not isinstance(value, dict | list):
        return 1
    if depth > DEPTH_MAX:
        raise ValueError(f"nested more than {DEPTH_MAX} deep, or an alias of itself")
    if id(value) not in known:
        items = value.values() if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(_size(item, known, depth + 1) for item in items)
    return known[id(value)]
