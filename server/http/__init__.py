"""The roof over HTTP: kills, rollbacks, tokens, audit, and who one is."""
