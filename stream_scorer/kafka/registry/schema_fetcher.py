"""Fetches the schemas of unknown writers in a thread of its own, so that no loop waits for the registry.

A schema id is *wanted* (it was met in a value), then *answered*: with a schema, or with the sentence that says why
there is none. Until then whoever met it waits. Nobody gives up on a registry that does not answer. One that does not
know the id is asked a few times more, since a replica may lag behind the one where it was registered. That answer holds
for half a minute, and only with evidence: since the id was wanted, another one was fetched, or the registry confirmed
one that it had before. Without it the registry counts as one that does not answer. An id that the group has resolved
before is never missing.
"""

from __future__ import annotations

import itertools
import queue
import threading
from collections import OrderedDict
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from stream_scorer.core.avro.codec import UndecodableError
from stream_scorer.core.avro.confluent import SchemaMissingError, WriterUnknownError
from stream_scorer.errors import RegistryError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

_MAX_REQUESTED: Final = 1_000
# Ids that stand behind one that is waited for: fetched along with it, but never in the way of others' heads.
_MOST_AHEAD: Final = 100
_KEPT: Final = 1_000
# An answer that somebody has just gone by is not forgotten, however many others come: the value is read by it next.
_IN_USE_S: Final = 60.0
_ASKS: Final = 4
# Where so many in a row are not there, it is no replica that lags but a row of junk.
_JUNK_AFTER: Final = 20
_ASKS_OF_JUNK: Final = 2
_SAID_AFTER_S: Final = 2.0
_ASK_AGAIN_S: Final = 1.5
_RETRY_S: Final = 1.0
# Below the shortest default of scoring.retry_delays_s: each round of a deferred record reads the registry again.
_MISSING_FOR_S: Final = 30.0
# Ids that were resolved, the latest last. A group's producers have a few.
_MOST_RESOLVED: Final = 10_000
_MOST_NOTED: Final = 50
_NEVER: Final = float("inf")


class WriterSchemas(Protocol):
    """Who knows the schema behind an id; see ``kafka.registry.client.SchemaRegistry``."""

    def writer(self, schema_id: int) -> dict[str, Any] | None:
        """The schema; None: there is none. Raises `RegistryError` where nobody could say."""

    def has(self, schema_id: int) -> bool:
        """Whether a schema is there now. Raises `RegistryError` where the registry does not answer."""


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
    """See the module's text. Its methods may be called by any thread and never wait.

    Args:
        writers: is asked.
        clock: seconds, monotonic.
        ask_again_s: how long after the registry did not know an id it is asked once more.
        retry_s: how long after the registry did not answer it is asked again.
    """

    def __init__(
        self,
        writers: WriterSchemas,
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
        # The one that was gone by last stands last.
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
        """Return the schema behind an id.

        Raises:
            WriterUnknownError: it is wanted from now on.
            UndecodableError: nothing can be read by it.
            SchemaMissingError: there is none.
        """
        # An answer that has just grown old still holds for a record that was let in by it.
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
        """Fetch the schema behind an id, if it is not known; ``ahead``: nobody waits for it yet, so others come first.

        No more than a thousand are fetched at a time, and no more than a hundred ahead.
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
        """Whether `writer` says something now; if not, the id is wanted."""
        with self._lock:
            answered = self._is_answered(schema_id)
        if not answered:
            self.request(schema_id)
        return answered

    def add(self, schema_id: int, schema: Mapping[str, Any]) -> None:
        """This is the schema behind an id: it need not be fetched."""
        self._keep(schema_id, _Answer(schema, "", _NEVER))

    def mark_resolved(self, schema_ids: Iterable[int]) -> None:
        """Take ids that the group has resolved before: they are never missing."""
        with self._lock:
            for schema_id in schema_ids:
                self._note_resolved(schema_id)

    def resolved(self) -> tuple[int, ...]:
        """Return the ids that were resolved last, at most 50."""
        with self._lock:
            return tuple(itertools.islice(reversed(self._resolved), _MOST_NOTED))[::-1]

    def error_for(self, schema_id: int) -> str:
        """Why there is no answer yet; empty: it is being fetched for the first time."""
        with self._lock:
            said = self._wanted.get(schema_id, "")
            if not said and self._clock() - self._since.get(schema_id, _NEVER) > _SAID_AFTER_S:
                return f"schema id {schema_id} is being fetched"
            return said

    def close(self) -> None:
        """Fetch nothing any more; a request that is under way is not waited for."""
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

    # --- the lookup's thread

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
        """Take what is wanted since, waiting until something is due; False: it is over."""
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
        if again.asks == one.asks:  # nobody answered, and the others would only wait for the same time-out
            due[:] = [other._replace(due=max(other.due, again.due)) for other in due]
        due.append(again)

    def _ask(self, wanted: _Wanted) -> _Wanted | None:
        """Ask once; returns when to ask again."""
        schema_id, asks, _ = wanted
        missing = f"the schema registry has no schema with id {schema_id}"
        try:
            schema = self._writers.writer(schema_id)
        except UndecodableError as error:
            answer = _Answer(None, str(error), _NEVER)
        except RegistryError as error:
            return self._later(wanted._replace(due=self._clock() + self._retry_s), str(error))
        except Exception as error:  # noqa: BLE001 - whatever it is: an end of this thread would hold up everything
            said = f"unexpected {type(error).__name__}"
            return self._later(wanted._replace(due=self._clock() + self._retry_s), said)
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
        """Return why it is not believed that an id is missing, as the end of a sentence; empty: it is."""
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
        """Have the registry confirm an id that it had before; return why that is none, empty: it is."""
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
