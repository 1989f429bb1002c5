"""The relay as FastAPI users would write it: one `httpx.AsyncClient`, `aiter_lines`, sse-starlette's `EventSourceResponse`."""

import json
import os
from collections.abc import AsyncIterator

import httpx
from fastapi import FastAPI, Header
from pydantic import BaseModel
from sse_starlette.sse import EventSourceResponse

STATUS = {"queued": "Message queued...", "processing": "Processing..."}

app = FastAPI()
client = httpx.AsyncClient(
    base_url=os.environ["BROKER_BASE_URL"],
    headers={"X-API-Key": os.environ["BROKER_API_KEY"]},
    timeout=httpx.Timeout(20, read=60),
    # By default the 101st stream waits until one of the first hundred ends.
    limits=httpx.Limits(max_connections=None, max_keepalive_connections=100),
)


class ChatMessage(BaseModel):
    message: str


@app.post("/api/chat/stream")
async def chat(chat_message: ChatMessage, x_forwarded_user: str = Header()) -> EventSourceResponse:
    body = {
        "user_id": x_forwarded_user,
        "org_id": "org",
        "message": chat_message.message,
        "message_type": "text",
        "client_id": "web",
    }
    response = await client.post("/api/v1/message", json=body)
    response.raise_for_status()
    return EventSourceResponse(relay(x_forwarded_user, response.json()["message_id"]))


async def relay(user_id: str, message_id: str) -> AsyncIterator[dict[str, str]]:
    query = {"user_id": user_id, "message_id": message_id}
    async with client.stream("GET", "/api/v1/stream", params=query) as stream:
        event = ""
        async for line in stream.aiter_lines():
            if line.startswith("event:"):
                event = line[6:].strip()
            elif line.startswith("data:"):
                if event == "done":
                    return
                if event in STATUS:
                    yield {"data": json.dumps({"type": "status", "message": STATUS[event]})}
                else:
                    yield {"data": line[5:].strip()}
