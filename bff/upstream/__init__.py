"""The services behind this one, the broker and the engine, and their clients."""
