"""Contact lists of the simulated platform, each with its dial queue.

The parameters of a request have the meaning that the platform's SDKs document:

- ``priority``: a contact that is queued is dialled next; without it, it goes to the end of the queue.
- ``doNotQueue``: an updated contact keeps its position, so a dialled one is not dialled again. Without it, an updated
  contact is queued again. New contacts are always queued.
- ``clearSystemData``: attempts, the last wrap-up code and the stored ``callable`` of an updated contact are cleared.
- ``callable`` in the body overwrites the stored value. A body without it keeps the value, and so an opt-out.

The data of an updated contact replace the former ones. A contact that is not callable, or without a number, is taken
from the queue without a call.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, TypeAlias, get_args

from stream_scorer.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from stream_scorer.local.simulator.config import ListColumns

WrapUp: TypeAlias = Literal["CONTACTED", "NO-ANSWER", "OPT-OUT"]
WRAP_UPS: Final[tuple[WrapUp, ...]] = get_args(WrapUp)


@dataclass(slots=True)
class ListedContact:
    """Contact of a list, as ``GET /_simulator/contact-list`` returns it.

    Attributes:
        data: its columns.
        callable: whether it may be called.
        priority: the priority flag of its last request.
        times: number of requests that contained it.
        attempts: number of calls since it was added, or since its system data were cleared.
        wrap_up: wrap-up code of the last call; None: there was none.
        queued: whether it waits in the dial queue.
    """

    data: dict[str, str]
    callable: bool
    priority: bool
    times: int
    attempts: int = 0
    wrap_up: WrapUp | None = None
    queued: bool = True


@dataclass(frozen=True, slots=True)
class Dial:
    """One call of the dialler, as ``GET /_simulator/dials`` returns it.

    Attributes:
        contact_list_id: the list.
        id: the contact's id in the list.
        number: the number that was called.
        data: the contact's columns at that time.
        attempt: number of the call for this contact, from 1.
        wrap_up: wrap-up code.
        at_ms: Unix milliseconds.
    """

    contact_list_id: str
    id: str
    number: str
    data: dict[str, str]
    attempt: int
    wrap_up: WrapUp
    at_ms: int


class DialCount(NamedTuple):
    """How often one person was dialled for one score, as ``GET /_simulator/dialled`` returns it."""

    person: str
    score: str
    times: int


class DiallerCounts(NamedTuple):
    """Counts over all lists, as ``GET /_simulator/dialler`` returns them."""

    contacts: int
    queued: int
    dials: int


class AddOptions(NamedTuple):
    """Query of a request that adds contacts."""

    priority: bool = False
    do_not_queue: bool = False
    clear_system_data: bool = False


@dataclass(slots=True)
class ContactList:
    """One contact list, by contact id, with the dial queue of its campaign."""

    id: str
    contacts: dict[str, ListedContact] = field(default_factory=dict)
    # Ordered by position: a contact is found and removed without a search.
    _queue: OrderedDict[str, None] = field(default_factory=OrderedDict)

    def add(self, contacts: Sequence[Mapping[str, Any]], options: AddOptions) -> list[dict[str, Any]]:
        """Add or update the checked contacts of one request; return them as they are stored."""
        due = list(dict.fromkeys(contact["id"] for contact in contacts if self._store(contact, options)))
        self._queue.update(dict.fromkeys(due))
        if options.priority:
            for contact_id in reversed(due):
                self._queue.move_to_end(contact_id, last=False)
        return [self.described(contact["id"]) for contact in contacts]

    def _store(self, contact: Mapping[str, Any], options: AddOptions) -> bool:
        """Store one contact; return whether it is to be queued, and take it from the queue in that case."""
        contact_id: str = contact["id"]
        known = self.contacts.get(contact_id)
        if known is None:
            self.contacts[contact_id] = ListedContact(
                contact["data"], contact.get("callable", True), options.priority, times=1
            )
            return True
        if options.clear_system_data:
            known.attempts, known.wrap_up, known.callable = 0, None, True
        known.data, known.priority = contact["data"], options.priority
        known.callable = contact.get("callable", known.callable)
        known.times += 1
        if options.do_not_queue:
            return False
        self._queue.pop(contact_id, None)
        known.queued = True
        return True

    def described(self, contact_id: str) -> dict[str, Any]:
        """Return one contact in the platform's form."""
        contact = self.contacts[contact_id]
        return {"id": contact_id, "contactListId": self.id, "data": contact.data, "callable": contact.callable}

    def opt_out(self, contact_ids: Iterable[str]) -> None:
        """Make these contacts not callable, as an agent or a do-not-call request does."""
        for contact_id in contact_ids:
            if contact_id not in self.contacts:
                raise SettingsError(f"contact list {self.id}: it has no contact '{contact_id}'")
            self.contacts[contact_id].callable = False

    def waiting(self) -> list[str]:
        """Return the ids in the dial queue, the next one first."""
        return list(self._queue)

    @property
    def queued(self) -> int:
        """Number of contacts in the dial queue."""
        return len(self._queue)

    @property
    def next_id(self) -> str | None:
        """The id that is called next; None: the queue is empty."""
        return next(iter(self._queue), None)

    def dial(self, columns: ListColumns, wrap_up: WrapUp, *, max_attempts: int, at_ms: int) -> Dial | None:
        """Call the next contact of the queue that may be called; None: there is none.

        ``NO-ANSWER`` puts it to the end of the queue, up to ``max_attempts`` calls; ``OPT-OUT`` makes it not callable.
        """
        while self._queue:
            contact_id, _ = self._queue.popitem(last=False)
            contact = self.contacts[contact_id]
            contact.queued = False
            numbers = [contact.data.get(column, "").strip() for column in columns.phone_columns]
            number = next(filter(None, numbers), None)
            if number is None or not contact.callable:
                continue
            contact.attempts += 1
            contact.wrap_up = wrap_up
            if wrap_up == "OPT-OUT":
                contact.callable = False
            elif wrap_up == "NO-ANSWER" and contact.attempts < max_attempts:
                contact.queued = True
                self._queue[contact_id] = None
            return Dial(self.id, contact_id, number, dict(contact.data), contact.attempts, wrap_up, at_ms)
        return None


