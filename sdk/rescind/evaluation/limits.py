"""Every limit of this package, by name. A definition or an evaluation that exceeds one is refused in bounded time."""

from __future__ import annotations

from typing import Final

DEPTH_MAX: Final = 64
"""Nested JSON containers in one flag's definition. A cyclic document exceeds it."""
FLAG_NODES_MAX: Final = 20_000
"""JSON values in one flag's definition."""
FLAG_SIZE_MAX: Final = 1_000_000
"""Characters of all strings of one flag's definition."""
DOCUMENT_NODES_MAX: Final = 400_000
"""JSON values in a whole flag set."""
DOCUMENT_SIZE_MAX: Final = 50_000_000
"""Characters of all strings of a whole flag set."""
FAULTS_MAX: Final = 100
"""Faults reported of one document; one more says that there are others."""

SAFE_INTEGER: Final = 2**53 - 1
"""The greatest integer that every JSON reader takes exactly (flagd's numeric coercion contract)."""
WEIGHT_SUM_MAX: Final = 2**31 - 1
"""flagd: the weights of one `fractional` add up to at most this."""

EXPANSION_MAX: Final = 4 * FLAG_NODES_MAX
"""Steps of compiling one flag, with `$ref` expanded."""
ITERATIONS_MAX: Final = 10_000
"""Items that `map`, `filter`, `reduce`, `all`, `none` and `some` visit in one evaluation, together."""
ITEM_NODES: Final = 100
"""JSON values of the rule that is applied to an item: with more of them an item counts several times."""
TEXT_MAX: Final = 1_000_000
"""Characters of a string that a rule builds."""
ITEMS_MAX: Final = 100_000
"""Items of a list that a rule builds."""
NUMERAL_MAX: Final = 400
"""Characters of a string that is read as a number."""
VERSION_MAX: Final = 256
"""Characters of a semantic version."""
ENCODING_DEPTH_MAX: Final = 50
"""Nested containers of a bucketing value."""
