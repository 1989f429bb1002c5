"""The HTTP API for browsers: one blueprint per URL prefix, and the hooks that all of them share."""
