"""Authentication: who sends a request, the user's organisation, and tickets for streams."""
