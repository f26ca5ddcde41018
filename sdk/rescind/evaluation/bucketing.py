"""Bucketing: which share of a `fractional` a subject falls into, the same in every language (P7).

A bucketing value is hashed to 32 bits (MurmurHash3, x86, seed 0) and the hash is laid over the sum of the weights by
integer arithmetic: `(hash * total) >> 32`. Two generations differ in the bytes that are hashed:

- v3: canonical CBOR (RFC 8949, 4.2.1) of the bucketing value, by default `[flagKey, targetingKey]`; whole floats are
  encoded as integers. flagd's decision record "Harden Hashing Consistency".
- v2: UTF-8 of the bucketing string, by default `flagKey + targetingKey`.

Nothing here raises: what cannot be hashed has no seat (`None`), and the rule gives null.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Sequence
from typing import Any, Final, Literal

from mmh3 import mmh3_32_uintdigest

from rescind.evaluation.errors import KeyMissingError
from rescind.evaluation.limits import ENCODING_DEPTH_MAX, WEIGHT_SUM_MAX

Generation = Literal["v2", "v3"]
GENERATIONS: Final = ("v2", "v3")

STARTS_MAX: Final = 64
"""Lengths of targeting keys for which a flag keeps what stands before them."""
_UNSIGNED, _NEGATIVE, _TEXT, _ARRAY, _MAP = 0x00, 0x20, 0x60, 0x80, 0xA0


def head(major: int, argument: int) -> bytes:
    """The initial bytes of a CBOR item: its major type (already shifted) and the shortest form of its argument."""
    if argument < 24:
        return bytes((major | argument,))
    if argument < 1 << 8:
        return bytes((major | 24, argument))
    if argument < 1 << 16:
        return bytes((major | 25,)) + argument.to_bytes(2, "big")
    if argument < 1 << 32:
        return bytes((major | 26,)) + argument.to_bytes(4, "big")
    return bytes((major | 27,)) + argument.to_bytes(8, "big")


def encode(value: Any, depth: int = 0) -> bytes:
    """Canonical CBOR of a JSON value. Raises `ValueError` for what is none, `UnicodeEncodeError` for lone surrogates.

    >>> encode(["flag", 1.0]).hex()
    '8264666c616701'
    """
    if depth > ENCODING_DEPTH_MAX:
        raise ValueError("nested too deep")
    if value is None:
        return b"\xf6"
    if value is True or value is False:
        return b"\xf5" if value else b"\xf4"
    if isinstance(value, str):
        data = value.encode()
        return head(_TEXT, len(data)) + data
    if isinstance(value, int):
        return _integer(value)
    if isinstance(value, float):
        whole = value.is_integer() and -(2**63) <= value <= 2**64 - 1
        return _integer(int(value)) if whole else _float(value)
    if isinstance(value, list | tuple):
        return head(_ARRAY, len(value)) + b"".join([encode(item, depth + 1) for item in value])
    if isinstance(value, dict):
        pairs = sorted((encode(key), encode(item, depth + 1)) for key, item in value.items())
        return head(_MAP, len(pairs)) + b"".join([key + item for key, item in pairs])
    raise ValueError("not a JSON value")


def _integer(value: int) -> bytes:
    if 0 <= value < 2**64:
        return head(_UNSIGNED, value)
    if -(2**64) <= value < 0:
        return head(_NEGATIVE, -1 - value)
    raise ValueError("an integer beyond 64 bits")


def _float(value: float) -> bytes:
    """The shortest of half, single and double precision that keeps the value."""
    if math.isnan(value):
        return b"\xf9\x7e\x00"
    for initial, form in ((b"\xf9", ">e"), (b"\xfa", ">f")):
        try:
            packed = struct.pack(form, value)
        except OverflowError:
            continue
        if struct.unpack(form, packed)[0] == value:
            return initial + packed
    return b"\xfb" + struct.pack(">d", value)


def prefix(flag_key: str, generation: str) -> bytes:
    """What stands before the targeting key in the bytes that are hashed by default. Raises `UnicodeEncodeError`."""
    return head(_ARRAY, 2) + encode(flag_key) if generation == "v3" else flag_key.encode()


class Starts:
    """What is hashed before a targeting key of so many bytes: `prefix`, and in v3 the key's CBOR head."""

    def __init__(self, flag_key: str, generation: str) -> None:
        self._prefix = prefix(flag_key, generation)
        self._generation = generation
        self.known: dict[int, bytes] = {}
        """By the key's length, as far as such keys have been met."""

    def seat(self, targeting_key: str) -> int | None:
        """`default_seat`, for a key that compiled code has not found in `known`: then it will."""
        found = default_seat(self._prefix, targeting_key, self._generation)
        if found is not None and len(self.known) < STARTS_MAX:
            length = len(targeting_key.encode())
            self.known[length] = self._prefix + (head(_TEXT, length) if self._generation == "v3" else b"")
        return found


