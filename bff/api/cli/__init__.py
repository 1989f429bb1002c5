"""Commands of `flask` and `chat-bff`."""
