"""The bundled broker: keeps messages in order, has them answered and logs each reply for its readers.

It is spoken to over HTTP only, inside the web process or as a process of its own.
"""

from bff.broker.app import create_broker

__all__ = ["create_broker"]
