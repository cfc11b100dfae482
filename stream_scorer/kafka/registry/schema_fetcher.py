"""Background thread that fetches writers' schemas, so that no loop waits for the registry.

A schema id is *wanted* once it was met in a value, and then *answered*: with a schema, or with the reason why there is
none. Until then its partition waits. A registry that does not answer is retried without limit. If it does not know the
id, the request is repeated a few times, since a replica may lag behind the one of the registration. That answer holds
for half a minute, and only with evidence. Evidence is an id that was fetched, or confirmed by the registry, since this
one was wanted. Without it the registry counts as unavailable. An id that the group has resolved before is never
missing.
"""

from __future__ import annotations

import itertools
import queue
import threading
from collections import OrderedDict
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from stream_scorer.core.avro.codec import UndecodableError
from stream_scorer.core.avro.confluent import SchemaMissingError, WriterUnknownError
from stream_scorer.errors import RegistryError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from stream_scorer.kafka.registry.client import SchemaRegistry

_MAX_REQUESTED: Final = 1_000
# Limit of ids behind the one that pauses a partition: fetched with it, but after the heads of other partitions.
_MOST_AHEAD: Final = 100
_KEPT: Final = 1_000
# An answer used recently is kept, however many others arrive: the value of its record is decoded next.
_IN_USE_S: Final = 60.0
_ASKS: Final = 4
# With so many missing in a row, the values are junk; a lagging replica is unlikely.
_JUNK_AFTER: Final = 20
_ASKS_OF_JUNK: Final = 2
_SAID_AFTER_S: Final = 2.0
_ASK_AGAIN_S: Final = 1.5
_RETRY_S: Final = 1.0
# Below the shortest default of scoring.retry_delays_s: each round of a deferred record reads the registry again.
_MISSING_FOR_S: Final = 30.0
# Limit of resolved ids, the latest last. A group's producers have a few.
_MOST_RESOLVED: Final = 10_000
_MOST_NOTED: Final = 50
_NEVER: Final = float("inf")


class _Answer(NamedTuple):
    schema: Mapping[str, Any] | None
    refusal: str
    until: float
    is_missing: bool = False


class _Wanted(NamedTuple):
    schema_id: int
    asks: int
    due: float