UNUSUAL: Final = (KeyError, UnicodeEncodeError)
"""What compiled code meets at a targeting key of a new length, or one that is no text."""


def seat(value: Any, generation: str) -> int | None:
    """The 32-bit hash of a bucketing value that a rule names; None for null and for what cannot be encoded."""
    if value is None:
        return None
    try:
        if generation == "v3":
            return mmh3_32_uintdigest(encode(value))
        return mmh3_32_uintdigest(value.encode()) if isinstance(value, str) and value else None
    except (ValueError, UnicodeEncodeError, RecursionError):
        return None


def default_seat(start: bytes, targeting_key: Any, generation: str) -> int | None:
    """The hash where a rule names no bucketing value: of flag key (`start`, from `prefix`) and targeting key."""
    if not isinstance(targeting_key, str) or not targeting_key:
        return None
    try:
        key = targeting_key.encode()
    except UnicodeEncodeError:
        return None
    return mmh3_32_uintdigest(start + (head(_TEXT, len(key)) if generation == "v3" else b"") + key)


def required_seat(start: bytes, targeting_key: Any, generation: str) -> int:
    """`default_seat` where there has to be one. Raises `KeyMissingError`."""
    place = default_seat(start, targeting_key, generation)
    if place is None:
        raise KeyMissingError("it splits by the targeting key, and the context has none")
    return place


def thresholds(weights: Sequence[int]) -> list[int] | None:
    """For each share the hash below which it begins to end: a seat is in the first share whose threshold exceeds it.

    `seat < t` holds exactly where `(seat * total) >> 32` is below the running sum of weights. None where the weights add
    up to nothing or to more than `WEIGHT_SUM_MAX`: such a split decides nothing.

    >>> thresholds([25, 75])
    [1073741824, 4294967296]
    """
    total = sum(weights)
    if not 0 < total <= WEIGHT_SUM_MAX:
        return None
    ends, end = [], 0
    for weight in weights:
        end += weight
        ends.append(-((-end << 32) // total))
    return ends


def weight_of(value: Any) -> int | None:
    """A computed weight: negative ones count as 0, whole floats as integers; None for anything else."""
    if isinstance(value, bool):
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return max(0, value) if isinstance(value, int) else None


def split(shares: Sequence[Any], place: int | None) -> Any:
    """The entry of `shares`, each `[entry]` or `[entry, weight]`, in which the hash `place` falls; None if none is."""
    if place is None:
        return None
    weights: list[int] = []
    for share in shares:
        if not isinstance(share, list | tuple) or not 1 <= len(share) <= 2:
            return None
        weight = weight_of(share[1]) if len(share) == 2 else 1
        if weight is None:
            return None
        weights.append(weight)
    ends = thresholds(weights)
    if ends is None:
        return None
    return next((share[0] for share, end in zip(shares, ends, strict=True) if place < end), None)


def fractional(arguments: Sequence[Any], start: bytes, targeting_key: Any, generation: str) -> Any:
    """`fractional` over arguments that are already evaluated: the whole operator, where nothing is known beforehand."""
    if not arguments:
        return None
    if isinstance(arguments[0], list | tuple):
        return split(arguments, default_seat(start, targeting_key, generation))
    return split(arguments[1:], seat(arguments[0], generation))


def required_fractional(arguments: Sequence[Any], start: bytes, targeting_key: Any, generation: str) -> Any:
    """`fractional` where what splits by the targeting key needs one. Raises `KeyMissingError`."""
    if arguments and isinstance(arguments[0], list | tuple):
        return split(arguments, required_seat(start, targeting_key, generation))
    return fractional(arguments, start, targeting_key, generation)


def moved(flag_key: str, weights: Sequence[int], targeting_keys: Iterable[str]) -> list[str]:
    """Those of `targeting_keys` that change their share of `weights` when an environment goes from v2 to v3."""
    ends = thresholds(weights)
    if ends is None:
        return []

    def share(targeting_key: str, generation: str) -> int | None:
        place = default_seat(prefix(flag_key, generation), targeting_key, generation)
        return None if place is None else next(index for index, end in enumerate(ends) if place < end)

    return [key for key in targeting_keys if share(key, "v2") != share(key, "v3")]
