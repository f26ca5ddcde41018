"""`GET /v1/schemas/{saga|kind}`: the JSON Schema of what teams register."""

from __future__ import annotations

from litestar import Controller, Response, get
from litestar.di import NamedDependency
from litestar.params import FromPath

from runtime.errors import Code
from runtime.problem import Problem, suggest
from runtime.tokens import Principal
from sagas.definitions.schema import SUBJECTS, schema_of
from sagas.http.bodies import AnyRequest, answer


class SchemaController(Controller):
    """The same for every environment; read as the API's own description is."""

    path = "/v1/schemas"
    tags = ["definitions"]

    @get("/{subject:str}", summary="Read the JSON Schema of a definition")
    async def read(self, request: AnyRequest, subject: FromPath[str], principal: NamedDependency[Principal]) -> Response[bytes]:
        """Draft 2020-12, of this server's version: `saga`, or `kind`."""
        principal.require("read")
        found = next((one for one in SUBJECTS if one == subject), None)
        if found is None:
            known = ", ".join(SUBJECTS)
            raise Problem(
                404,
                Code.NOT_FOUND,
                "No such schema",
                f"{subject!r} is not one of {known}.",
                suggestion=suggest(subject, SUBJECTS),
            )
        return answer(request, schema_of(found))
