"""OpenFeature Remote Evaluation Protocol 0.3.0: one flag, or all of an environment, for one context (P6, P7)."""

from flagd.http.ofrep.app import OfrepApp
from flagd.http.ofrep.events import EventStreams
from flagd.http.ofrep.origins import CrossOrigin

__all__ = ["CrossOrigin", "EventStreams", "OfrepApp"]
