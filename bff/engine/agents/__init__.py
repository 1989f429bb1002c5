"""Agents: each produces a reply from a history of messages."""
