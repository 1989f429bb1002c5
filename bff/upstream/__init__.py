"""Clients of the upstream services (broker, engine) and what is done with their replies."""
