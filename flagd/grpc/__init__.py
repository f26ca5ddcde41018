"""flagd's gRPC services, so that a released flagd provider of any language works unchanged: `flagd.sync.v1` for those that
evaluate by themselves, `flagd.evaluation.v1` and `v2` for those that ask. Read only, one environment per listener (P4, P7)."""

from flagd.grpc.listener import Listener, Place, Tls
from flagd.grpc.services import evaluation_services, sync_services

__all__ = ["Listener", "Place", "Tls", "evaluation_services", "sync_services"]
