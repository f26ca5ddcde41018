"""Payloads under keys from the environment: bound to their place, openable after a change of keys (docs/decisions/0032)."""

from __future__ import annotations

import base64
import json

import pytest

from runtime.errors import SettingsError
from runtime.sealing import Ring, SealedError
from runtime.settings import Settings

OLD, NEW = (base64.b64encode(bytes([number]) * 32).decode() for number in (1, 2))
PLACE = "effect/production/1"


def stored(ring: Ring, value: object, **options: object) -> object:
    """What comes back of a value, as PostgreSQL would give it."""
    return json.loads(str(ring.seal(json.dumps(value), PLACE, **options)))  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [{"to": "a@example.com"}, "text", 7, [1, {"a": None}], True])
def test_what_is_sealed_opens_again_and_tells_nothing(value: object) -> None:
    ring = Ring.read(f"new:{NEW}")
    sealed = stored(ring, value)
    assert isinstance(sealed, dict)
    assert sealed.keys() == {"rescind.sealed"}
    assert "example" not in json.dumps(sealed)
    assert ring.open(sealed, PLACE) == value
    assert stored(ring, value) != sealed, "a nonce of its own"


def test_a_value_that_was_moved_or_changed_does_not_open() -> None:
    ring = Ring.read(f"new:{NEW}")
    sealed = stored(ring, {"to": "a@example.com"})
    with pytest.raises(SealedError, match="effect/production/2 does not open"):
        ring.open(sealed, "effect/production/2")
    with pytest.raises(SealedError):
        ring.open({"rescind.sealed": "new:AAAA"}, PLACE)


def test_keys_are_changed_one_after_another() -> None:
    before = stored(Ring.read(f"old:{OLD}"), "secret")
    both = Ring.read(f"new:{NEW},old:{OLD}")
    assert both.open(before, PLACE) == "secret"
    assert Ring.read(f"new:{NEW}").open(stored(both, "secret"), PLACE) == "secret"
    ready = Ring.read(f"plain,old:{OLD}")
    assert (ready.open(before, PLACE), stored(ready, "secret"), ready.first) == ("secret", "secret", None)
    with pytest.raises(SealedError, match="'old': add it to RESCIND_PAYLOAD_KEYS"):
        Ring.read(f"new:{NEW}").open(before, PLACE)
    with pytest.raises(SealedError, match="another than it was sealed with"):
        Ring.read(f"old:{NEW}").open(before, PLACE)


def test_what_only_looks_sealed_is_what_it_was() -> None:
    forged = {"rescind.sealed": "new:AAAA", "amount_cents": 1}
    for ring in (Ring(), Ring.read(f"new:{NEW}")):
        assert ring.open(stored(ring, forged), PLACE) == forged
        assert ring.open(stored(ring, {"rescind.plain": 1}), PLACE) == {"rescind.plain": 1}


def test_fields_may_stand_beside_it() -> None:
    ring = Ring.read(f"new:{NEW}")
    payload = {"amount_cents": 1299, "to": "a@example.com"}
    sealed = stored(ring, payload, beside=("amount_cents", "currency"))
    assert isinstance(sealed, dict)
    assert sealed["amount_cents"] == 1299
    assert ring.open(sealed, PLACE) == payload


@pytest.mark.parametrize("said", ["new", "new:abc", f"new:{NEW[:20]}", f"a b:{NEW}", f"a:{NEW},a:{OLD}", f"plain:{NEW}", ""])
def test_a_bad_setting_is_refused_and_no_key_is_told(said: str) -> None:
    given = {"RESCIND_DATABASE_URL": "postgresql://u@h/d", "RESCIND_REDIS_URL": "redis://h/0", "RESCIND_PAYLOAD_KEYS": said}
    if not said:
        assert Settings.from_environment(given).payload_keys.ids == []
        return
    with pytest.raises(SettingsError, match="RESCIND_PAYLOAD_KEYS") as refused:
        Settings.from_environment(given)
    assert NEW not in str(refused.value)
    assert NEW[:20] not in str(refused.value)


def test_settings_show_no_key() -> None:
    assert repr(Ring.read(f"new:{NEW},old:{OLD}")) == "Ring(new, old; seals with new)"
