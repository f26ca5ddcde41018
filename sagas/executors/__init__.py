"""Executors carry compensations out: refund, e-mail and webhook are data held by the coordinator; workers claim over HTTP
(P15)."""

from sagas.executors.registry import Executors

__all__ = ["Executors"]
