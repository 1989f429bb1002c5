"""Adapters that translate our events to the protocols of clients."""
