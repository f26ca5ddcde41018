"""History that ends: what is finished goes when its retention is over, its keys stay (P9, docs/decisions/0031)."""
