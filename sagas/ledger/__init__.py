"""The effect ledger: group-committed admission under the fence, reports, acknowledgements (P8 to P11)."""

from sagas.ledger.errors import LedgerFault, TooManyItems
from sagas.ledger.ledger import BATCH_MAX, Ledger

__all__ = ["BATCH_MAX", "Ledger", "LedgerFault", "TooManyItems"]
