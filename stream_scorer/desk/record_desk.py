"""Desk of one topic: the options that select its records, and the jobs that decide them."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import Counter
from dataclasses import dataclass, fields
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, ClassVar, Final, Generic, NamedTuple, Self, TypeVar

from stream_scorer.core.desk.decisions import Action
from stream_scorer.core.desk.desk_filter import DeskFilter, DeskRecord
from stream_scorer.core.desk.discard import Discard
from stream_scorer.core.desk.expression import Expression
from stream_scorer.core.desk.record_counts import RecordCounts
from stream_scorer.core.desk.record_filter import parse_filter
from stream_scorer.core.desk.selection import OffsetBounds, Selection, check_job_name, check_resumed, selection_of
from stream_scorer.core.desk.verdict import Decide, NotSelected, Skip, SkipReason
from stream_scorer.core.retry_topics import parse_source
from stream_scorer.core.text import is_text, quoted
from stream_scorer.desk.decision_log import DecisionLog
from stream_scorer.desk.job import Job, JobContext, begin_job
from stream_scorer.desk.topic_scan import TopicScan
from stream_scorer.desk.uncommitted_records import uncommitted_ranges
from stream_scorer.errors import UsageError
from stream_scorer.kafka.admin.topics import check_topics, existing_topics
from stream_scorer.kafka.consumer.log_reader import LogReader
from stream_scorer.kafka.producer.decision_writer import DecisionWriter
from stream_scorer.kafka.registry.serde import make_blocking_serde
from stream_scorer.schema_files import SchemaFile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from enum import StrEnum

    from stream_scorer.core.desk.decisions import DecidedRecords, Decision
    from stream_scorer.core.desk.record_counts import GroupBy
    from stream_scorer.core.desk.record_filter import RecordFilter
    from stream_scorer.core.records import SourceRecord
    from stream_scorer.desk.job import JobReport, Judge
    from stream_scorer.kafka.admin.acls import Permission
    from stream_scorer.kafka.consumer.log_reader import Record
    from stream_scorer.settings import Settings

TIMEOUT_S: Final = 60.0
_PATIENCE_S: Final = 120.0
_COMMITS_S: Final = 5.0
# These close a record for good, or overrule a check.
_WITH_REASON: Final = frozenset({Action.DISCARDED, Action.ACCEPTED})
NOTE_MISSING: Final = "--note is missing: give the reason, for the audit"


@dataclass(frozen=True, slots=True)
class DeskOptions:
    """Options of a command that select records; the texts are those of the command line.

    Attributes:
        known_reasons: the reasons of the topic.
        names: the names of an expression, with their types.
    """

    known_reasons: ClassVar[tuple[str, ...]]
    names: ClassVar[Mapping[str, Any]]

    contacts: tuple[str, ...] = ()
    since: str | None = None
    until: str | None = None
    limit: int | None = None
    partition: int | None = None
    places: tuple[str, ...] = ()
    events: tuple[str, ...] = ()
    batches: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    where: str | None = None

    def records(self, now_ms: int) -> RecordFilter:
        """Return the filter of the common options.

        Raises:
            UsageError: one is malformed.
        """
        return parse_filter(
            now_ms=now_ms,
            since=self.since,
            until=self.until,
            limit=self.limit,
            partition=self.partition,
            places=self.places,
            events=self.events,
            batches=self.batches,
            contacts=self.contacts,
        )

    def check(self) -> None:
        """Check what needs no cluster.

        Raises:
            UsageError: an option is malformed, or names an unknown reason.
        """
        self.records(0)
        for reason in self.reasons:
            if reason not in self.known_reasons:
                raise UsageError(f"--reason {quoted(reason)}: use {', '.join(self.known_reasons)}")
        self.expression()

    def expression(self) -> Expression | None:
        """Return the expression of ``where``; None: there is none.

        Raises:
            UsageError: it is malformed, or has an unknown name.
        """
        return None if self.where is None else Expression(self.where, self.names)

    @property
    def given(self) -> dict[str, Any]:
        """Return the options that differ from their defaults, by name."""
        changed = {part.name: getattr(self, part.name) for part in fields(self)}
        usual = {part.name: part.default for part in fields(self)}
        return {name: _plain(value) for name, value in changed.items() if value != usual[name]}

    @classmethod
    def restored(cls, given: Mapping[str, Any]) -> Self:
        """Return the options of a JOB record."""
        names = {part.name for part in fields(cls)}
        found = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
        arguments: dict[str, Any] = {name: value for name, value in found.items() if name in names}
        return cls(**arguments)


Options = TypeVar("Options", bound=DeskOptions)
Found = TypeVar("Found", bound=DeskRecord)


@dataclass(frozen=True, slots=True)
class JobPlan(Generic[Options]):
    """What a job is about to decide; of a job that is resumed, what was fixed when it began.

    Attributes:
        selection: action, options and bounds.
        options: the options of the selection.
        at_ms: when it began or begins, in Unix milliseconds.
        done: how many records it has decided before.
        note: the operator's reason at its beginning; empty: it has not begun.
    """

    selection: Selection
    options: Options
    at_ms: int
    done: int = 0
    note: str = ""

    @property
    def left(self) -> int | None:
        """How many records it still decides at most; None: no limit."""
        limit = self.options.limit
        return None if limit is None else max(0, limit - self.done)

    def skipped(self, found: Mapping[SkipReason, int]) -> dict[SkipReason, int]:
        """Return what is skipped: a scan that ends at the limit may not have found all that the job decided before."""
        before = max(found.get(SkipReason.DONE_BEFORE, 0), self.done)
        return {**found, SkipReason.DONE_BEFORE: before} if before else dict(found)


class Prediction(NamedTuple):
    """Prediction of a job: how many records it would decide, and how many selected ones not, by reason."""

    records: int
    skipped: Mapping[SkipReason, int]


class RecordDesk(ABC, Generic[Options, Found]):
    """See the module docstring.

    Attributes:
        states: the states of a record, in the order of a list's columns.

    Args:
        settings: of the workers.
        topic: the decided topic.
        published: the topic to which decisions publish.
        rights: rights of all commands; those to read are checked at once, the others before a job.

    Raises:
        BrokerError: a topic or a right is missing, or Kafka cannot be reached.
        SettingsError: the settings of the schema registry cannot work.
        RegistryError: the registry does not answer, or lacks a schema.
    """

    states: ClassVar[type[StrEnum]]

    def __init__(self, settings: Settings, topic: str, published: str, *, rights: Sequence[Permission]) -> None:
        decisions = settings.topics.decisions
        self.topic = topic
        self._settings = settings
        self._framing = make_blocking_serde(settings)
        self._rights = rights
        reading = [right for right in rights if right.operation == "Read"]
        self._topics = (topic, published, decisions)
        # To look, no right on a topic is needed that only decisions are published to.
        looked_at = [name for name in self._topics if name in {right.name for right in reading}]
        self._partitions = check_topics(settings, looked_at, rights=reading)
        self._log = LogReader(settings, settings.kafka.group_id, timeout_s=TIMEOUT_S)
        self._decision_codec = self._framing.writer(SchemaFile.DECISION, (decisions,))
        reader = self._framing.reader(SchemaFile.DECISION)
        self._decisions = DecisionLog(self._log, decisions, self._partitions[decisions], reader)

    @abstractmethod
    def parse(self, record: SourceRecord) -> Found | None:
        """Return a decoded record of the topic; None: it is not one that this desk decides."""

    @abstractmethod
    def state(self, found: Found, action: str | None, options: Options) -> str:
        """Return the state of a record; ``action``: what was decided about it, None: nothing."""

    @abstractmethod
    def publishing_judge(self, selected: DeskFilter[Found], options: Options) -> Judge:
        """Return the judge of the job that publishes something."""

    def judge(self, action: Action, options: Options, now_ms: int) -> Judge:
        """Return the judge of a job; ``now_ms``: when it began, in Unix milliseconds."""
        selected = self.selected(options, now_ms)
        return Discard(selected.selects) if action is Action.DISCARDED else self.publishing_judge(selected, options)

    def selected(self, options: Options, now_ms: int) -> DeskFilter[Found]:
        """Return the filter of the options."""
        return DeskFilter(options.records(now_ms), frozenset(options.reasons), options.expression(), self.parse)

    def matching(self, options: Options, now_ms: int) -> Iterator[Found]:
        """Yield the selected records, each partition's in order."""
        selected = self.selected(options, now_ms)
        found = (selected.read(record) for record in self.scan(options, now_ms).records())
        yield from islice((one for one in found if one is not None), options.limit)

    def counts(self, options: Options, by: GroupBy) -> RecordCounts:
        """Count the selected records; one with several reasons counts for the first."""
        decided, counts = self.decided(), RecordCounts(by, list(self.states))
        for found in self.matching(options, current_ms()):
            state = self.state(found, decided.action(found.record.source), options)
            counts.add(found.record, state=state, reason=next(iter(found.reasons), ""), campaign=found.campaign)
        return counts

    def prediction(self, plan: JobPlan[Options]) -> Prediction:
        """Predict a job; nothing is written.

        Raises:
            BrokerError: Kafka cannot be reached.
        """
        judge, decided = self.judge(Action(plan.selection.action), plan.options, plan.at_ms), self.decided()
        skipped: Counter[SkipReason] = Counter()
        count = 0
        for record in self.planned(plan).records():
            if count == plan.left:
                break
            verdict = judge.judge(record, decided.action(record.source))
            if isinstance(verdict, Skip):
                skipped[verdict.reason] += 1
            count += isinstance(verdict, Decide)
        return Prediction(count, plan.skipped(skipped))

    def waiting_in(self, topics: Sequence[str], group_id: str, is_counted: Callable[[Record], bool]) -> dict[str, int]:
        """Return how many records above a group's commits are counted, for each existing topic that has some.

        Raises:
            BrokerError: as `uncommitted_ranges`.
        """
        return Counter(name for name, one in self.uncommitted(topics, group_id) if is_counted(one))

    def uncommitted(self, topics: Sequence[str], group_id: str) -> Iterator[tuple[str, Record]]:
        """Yield the records above a group's commits of each existing topic, with its name.

        Raises:
            BrokerError: as `uncommitted_ranges`.
        """
        group_log = LogReader(self._settings, group_id, timeout_s=_COMMITS_S)
        for name, partitions in check_topics(self._settings, existing_topics(self._settings, topics)).items():
            for batch in self._log.read(name, uncommitted_ranges(group_log, name, partitions)):
                for one in batch:
                    yield name, one

    def scan(self, options: Options, now_ms: int) -> TopicScan:
        """Return the scan of the topic within the bounds of the options."""
        return TopicScan(self._settings, self.topic, options.records(now_ms), timeout_s=TIMEOUT_S)

    def planned(self, plan: JobPlan[Options]) -> TopicScan:
        """Return the scan of the records of a plan that retention has not deleted."""
        within = plan.selection.bounds
        selection = plan.options.records(plan.at_ms)
        return TopicScan(self._settings, self.topic, selection, within=within, timeout_s=TIMEOUT_S)

    def decided(self) -> DecidedRecords:
        """Return the decisions about records of the topic so far."""
        return self._decisions.read(self.topic, self._log.topic_id(self.topic))

    def plan(
        self, action: Action, options: Options, job: str | None, checkpoint: Callable[[], None] = lambda: None
    ) -> JobPlan[Options]:
        """Return what a job is about to decide; nothing is written.

        Args:
            action: what is decided.
            options: select the records.
            job: name that the operator gave to it; alone, without an option, it must be that of an earlier job. None:
                a new job.
            checkpoint: as of `run`.

        Raises:
            UsageError: the name is malformed, a job of this name has begun with other options or on a former topic, or
                no record is selected.
            BrokerError: Kafka cannot be reached.
            NotJudged: records or decisions cannot be read.
        """
        now_ms = current_ms()
        if job is not None:
            check_job_name(job)
            decided = self.decided()
            if (begun := decided.job(job)) is not None:
                fixed = selection_of(begun.changes)
                check_resumed(job, Selection(action, options.given, {}), fixed)
                options = type(options).restored(fixed.options)
                return JobPlan(fixed, options, begun.decided_at_ms, decided.decided_by(job), begun.note)
            if not options.given:
                raise UsageError(
                    f"no job {job} has begun, and without an option it would decide every record: check the name, or"
                    " begin it with an option (--since 0 selects all)"
                )
        self._check_selected(self.judge(action, options, now_ms), options, now_ms, checkpoint)
        bounds = {n: OffsetBounds(*one) for n, one in self.scan(options, now_ms).selected_ranges().items()}
        return JobPlan(Selection(action, options.given, bounds), options, now_ms)

    def run(
        self,
        action: Action,
        options: Options,
        *,
        job: str,
        is_named: bool,
        operator: str,
        note: str,
        per_second: float,
        progress: Callable[[int], None],
        checkpoint: Callable[[], None],
    ) -> JobReport:
        """Run a job, or resume the one of this name.

        Args:
            action: what is decided.
            options: select the records.
            job: name of the job.
            is_named: whether the operator gave it.
            operator: who decides.
            note: why; empty: as at the beginning of a job that is resumed.
            per_second: how many records are decided in a second at most.
            progress: called after each transaction with the number of records decided so far.
            checkpoint: called where the job may be interrupted; it raises what ends it.

        Raises:
            UsageError: see `plan`.
            ProducerFenced: another job has taken over.
            BrokerError: Kafka cannot be reached, or refuses.
            NotJudged: records or decisions cannot be read.
        """
        for option, text in (("--operator", operator), ("--note", note)):
            if not is_text(text):
                raise UsageError(f"{option} {quoted(text)}: it is not valid Unicode")
        check_topics(self._settings, self._topics, rights=self._rights)
        plan = self.plan(action, options, job if is_named else None, checkpoint)
        note = note or plan.note
        if action in _WITH_REASON and not note.strip():
            raise UsageError(NOTE_MISSING)
        context = JobContext(self.topic, self._log.topic_id(self.topic), job, operator, note)
        open_writer = partial(DecisionWriter, self._settings, encode=self._encode)
        # The job may have begun in the meantime.
        begun = begin_job(context, plan.selection, decisions=self._decisions, open_writer=open_writer)
        options = type(options).restored(begun.selection.options)
        return Job(
            context,
            self.judge(action, options, begun.at_ms),
            log=self._log,
            decisions=self._decisions,
            open_writer=open_writer,
            per_second=per_second,
            limit=options.limit,
            patience_s=_PATIENCE_S,
            progress=progress,
            checkpoint=checkpoint,
        ).run(begun.selection)

    def _check_selected(self, judge: Judge, options: Options, now_ms: int, checkpoint: Callable[[], None]) -> None:
        """Check that the options select a record of this group before anything is written.

        Raises:
            UsageError: they do not.
        """
        foreign = ""
        for record in self.scan(options, now_ms).records():
            checkpoint()
            verdict = judge.judge(record, None)
            if verdict == Skip(SkipReason.FOREIGN):
                foreign = foreign or record.source
            elif not isinstance(verdict, NotSelected):
                return
        if foreign:
            raise UsageError(f"only records of other programs are selected, such as {foreign}: check topics.*")
        raise UsageError(self.not_found(options))

    def not_found(self, options: Options) -> str:
        """Return the error of options that select no record of the topic."""
        return nothing_selected(self.topic, options.contacts)

    def _encode(self, decision: Decision) -> bytes:
        return self._decision_codec.encode(decision.as_fields())


def nothing_selected(topic: str, ids: Iterable[str]) -> str:
    """Return the error of ids and options that select no record of a topic."""
    place = next((one for one in ids if parse_source(one) is not None), None)
    if place is not None:
        return f"{place} is a place, not an id: use --place {place}"
    return f"no record of {topic} is selected: check the ids and the options"


def current_ms() -> int:
    """Return the time in Unix milliseconds."""
    return time.time_ns() // 1_000_000


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
