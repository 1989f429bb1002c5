"""The relay as the READMEs of its libraries suggest it: Flask, requests and `SSEClient(response)` under gunicorn's gevent."""

import json
import os
from collections.abc import Iterator

import requests
from flask import Flask, Response, request
from sseclient import SSEClient

BROKER = os.environ["BROKER_BASE_URL"]
KEY = {"X-API-Key": os.environ["BROKER_API_KEY"]}
STATUS = {"queued": "Message queued...", "processing": "Processing..."}

app = Flask(__name__)


@app.post("/api/chat/stream")
def chat() -> Response:
    user_id = request.headers["X-Forwarded-User"]
    body = {"user_id": user_id, "org_id": "org", "message": request.json["message"], "message_type": "text", "client_id": "web"}
    enqueued = requests.post(f"{BROKER}/api/v1/message", json=body, headers=KEY, timeout=20)
    enqueued.raise_for_status()
    return Response(relay(user_id, enqueued.json()["message_id"]), content_type="text/event-stream")


def relay(user_id: str, message_id: str) -> Iterator[str]:
    query = {"user_id": user_id, "message_id": message_id}
    with requests.get(f"{BROKER}/api/v1/stream", params=query, headers=KEY, stream=True, timeout=(5, 60)) as response:
        for event in SSEClient(response).events():
            if event.event == "done":
                return
            if event.event in STATUS:
                yield f"data: {json.dumps({'type': 'status', 'message': STATUS[event.event]})}\n\n"
            else:
                yield f"data: {event.data}\n\n"
