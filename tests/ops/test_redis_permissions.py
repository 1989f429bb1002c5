"""A Redis whose ACL, role or cluster mode does not let us use it: it is named in a sentence, and never a traceback."""

import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from bff.errors import StorageUnavailable
from bff.ops import health
from bff.ops.redis import Client, connect
from bff.ops.redis_check import check_use
from tests.live import ROOT, Browser, eventually, new_app, status_of
from tests.ops.redis_users import DOCUMENTED_RULES, RedisUser, cluster
from tests.redis_server import RedisServer

pytestmark = pytest.mark.live

NO_CHANNELS = "Redis refuses our channels: the ACL of REDIS_URL's user lacks &chat:* (or its REDIS_PREFIX's)"
REFUSED = "Redis refuses the command {}: the ACL of REDIS_URL's user lacks +{}"
MISSING = {
    "channels": (
        DOCUMENTED_RULES.replace("&chat:*", ""),
        NO_CHANNELS,
    ),
    "other channels": (DOCUMENTED_RULES.replace("&chat:*", "&other:*"), "lacks &chat:*"),
    "keys": (
        DOCUMENTED_RULES.replace("~chat:*", "~other:*"),
        "Redis refuses our keys: the ACL of REDIS_URL's user lacks ~chat:*",
    ),
} | {
    name: (f"{DOCUMENTED_RULES} -{name}", REFUSED.format(name.upper(), name))
    for name in (
        "publish",
        "subscribe",
        "eval",
        "evalsha",
        "set",
        "xadd",
        "xrange",
        "zadd",
        "lpos",
        "hget",
        "del",
    )
}
OPERATOR_SENTENCE = r"Redis (refuses|is|has|cannot|takes)"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    folder = tmp_path / "redis"
    folder.mkdir()
    with RedisServer(folder) as server:
        yield server


@pytest.fixture
def admin(server: RedisServer) -> Iterator[Client]:
    with connect(server.url) as client:
        yield client


@pytest.fixture
def user(admin: Client, server: RedisServer) -> RedisUser:
    return RedisUser(admin, server)


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[list[RedisServer]]:
    with cluster(tmp_path) as nodes:
        yield nodes


def problem(url: str) -> str:
    with connect(url) as client:
        try:
            check_use(client)
        except StorageUnavailable as error:
            return error.detail
    return ""


def doctor(url: str) -> list[str]:
    """What `flask chat doctor` finds wrong."""
    result = new_app(REDIS_URL=url, RUN_WORKER="0").test_cli_runner().invoke(args=["chat", "doctor"])
    assert "Traceback" not in result.output
    return [line.removeprefix("WRONG  ") for line in result.stdout.splitlines() if line.startswith("WRONG")]


def test_the_documented_rules_are_enough(user):
    assert f"`{DOCUMENTED_RULES}`" in (ROOT / "docs" / "deployment.md").read_text()
    assert problem(user.url) == ""
    assert doctor(user.url) == []


@pytest.mark.parametrize(("rules", "sentence"), MISSING.values(), ids=MISSING)
def test_a_missing_rule_is_named(user, rules, sentence):
    user.set_rules(rules)

    assert sentence in problem(user.url)


def test_doctor_and_readiness_name_the_missing_rule(user, monkeypatch, caplog):
    monkeypatch.setattr(health, "CACHE_SECONDS", 0.0)
    monkeypatch.setattr(health, "WRITE_INTERVAL_SECONDS", 0.0)
    client = new_app(REDIS_URL=user.url, RUN_WORKER="0").test_client()
    assert client.get("/readyz").json["redis"] == "ok"
    logging.getLogger(health.__name__).addHandler(caplog.handler)  # The app has replaced the root logger's handlers.

    user.set_rules(DOCUMENTED_RULES.replace("&chat:*", ""))
    states = [client.get("/readyz").json["redis"] for _ in range(3)]

    assert states == ["upstream_unavailable"] * 3
    logged = [record.getMessage() for record in caplog.records if "redis is not ready" in record.getMessage()]
    logging.getLogger(health.__name__).removeHandler(caplog.handler)
    assert logged == [f"the redis is not ready: {NO_CHANNELS}"]
    assert doctor(user.url) == [f"Redis cannot be used. {NO_CHANNELS}."]


def test_info_is_not_required(user):
    user.set_rules(f"{DOCUMENTED_RULES} -info")

    assert (problem(user.url), doctor(user.url)) == ("", [])


def test_doctor_names_a_user_that_does_not_exist(server):
    (message,) = doctor(server.url.replace("redis://", "redis://nobody:wrong@"))

    assert message == "Redis cannot be reached (Redis refuses the user or password of REDIS_URL): see REDIS_URL."


