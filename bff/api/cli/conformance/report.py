"""Results as text, as JSON and as JUnit XML."""

import json
from collections import Counter
from collections.abc import Sequence
from textwrap import fill
from typing import Any, Final
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from bff.api.cli.conformance.model import Check, Result, Status

WIDTH: Final = 120
MARKS: Final[dict[Status, str]] = {"passed": "ok  ", "failed": "FAIL", "skipped": "skip"}


def line(result: Result) -> str:
    """One result; for a failure with its rule and meaning."""
    check = result.check
    detail = f": {result.detail}" if result.detail else ""
    text = f"{MARKS[result.status]}  {check.id}  {check.title}{detail}"
    return f"{text}\n{_reasons(check)}" if result.status == "failed" else text


def explanation(check: Check) -> str:
    return f"{check.id}\n{_indented('checks', check.title)}\n{_reasons(check)}"


def _reasons(check: Check) -> str:
    return f"{_indented('rule', check.rule)}\n{_indented('meaning', check.meaning)}"


def _indented(label: str, text: str) -> str:
    return fill(f"{label}: {text}", WIDTH, initial_indent="      ", subsequent_indent="        ")


def summary(results: Sequence[Result], seconds: float) -> str:
    counts = Counter(result.status for result in results)
    parts = [f"{counts[status]} {status}" for status in MARKS if counts[status] or status == "passed"]
    return f"{', '.join(parts)} in {seconds:.1f} s"


def as_json(url: str, results: Sequence[Result], seconds: float) -> str:
    checks = [
        {
            "id": result.check.id,
            "title": result.check.title,
            "status": result.status,
            "detail": result.detail,
            "rule": result.check.rule,
            "meaning": result.check.meaning,
            "seconds": round(result.seconds, 3),
        }
        for result in results
    ]
    counts = Counter(result.status for result in results)
    totals: dict[str, int] = {status: counts[status] for status in MARKS}
    report: dict[str, Any] = {"url": url, "seconds": round(seconds, 3), **totals, "checks": checks}
    return json.dumps(report, indent=2, ensure_ascii=False) + "\n"


def as_junit(url: str, results: Sequence[Result], seconds: float) -> str:
    """The format that CI systems read: a test case for each check, its class named after the topic."""
    counts = Counter(result.status for result in results)
    suite = Element("testsuite", name=f"conformance of {url}", tests=str(len(results)), time=f"{seconds:.3f}", errors="0")
    suite.set("failures", str(counts["failed"]))
    suite.set("skipped", str(counts["skipped"]))
    for result in results:
        _add_case(suite, result)
    root = Element("testsuites")
    root.append(suite)
    indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{tostring(root, encoding="unicode")}\n'


def _add_case(suite: Element, result: Result) -> None:
    check = result.check
    case = SubElement(suite, "testcase", name=check.id, classname=f"conformance.{check.topic}", time=f"{result.seconds:.3f}")
    if result.status == "failed":
        failure = SubElement(case, "failure", message=_printable(result.detail))
        failure.text = _printable(f"{check.title}\nrule: {check.rule}\nmeaning: {check.meaning}")
    elif result.status == "skipped":
        SubElement(case, "skipped", message=_printable(result.detail))


def _printable(text: str) -> str:
    """XML cannot hold control characters."""
    return "".join(one if one.isprintable() or one == "\n" else "\N{REPLACEMENT CHARACTER}" for one in text)