class SchemaFetcher:
    """Background fetcher of writers' schemas. Thread-safe; no method blocks.

    Args:
        writers: the registry's client.
        clock: monotonic seconds.
        ask_again_s: delay before the next request for an id that the registry did not know.
        retry_s: delay before the next request to a registry that did not answer.
    """

    def __init__(
        self,
        writers: SchemaRegistry,
        *,
        clock: Callable[[], float] = monotonic,
        ask_again_s: float = _ASK_AGAIN_S,
        retry_s: float = _RETRY_S,
    ) -> None:
        self._writers = writers
        self._clock = clock
        self._ask_again_s = ask_again_s
        self._retry_s = retry_s
        self._lock = threading.Lock()
        # In order of use, the latest last.
        self._answers: OrderedDict[int, _Answer] = OrderedDict()
        self._used_at: dict[int, float] = {}
        self._wanted: dict[int, str] = {}
        self._since: dict[int, float] = {}
        self._urgent: set[int] = set()
        self._missing_in_a_row = 0
        self._resolved: OrderedDict[int, None] = OrderedDict()
        self._evidence_at = float("-inf")
        self._new: queue.Queue[int | None] = queue.Queue()
        self._thread: threading.Thread | None = None

    def writer(self, schema_id: int) -> Mapping[str, Any]:
        """Return the schema of an id.

        Raises:
            WriterUnknownError: it is not fetched yet, and is wanted from now on.
            UndecodableError: its schema is unusable.
            SchemaMissingError: the registry has none.
        """
        # An expired answer still holds for a record that was admitted by it.
        with self._lock:
            answer = self._answers.get(schema_id)
        if answer is None:
            self.request(schema_id)
            raise WriterUnknownError(schema_id)
        if answer.is_missing:
            raise SchemaMissingError(answer.refusal)
        if answer.schema is None:
            raise UndecodableError(answer.refusal)
        return answer.schema

    def request(self, schema_id: int, *, ahead: bool = False) -> None:
        """Fetch the schema of an id, if unknown; ``ahead``: no partition waits for it yet, so it comes after others.

        At most 1,000 ids are wanted at a time, and at most 100 ahead.
        """
        with self._lock:
            if self._is_answered(schema_id):
                return
            if not ahead:
                self._urgent.add(schema_id)
            if schema_id in self._wanted or len(self._wanted) >= (_MOST_AHEAD if ahead else _MAX_REQUESTED):
                return
            self._wanted[schema_id] = ""
            self._since[schema_id] = self._clock()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="schema-lookup", daemon=True)
                self._thread.start()
        self._new.put(schema_id)

    def is_answered(self, schema_id: int) -> bool:
        """Return whether `writer` has an answer now; otherwise the id is wanted."""
        with self._lock:
            answered = self._is_answered(schema_id)
        if not answered:
            self.request(schema_id)
        return answered

    def add(self, schema_id: int, schema: Mapping[str, Any]) -> None:
        """Add a known schema, which need not be fetched."""
        self._keep(schema_id, _Answer(schema, "", _NEVER))

    def mark_resolved(self, schema_ids: Iterable[int]) -> None:
        """Record ids that the group has resolved before: they are never missing."""
        with self._lock:
            for schema_id in schema_ids:
                self._note_resolved(schema_id)

    def resolved(self) -> tuple[int, ...]:
        """Return the most recently resolved ids, at most 50."""
        with self._lock:
            return tuple(itertools.islice(reversed(self._resolved), _MOST_NOTED))[::-1]

    def error_for(self, schema_id: int) -> str:
        """Return why there is no answer yet; empty: the first request is in flight."""
        with self._lock:
            problem = self._wanted.get(schema_id, "")
            if not problem and self._clock() - self._since.get(schema_id, _NEVER) > _SAID_AFTER_S:
                return f"schema id {schema_id} is being fetched"
            return problem

    def close(self) -> None:
        """Stop fetching; a request in flight is not waited for."""
        self._new.put(None)

    # --- any thread

    def _is_answered(self, schema_id: int) -> bool:
        answer, now = self._answers.get(schema_id), self._clock()
        if answer is None or answer.until < now:
            return False
        self._used_at[schema_id] = now
        self._answers.move_to_end(schema_id)
        return True

    def _note_resolved(self, schema_id: int) -> None:
        self._resolved[schema_id] = None
        self._resolved.move_to_end(schema_id)
        if len(self._resolved) > _MOST_RESOLVED:
            self._resolved.popitem(last=False)

    # --- the background thread

    def _run(self) -> None:
        due: list[_Wanted] = []
        while self._take_new(due):
            now = self._clock()
            ready = [one for one in due if one.due <= now]
            if ready:
                first = min(ready, key=lambda one: (one.schema_id not in self._urgent, one.due))
                due.remove(first)
                self._ask_one(first, due)

    def _take_new(self, due: list[_Wanted]) -> bool:
        """Add newly wanted ids, and wait until one is due; return False after `close`."""
        wait_s = max(0.0, min(one.due for one in due) - self._clock()) if due else None
        try:
            schema_id = self._new.get(timeout=wait_s) if wait_s != 0.0 else self._new.get_nowait()
            while schema_id is not None:
                due.append(_Wanted(schema_id, 0, self._clock()))
                schema_id = self._new.get_nowait()
        except queue.Empty:
            return True
        return False

    def _ask_one(self, one: _Wanted, due: list[_Wanted]) -> None:
        again = self._ask(one)
        if again is None:
            return
        if again.asks == one.asks:  # no answer: other requests would only run into the same time-out
            due[:] = [other._replace(due=max(other.due, again.due)) for other in due]
        due.append(again)

    def _ask(self, wanted: _Wanted) -> _Wanted | None:
        """Send one request for an id; return the next one for it, None if it is answered."""
        schema_id, asks, _ = wanted
        missing = f"the schema registry has no schema with id {schema_id}"
        try:
            schema = self._writers.writer(schema_id)
        except UndecodableError as error:
            answer = _Answer(None, str(error), _NEVER)
        except RegistryError as error:
            return self._later(wanted._replace(due=self._clock() + self._retry_s), str(error))
        except Exception as error:  # noqa: BLE001 - or the thread would end, and partitions would stay paused
            problem = f"unexpected {type(error).__name__}"
            return self._later(wanted._replace(due=self._clock() + self._retry_s), problem)
        else:
            self._missing_in_a_row = 0 if schema is not None else self._missing_in_a_row + (asks == 0)
            enough = _ASKS_OF_JUNK if self._missing_in_a_row > _JUNK_AFTER else _ASKS
            if schema is None and asks + 1 < enough:
                again = _Wanted(schema_id, asks + 1, self._clock() + self._ask_again_s)
                return self._later(again, f"{missing}; asking again")
            if schema is None and (doubt := self._doubt(schema_id)):
                return self._later(wanted._replace(due=self._clock() + self._retry_s), f"{missing}{doubt}")
            until = _NEVER if schema is not None else self._clock() + _MISSING_FOR_S
            answer = _Answer(schema, missing, until, is_missing=schema is None)
        self._keep(schema_id, answer)
        return None

    def _doubt(self, schema_id: int) -> str:
        """Return why a missing id is doubtful, as the end of a sentence; empty: there is evidence."""
        with self._lock:
            is_resolved = schema_id in self._resolved
            known = next(reversed(self._resolved), None)
            since = self._since.get(schema_id, _NEVER)
        if is_resolved:
            return ", which it had before"
        if self._evidence_at >= since:
            return ""
        if known is None:
            return ", and no other is known that it should have"
        doubt = self._refuted(known)
        if not doubt:
            self._evidence_at = self._clock()
        return doubt

    def _refuted(self, known: int) -> str:
        """Request a resolved id as evidence; return why that fails, empty: it is confirmed."""
        try:
            return "" if self._writers.has(known) else f", nor with id {known}, which it had before"
        except RegistryError as error:
            return f"; {error}"
        except Exception as error:  # noqa: BLE001 - as in _ask
            return f"; unexpected {type(error).__name__}"

    def _later(self, wanted: _Wanted, why: str) -> _Wanted:
        with self._lock:
            self._wanted[wanted.schema_id] = why
        return wanted

    def _keep(self, schema_id: int, answer: _Answer) -> None:
        with self._lock:
            if answer.schema is not None:
                self._note_resolved(schema_id)
                self._evidence_at = self._clock()
            self._answers[schema_id] = answer
            self._answers.move_to_end(schema_id)
            self._used_at[schema_id] = self._clock()
            while len(self._answers) > _KEPT:
                oldest = next(iter(self._answers))
                if self._used_at[oldest] > self._clock() - _IN_USE_S:
                    break
                del self._answers[oldest], self._used_at[oldest]
            self._wanted.pop(schema_id, None)
            self._since.pop(schema_id, None)
            self._urgent.discard(schema_id)
