"""Which flags the code of a service supports, said in code: `client.declare("checkout.new-flow")`.

Said before or after the start, it does no I/O: heartbeats carry it until the server has it on record, and again when it
changes. A flag that requires it is not turned on before every live instance of its services has said so.
"""

from __future__ import annotations

from rescind.errors import ConfigurationError

DECLARED_MAX = 256
KEY_LENGTH_MAX = 255


class Declarations:
    """Of one client; a child of its process has the same code, and goes on with them. Any thread may add to them."""

    def __init__(self) -> None:
        self.keys: frozenset[str] = frozenset()

    def add(self, *keys: str) -> None:
        """Raises `ConfigurationError` for what is no key, and for more than `DECLARED_MAX` in all."""
        given: tuple[object, ...] = keys
        wrong = [key for key in given if not (isinstance(key, str) and 0 < len(key) <= KEY_LENGTH_MAX and is_sendable(key))]
        if wrong:
            raise ConfigurationError(f"declare() takes keys of flags, not {wrong[0]!r:.80}")
        together = self.keys | set(keys)
        if len(together) > DECLARED_MAX:
            raise ConfigurationError(f"a client declares at most {DECLARED_MAX} flags, these would be {len(together)}")
        self.keys = together


def is_sendable(key: str) -> bool:
    """Whether it can be written in UTF-8: a heartbeat that carries half a surrogate would never go out."""
    return key.encode(errors="ignore").decode() == key
