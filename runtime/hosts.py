"""The hosts of a PostgreSQL URL, asked one after another until one of them is the primary.

    postgresql://user:password@first:5432,second:5432/rescind

A host that gives no answer costs its own time and not that of the next one, which asyncpg's limit does not say. The one that
was the primary last is asked first. A standby is passed over, so that a promotion is followed by whoever connects again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import asyncpg
from asyncpg.exceptions import TargetServerAttributeNotMatched

HOSTS_MAX = 16
TARGET = "target_session_attrs"
PRIMARY = "primary"
"""Not `read-write`: a database whose default is read-only is ours to write all the same (hazard 10)."""
PASSED_OVER = (OSError, TimeoutError, asyncpg.CannotConnectNowError, TargetServerAttributeNotMatched)
"""What one host may answer while another one is the primary."""


def split_url(url: str) -> list[str]:
    """A URL for each host, with `target_session_attrs=primary` unless it says another; one host: the URL as it is."""
    parts = urlsplit(url)
    account, at, places = parts.netloc.rpartition("@")
    hosts = [host for host in places.split(",") if host]
    if len(hosts) < 2:
        return [url]
    query = urlencode({TARGET: PRIMARY, **dict(parse_qsl(parts.query, keep_blank_values=True))})
    return [urlunsplit(parts._replace(netloc=f"{account}{at}{host}", query=query)) for host in hosts[:HOSTS_MAX]]


class Hosts:
    """Connects to whichever host of a URL is the primary. May be called as `asyncpg.connect` is, the URL aside."""

    def __init__(self, url: str) -> None:
        self._urls = split_url(url)

    async def connect(self, *_: object, **options: Any) -> asyncpg.Connection:
        """Return a connection. Raises what the last host that was asked said."""
        urls = self._urls
        for url in urls[:-1]:
            try:
                return await self._connect(url, urls, options)
            except PASSED_OVER:
                continue
        return await self._connect(urls[-1], urls, options)

    async def _connect(self, url: str, known: Sequence[str], options: dict[str, Any]) -> asyncpg.Connection:
        connection = await asyncpg.connect(url, **options)
        self._urls = [url, *(other for other in known if other != url)]
        return connection
