"""The rules of a flag as a table that people read: the first one that holds decides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from rich.markup import escape
from rich.table import Table

DEFAULT = "the default variant"


def table(rules: Sequence[Mapping[str, Any]], definition: Mapping[str, Any]) -> Table:
    """Number, name, conditions, and what is served; the last line is what is left for everyone else."""
    shown = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("", "name", "when", "serve"):
        shown.add_column(column, overflow="fold")
    for number, rule in enumerate(rules, 1):
        shown.add_row(str(number), escape(rule.get("name", "")), escape(when_of(rule)), escape(serve_of(rule["serve"])))
    if not rules or rules[-1].get("when"):
        default = definition.get("defaultVariant")
        shown.add_row("", "", "everyone else" if rules else "everyone", escape(default or "the caller's default"))
    return shown


def when_of(rule: Mapping[str, Any]) -> str:
    """The conditions in a sentence.

    >>> when_of({"when": [{"attribute": "country", "operator": "in", "value": ["DE", "AT"]}, {"segment": "beta"}]})
    'country in DE, AT and segment beta'
    """
    return conditions_of(rule.get("when", ())) or "everyone else"


def conditions_of(when: Sequence[Mapping[str, Any]]) -> str:
    """Conditions that all must hold, in a sentence.

    >>> conditions_of([{"attribute": "plan", "operator": "exists"}, {"segment": "beta", "not": True}])
    'plan exists and not segment beta'
    """
    return " and ".join(_condition(item) for item in when)


def serve_of(serve: Any) -> str:
    """What a rule serves.

    >>> serve_of({"split": {"on": 25, "off": 75}, "by": "account"})
    'on 25 %, off 75 % by account'
    """
    if serve is None:
        return DEFAULT
    if not isinstance(serve, Mapping):
        return str(serve).lower() if isinstance(serve, bool) else str(serve)
    split = serve["split"]
    weights: Mapping[str, int] = split if isinstance(split, Mapping) else dict.fromkeys(split, 1)
    total = sum(weights.values()) or 1
    shares = ", ".join(f"{name} {100 * weight / total:.4g} %" for name, weight in weights.items())
    by = serve.get("by")
    return f"{shares} by {by if isinstance(by, str) else ' and '.join(by)}" if by else shares


def _condition(item: Mapping[str, Any]) -> str:
    if "attribute" in item:
        text = " ".join(part for part in (item["attribute"], item["operator"], _value(item.get("value"))) if part)
    elif "segment" in item:
        text = f"segment {item['segment']}"
    else:
        word = " or " if "any" in item else " and "
        text = f"({word.join(_condition(one) for one in item['any' if 'any' in item else 'all'])})"
    return f"not {text}" if item.get("not") else text


def _value(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(_value(one) for one in value)
    return "" if value is None else value if isinstance(value, str) else msgspec.json.encode(value).decode()
