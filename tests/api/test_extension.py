"""`ChatBFF` in an application that has routes, error pages, hooks and templates of its own."""

import logging

import pytest
from flask import Flask, abort, g, jsonify, redirect, request
from flask_login import LoginManager, UserMixin, current_user, login_user
from flask_wtf import CSRFProtect
from jinja2 import DictLoader

from bff import ChatBFF, HostLogin, load_settings
from bff.errors import SettingsError
from tests.live import ADA, BASE_ENVIRONMENT, new_app, new_settings, who
from tests.security.matrix import MATRIX

HOOKED = {"X-Request-ID", "Content-Security-Policy", "X-Content-Type-Options"}


class Shout:
    id, name, description = "shout", "Shout", "Says it loudly."
    repeatable = True

    def stream(self, history, identity):
        yield history[-1].content.upper()


def new_host() -> Flask:
    host = Flask("host", static_folder=None)
    host.jinja_loader = DictLoader({"page.html": "the host's own page"})
    host.add_url_rule("/", endpoint="page", view_func=lambda: "own")
    host.register_error_handler(404, lambda error: ("the host's 404", 404))
    return host


@pytest.fixture
def host():
    host = new_host()
    ChatBFF(host, url_prefix="/assistant", settings=new_settings())
    return host


def answer(client, prefix, agent="", headers=ADA):
    """The reply to a message in a new conversation."""
    conversation = client.post(f"{prefix}/api/conversations", json={}, headers=headers).json["id"]
    url = f"{prefix}/api/conversations/{conversation}"
    message = client.post(f"{url}/messages", json={"content": "hello"}, headers=headers).json["id"]
    stream = client.get(f"{url}/stream?messageId={message}&agentId={agent}", headers=headers)
    assert "event: done" in stream.text
    return client.get(f"{url}/messages", headers=headers).json["messages"][-1]["content"]


@pytest.mark.parametrize(("path", "status"), [("/", 200), ("/nowhere", 404), ("/assistant/nowhere", 404), ("/assistants", 404)])
def test_the_hosts_own_paths_are_not_touched(host, path, status):
    response = host.test_client().get(path, headers={"Sec-Fetch-Site": "cross-site"})

    assert (response.status_code, response.text) == (status, "own" if status == 200 else "the host's 404")
    assert not HOOKED & set(response.headers.keys())


def test_nothing_else_of_the_host_changes():
    host, root = new_host(), logging.getLogger()
    bare, handlers, level = new_host(), list(root.handlers), root.level

    ChatBFF(host, url_prefix="/assistant", settings=new_settings())

    assert (root.handlers, root.level) == (handlers, level)
    assert host.cli.commands.keys() == {"chat"}
    assert host.extensions.keys() == {"chat_bff"}
    assert host.blueprints.keys() == {name for name in host.blueprints if f"{name}.".startswith("chat_bff.")}
    assert host.url_map.converters == bare.url_map.converters
    assert host.url_map.merge_slashes == bare.url_map.merge_slashes
    for hooks in ("before_request_funcs", "after_request_funcs", "teardown_request_funcs"):
        assert None not in getattr(host, hooks)
    assert {code for code, handlers in host.error_handler_spec[None].items() if handlers} == {404}
    assert [rule.rule for rule in host.url_map.iter_rules() if not rule.rule.startswith("/assistant/")] == ["/"]


@pytest.mark.parametrize(("path", "status"), [("/api/chat/active", 200), ("/api/conversations?limit=x", 400), ("/", 200)])
def test_our_hooks_apply_below_the_prefix(host, path, status):
    response = host.test_client().get(f"/assistant{path}", headers=ADA)

    assert response.status_code == status
    assert set(response.headers.keys()) >= HOOKED
    if status == 400:
        assert set(response.json) == {"error", "code", "request_id"}


@pytest.mark.parametrize("route", [route for route in MATRIX if "<" not in route])
def test_every_route_is_below_the_prefix(host, route):
    method, path = route.split()
    headers = {"Sec-Fetch-Site": "same-origin"} | ADA
    row = MATRIX[route]

    at_root = new_app().test_client().open(path, method=method, json=row.json, headers=headers)
    below = host.test_client().open(f"/assistant{path}", method=method, json=row.json, headers=headers)

    assert below.status_code == at_root.status_code
    assert below.headers.get("Cache-Control") == at_root.headers.get("Cache-Control")
    at_root.close()
    below.close()


def test_urls_have_the_prefix(host):
    client = host.test_client()

    stream = client.post("/assistant/api/chat/stream", json={"message": "hello"}, headers=ADA)
    location = stream.headers["Location"]
    document = client.get("/assistant/openapi.json").json
    page = client.get("/assistant/").text

    assert location.startswith("/assistant/api/chat/stream/")
    assert "hello" in client.get(location, headers=ADA).text
    assert document["servers"][0]["url"] == "/assistant"
    assert document["paths"] == new_app().test_client().get("/openapi.json").json["paths"]
    assert 'data-root="/assistant"' in page
    assert 'src="/assistant/static/chat.js"' in page
    with client.get("/assistant/static/chat.js") as script:
        assert script.status_code == 200


