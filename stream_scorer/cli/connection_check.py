"""Step-by-step check of everything that a worker connects to: ``stream-scorer config check --connect``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Final, NamedTuple

import typer

from stream_scorer.cli.standard_streams import SafeStream
from stream_scorer.cli.unexpected import kafka_error
from stream_scorer.doc_pages import docs_command
from stream_scorer.errors import CheckFailed, StreamScorerError
from stream_scorer.kafka.admin.acls import callback_rights, denied_message, scoring_rights
from stream_scorer.kafka.admin.admin_client import ClusterAdmin
from stream_scorer.kafka.admin.output_topics import check_outputs, decisions_shortage
from stream_scorer.kafka.admin.retry_retention import check_retry_retention
from stream_scorer.kafka.admin.topics import check_topics, existing_topics
from stream_scorer.targets.factory import build_target, check_endpoint

if TYPE_CHECKING:
    from stream_scorer.kafka.admin.acls import Permission
    from stream_scorer.settings import Settings

_TOPICS_REMEDY: Final = (
    f"If they exist, this user has no right on them: {docs_command('security', 'the-least-rights')} has the command"
    " that grants it."
)
_RIGHTS_REMEDY: Final = f"{docs_command('security', 'the-least-rights')} has the command that grants each right."
_CONNECT_S: Final = 5.0


class Marks(NamedTuple):
    """Marks of a step: passed, failed, not checked."""

    passed: str
    failed: str
    skipped: str


_SYMBOLS: Final = Marks("✓", "✗", "-")
_ASCII: Final = Marks("ok", "FAILED", "-")


def output_marks() -> Marks:
    """Return symbols, or words where standard output has no characters for them."""
    stream: object = sys.stdout
    can_encode = not isinstance(stream, SafeStream) or stream.can_encode("".join(_SYMBOLS))
    return _SYMBOLS if can_encode else _ASCII


class Steps:
    """Steps of a check, printed as comments below the settings, one line each.

    A step whose predecessor failed is not made; all others are.

    Attributes:
        passed: names of the steps that have passed.
    """

    def __init__(self) -> None:
        self._marks = output_marks()
        self.passed: set[str] = set()
        self._problems: list[str] = []

    def step(self, name: str, check: Callable[[], Iterable[str]], remedy: str, *, needs: Iterable[str] = ()) -> None:
        """Make a step.

        Args:
            name: its name.
            check: raises an error, or returns its results, one line each.
            remedy: what to do after a failure, one line.
            needs: steps without which this one is not made.
        """
        if missing := [one for one in needs if one not in self.passed]:
            typer.echo(f"# {self._marks.skipped} {name}: not checked, since it needs {' and '.join(missing)}")
            return
        try:
            lines = list(check())
        except Exception as error:
            known = error if isinstance(error, StreamScorerError) else kafka_error(error)
            if known is None:
                raise
            self._fail(name, str(known), remedy)
            return
        self.passed.add(name)
        first, *rest = lines or ["done"]
        typer.echo(f"# {self._marks.passed} {name}: {first}")
        for line in rest:
            typer.echo(f"# {line}")

    def skip(self, name: str, reason: str) -> None:
        """Print that a step is not made, which is no failure."""
        typer.echo(f"# {self._marks.skipped} {name}: {reason}")

    def _fail(self, name: str, problem: str, remedy: str) -> None:
        self._problems.append(problem)
        for line in problem.splitlines():
            typer.echo(f"# {self._marks.failed} {name}: {line}")
        typer.echo(f"#   {remedy}")

    def finish(self) -> None:
        """Raise the problems of all steps.

        Raises:
            CheckFailed: a step has failed; one line for each problem.
        """
        if self._problems:
            # Two workers may lack the same topic.
            raise CheckFailed("\n".join(dict.fromkeys(self._problems)))


def check_connections(settings: Settings, check_settings: Callable[[], None]) -> None:
    """Check settings, Kafka, topics, rights, retention, login, model and endpoint, and print each step.

    With a target of callbacks, topics and rights of the campaign worker are checked, too.

    Raises:
        CheckFailed: a step has failed; one line for each problem.
    """
    from stream_scorer.wiring.scoring import ApiCheck  # noqa: PLC0415 - imports telemetry, which takes a second

    steps = Steps()

    def checked() -> Iterator[str]:
        check_settings()
        yield "complete"

    steps.step("settings", checked, f"Set what is missing: {docs_command('settings')} has every key and its variable.")
    _check_kafka(steps, settings)
    _check_campaign(steps, settings)
    if "settings" in steps.passed:
        with closing(ApiCheck(settings)) as api:
            steps.step(
                "login",
                lambda: [api.login()],
                "Check genesys.region or genesys.login_url, the OAuth client and its secret, and proxies on the way.",
            )
            steps.step(
                "model",
                lambda: [api.model()],
                "Check genesys.model_id, and the role and scope of the OAuth client.",
                needs=["login"],
            )
    else:
        steps.skip("login", "not checked, since it needs settings")
        steps.skip("model", "not checked, since it needs login")
    _check_endpoint(steps, settings)
    steps.finish()


def _check_kafka(steps: Steps, settings: Settings) -> None:
    servers = settings.kafka.bootstrap_servers
    steps.step(
        "Kafka",
        lambda: [f"cluster {ClusterAdmin(settings).cluster_id(_CONNECT_S)} answers at {servers}"],
        "Check kafka.bootstrap_servers, kafka.properties, and whether the brokers run:"
        f" {docs_command('security', 'connect')}.",
    )
    steps.step("topics", lambda: _topics(settings), _TOPICS_REMEDY, needs=["Kafka"])
    steps.step("rights", lambda: _rights(settings, scoring_rights(settings)), _RIGHTS_REMEDY, needs=["Kafka"])
    steps.step(
        "retention",
        lambda: _retention(settings),
        f"`stream-scorer topics create --update-retention` sets {settings.topics.audit}; alter the configuration of any"
        " other topic with kafka-configs.",
        needs=["topics"],
    )


def _check_campaign(steps: Steps, settings: Settings) -> None:
    """Check topics and rights of the campaign worker; without a target of callbacks there is none."""
    if settings.callbacks.target == "webhook" and settings.callbacks.url is None:
        return
    names = settings.campaign_topics
    steps.step(
        "campaign topics", lambda: _existing(settings, names, "campaign worker"), _TOPICS_REMEDY, needs=["Kafka"]
    )
    rights = callback_rights(settings)
    steps.step("campaign rights", lambda: _rights(settings, rights), _RIGHTS_REMEDY, needs=["Kafka"])
    steps.step(
        "campaign retention",
        lambda: _not_compacted(settings, names[1:]),
        "Alter the configuration of the topic with kafka-configs.",
        needs=["campaign topics"],
    )


def _existing(settings: Settings, names: Iterable[str], worker: str) -> Iterator[str]:
    found = check_topics(settings, names)
    yield f"all {len(found)} of the {worker} exist"
    for name, partitions in found.items():
        yield f"topic {name}: 1 partition" if partitions == 1 else f"topic {name}: {partitions} partitions"


def _topics(settings: Settings) -> Iterator[str]:
    yield from _existing(settings, settings.scoring_topics, "scoring worker")
    if not existing_topics(settings, [settings.topics.decisions]):
        yield (
            f"topic {settings.topics.decisions}: missing; no worker needs it, but `rejected replay` and the like:"
            " run `stream-scorer topics create`"
        )


def _rights(settings: Settings, rights: Sequence[Permission]) -> Iterator[str]:
    if (denied := denied_message(settings, rights)) is not None:
        raise CheckFailed(denied)
    groups = ", ".join(right.name for right in rights if right.resource == "group")
    yield (
        "the brokers report no missing right on the topics that exist; those on transactional ids and on the group"
        f" {groups} show when a worker starts"
    )


def _retention(settings: Settings) -> Iterator[str]:
    outputs = check_outputs(settings, settings.topics.scoring[1:])
    hidden = check_retry_retention(settings, settings.contact_retry_topics)
    for unchecked in filter(None, (outputs.unchecked, hidden)):
        typer.echo(f"warning: {unchecked}", err=True)
    if short := list(filter(None, (outputs.audit_retention, decisions_shortage(settings)))):
        raise CheckFailed("\n".join(short))
    is_whole = outputs.unchecked is None and hidden is None
    yield "no output is compacted, and retry topics and audit keep their records" if is_whole else "as far as visible"


def _not_compacted(settings: Settings, outputs: Iterable[str]) -> Iterator[str]:
    unchecked = check_outputs(settings, outputs).unchecked
    if unchecked is not None:
        typer.echo(f"warning: {unchecked}", err=True)
    yield "no output is compacted" if unchecked is None else "as far as visible"


def _check_endpoint(steps: Steps, settings: Settings) -> None:
    """Check the target of callbacks; without a URL of its webhook there is no campaign worker."""
    callbacks = settings.callbacks
    if callbacks.target == "log" or (callbacks.target == "webhook" and callbacks.url is None):
        reason = "callbacks.url is not set" if callbacks.target == "webhook" else "callbacks are logged"
        steps.skip("endpoint", f"not checked: {reason}")
        return

    def check() -> Iterator[str]:
        with closing(build_target(settings)) as target:
            yield from check_endpoint(target)

    needs = ["login"] if callbacks.target == "genesys-outbound" else []
    is_local = str(callbacks.url).startswith("http://127.0.0.1:")
    here = " `stream-scorer receive` is a receiver on this machine." if is_local else ""
    remedy = (
        f"Check the contact lists and callbacks.columns: {docs_command('targets')}."
        if needs
        else f"Check callbacks.url, callbacks.secret, and firewalls on the way: {docs_command('targets')}.{here}"
    )
    steps.step("endpoint", check, remedy, needs=needs)
