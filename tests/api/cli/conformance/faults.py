"""The single faults, and for each the check that must notice it."""

from tests.api.cli.conformance.mutations import (
    after_last,
    before_first,
    buffer_all,
    change_request,
    compressed,
    compressed_head,
    counted,
    drop,
    drop_first,
    frames,
    in_blocks,
    is_conversation,
    is_follow,
    is_fresh_follow,
    is_message,
    is_resume,
    is_stop,
    json_body,
    new_user_for_each_message,
    repeat_first,
    replace,
    responds,
    swap_first,
    with_header,
    with_length,
    with_request_header,
    with_status,
    without_fields,
    without_header,
    without_query,
    without_request_headers,
)
from tests.api.cli.conformance.proxy import CREDENTIALS, Fault, response

NOT_JSON = response(404, b"<h1>Not Found</h1>", "text/html")
ACCEPTED = response(202, b"{}")
SECOND_END = b'data: {"type":"error","error":"No.","code":"upstream_error","request_id":"1"}\n\n'
NO_KEY = change_request(without_fields("client_message_id", "idempotency-key"))
NO_KEY_HEADER = without_request_headers("idempotency-key")
NO_ON_BUSY = change_request(without_fields("on_busy"))
ONE_USER = with_request_header("x-forwarded-user", lambda _: "everybody")

HEAD_IS_404 = Fault(head=lambda request, head: head._replace(status=404) if request.method == "HEAD" else head)

