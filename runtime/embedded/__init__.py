"""Real servers from wheels, on this machine and for this process alone."""

from runtime.embedded.postgres import EmbeddedPostgres
from runtime.embedded.process import ServerError, free_port
from runtime.embedded.standby import EmbeddedStandby
from runtime.embedded.valkey import EmbeddedValkey

__all__ = ["EmbeddedPostgres", "EmbeddedStandby", "EmbeddedValkey", "ServerError", "free_port"]
