"""History that ends: finished instances and effects go when their retention is over, their keys stay (P9, docs/decisions/0031)."""
