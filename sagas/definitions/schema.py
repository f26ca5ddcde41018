"""The JSON Schema of definitions (draft 2020-12), made from the types that read them: for editors.

A schema says what a document looks like; what its parts mean to each other, `check` says.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Literal

import msgspec

from sagas.definitions.document import KindDefinition, SagaDefinition

DIALECT = "https://json-schema.org/draft/2020-12/schema"
Subject = Literal["saga", "kind"]
SUBJECTS: tuple[Subject, ...] = ("saga", "kind")


@cache
def schema_of(subject: Subject) -> dict[str, Any]:
    """The schema of a saga's or of a loose kind's document.

    >>> schema_of("saga")["$id"]
    'urn:rescind:schema:saga'
    """
    kind = SagaDefinition if subject == "saga" else KindDefinition
    schema = msgspec.json.schema(kind)
    return {"$schema": DIALECT, "$id": f"urn:rescind:schema:{subject}", "title": f"Rescind: a {subject}", **schema}
