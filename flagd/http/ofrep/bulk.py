"""All flags of an environment for one context, under a strong ETag.

The tag is over the revision, the evaluator's version, the canonical context, the token's scope and the event stream that is
offered. Where a flag reads the clock the answers are in it as well, for they change without a revision; elsewhere it is known
before anything is evaluated.
"""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec
from rescind.version import __version__

from flagd.http.gate import Header
from flagd.http.ofrep.answers import Answer, Answers, scalars
from flagd.replica import Replica
from runtime.tokens import Principal

_canonical = msgspec.json.Encoder(order="sorted").encode


def answer(
    replica: Replica, answers: Answers, principal: Principal, context: dict[str, Any], streams: bytes, asked: str
) -> Answer:
    """Status, body and headers: 304 where `asked`, an If-None-Match, has the tag of what would be answered.

    `streams` is the `eventStreams` of the answer, in JSON.
    """
    scopes = ",".join(sorted(principal.scopes))
    seen = [replica.environment, str(replica.revision), __version__, scopes, context]
    flags = answers.all(replica, context) if answers.reads_clock(replica) else None
    digest = hashlib.blake2b(_canonical(seen), digest_size=16)
    digest.update(streams)
    if flags is not None:
        digest.update(flags)
    tag = f'"{digest.hexdigest()}"'
    headers: list[Header] = [(b"etag", tag.encode()), (b"cache-control", b"private, no-cache")]
    if asked and any(one.strip().removeprefix("W/") in (tag, "*") for one in asked.split(",")):
        return 304, [*headers, answers.head(replica)], b""
    if flags is None:
        flags = answers.all(replica, context)
    told = {**scalars(replica.snapshot.metadata), "flagSetId": replica.environment, "version": str(replica.revision)}
    body = b"".join((b'{"flags":[', flags, b'],"eventStreams":', streams, b',"metadata":', _canonical(told), b"}"))
    return answers.whole(replica, 200, body, *headers)
