"""`chat-bff conformance URL`: a black-box judge of servers that speak docs/protocol.md.

It imports nothing of the server, so that a fault in the server's parsing cannot hide the same fault on the wire.
"""
