"""The load, the restarts, and the judgement afterwards."""

import random
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from tempfile import TemporaryFile
from threading import Event as Flag
from threading import Thread
from time import monotonic
from typing import Final, NamedTuple

from bff.api.cli.conformance.chaos import verdicts
from bff.api.cli.conformance.chaos.readers import Reader
from bff.api.cli.conformance.chaos.verdicts import TOPIC, Record, ReplyRecord
from bff.api.cli.conformance.client import ClientError
from bff.api.cli.conformance.model import CHECKS, Result
from bff.api.cli.conformance.outcomes import Failed
from bff.api.cli.conformance.runner import judge
from bff.api.cli.conformance.target import SLOW_MESSAGE, TEXT, Target, Unusable, User, echoed

COMMAND_SECONDS: Final = 60.0
FIRST_RESTART: Final = (0.15, 0.35)
"""When the first restart comes, as a part of the duration; the others follow at BETWEEN_RESTARTS."""
BETWEEN_RESTARTS: Final = (0.25, 0.45)
REPLY_SECONDS: Final = (1.0, 4.0)
RETRY_SECONDS: Final = 0.2

__all__ = ["TOPIC", "Plan", "run"]


class Plan(NamedTuple):
    command: str
    """Run by the shell; kills the server and starts it again."""
    duration: float
    """Seconds, in which new messages are sent."""
    streams: int
    """Replies at a time, each with two readers."""


def run(target: Target, plan: Plan, on_result: Callable[[Result], None] = lambda _: None) -> list[Result]:
    """Raises Unusable if the server cannot be judged."""
    target.prepare()
    if not target.has_distinct_users:
        raise Unusable("--chaos needs many users, as one user's messages are answered one after the other: see --header")
    record = _Load(target, plan).run()
    results = []
    for check in CHECKS.values():
        if check.topic == TOPIC:
            results.append(judge(check, partial(verdicts.VERDICTS[check.id], record)))
            on_result(results[-1])
    return results


class _Load:
    def __init__(self, target: Target, plan: Plan) -> None:
        self._target = target
        self._plan = plan
        self._ends_at = monotonic() + plan.duration
        self._deadline = self._ends_at + target.options.timeout
        self._record = Record()
        self._done = Flag()

    def run(self) -> Record:
        restarts = Thread(target=self._restart_at_random, name="restarts", daemon=True)
        restarts.start()
        with ThreadPoolExecutor(self._plan.streams) as pool:
            for sender in [pool.submit(self._send_messages) for _ in range(self._plan.streams)]:
                sender.result()
        self._done.set()
        restarts.join(COMMAND_SECONDS + 1)
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(self._read_log, self._record.replies))
        return self._record

    def _restart_at_random(self) -> None:
        pause = random.uniform(*FIRST_RESTART)  # noqa: S311 - no secret
        while not self._done.wait(pause * self._plan.duration) and monotonic() < self._ends_at:
            self._record.commands.append(run_command(self._plan.command))
            pause = random.uniform(*BETWEEN_RESTARTS)  # noqa: S311 - no secret

    def _send_messages(self) -> None:
        while monotonic() < self._ends_at:
            user = self._new_user()
            if user is not None:
                self._record.replies.append(self._follow_reply(user))

    def _new_user(self) -> User | None:
        """None while the server is down, after a pause."""
        try:
            return self._target.user()
        except ClientError:
            self._done.wait(RETRY_SECONDS)
            return None

    def _follow_reply(self, user: User) -> ReplyRecord:
        """Sends a message and reads its reply with two readers."""
        message = self._message()
        author = Reader(self._target, user, self._deadline)
        thread = Thread(target=author.follow, args=(message, self._target.key()), daemon=True)
        thread.start()
        author.has_started.wait(max(0.0, self._deadline - monotonic()))
        follower = Reader(self._target, user, self._deadline, author.message_id)
        if author.message_id:
            follower.follow()
        thread.join(max(0.0, self._deadline + 1 - monotonic()))
        return ReplyRecord(user, echoed(message), [author, follower] if author.message_id else [author])

    def _message(self) -> str:
        if self._target.options.slow_message != SLOW_MESSAGE:
            return self._target.options.slow_message
        text = f"{random.randrange(10**6)} {TEXT}"  # noqa: S311 - no secret
        return f"/slow {random.uniform(*REPLY_SECONDS):.1f} {text}"  # noqa: S311

    def _read_log(self, reply: ReplyRecord) -> None:
        """The reply as a new reader sees it, once all is over."""
        if not (message_id := reply.readers[0].message_id):
            return
        try:
            with reply.user.follow(message_id) as stream:
                reply.log = stream.read_all(self._target.deadline()).logged
        except (ClientError, Failed):
            reply.log = None


def run_command(command: str) -> str:
    """What went wrong, "" if nothing did.

    Only the shell is waited for: a server that it starts in the background inherits its output. A pipe would not end before
    that server.
    """
    with TemporaryFile() as errors:
        try:
            done = subprocess.run(  # noqa: S602
                command, shell=True, timeout=COMMAND_SECONDS, stdout=subprocess.DEVNULL, stderr=errors, check=False
            )
        except subprocess.TimeoutExpired:
            return f"the command ran for more than {COMMAND_SECONDS:g} s"
        errors.seek(0)
        output = errors.read().decode(errors="replace").strip()[-200:]
    return f"the command ended with status {done.returncode}: {output}" if done.returncode else ""
