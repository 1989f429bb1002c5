"""The options of the command, and its reports."""

import json
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner, Result

from bff.api.cli.conformance import report
from bff.api.cli.conformance.checks import ALL
from bff.api.cli.conformance.command import conformance
from bff.api.cli.conformance.model import Result as CheckResult
from tests.wire_server import END, WireServer, reply


def call(*arguments: str) -> Result:
    return CliRunner().invoke(conformance, arguments)


def results() -> list[CheckResult]:
    """One of each kind, with text that XML cannot hold."""
    checks = [*ALL.values()][:3]
    details = ["a remark", "\0 and \x1b[31m <&> 日本", "needs two users"]
    return [CheckResult(*row) for row in zip(checks, ["passed", "failed", "skipped"], details, [0.1, 0.2, 0.3], strict=True)]


def test_checks_are_listed():
    lines = call("--list").output.splitlines()

    assert [line.split()[0] for line in lines] == [*ALL]


def test_every_check_is_explained():
    for check in ALL.values():
        output = " ".join(call("--explain", check.id).output.split())

        assert f"checks: {check.title} rule: {check.rule} meaning: {check.meaning}" in output


def test_a_topic_stands_for_its_checks():
    assert call("--explain", "resume,stop.ends").output.count("meaning: ") == 7


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "URL is missing"),
        (("localhost:8000",), "must be http://host"),
        (("http://localhost", "--only", "resume,nothing"), "There is no check 'nothing'"),
        (("http://localhost", "--header", "no colon"), "is not a header"),
        (("http://localhost", "--header", "Name: a\nOther: b"), "is not a header"),
        (("http://localhost", "--chaos"), "need each other"),
        (("http://localhost", "--restart-command", "true"), "need each other"),
        (("http://localhost", "--chaos", "--restart-command", "true", "--only", "chaos.ends"), "leave --only out"),
        (("http://localhost", "--timeout", "0"), "Invalid value"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    result = call(*arguments)

    assert result.exit_code == 2
    assert message in " ".join(result.output.split())


@pytest.mark.parametrize("status", ["401 Unauthorized", "403 Forbidden"])
def test_refused_credentials_end_the_run(status):
    with WireServer([reply(b"{}", status), END]) as server:
        result = call(server.url)

    assert result.exit_code == 2
    assert "refuses these credentials" in result.output


def test_only_the_named_checks_run_and_a_failure_explains_itself():
    with WireServer([reply(b"{}", "404 Not Found"), END]) as server:
        result = call(server.url, "--only", "errors.method,errors.length", "--json", "-")

    assert result.exit_code == 1
    report = json.loads(result.stdout)
    assert [(check["id"], check["status"]) for check in report["checks"]] == [
        ("errors.method", "failed"),
        ("errors.length", "failed"),
    ]
    assert (report["passed"], report["failed"], report["skipped"]) == (0, 2, 0)
    assert "FAIL  errors.method" in result.stderr
    assert "rule: docs/protocol.md#errors; RFC 9110, 15.5.6" in result.stderr
    assert "meaning: " in result.stderr


def test_without_a_reply_checks_that_need_one_are_skipped_with_the_reason():
    with WireServer([reply(b"{}", "404 Not Found"), END]) as server:
        result = call(server.url, "--only", "stream.opens,framing.bytes")

    assert "FAIL  stream.opens" in result.output
    assert "skip  framing.bytes" in result.output
    assert "needs a reply, see stream.opens: POST /api/chat/stream was answered with 404" in result.output


def test_junit_holds_any_text():
    suite = ElementTree.fromstring(report.as_junit("http://localhost", results(), 0.6).encode())[0]

    assert [len(case) for case in suite] == [0, 1, 1]
    assert suite[1][0].tag == "failure"
    assert suite[1][0].get("message") == "\N{REPLACEMENT CHARACTER} and \N{REPLACEMENT CHARACTER}[31m <&> 日本"
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped")) == ("3", "1", "1")


def test_json_holds_all_results():
    content = json.loads(report.as_json("http://localhost", results(), 0.6))

    assert [check["status"] for check in content["checks"]] == ["passed", "failed", "skipped"]
    assert content["url"] == "http://localhost"


def test_the_summary_counts():
    assert report.summary(results(), 0.6) == "1 passed, 1 failed, 1 skipped in 0.6 s"
