"""Lists as a whole: the server answers in pages, and a count of the first page alone would be false."""

from __future__ import annotations

from typing import Any

from rescind.cli.session import Session

PAGE = 500


def whole(session: Session, path: str, name: str, **which: Any) -> dict[str, Any]:
    """The first answer of a list in the environment, its `name` with the rows of every page, `next` null. `which` filters."""
    asked = {"limit": PAGE, **which}
    answer: dict[str, Any] = session.api.request("GET", session.within(path), params=asked)
    rows, after = list(answer[name]), answer.get("next")
    while after:
        page = session.api.request("GET", session.within(path), params={**asked, "after": after})
        rows += page[name]
        after = page.get("next")
    return {**answer, name: rows, "next": None}
