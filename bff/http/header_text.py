"""Headers are bytes, which WSGI decodes as Latin-1, whatever their encoding is (PEP 3333)."""


def decode(header: str) -> str:
    """The text of a header that was sent as UTF-8. Raises UnicodeError if it was not."""
    return header.encode("latin-1").decode()
