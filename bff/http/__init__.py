"""HTTP for clients and servers: server-sent events, waiting for sockets, responses, request bodies, tracing."""
