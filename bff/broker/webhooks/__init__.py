"""Webhooks: an HTTP request at the end of a message, signed as Standard Webhooks describe (https://www.standardwebhooks.com)."""