@dataclass(slots=True)
class Dialler:
    """All contact lists, and the record of calls. Not thread-safe: used in the server's event loop only."""

    lists: dict[str, ContactList] = field(default_factory=dict)
    dials: list[Dial] = field(default_factory=list)
    _dialled_until: float | None = None

    def list_of(self, list_id: str) -> ContactList:
        """Return the list with this id; it is made when it is used first."""
        return self.lists.setdefault(list_id, ContactList(list_id))

    def dial(
        self,
        list_id: str,
        columns: ListColumns,
        *,
        contacts: int | None = None,
        wrap_up: WrapUp = "CONTACTED",
        max_attempts: int = 1,
        at_ms: int,
    ) -> list[Dial]:
        """Call the next contacts of a list, all that wait if ``contacts`` is None; return the calls.

        One round calls each contact once at most: a contact that did not answer waits for the next round.
        """
        one = self.list_of(list_id)
        limit = one.queued if contacts is None else contacts
        made: list[Dial] = []
        called: set[str] = set()
        while len(made) < limit and one.next_id is not None and one.next_id not in called:
            dial = one.dial(columns, wrap_up, max_attempts=max_attempts, at_ms=at_ms)
            if dial is not None:
                made.append(dial)
                called.add(dial.id)
        self.dials += made
        return made

    def advance(
        self, now: float, lists: Mapping[str, ListColumns], *, dials_per_s: float, max_attempts: int, at_ms: int
    ) -> None:
        """Make the calls that were due since the last time, in each list."""
        if dials_per_s <= 0:
            self._dialled_until = None
            return
        if self._dialled_until is None:
            self._dialled_until = now
        due = int((now - self._dialled_until) * dials_per_s)
        if due > 0:
            self._dialled_until += due / dials_per_s
            for list_id, columns in lists.items():
                self.dial(list_id, columns, contacts=due, max_attempts=max_attempts, at_ms=at_ms)

    def totals(self) -> DiallerCounts:
        """Return the number of contacts, of those in a dial queue, and of calls."""
        lists = self.lists.values()
        return DiallerCounts(sum(len(one.contacts) for one in lists), sum(one.queued for one in lists), len(self.dials))

    def counts(self, person: str | None, score: str, minimum: int) -> list[DialCount]:
        """Return how often each person was dialled for each score, only those with at least ``minimum`` calls.

        Args:
            person: the column that identifies a person; None: the number that was called.
            score: the column that identifies a score.
            minimum: the smallest number of calls.
        """
        counted = Counter(
            (dial.number if person is None else dial.data.get(person, ""), dial.data.get(score, ""))
            for dial in self.dials
        )
        return [DialCount(*key, times) for key, times in sorted(counted.items()) if times >= minimum]
