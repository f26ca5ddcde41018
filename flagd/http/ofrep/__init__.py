"""OpenFeature Remote Evaluation Protocol 0.3.0: one flag, or all of an environment, for one context (P6, P7)."""

from flagd.http.ofrep.app import OfrepApp

__all__ = ["OfrepApp"]