@pytest.mark.parametrize("read_only", ["yes", "no"])
def test_doctor_names_a_replica(server, admin, read_only):
    admin.config_set("replica-read-only", read_only)
    admin.replicaof("127.0.0.1", 9)

    assert doctor(server.url) == ["Redis cannot be used. Redis is a replica: REDIS_URL must name the primary."]


def test_a_read_only_replica_without_info_is_named(user, admin):
    user.set_rules(f"{DOCUMENTED_RULES} -info")
    admin.replicaof("127.0.0.1", 9)

    assert problem(user.url) == "Redis is read-only, as a replica is: REDIS_URL must name the primary"


def test_doctor_names_a_node_of_a_cluster(nodes):
    for node in nodes:
        assert doctor(node.url) == [
            "Redis cannot be used. Redis is one node of a cluster and has a part of the keys: REDIS_URL must begin with"
            " redis+cluster://.",
            "Redis is in cluster mode: REDIS_URL must begin with redis+cluster://.",
        ]


def test_a_cluster_without_slots_is_named(tmp_path):
    with RedisServer(tmp_path, "--cluster-enabled", "yes", "--cluster-port", "0") as node:
        assert problem(node.url).startswith("Redis Cluster is down or lacks nodes")


def test_a_full_disk_is_named(server, admin):
    admin.config_set("save", "3600 1")
    admin.set("chat:something", "to save")
    (server.folder / "dump.rdb").mkdir()  # The dump cannot be renamed to it.
    admin.bgsave()

    sentence = "Redis cannot save to its disk and takes no writes: the disk is full or not writable, see Redis's own log"
    assert eventually(lambda: problem(server.url) == sentence, 20), problem(server.url)
    admin.config_set("save", "")  # Otherwise Redis does not stop, as it cannot save.


def test_the_check_runs_every_command_of_the_scripts():
    check = ROOT / "bff" / "ops" / "lua" / "check" / "commands.lua"
    scripts = [path for path in (ROOT / "bff").rglob("*.lua") if path != check]

    used = {name for path in scripts for name in re.findall(r"redis\.p?call\('(\w+)'", path.read_text())}

    assert used
    assert used <= set(re.findall(r"\{'([A-Z]+)'", check.read_text()))


RUNTIME_RULES = [
    DOCUMENTED_RULES.replace("&chat:*", ""),
    DOCUMENTED_RULES.replace("~chat:*", "~other:*"),
    *[f"{DOCUMENTED_RULES} -{name}" for name in ("evalsha", "xadd", "zadd", "lpos", "hmget", "exists", "set")],
]


@pytest.mark.timeout(120)
@pytest.mark.parametrize("kind", ["gunicorn", "flask"])
def test_revoked_rules_are_no_tracebacks_in_web_process_and_worker(start, user, kind):
    web, worker = start(kind, REDIS_URL=user.url, RUN_WORKER="0"), start("worker", REDIS_URL=user.url)
    assert Browser(web).say("before").read().count(b'"complete"') == 1

    for number, rules in enumerate(RUNTIME_RULES):
        browser = Browser(web, f"user-{number}")
        user.set_rules(rules)
        assert status_of(browser.say("while refused")) in {200, 503}
        assert status_of(browser.request("GET", "/api/chat/active")) in {200, 503}
    assert eventually(lambda: re.search(rf"the queue is unavailable: {OPERATOR_SENTENCE}", worker.log), 20), worker.log
    user.set_rules(DOCUMENTED_RULES)

    assert eventually(lambda: status_of(Browser(web).say("after")) == 200, 20)
    assert "internal_error" not in web.log
    assert "Traceback" not in web.log + worker.log


@pytest.mark.timeout(120)
def test_a_node_of_a_cluster_is_no_traceback_in_web_process_and_worker(start, nodes):
    web, worker = start("gunicorn", REDIS_URL=nodes[0].url, RUN_WORKER="0"), start("worker", REDIS_URL=nodes[0].url)

    statuses = {status_of(Browser(web, f"user-{number}").say("hello", X_Chat_Resume="1")) for number in range(12)}

    assert 503 in statuses
    assert "REDIS_URL cannot be used: Redis is one node of a cluster" in worker.log
    assert "Traceback" not in web.log + worker.log


@pytest.mark.timeout(120)
def test_a_full_redis_is_no_traceback_in_the_worker(start, server, admin):
    web = start("gunicorn", REDIS_URL=server.url, RUN_WORKER="0")
    waiting = Browser(web).say("waiting")
    admin.config_set("maxmemory", 1)

    worker = start("worker", REDIS_URL=server.url)

    assert eventually(lambda: "REDIS_URL cannot be used: Redis is out of memory" in worker.log, 20), worker.log
    admin.config_set("maxmemory", 0)
    assert waiting.read().count(b'"complete"') == 1
    assert "Traceback" not in web.log + worker.log
