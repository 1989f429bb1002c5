"""Settings: the environment variables, their parsers, and the checks that refuse an unsafe start."""
