"""Clients that resume by the number of events that they have read: WorkflowChatTransport and TanStack AI."""

import json
from typing import Any

import pytest
from flask.testing import FlaskClient

from tests.api.origin_requests import ANONYMOUS, BEHIND_TLS, FORGERIES, OWN_PAGES
from tests.live import ADA, new_app, who

UI = {"id": "chat-1", "messages": [{"role": "user", "id": "m-1", "parts": [{"type": "text", "text": "hello world"}]}]}
RUN = {"threadId": "t-1", "runId": "run-1", "messages": [{"role": "user", "id": "m-1", "content": "hello world"}]}


@pytest.fixture(scope="module")
def browser() -> FlaskClient:
    return new_app(RUN_WORKER="1", QUEUE_FILE="off", ECHO_WORD_SECONDS="0").test_client(use_cookies=False)


def frames(response: Any) -> list[tuple[str, str]]:
    """The id and the data of each frame, in the order of its lines."""
    assert response.status_code == 200
    blocks = response.get_data(as_text=True).replace("\n\n\n", "\n\n").strip().split("\n\n")
    return [(lines[0][4:], lines[1][6:]) for block in blocks if (lines := block.split("\n"))[0].startswith("id: ")]


def data(response: Any) -> list[str]:
    return [line[6:] for line in response.get_data(as_text=True).splitlines() if line.startswith("data: ")]


def post_ui(browser: FlaskClient, user: str, text: str = "hello world", **headers: str) -> Any:
    body = UI | {"messages": [{"role": "user", "id": f"m-{text}", "parts": [{"type": "text", "text": text}]}]}
    return browser.post("/api/chat/stream", json=body, headers=who(user) | headers)


# WorkflowChatTransport


@pytest.mark.parametrize("text", ["hello world", "/error", "/tool"])
def test_a_workflow_resumes_after_any_number_of_parts(browser, text):
    response = post_ui(browser, "workflow", text)
    parts, run_id = data(response), response.headers["x-workflow-run-id"]
    whole = data(browser.get(f"/api/chat/stream/{run_id}/stream?startIndex=0", headers=who("workflow")))

    assert [json.loads(part)["type"] for part in whole[-2:-1]] == ["finish"]
    kept = len(parts) - 1
    assert [part for part in whole[:kept] if "request_id" not in part] == [p for p in parts[:kept] if "request_id" not in p]
    for start in range(len(whole) + 2):
        rest = browser.get(f"/api/chat/stream/{run_id}/stream?startIndex={start}", headers=who("workflow"))
        assert [len(part) for part in data(rest)] == [len(part) for part in whole[start:]]


def test_a_negative_start_counts_from_the_end(browser):
    response = post_ui(browser, "negative")
    parts, run_id = data(response), response.headers["x-workflow-run-id"]
    path = f"/api/chat/stream/{run_id}/stream"

    for start, first in ((-2, len(parts) - 2), (-100, 0)):
        rest = browser.get(f"{path}?startIndex={start}", headers=who("negative"))
        assert rest.headers["x-workflow-stream-tail-index"] == str(len(parts) - 1)
        assert data(rest) == parts[first:]
    assert browser.get(f"{path}?startIndex=x", headers=who("negative")).status_code == 400


def test_a_chat_without_a_running_reply_gets_an_empty_stream(browser):
    response = browser.get("/api/chat/stream/chat-9/stream?startIndex=0", headers=ADA)

    assert data(response) == ['{"type":"finish"}', "[DONE]"]
    assert browser.get("/api/chat/stream/chat-9/stream", headers=ADA).status_code == 204


def test_a_run_of_somebody_else_is_not_found(browser):
    run_id = post_ui(browser, "owner").headers["x-workflow-run-id"]

    assert browser.get(f"/api/chat/stream/{run_id}/stream?startIndex=0", headers=who("stranger")).status_code == 404


@pytest.mark.parametrize("headers", [*OWN_PAGES.values(), {"Sec-Fetch-Mode": "cors"}])
def test_a_text_body_is_accepted_from_our_own_pages(headers):
    assert post_text(UI, headers).status_code == 200


@pytest.mark.parametrize("headers", [{}, {"Cookie": "chat_user=x"}, {"Authorization": "Basic eA=="}])
def test_a_text_body_of_unknown_origin_is_refused(headers):
    assert post_text(UI, headers).status_code == 415


