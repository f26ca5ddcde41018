"""Payloads encrypted at rest, under keys from the environment (docs/decisions/0032).

    ring = Ring.read("2026:<base64 of 32 bytes>,2025:<base64 of 32 bytes>")
    text = ring.seal('{"to": "a@example.com"}', "effect/production/0199...")
    ring.open(json.loads(text), "effect/production/0199...")

The first key seals, all of them open, so that keys can be changed; `plain` in the first place seals nothing and opens all the
same. What is sealed names its key, and is bound to the name of its place: a value that was moved to another row does not open.
AES-256-GCM with a random nonce (NIST SP 800-38D): below 2**32 values per key.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from runtime.errors import RuntimeFault

SEALED, PLAIN = "rescind.sealed", "rescind.plain"
"""What a stored value says of itself: it is sealed, or it is not although it looks like it."""
MARKS = tuple(f'"{mark}"'.encode() for mark in (SEALED, PLAIN))
KEYS_MAX = 16
KEY_BYTES = 32
NONCE_BYTES = 12
KEY_ID = re.compile(r"[A-Za-z0-9_.-]{1,40}")
NONE_FIRST = "plain"
CHECK = "rescind"


class SealedError(RuntimeFault):
    """A value that cannot be opened here. The text says what to do, and nothing of the value."""


class Ring:
    """The keys of one process. Its text shows their ids alone."""

    def __init__(self, keys: Mapping[str, bytes] | None = None, *, seals: bool = True) -> None:
        self._keys = {name: AESGCM(key) for name, key in (keys or {}).items()}
        self.first = next(iter(self._keys), None) if seals else None
        """The id of the key that seals; null: nothing is sealed."""

    def __repr__(self) -> str:
        return f"Ring({', '.join(self._keys)}; seals with {self.first or 'none'})"

    @classmethod
    def read(cls, text: str) -> Ring:
        """The ring that `RESCIND_PAYLOAD_KEYS` says. Raises `ValueError`, which never tells a key."""
        parts = [part.strip() for part in text.split(",")]
        seals = parts[0] != NONE_FIRST
        keys: dict[str, bytes] = {}
        for part in parts if seals else parts[1:]:
            name, _, encoded = part.partition(":")
            if not KEY_ID.fullmatch(name) or name in keys or name == NONE_FIRST:
                raise ValueError("each key is ID:BASE64, ids of letters, digits, and _.- pairwise different")
            keys[name] = _key(name, encoded)
        if len(keys) > KEYS_MAX:
            raise ValueError(f"at most {KEYS_MAX} keys")
        return cls(keys, seals=seals)

    @property
    def ids(self) -> list[str]:
        """Of the keys that can open."""
        return list(self._keys)

    def seal(self, text: str | None, name: str, *, beside: Sequence[str] = ()) -> str | None:
        """JSON text as it is stored. `beside`: fields of an object that are kept readable next to it."""
        if text is None or text == "null":
            return text
        raw = text.encode()
        if self.first is None:
            return f'{{"{PLAIN}":{text}}}' if any(mark in raw for mark in MARKS) else text
        nonce = os.urandom(NONCE_BYTES)
        hidden = self._keys[self.first].encrypt(nonce, raw, name.encode())
        envelope = {SEALED: f"{self.first}:{base64.b64encode(nonce + hidden).decode()}"}
        return msgspec.json.encode(envelope | _kept(raw, beside)).decode()

    def open(self, value: Any, name: str) -> Any:
        """What was sealed under this name; a value that never was, as it is. Raises `SealedError`."""
        if not isinstance(value, dict):
            return value
        if value.keys() == {PLAIN}:
            return value[PLAIN]
        if SEALED not in value:
            return value
        key_id, _, hidden = str(value[SEALED]).partition(":")
        try:
            data = base64.b64decode(hidden, validate=True)
        except (ValueError, binascii.Error):
            data = b""
        return msgspec.json.decode(self._opened(key_id, data, name))

    def seal_bytes(self, data: bytes, name: str) -> bytes:
        """Bytes as they are stored."""
        if self.first is None:
            return data
        nonce = os.urandom(NONCE_BYTES)
        return f"{SEALED}:{self.first}:".encode() + nonce + self._keys[self.first].encrypt(nonce, data, name.encode())

    def open_bytes(self, data: bytes, name: str) -> bytes:
        """The same way back. Raises `SealedError`."""
        if not data.startswith(f"{SEALED}:".encode()):
            return data
        _, key_id, hidden = data.split(b":", 2)
        return self._opened(key_id.decode(), hidden, name)

    def _opened(self, key_id: str, data: bytes, name: str) -> bytes:
        key = self._keys.get(key_id)
        if key is None:
            raise SealedError(f"a payload is sealed with the key {key_id!r}: add it to RESCIND_PAYLOAD_KEYS of this server")
        try:
            return key.decrypt(data[:NONCE_BYTES], data[NONCE_BYTES:], name.encode())
        except (InvalidTag, ValueError) as error:
            detail = f"{name} does not open: the key {key_id!r} is another than it was sealed with, or the row was changed"
            raise SealedError(f"{detail}; mend RESCIND_PAYLOAD_KEYS of this server, or restore the row") from error


def _key(name: str, encoded: str) -> bytes:
    try:
        key = base64.b64decode(encoded, validate=True)
    except (ValueError, binascii.Error):
        raise ValueError(f"the key {name!r} is not base64") from None
    if len(key) != KEY_BYTES:
        raise ValueError(
            f"the key {name!r} has {len(key)} bytes, not {KEY_BYTES}: `openssl rand -base64 {KEY_BYTES}` makes one"
        )
    return key


def _kept(raw: bytes, beside: Sequence[str]) -> dict[str, Any]:
    if not beside:
        return {}
    value = msgspec.json.decode(raw)
    return {field: value[field] for field in beside if field in value} if isinstance(value, dict) else {}


NO_KEYS = Ring()