def test_openapi_names_the_path_that_the_request_came_by():
    client = new_app(TRUSTED_PROXY_HOPS="1").test_client()

    roots = [
        client.get("/openapi.json", headers={"X-Forwarded-Prefix": prefix}).json["servers"][0]["url"]
        for prefix in ("/a", "/b", "")
    ]

    assert roots == ["/a", "/b", "/"]


@pytest.mark.parametrize(
    ("prefix", "forwarded", "path"), [("", "", "/"), ("/x/y", "", "/x/y"), ("", "/z", "/z"), ("/x", "/z", "/z/x")]
)
def test_the_cookie_is_for_our_paths_only(prefix, forwarded, path):
    host = Flask("host", static_folder=None)
    ChatBFF(host, url_prefix=prefix, settings=new_settings(AUTH_MODE="anonymous", TRUSTED_PROXY_HOPS="1"))

    response = host.test_client().get(f"{prefix}/api/chat/active", headers={"X-Forwarded-Prefix": forwarded})

    assert f"Path={path}" in response.headers["Set-Cookie"].split("; ")


def test_an_openai_client_gets_openais_error_shape_below_the_prefix(host):
    response = host.test_client().post("/assistant/v1/chat/completions", json={"model": 1}, headers=ADA)

    assert response.json["error"]["type"] == "invalid_request_error"


def test_health_checks_pass_during_a_drain(host):
    host.extensions["chat_bff"].lifecycle.drain()

    client = host.test_client()
    assert client.get("/assistant/healthz").status_code == 200
    assert client.get("/assistant/api/agents", headers=ADA).json["code"] == "server_restarting"
    assert client.get("/").text == "own"


def test_two_instances_in_one_application(tmp_path):
    host = new_host()
    chats = {"/a": ChatBFF(url_prefix="/a", settings=new_settings(DATABASE_URL=f"sqlite:///{tmp_path}/a.db"))}
    chats["/b"] = ChatBFF(
        url_prefix="/b", name="second", settings=new_settings(DATABASE_URL=f"sqlite:///{tmp_path}/b.db"), agents=[Shout()]
    )
    for chat in chats.values():
        chat.init_app(host)
    client = host.test_client()

    assert answer(client, "/a") == "hello"
    assert answer(client, "/b", "shout") == "HELLO"
    for prefix in chats:
        location = client.post(f"{prefix}/api/chat/stream", json={"message": "Hi"}, headers=ADA).headers["Location"]
        assert location.startswith(f"{prefix}/api/chat/stream/")
        assert client.get(location, headers=ADA).text.count("HI" if prefix == "/b" else "Hi")
        assert len(client.get(f"{prefix}/api/conversations", headers=ADA).json["conversations"]) == 1
        assert client.get(f"{prefix}/openapi.json").json["servers"][0]["url"] == prefix
    assert host.cli.commands.keys() == {"chat", "second"}


