"""The agent `openai`: replies of a model behind an OpenAI-compatible API.

`agent` sends requests, `refusals` reads error responses, `frames` decodes a response's bytes to JSON objects, `completion`
turns those into pieces of the reply, with the help of `text`, `thinking` and `finish`.
"""

from bff.engine.agents.openai.agent import OpenAI

__all__ = ["OpenAI"]
