"""How the payment provider answers reads of payment intents: `list`, newest first and complete at once, and `search`, late.

What was just captured is in a list immediately. A search goes over an index that follows behind: at Stripe less than a minute
as a rule and longer during outages; here two seconds, for the demo is in a hurry.

Source: Stripe's API reference (list payment intents, pagination, search: data freshness).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from demo.world.payment_ledger import Intent, invalid

PAGE_MAX = 100
SEARCH_DELAY_SECONDS = 2.0
LIST_PARAMETERS = re.compile(r"^(limit|starting_after|ending_before|created|created\[(gt|gte|lt|lte)\])$")
SEARCH_PARAMETERS = re.compile(r"^(query|limit|page)$")
SEARCH = re.compile(r"""^metadata\[(['"])(\w+)\1\]\s*:\s*(['"])([^'"]*)\3$""")


def limit_of(query: Mapping[str, str]) -> int:
    """`limit`, ten if not given. Raises 400 outside 1 to 100."""
    limit = query.get("limit", "10")
    if not limit.isdecimal() or not 1 <= int(limit) <= PAGE_MAX:
        raise invalid(f"Invalid limit: {limit}", param="limit")
    return int(limit)


def listed(intents: Sequence[Intent], query: Mapping[str, str]) -> dict[str, Any]:
    """`GET /v1/payment_intents`: `intents` are in the order of their creation. Raises 400 for anything Stripe refuses."""
    _known(query, LIST_PARAMETERS)
    found = [intent for intent in reversed(intents) if _is_within(int(intent.created), query)]
    after, before = query.get("starting_after"), query.get("ending_before")
    if after is not None and before is not None:
        raise invalid("You cannot parameterize with both ending_before and starting_after.", param="starting_after")
    limit = limit_of(query)
    if before is not None:
        newer = found[: _place(found, intents, before, "ending_before")]
        page, has_more = newer[-limit:], len(newer) > limit
    else:
        rest = found if after is None else found[_place(found, intents, after, "starting_after") + 1 :]
        page, has_more = rest[:limit], len(rest) > limit
    data = [intent.document() for intent in page]
    return {"object": "list", "url": "/v1/payment_intents", "has_more": has_more, "data": data}


def searched(intents: Sequence[Intent], query: Mapping[str, str], *, at: float) -> dict[str, Any]:
    """`GET /v1/payment_intents/search`: what the index has by now. Raises 400 for a query that it does not understand."""
    _known(query, SEARCH_PARAMETERS)
    match = SEARCH.match(query.get("query", ""))
    if match is None:
        raise invalid("We were unable to parse your search query.", param="query")
    indexed = [intent for intent in reversed(intents) if intent.created + SEARCH_DELAY_SECONDS <= at]
    found = [intent for intent in indexed if intent.metadata.get(match[2]) == match[4]]
    data = [intent.document() for intent in found[: limit_of(query)]]
    return {
        "object": "search_result",
        "url": "/v1/payment_intents/search",
        "has_more": len(found) > len(data),
        "next_page": None,
        "data": data,
    }


def _known(query: Mapping[str, str], parameters: re.Pattern[str]) -> None:
    for name in query:
        if not parameters.match(name):
            raise invalid(f"Received unknown parameter: {name}", code="parameter_unknown", param=name)


def _is_within(created: int, query: Mapping[str, str]) -> bool:
    bounds = {name: value for name, value in query.items() if name.startswith("created")}
    for name, value in bounds.items():
        if not value.isdecimal():
            raise invalid(f"Invalid integer: {value}", code="parameter_invalid_integer", param=name)
    compared = {
        "created": lambda bound: created == bound,
        "created[gt]": lambda bound: created > bound,
        "created[gte]": lambda bound: created >= bound,
        "created[lt]": lambda bound: created < bound,
        "created[lte]": lambda bound: created <= bound,
    }
    return all(compared[name](int(value)) for name, value in bounds.items())


def _place(found: Sequence[Intent], intents: Sequence[Intent], identity: str, param: str) -> int:
    """Where the cursor stands among what was found. A cursor that names no payment intent is refused."""
    for place, intent in enumerate(found):
        if intent.id == identity:
            return place
    if all(intent.id != identity for intent in intents):
        raise invalid(f"No such payment_intent: '{identity}'", code="resource_missing", param=param)
    raise invalid(f"'{identity}' is not within the created range", param=param)
