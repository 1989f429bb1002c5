"""Unusual user ids: those that every route must accept, and those that are refused."""


def short_id(user_id: str) -> str:
    """For the name of a test."""
    return ascii(user_id[:20])


ODD = [
    "/",
    "//",
    "//a",
    "/a//b/",
    "a/../../x?y#z@x.org",
    "/..",
    "..a",
    " a ",
    "%",
    "%2F",
    "%00",
    "%0A%0d",
    "a%2fb;c=d&e+f",
    "?",
    "#",
    "'",
    '"a"',
    "a\\..\\b",
    "{a}*[b]:<c>",
    "a/history",
    "/preferences",
    "é ø",
    "e\u0301\u200b\u202e",
    "日本語",
    "👩\u200d💻\U0010ffff",
    "a\u2028b\u00a0c\x85d",
    "auth0|5f7c8ec7c33c6c004bbafe82",
    "/" * 256,
    "é" * 128,
    "👩" * 64,
    '"' * 256,
]
REFUSED = [
    "",
    " ",
    "\u3000",
    "\u2028",
    "\x85",
    ".",
    "..",
    "a\nb",
    "a\r",
    "\t",
    "\x00",
    "a\x00b",
    "\x1b",
    "\x7f",
    "\ud800",
    "a\udfff",
    "x" * 257,
    "x" * 400,
    "é" * 129,
    "👩" * 65,
]
"""The last four are longer than 256 bytes of UTF-8."""
