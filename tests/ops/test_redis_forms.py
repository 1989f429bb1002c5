"""Redis behind Sentinels and Redis Cluster: the doctor, TLS, ACL users, URLs, and scripts."""

import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import trustme

from bff.broker.queue.redis import RedisQueue
from bff.config import checks
from bff.config.environment import load_settings
from bff.config.redis_url import DistributedURL, parse_distributed
from bff.errors import SettingsError, StorageUnavailable
from bff.ops.redis import check, connect, ping
from bff.ops.redis_check import check_use
from bff.ops.redis_scripts import Scripts
from tests.broker.queue.queues import claim_next, enqueue, event_types
from tests.live import ROOT, eventually, free_port, new_app
from tests.ops.redis_users import CLUSTER_RULES, DOCUMENTED_RULES
from tests.redis_server import RedisServer
from tests.redis_sets import FAIL_OVER_MS, Cluster, Sentinel, SentinelSet, count_connections

pytestmark = pytest.mark.live


@pytest.mark.parametrize("form", ["sentinels", "cluster"])
def test_a_suitable_set_passes(form, request):
    servers = request.getfixturevalue(form)
    servers.flush()
    app = new_app(REDIS_URL=servers.url, RUN_WORKER="0")

    output = app.test_cli_runner().invoke(args=["chat", "doctor"]).stdout

    assert "WRONG" not in output
    assert app.test_client().get("/readyz").json["redis"] == "ok"


def test_each_primary_of_a_cluster_is_checked(cluster):
    cluster.fail_over_after(60_000)
    try:
        with connect(cluster.url) as client:
            for node in cluster.primaries():
                ping(client)
                node.stop(signal.SIGKILL)
                with pytest.raises(StorageUnavailable) as error:
                    ping(client)
                assert f"127.0.0.1:{node.port}: " in error.value.detail
                node.start()
    finally:
        cluster.fail_over_after(FAIL_OVER_MS)
        cluster.wait_until_complete()


@pytest.mark.parametrize("form", ["redis", "sentinels", "cluster"])
def test_a_closed_client_leaves_no_connection_open(form, request):
    servers = request.getfixturevalue(form)
    before = sum(count_connections(servers))
    with connect(servers.url) as client:
        ping(client)
        assert sum(count_connections(servers)) > before

    assert eventually(lambda: sum(count_connections(servers)) <= before)


@pytest.fixture(scope="module")
def tls_files(tmp_path_factory) -> tuple[str, ...]:
    folder = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    certificate = authority.issue_cert("localhost", "127.0.0.1")
    certificate.private_key_pem.write_to_path(str(folder / "key.pem"))
    certificate.cert_chain_pems[0].write_to_path(str(folder / "certificate.pem"))
    return (
        "--tls-key-file",
        f"{folder}/key.pem",
        "--tls-cert-file",
        f"{folder}/certificate.pem",
        "--tls-ca-cert-file",
        f"{folder}/ca.pem",
    )


def use(url: str, *, verify: bool = True) -> None:
    check(url, verify=verify)
    with connect(url, verify=verify) as client:
        check_use(client)
    queue = RedisQueue(connect(url, verify=verify))
    message = enqueue(queue)
    with queue.subscribe(message.user_id, message.id, lambda: None):
        queue.finish(claim_next(queue), [("message", "the end")])
        assert event_types(queue, message)[-1] == "done"
    queue.sweep()
    queue.close()


def test_a_cluster_is_used_over_tls_by_a_user_with_the_documented_rules(tmp_path, tls_files):
    assert f"`{DOCUMENTED_RULES}`" in (ROOT / "docs" / "deployment.md").read_text()
    assert f"`{CLUSTER_RULES}`" in (ROOT / "docs" / "deployment.md").read_text()
    port = free_port()
    user = ("--user", "chat", "on", ">swordfish", "resetchannels", *DOCUMENTED_RULES.split(), *CLUSTER_RULES.split())
    tls = ("--tls-port", str(port), "--tls-auth-clients", "no", "--tls-cluster", "yes")
    with Cluster(tmp_path, 1, 0, *tls, *tls_files, *user):
        url = f"rediss+cluster://chat:swordfish@127.0.0.1:{port}"
        with pytest.raises(SettingsError) as error:
            check(url)
        assert "swordfish" not in str(error.value)
        use(url, verify=False)


