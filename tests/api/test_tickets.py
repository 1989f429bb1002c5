import json

import pytest

from tests.live import ADA, Browser, eventually, new_app, who

EVE = who("eve")


@pytest.fixture
def browser():
    return new_app().test_client()


def ticket_of(browser, headers=ADA) -> str:
    return browser.post("/api/ticket", headers=headers).json["ticket"]


def answered(browser) -> tuple[str, str]:
    """A message of Ada's that is over: where it can be followed, and its last event's id."""
    reply = browser.post("/api/chat/stream", json={"message": "hello"}, headers=ADA)
    ids = [line[4:] for line in reply.get_data(as_text=True).splitlines() if line.startswith("id: ")]
    return reply.headers["Location"], ids[0]


def follow(browser, location: str, ticket: str, **headers: str):
    """As `EventSource` does: no header of its own but the last event id."""
    return browser.get(f"{location}?ticket={ticket}", headers={name.replace("_", "-"): text for name, text in headers.items()})


def test_a_ticket_is_issued_to_whoever_may_ask(browser):
    response = browser.post("/api/ticket", headers=ADA)

    assert (response.status_code, response.json["expires_in"]) == (201, 30)
    assert response.headers["Cache-Control"] == "no-store"
    assert browser.post("/api/ticket").status_code == 403
    assert browser.get("/api/ticket", headers=ADA).status_code == 405


def test_a_ticket_opens_one_stream(browser):
    location, _ = answered(browser)
    ticket = ticket_of(browser)

    first, second = follow(browser, location, ticket), follow(browser, location, ticket)

    assert first.status_code == 200
    assert '"complete"' in first.get_data(as_text=True)
    assert (second.status_code, second.json["code"]) == (401, "unauthorized")


def test_the_same_stream_may_be_opened_again_by_who_comes_back(browser):
    location, event_id = answered(browser)
    other, _ = answered(browser)
    ticket = ticket_of(browser)
    follow(browser, location, ticket).get_data()

    assert follow(browser, location, ticket, Last_Event_ID=event_id).status_code == 200
    assert follow(browser, other, ticket, Last_Event_ID=event_id).status_code == 401


def test_somebody_elses_ticket_opens_nothing_of_mine(browser):
    location, _ = answered(browser)

    assert follow(browser, location, ticket_of(browser, EVE)).status_code == 404


@pytest.mark.parametrize("ticket", ["x", "W10.x", "%00", "a" * 3000])
def test_a_ticket_that_is_none_is_refused_whoever_brings_it(browser, ticket):
    location, _ = answered(browser)

    for headers in ({}, ADA):
        assert browser.get(f"{location}?ticket={ticket}", headers=headers).status_code == 401


def test_a_ticket_is_for_streams_only(browser):
    ticket = ticket_of(browser)

    for method, path in (("GET", "/api/chat/active"), ("POST", "/api/chat/stream"), ("POST", "/api/ticket")):
        assert browser.open(f"{path}?ticket={ticket}", method=method).status_code == 403


def test_a_ticket_whose_stream_could_not_be_opened_is_not_used_up(browser):
    location, _ = answered(browser)
    streams = browser.application.extensions["chat_bff"].streams
    held = [streams.acquire("ada") for _ in range(32)]
    ticket = ticket_of(browser)

    full = follow(browser, location, ticket, Accept="text/event-stream")
    assert full.get_data(as_text=True).startswith("retry: ")
    for slot in held:
        slot.release()

    assert '"complete"' in follow(browser, location, ticket, Accept="text/event-stream").get_data(as_text=True)


@pytest.mark.live
def test_a_ticket_is_in_no_log(start, kind):
    server = start(kind, LOG_LEVEL="DEBUG", GUNICORN_CMD_ARGS="--access-logfile - --log-level debug")
    browser, stranger = Browser(server), Browser(server)
    stranger.headers = {}
    said = browser.say("hello")
    list(said.events())
    ticket = json.loads(browser.request("POST", "/api/ticket", b"").read())["ticket"]
    path = f"/api/chat/stream/{said.message_id}?ticket={ticket}"

    assert list(stranger.request("GET", path).events())[-1]["type"] == "complete"
    stranger.request("GET", path, X_Request_ID="second").read()
    stranger.request("GET", path, Bad_Header="a\x01b").read()
    stranger.request("GET", f"/nowhere?x=1&ticket={ticket}", X_Request_ID="third").read()

    assert eventually(lambda: {"second", "third"} <= {line.get("request_id") for line in server.log_lines}, 10)
    assert f"/api/chat/stream/{said.message_id}" in server.log
    assert ticket not in server.log
