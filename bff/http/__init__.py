"""What HTTP needs on both sides: server-sent events, waiting for sockets, responses, request bodies, tracing."""
