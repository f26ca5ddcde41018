"""Form-encoded bodies as Stripe's API takes them: `metadata[order_id]=7`, booleans and integers as text, nothing unknown."""

from __future__ import annotations

import re
from collections.abc import Collection
from urllib.parse import parse_qsl

from demo.world.payment_ledger import invalid

NESTED = re.compile(r"^(\w+)\[(\w*)\]$")
METADATA_KEYS_MAX = 50
METADATA_VALUE_LENGTH_MAX = 500


class Form:
    """The parameters of one request. Raises a Stripe error for a parameter that is unknown, missing or of a wrong type."""

    def __init__(self, text: str, allowed: Collection[str]) -> None:
        self.values: dict[str, str] = {}
        self.metadata: dict[str, str] = {}
        for name, value in parse_qsl(text, keep_blank_values=True):
            nested = NESTED.match(name)
            outer = nested[1] if nested else name
            if outer not in allowed:
                raise invalid(f"Received unknown parameter: {name}", code="parameter_unknown", param=name)
            if nested and outer == "metadata":
                self.metadata[nested[2]] = value
            else:
                self.values[name] = value
        if len(self.metadata) > METADATA_KEYS_MAX or any(len(v) > METADATA_VALUE_LENGTH_MAX for v in self.metadata.values()):
            raise invalid("Metadata is over its limits", param="metadata")

    def text(self, name: str) -> str:
        """A required parameter."""
        if not self.values.get(name):
            raise invalid(f"Missing required param: {name}.", code="parameter_missing", param=name)
        return self.values[name]

    def optional(self, name: str) -> str | None:
        """A parameter that may be missing."""
        return self.values.get(name)

    def amount(self, name: str) -> int:
        """An amount in minor units, at least 1."""
        value = self.text(name)
        if not value.isdecimal():
            raise invalid(f"Invalid integer: {value}", code="parameter_invalid_integer", param=name)
        if int(value) < 1:
            raise invalid("This value must be greater than or equal to 1.", code="parameter_invalid_integer", param=name)
        return int(value)

    def boolean(self, name: str) -> bool:
        """`true` or `false`; missing is false."""
        value = self.values.get(name, "false")
        if value not in ("true", "false"):
            raise invalid(f"Invalid boolean: {value}", param=name)
        return value == "true"
