"""Proofs of revisions: what an instance shows of a future that PostgreSQL has lost (P2). Pure.

An instance that has acknowledged a revision is answered with its proof, which only who holds the environment's key can make.
After a restore to an older state the proof still says that there was such a revision; a claim without one says nothing.

    >>> proof = proof_of(b"key", "shop", wire.Revision(1, 42))
    >>> is_proven(b"key", "shop", wire.Revision(1, 42), proof), is_proven(b"key", "shop", wire.Revision(1, 43), proof)
    (True, False)
"""

from __future__ import annotations

import hashlib
import hmac

from rescind import wire


def proof_of(key: bytes, environment: str, revision: wire.Revision) -> str:
    """The revision's proof: HMAC-SHA-256 (RFC 2104), in hexadecimal."""
    return hmac.new(key, f"{environment} {revision}".encode(), hashlib.sha256).hexdigest()


def is_proven(key: bytes, environment: str, revision: wire.Revision, proof: str) -> bool:
    """Whether the proof is the revision's."""
    return proof.isascii() and hmac.compare_digest(proof_of(key, environment, revision), proof)
