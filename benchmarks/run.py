"""Compares this server with alternatives: `.venv/bin/python benchmarks/run.py`. README.md describes the benchmarks."""

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import table
from driver import compile_driver
from processes import Cores, Unavailable, cores, raise_file_limit
from scenarios import FULL, OURS_ONLY, QUICK, SCENARIOS, SINGLE_ROUND, STEADY, Sizes
from servers import SERVERS, Server, start_testbed, versions

Result = dict[str, Any]
ROUNDS: Final = 3


def main() -> int:
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # Runs the context managers that stop child processes.
    try:
        compile_driver()
    except Unavailable as error:
        print(error)
        return 0
    limit = raise_file_limit()
    sizes = QUICK if options.quick else FULL
    pinned = cores(not options.no_pin)
    servers = _prepare(options.only, options.ours)
    scenarios = [name for name in options.scenarios if name in sizes.steady or name not in STEADY]
    start = time.monotonic()
    results: list[Result] = []
    try:
        for result in _measure(servers, scenarios, options.rounds, sizes, pinned, start + 60 * options.minutes):
            results.append(result)
            _log(_progress_line(result, time.monotonic() - start))
    except KeyboardInterrupt:
        _log("stopped: the table has the results so far, and no file is written")
        options.json = options.write = None
    text = _with_heading(results, servers, sizes, options, pinned)
    print(text)
    if options.json:
        _append(options.json, results, options, limit)
    if options.write:
        table.write(text)
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one round, small sizes, under three minutes")
    parser.add_argument("--rounds", type=int, help=f"rounds per scenario ({ROUNDS}; quick: 1)")
    parser.add_argument("--only", type=_names(SERVERS), default=list(SERVERS), help="servers, such as ours,node")
    parser.add_argument("--scenarios", type=_names(SCENARIOS), default=list(SCENARIOS), help=f"of {','.join(SCENARIOS)}")
    parser.add_argument("--ours", type=Path, default=SERVERS["ours"].directory, help="another checkout to measure as `ours`")
    parser.add_argument("--json", type=Path, metavar="FILE", help="append the raw results as one line")
    parser.add_argument("--write", action="store_true", help="write the table to benchmarks/README.md")
    parser.add_argument("--no-pin", action="store_true", help="do not pin processes to cores")
    parser.add_argument("--minutes", type=float, default=30, help="start no new measurement after this long (30)")
    options = parser.parse_args()
    options.rounds = options.rounds or (1 if options.quick else ROUNDS)
    return options


def _names(known: dict[str, Any]) -> Any:
    def names(text: str) -> list[str]:
        selected = text.split(",")
        if unknown := [name for name in selected if name not in known]:
            raise argparse.ArgumentTypeError(f"{unknown[0]!r} is not one of {', '.join(known)}")
        return [name for name in known if name in selected]

    return names


def _prepare(names: list[str], ours: Path) -> list[Server]:
    """The servers that can run on this machine; logs why the others cannot."""
    ready = []
    for server in (SERVERS[name] for name in names):
        try:
            server.prepare()
        except Unavailable as error:
            _log(f"{server.name} is skipped: {error}")
        else:
            ready.append(server._replace(directory=ours) if server.name == "ours" else server)
    return ready


def _measure(
    servers: list[Server], scenarios: list[str], rounds: int, sizes: Sizes, pinned: Cores, deadline: float
) -> Iterator[Result]:
    """Takes the servers in turns within a scenario, so that other load on the machine affects all of them alike."""
    for number in range(rounds):
        for scenario in scenarios:
            if number and scenario in SINGLE_ROUND:
                continue
            for server in servers:
                if time.monotonic() > deadline:
                    return
                if scenario not in OURS_ONLY or server.name == "ours":
                    yield {"round": number + 1} | _measure_once(server, scenario, sizes, pinned)


def _measure_once(server: Server, scenario: str, sizes: Sizes, pinned: Cores) -> Result:
    """Starts a new server for each scenario, so that earlier scenarios do not affect the figures."""
    figures, problem = {}, ""
    try:
        with start_testbed(server, pinned) as testbed:
            figures = SCENARIOS[scenario](testbed, sizes)
    except (Unavailable, OSError) as error:
        problem = str(error) or type(error).__name__
    return {"server": server.name, "scenario": scenario, "figures": figures, "problem": problem}


def _progress_line(result: Result, seconds: float) -> str:
    figures = " ".join(f"{name.partition('.')[2]}={value:.4g}" for name, value in result["figures"].items())
    return f"{seconds:6.0f} s  {result['round']}  {result['scenario']:10} {result['server']:8} {figures}{result['problem']}"


def _with_heading(
    results: list[Result], servers: list[Server], sizes: Sizes, options: argparse.Namespace, pinned: Cores
) -> str:
    pinning = "not pinned" if pinned.server is None else f"server on core {pinned.server}, driver on core {pinned.driver}"
    kind = f"{'quick run, ' if options.quick else ''}{_rounds(results)}"
    machine = _machine()
    environment = (
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB, Linux {machine['kernel']}; {pinning}"
    )
    descriptions = "".join(f"- **{server.name}**: {server.description}\n" for server in servers)
    heading = f"{_today()}, commit {_commit(options.ours)}, {kind}. {environment}."
    return f"{heading}\n\n{descriptions}\n{table.markdown(results, [server.name for server in servers], sizes)}"


def _rounds(results: list[Result]) -> str:
    """How often each figure was measured, which `--minutes` may have cut short."""
    counts = Counter((result["server"], result["scenario"]) for result in results if result["scenario"] not in SINGLE_ROUND)
    fewest, most = min(counts.values(), default=1), max(counts.values(), default=1)
    if most == 1:
        return "one round"
    return f"medians of {most} rounds" if fewest == most else f"medians of {fewest} to {most} rounds"


def _append(file: Path, results: list[Result], options: argparse.Namespace, limit: int) -> None:
    line = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(options.ours),
        "quick": options.quick,
        "machine": _machine() | {"file_limit": limit},
        "versions": versions(),
        "results": results,
    }
    with file.open("a", encoding="utf-8") as history:
        history.write(json.dumps(line) + "\n")


def _machine() -> dict[str, Any]:
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "cpu": models[0].partition(":")[2].strip() if models else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30),
        "kernel": platform.release().partition("-")[0],
        "load": os.getloadavg()[0],
    }


def _commit(directory: Path) -> str:
    """The commit, with a + if the working copy has changes."""
    command = ["git", "-C", str(directory), "describe", "--always", "--dirty=+"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def _today() -> str:
    return datetime.now(UTC).date().isoformat()


def _log(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