@pytest.mark.parametrize("headers", FORGERIES.values(), ids=FORGERIES)
def test_a_text_body_of_another_page_is_refused(headers):
    assert post_text(UI, headers).status_code == 403


@pytest.mark.parametrize("body", [{"message": "hello"}, RUN])
def test_other_protocols_take_no_text_body(body):
    assert post_text(body, {"Sec-Fetch-Site": "same-origin"}).status_code == 415


def post_text(body: dict[str, Any], headers: dict[str, str]) -> Any:
    app = new_app(RUN_WORKER="1", QUEUE_FILE="off", ECHO_WORD_SECONDS="0", **ANONYMOUS)
    fields = BEHIND_TLS | {**headers, "Content-Type": "text/plain;charset=UTF-8"}
    return app.test_client(use_cookies=False).post("/api/chat/stream", data=json.dumps(body), headers=fields)


# TanStack AI


def post_run(browser: FlaskClient, user: str, **headers: str) -> Any:
    return browser.post("/api/chat/stream", json=RUN, headers=who(user) | {"X-Run-Id": "run-1"} | headers)


def test_a_run_resumes_after_any_event(browser):
    whole = frames(post_run(browser, "tanstack"))

    assert [event_id for event_id, _ in whole] == [str(number) for number in range(len(whole))]
    assert json.loads(whole[-1][1])["type"] == "RUN_FINISHED"
    for number in range(len(whole)):
        rest = post_run(browser, "tanstack", **{"Last-Event-ID": str(number)})
        assert frames(rest) == whole[number + 1 :]


def test_a_run_is_followed_by_its_id_or_its_messages(browser):
    response = post_run(browser, "joined")
    whole, message_id = frames(response), response.headers["X-Message-ID"]

    for run_id in ("run-1", message_id):
        joined = frames(browser.get(f"/api/chat/stream?runId={run_id}&offset=-1", headers=who("joined")))
        assert [event_id for event_id, _ in joined] == [event_id for event_id, _ in whole]
        assert joined[2:-1] == whole[2:-1]
    assert browser.get("/api/chat/stream?runId=run-2&offset=-1", headers=who("joined")).status_code == 404
    assert browser.get("/api/chat/stream?runId=run-1&offset=-1", headers=who("stranger")).status_code == 404
    assert browser.get(f"/api/chat/stream?runId={message_id}&offset=-1", headers=who("stranger")).status_code == 404


def test_a_thread_without_a_running_reply_has_no_active_run(browser):
    response = browser.get("/api/chat/stream?threadId=t-9", headers=ADA)

    assert response.json == {"messages": [], "activeRun": None, "interrupts": None}


def test_a_get_without_a_run_or_a_thread_is_invalid(browser):
    assert browser.get("/api/chat/stream", headers=ADA).status_code == 400


def test_a_run_names_its_reply_if_the_body_does_not(browser):
    body = {"threadId": "t-1", "messages": RUN["messages"]}
    ids = {
        browser.post("/api/chat/stream", json=body, headers=who("named") | {"X-Run-Id": "run-7"}).headers["X-Message-ID"]
        for _ in range(2)
    }

    assert len(ids) == 1


# A POST that is sent again


def test_a_post_that_is_sent_again_continues_after_its_last_event(browser):
    body = {"message": "hello world", "client_message_id": "key-1"}
    response = browser.post("/api/chat/stream", json=body, headers=who("again"))
    events = response.get_data(as_text=True).strip().split("\n\n")
    event_id = events[1].rpartition("id: ")[2]
    again = browser.post("/api/chat/stream", json=body, headers=who("again") | {"Last-Event-ID": event_id})

    assert again.headers["X-Message-ID"] == response.headers["X-Message-ID"]
    assert data(again) == [line[6:] for event in events[2:] for line in event.split("\n") if line.startswith("data: ")]


def test_another_message_is_not_taken_for_one_that_is_sent_again(browser):
    headers = who("conflict") | {"Last-Event-ID": "1-0"}
    body = {"message": "hello world", "client_message_id": "key-1"}
    browser.post("/api/chat/stream", json=body, headers=who("conflict"))

    assert browser.post("/api/chat/stream", json=body | {"message": "other"}, headers=headers).status_code == 422
    new = browser.post("/api/chat/stream", json={"message": "hello world", "client_message_id": "key-2"}, headers=headers)
    assert '"type":"complete"' in data(new)[-1]
