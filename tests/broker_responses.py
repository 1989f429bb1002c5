"""Responses of a broker, byte for byte."""

from tests.wire_server import LAST_CHUNK, chunk, reply, stream_head

RECEIPT = reply(b'{"status":"queued","message_id":"m-1","queue_position":1}')
QUEUED = chunk(b"event: queued\ndata: {}\nid: 1-0\n\n")
COMPLETE = '{"type":"complete","response":{"responses":["ok"],"response_language":"en","voice_audio_base64":null}}'
COMPLETED = chunk(f"data: {COMPLETE}\n\n".encode())
REPLY = [stream_head(), chunk(b"event: queued\r\ndata: {}\r\n\r\n"), COMPLETED, LAST_CHUNK]