FAULTS: dict[str, dict[str, Fault]] = {
    "stream.opens": {
        "refused": responds(is_message, response(503, b"{}")),
        "empty": Fault(frames=lambda _, frames: [b"".join(frames)[:0]]),
    },
    "headers.content-type": {
        "no charset": with_header("content-type", "text/event-stream"),
        "plain": with_header("content-type", "text/plain; charset=utf-8"),
    },
    "headers.no-store": {"missing": without_header("cache-control"), "no-cache": with_header("cache-control", "no-cache")},
    "headers.message-id": {
        "missing": without_header("x-message-id"),
        "no location": without_header("location"),
        "another location": with_header("location", "/elsewhere"),
    },
    "headers.on-disconnect": {"missing": without_header("x-on-disconnect")},
    "headers.request-id": {
        "missing": without_header("x-request-id"),
        "always new": with_header("x-request-id", "7"),
    },
    "headers.not-compressed": {
        "gzip": Fault(head=compressed_head, frames=compressed),
        "undeclared gzip": Fault(frames=compressed),
    },
    "framing.bytes": {
        "CRLF": replace("\n", "\r\n"),
        "byte order mark": before_first(b"\xef\xbb\xbf"),
        "Latin-1": frames(lambda frame: frame.replace(b"one", b"\xe9n\xe9")),
        "NUL": frames(lambda frame: frame.replace(b"one", b"o\0e")),
    },
    "framing.frames": {
        "event": replace("^data", "event: message\ndata"),
        "id first": replace(r"^(data: [^\n]*\n)(id: [^\n]*\n)", r"\2\1"),
        "no space": replace("^data: ", "data:"),
        "two data lines": replace("^data: {", "data: {\ndata: "),
        "half a frame": after_last(b'data: {"type":'),
    },
    "framing.retry": {
        "in the POST": frames(lambda frame: frame[:-1] + b"retry: 1000\n\n", is_message),
        "in each frame": frames(lambda frame: frame[:-1] + b"retry: 1000\n\n", is_follow),
    },
    "framing.json": {
        "no type": replace('"type"', '"kind"'),
        "unknown type": replace('"progress"', '"token"'),
        "no text": replace('"text"', '"content"'),
        "not JSON": replace("^data: {", "data: "),
    },
    "framing.ids": {
        "missing": replace("\nid: [^\n]*", ""),
        "one missing": replace('("text":"two[^\n]*)\nid: [^\n]*', r"\1"),
        "all the same": replace("\nid: [^\n]*", "\nid: 1"),
        "spaces": replace("\nid: ", "\nid: number "),
    },
    "framing.no-ids": {"ignored": change_request(without_query)},
    "framing.unicode": {
        "no emoji": frames(lambda frame: frame.replace(rb"\ud83d\ude4f", b"??")),
        "U+2028 is a line end": frames(lambda frame: frame.replace(rb"\u2028", rb"\n")),
        "normalised": frames(lambda frame: frame.replace(rb"\u1f00", rb"\u03b1\u0313")),
    },
    "end.one": {
        "two": after_last(SECOND_END),
        "none": drop('"complete"'),
        "something after it": after_last(b": bye\n\n"),
        "heartbeat after it": after_last(b'data: {"type":"keepalive"}\n\n'),
        "no last chunk": Fault(cut_at_end=True),
    },
    "end.complete": {
        "empty": replace('"response":{.*}}', '"response":null}'),
        "text": replace('"responses":\\[([^]]*)\\]', r'"responses":\1'),
    },
    "end.error": {
        "no code": replace('"code":"[a-z_]*",', ""),
        "another request": replace('"request_id":"', '"request_id":"x'),
    },
    "end.seen": {
        "from the start": without_request_headers("last-event-id"),
        "empty stream": with_status(204, 200),
    },
    "heartbeat.silence": {
        "none": drop('"keepalive"'),
        "with id": replace('("keepalive"}\n)', r"\1id: 1\n"),
    },
    "delivery.no-buffering": {"all": Fault(frames=buffer_all), "blocks": Fault(frames=in_blocks)},
    "delivery.slow-reader": {"impatient": Fault(send_seconds=0.5)},
    "resume.start": {
        "first lost": drop_first(is_fresh_follow),
        "other bytes": frames(lambda frame: frame.replace(b'":"', b'": "'), is_follow),
    },
    "resume.every-event": {
        "one lost": drop_first(is_resume),
        "one repeated": repeat_first(is_resume),
        "reordered": swap_first(is_resume),
        "ignored": without_request_headers("last-event-id"),
        "end lost": drop('"complete"', is_resume),
    },
    "resume.running": {"one lost": drop_first(is_resume), "one repeated": repeat_first(is_resume)},
    "resume.query": {"ignored": change_request(without_query)},
    "resume.post": {"ignored": without_request_headers("last-event-id", condition=is_message)},
    "resume.early-leave": {"stopped": Fault(stop_on_leave=True), "text lost": drop_first(is_follow, b'"progress"')},
    "tabs.same": {
        "one lost": drop_first(is_follow, b'"progress"'),
        "other bytes": frames(lambda frame: frame.replace(b'":"', b'": "'), is_follow),
    },
    "tabs.leave": {"stopped": Fault(stop_on_leave=True)},
    "stop.ends": {
        "ignored": responds(is_stop, ACCEPTED),
        "an error instead": replace('"type":"stopped"', '"type":"error","error":"Stopped."'),
        "no text": replace('"responses":\\[[^]]*\\]', '"responses":[]'),
    },
    "stop.idempotent": {"gone": responds(is_stop, NOT_JSON)},
    "stop.queued": {"ignored": responds(is_stop, ACCEPTED)},
    "idempotency.same": {"ignored": NO_KEY},
    "idempotency.field": {"header ignored": NO_KEY_HEADER},
    "idempotency.at-once": {"ignored": NO_KEY},
    "idempotency.changed": {"ignored": NO_KEY},
    "idempotency.users": {"shared": ONE_USER},
    "order.queue": {
        "at the same time": with_request_header("x-forwarded-user", new_user_for_each_message),
        "no position": replace('"position":[0-9]*', '"place":1'),
    },
    "order.active": {"empty": responds(lambda request: request.path.endswith("/active"), response(200, b'{"messages": []}'))},
    "order.reject": {"ignored": NO_ON_BUSY},
    "order.interrupt": {"ignored": NO_ON_BUSY},
    "conversation.events": {
        "token lost": drop_first(is_conversation, b"event: token"),
        "two ends": after_last(b'event: done\ndata: {"messageId": null}\nid: 9\n\n'),
        "no end": drop("event: done"),
        "another id": replace('"messageId": ?"', '"messageId": "x'),
    },
    "conversation.resume": {
        "ignored": without_request_headers("last-event-id"),
        "one lost": drop_first(lambda request: "last-event-id" in request.headers, b"event:"),
        "200 after the last": with_status(204, 200),
    },
    "conversation.answered": {"200": with_status(204, 200)},
    "conversation.tabs": {
        "409 is 200": with_status(409, 200),
        "different events": Fault(frames=counted),
    },
    "conversation.stop": {"ignored": responds(is_stop, ACCEPTED)},
    "conversation.foreign": {"shared": ONE_USER},
    "errors.not-found": {
        "a page": Fault(request=lambda request: NOT_JSON if "no-such" in request.path else request),
        "no sentence": json_body(lambda content: content.pop("error", None)),
        "another code": json_body(lambda content: content.update(code="missing")),
        "another request id": json_body(lambda content: content.update(request_id="1")),
        "200": with_status(404, 200),
    },
    "errors.method": {"no Allow": without_header("allow"), "404": with_status(405, 404)},
    "errors.media-type": {"anything": with_request_header("content-type", lambda _: "application/json")},
    "errors.length": {"taken as empty": change_request(with_length)},
    "errors.too-large": {"400": with_status(413, 400)},
    "errors.invalid": {"500": with_status(400, 500), "accepted": responds(is_message, response(200, b"{}"))},
    "errors.unauthorized": {
        "open": change_request(
            lambda request: request._replace(headers={**CREDENTIALS, "x-forwarded-user": "nobody"} | request.headers)
        )
    },
    "errors.foreign": {"shared": ONE_USER},
    "errors.cross-site": {"allowed": without_request_headers("origin", "sec-fetch-site")},
    "limits.streams": {"no Retry-After": without_header("retry-after"), "503": with_status(429, 503)},
    "limits.event-source": {"refused": without_request_headers("accept")},
    "http.head": {
        "a body": Fault(after_head=b"data: 1\n\n"),
        "404": HEAD_IS_404,
    },
    "http.options": {"405": responds(lambda request: request.method == "OPTIONS", response(405, b"{}"))},
    "http.cors": {"everybody": with_header("access-control-allow-origin", "*")},
}
"""By the id of the check."""
