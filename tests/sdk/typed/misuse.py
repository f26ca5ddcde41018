"""What a checker must refuse: one fault in every line that says so. Never run."""

from __future__ import annotations

import rescind
import rescind.arq
from rescind.messages import inject
from rescind.testing import FlagsFixture


def misuse(client: rescind.Client) -> None:
    client.boolean("flag", "no")  # refused
    client.string("flag")  # refused
    client.effect("mail", flag="flag", key="k")  # refused
    client.effect("mail", flag="flag", key="k", payload={}, lease="long")  # refused
    rescind.Client(address="http://127.0.0.1:8016")  # refused
    client.status().revision = "1.1"  # refused
    FlagsFixture().refusing("mail", "killed")  # refused
    inject(client, [("rescind-revision", "x")])  # refused
    rescind.arq.instrument("pool", client)  # refused
    rescind.NoSuchName  # refused  # noqa: B018