def test_instances_have_a_queue_file_each(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    host, environment = new_host(), BASE_ENVIRONMENT | {"QUEUE_FILE": "", "DATABASE_URL": f"sqlite:///{tmp_path}/chat.db"}
    for name in ("chat_bff", "second"):
        ChatBFF(host, url_prefix=f"/{name}", name=name, settings=load_settings(environment))
    for name in ("chat_bff", "second"):
        answer(host.test_client(), f"/{name}")

    assert {path.name for path in (tmp_path / "instance").glob("queue*.db")} == {"queue.db", "queue-second.db"}
    for name in ("chat_bff", "second"):
        host.extensions[name].lifecycle.drain()


def test_a_second_instance_needs_a_name_of_its_own(host):
    with pytest.raises(ValueError, match="'chat_bff': a second ChatBFF needs a name of its own"):
        ChatBFF(host, url_prefix="/b", settings=new_settings())


@pytest.mark.parametrize(
    "options", [{"url_prefix": "assistant"}, {"url_prefix": "/a/"}, {"url_prefix": "/<a>"}, {"name": "a.b"}]
)
def test_an_invalid_prefix_or_name_is_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        ChatBFF(new_host(), **options)


def test_one_instance_serves_several_applications():
    chat = ChatBFF(url_prefix="/assistant", settings=new_settings())
    hosts = [new_host(), new_host()]
    for host in hosts:
        chat.init_app(host)

    assert [answer(host.test_client(), "/assistant") for host in hosts] == ["hello", "hello"]


class User(UserMixin):
    def __init__(self, id_: str) -> None:
        self.id = id_


@pytest.fixture
def login_host():
    """With Flask-Login."""
    host = new_host()
    host.secret_key = "the host's own secret key"
    LoginManager(host).user_loader(User)
    host.add_url_rule("/login/<name>", view_func=lambda name: str(login_user(User(name))))
    login = HostLogin(lambda: current_user.get_id())
    ChatBFF(
        host, url_prefix="/assistant", settings=new_settings(AUTH_MODE="jwt", AUTH_JWT_SECRET="x" * 32), authenticator=login
    )
    return host


def test_the_hosts_users_are_ours(login_host):
    ada, ben, nobody = (login_host.test_client() for _ in range(3))
    ada.get("/login/lovelace")
    ben.get("/login/ben")

    assert answer(ada, "/assistant", headers={}) == "hello"
    assert len(ada.get("/assistant/api/conversations").json["conversations"]) == 1
    assert ben.get("/assistant/api/conversations").json["conversations"] == []
    response = nobody.get("/assistant/api/conversations", headers=ADA)
    assert (response.status_code, response.json["code"]) == (401, "unauthorized")


@pytest.mark.parametrize("headers", [{"Authorization": "Bearer x"}, {}])
def test_the_hosts_users_are_protected_from_other_sites(login_host, headers):
    client = login_host.test_client()
    client.get("/login/ada")

    forged = client.post("/assistant/api/conversations", json={}, headers=headers | {"Sec-Fetch-Site": "cross-site"})

    assert forged.status_code == 403


@pytest.mark.parametrize("user_id", ["", "..", "a\nb", "x" * 300, 7])
def test_a_user_id_that_cannot_be_used_is_unauthorized(user_id):
    host = new_host()
    ChatBFF(host, settings=new_settings(), url_prefix="/assistant", authenticator=HostLogin(lambda: user_id))

    assert host.test_client().get("/assistant/api/chat/active").status_code == 401


def test_an_own_authenticator_replaces_auth_mode(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for name, value in {"APP_ENV": "production", "SECRET_KEY": "k" * 32, "QUEUE_FILE": "off"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AUTH_MODE", raising=False)

    with pytest.raises(SettingsError, match="AUTH_MODE is required"):
        ChatBFF(new_host())
    ChatBFF(new_host(), url_prefix="/assistant", authenticator=HostLogin(lambda: "ada"))


def test_a_response_of_the_hosts_hook_is_left_alone():
    host = new_host()
    host.before_request(lambda: redirect("/login"))
    ChatBFF(host, url_prefix="/assistant", settings=new_settings())

    response = host.test_client().get("/assistant/api/agents")

    assert (response.status_code, response.headers["Location"]) == (302, "/login")
    assert not HOOKED & set(response.headers.keys())


def test_an_error_of_the_hosts_hook_has_our_shape():
    host = new_host()
    host.before_request(lambda: abort(401))
    ChatBFF(host, url_prefix="/assistant", settings=new_settings())

    response = host.test_client().get("/assistant/api/agents")

    assert (response.status_code, response.json["code"]) == (401, "unauthorized")
    assert response.headers["X-Request-ID"] == response.json["request_id"]


def test_the_hosts_own_request_attributes_survive():
    host = new_host()

    @host.before_request
    def remember():
        g.identity, g.request_id, g.slot = "the host's", "the host's", "the host's"

    @host.after_request
    def check(response):
        response.headers["Own"] = jsonify(g.identity, g.request_id, g.slot).get_data(as_text=True).strip()
        return response

    ChatBFF(host, url_prefix="/assistant", settings=new_settings())

    response = host.test_client().get("/assistant/api/chat/active", headers=ADA)

    assert (response.status_code, response.headers["Own"].count("the host's")) == (200, 3)


def test_requests_within_one_app_context_have_a_user_each(host):
    client = host.test_client()
    with host.app_context():
        client.post("/assistant/api/conversations", json={}, headers=who("first"))
        listed = [client.get("/assistant/api/conversations", headers=who(user)).json for user in ("first", "second")]

    assert [len(each["conversations"]) for each in listed] == [1, 0]


def test_flask_wtf_can_exempt_us():
    host = new_host()
    host.secret_key = "the host's own secret key"
    csrf = CSRFProtect(host)
    chat = ChatBFF(host, url_prefix="/assistant", settings=new_settings())
    client = host.test_client()
    host.add_url_rule("/form", view_func=lambda: "sent", methods=["POST"])
    for name, blueprint in host.blueprints.items():
        if name.startswith(f"{chat.name}."):
            csrf.exempt(blueprint)

    assert client.post("/form").status_code == 400
    assert client.post("/assistant/api/conversations", json={}, headers=ADA).status_code == 201


def test_only_requests_below_the_prefix_pass_our_middleware():
    host, seen = new_host(), []
    host.add_url_rule("/address", view_func=lambda: request.remote_addr)
    ChatBFF(host, url_prefix="/assistant", settings=new_settings(TRUSTED_PROXY_HOPS="1"))
    host.before_request(lambda: seen.append(request.remote_addr))

    for path in ("/address", "/assistant/api/agents", "/assistants"):
        host.test_client().get(path, headers=ADA | {"X-Forwarded-For": "192.0.2.7"})

    assert seen == ["127.0.0.1", "192.0.2.7", "127.0.0.1"]