def test_a_set_behind_sentinels_is_used_by_a_user_with_the_documented_rules(tmp_path):
    user = ("--user", "chat", "on", ">swordfish", "resetchannels", *DOCUMENTED_RULES.split(), "+wait")
    with SentinelSet(tmp_path, 1, *user) as servers:
        use(servers.url.replace("://", "://chat:swordfish@"))


def test_a_primary_behind_a_sentinel_is_used_over_tls(tmp_path, tls_files):
    for name in ("primary", "sentinel"):
        (tmp_path / name).mkdir()
    port, sentinel_port = free_port(), free_port()
    tls = ("--tls-auth-clients", "no", "--tls-replication", "yes", *tls_files)
    with (
        RedisServer(tmp_path / "primary", "--tls-port", str(port), *tls),
        Sentinel(tmp_path / "sentinel", port, "--tls-port", str(sentinel_port), *tls),
    ):
        url = f"rediss+sentinel://127.0.0.1:{sentinel_port}/chat/0"
        with pytest.raises(SettingsError):
            check(url)
        use(url, verify=False)


@pytest.mark.parametrize("form", ["redis+sentinel://127.0.0.1:{}/chat", "redis+cluster://127.0.0.1:{}"])
def test_unreachable_servers_are_named_without_the_password(form):
    url = form.format(free_port()).replace("://", "://user:s3cret@")

    with pytest.raises(SettingsError) as error:
        check(url)

    assert "cannot be reached" in str(error.value)
    assert "s3cret" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("redis+cluster://a,b:7000", DistributedURL("cluster", False, (("a", 6379), ("b", 7000)))),
        ("rediss+cluster://u:p%40@[::1]:1", DistributedURL("cluster", True, (("::1", 1),), "u", "p@")),
        ("redis+sentinel://:p@a:1,b/mine/3", DistributedURL("sentinel", False, (("a", 1), ("b", 26379)), "", "p", "mine", 3)),
        (
            "redis+sentinel://a/m?sentinel_password=x",
            DistributedURL("sentinel", False, (("a", 26379),), service="m", sentinel_password="x"),
        ),
    ],
)
def test_urls_of_several_servers(text, expected):
    assert parse_distributed(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "redis+cluster://",
        "redis+cluster://a/0",
        "redis+cluster://a:99999",
        "redis+sentinel://a",
        "redis+sentinel://a/",
        "redis+sentinel://a/m/x",
        "redis+other://a",
        "redis+cluster://a?x=1",
        "redis+cluster://a,,b",
    ],
)
def test_invalid_urls_of_several_servers(text):
    with pytest.raises(ValueError, match="is not a Redis URL"):
        parse_distributed(text)


def test_the_sentinels_password_is_a_secret():
    url = "redis+sentinel://u:swordfish-1@a/m?sentinel_password=swordfish-2"
    settings = load_settings({"APP_ENV": "development", "REDIS_URL": url})

    assert {"swordfish-1", "swordfish-2"} <= set(checks.secret_values(settings))


def test_a_prefix_with_other_characters_is_refused():
    for prefix in ("a:b", "a{b}", "a*", "x" * 65, "ä"):
        with pytest.raises(SettingsError, match="REDIS_PREFIX"):
            load_settings({"APP_ENV": "development", "REDIS_PREFIX": prefix})


def test_the_first_scripts_may_run_at_the_same_time(cluster, tmp_path):
    """More than 100 at once: a line that each of them added would exceed Lua's limit of 200 local variables."""
    (tmp_path / "answer.lua").write_text("return {CLUSTER, tonumber(ARGV[1])}")
    with connect(cluster.url) as client:
        scripts = Scripts(client, tmp_path)
        start = threading.Barrier(150)

        def run(number: int) -> Any:
            start.wait()
            return scripts.run("answer", ["chat:{a}:key"], number)

        with ThreadPoolExecutor(150) as executor:
            assert list(executor.map(run, range(150))) == [[1, number] for number in range(150)]
