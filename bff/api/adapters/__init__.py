"""Adapters from our events to the protocols of clients."""
