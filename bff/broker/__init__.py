"""The bundled broker: queues messages, runs them on an engine and logs each reply for its readers. Called over HTTP only."""

from bff.broker.app import create_broker

__all__ = ["create_broker"]
