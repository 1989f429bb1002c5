"""Settings: the environment variables, how each is parsed, and what makes a start unsafe."""
