"""The loop that proves the sagas: real processes, seeded faults, a provider whose ledger is the judge (docs/proof.md)."""
