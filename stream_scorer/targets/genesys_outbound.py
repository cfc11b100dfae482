"""Genesys Cloud Outbound target: adds the contacts of a callback to a contact list, for dialling.

A contact is queued at most once for a score, whatever is repeated: its id is the same at every attempt, and a contact
that the list has keeps its position in the dial queue (``doNotQueue``). With ``callbacks.requeue = "newer_score"`` the
contacts are read first. Those whose ``scored_at`` in the list is older are queued again, those with a newer one are
left alone.
``callable`` is never sent, so an opt-out stays.

A refused request is divided until the refused contacts are alone: these are refused, the others are added. A contact
without a value in an address column of the list is refused alone without a request.

Errors of the configuration (credentials, scope, the list and its columns) fail every callback of a list, so they open
circuit breakers: callbacks wait, and none is refused.
"""

from __future__ import annotations

import re
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import orjson

from stream_scorer.core.callbacks.types import DeliveryAnswer, DeliveryKind, RefusedContact
from stream_scorer.targets.body_fit import OUTBOUND_KIND, fits_list, list_suffix
from stream_scorer.targets.contact_columns import ContactColumns
from stream_scorer.targets.contact_list import MAX_CONTACTS, ContactListCheck, ContactListInfo
from stream_scorer.targets.outbound_client import OURS, OutboundClient
from stream_scorer.targets.response_policy import made_for_another_target

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from stream_scorer.core.callbacks.types import Callback, Score
    from stream_scorer.genesys.oauth import TokenSource
    from stream_scorer.genesys.request_quota import Quota
    from stream_scorer.http_client.client import Http

# The platform's limit of a request.
MAX_BODY_BYTES: Final = 512_000
# These statuses may be caused by a single contact.
_DIVIDED: Final = frozenset({400, 413, 422})
# If so many contacts are refused alone and none is accepted, no contact is the cause.
_ALL_REFUSED: Final = 8
# How long the columns of a list are used without reading them again.
_LIST_AGE_S: Final = 600.0
# As `iso_time` writes it: such times sort by their text.
_TIME: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]{8}\.[0-9]{3}Z")


class _Entry(NamedTuple):
    """A contact of a callback, and its position in it."""

    position: int
    contact: dict[str, Any]

    @property
    def data(self) -> dict[str, str]:
        data: dict[str, str] = self.contact["data"]
        return data


class OutboundTarget:
    """Target for contact lists of Genesys Cloud.

    Attributes:
        name: ``genesys-outbound``, the API's address and the id of the list for campaigns without one of their own.
        max_body_bytes: the API's limit of a request.
    """

    max_body_bytes = MAX_BODY_BYTES

    def __init__(
        self,
        http: Http,
        tokens: TokenSource,
        quota: Quota,
        base_url: str,
        contact_list_id: str,
        *,
        contact_lists: Mapping[str, str] | None = None,
        columns: ContactColumns | None = None,
        requeue_newer: bool = False,
        timeout_s: float = 30.0,
        monotonic: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        """Prepare the target; nothing is sent before the first `deliver`.

        Args:
            http: the connections; closed with the target.
            tokens: of an OAuth client with the scope ``outbound``.
            quota: of that client, for this target only.
            base_url: of the API, ``https://api.<region>``.
            contact_list_id: the contact list of all campaigns that ``contact_lists`` does not name.
            contact_lists: contact lists by campaign id.
            columns: columns and ids of contacts; None: `ContactColumns` without arguments.
            requeue_newer: whether contacts with a newer score are queued again.
            timeout_s: deadline of one exchange, in seconds.
            monotonic: monotonic seconds, for the quota.
            wall_clock: Unix seconds, for a ``Retry-After`` with a date.
        """
        self._base_url = base_url.rstrip("/")
        self._list_id = contact_list_id
        self._list_ids = dict(contact_lists or {})
        self.name = self._name_of(contact_list_id)
        self._columns = columns or ContactColumns()
        self._requeue_newer = requeue_newer
        self._client = OutboundClient(
            http, tokens, quota, self._base_url, timeout_s=timeout_s, monotonic=monotonic, wall_clock=wall_clock
        )
        self._monotonic = monotonic
        self._lists = {one: _KnownList() for one in self.list_ids}
        self._claims = _Claims()

    def __repr__(self) -> str:
        return f"OutboundTarget(name={self.name!r})"

    @property
    def list_ids(self) -> tuple[str, ...]:
        """The contact lists, each once."""
        return tuple(dict.fromkeys((self._list_id, *self._list_ids.values())))

    def target_of(self, campaign_id: str | None) -> str:
        """Return the name with the contact list of the campaign."""
        return self._name_of(self._list_of(campaign_id))

    def entry(self, score: Score) -> bytes:
        """Return one contact: id, list and data."""
        list_id = self._list_of(score.campaign_id)
        contact_id = self._columns.contact_id(score, list_id)
        return orjson.dumps({"id": contact_id, "contactListId": list_id, "data": self._columns.data(score)})

    def body(
        self,
        callback_id: str,  # noqa: ARG002 - the platform has no field for these four
        campaign_id: str | None,  # noqa: ARG002
        model_id: str,  # noqa: ARG002
        planned_at_ms: int,  # noqa: ARG002
        entries: Sequence[bytes],
    ) -> bytes:
        """Return the array of contacts."""
        return _body(entries)

    def allowance(self) -> int | None:
        """Return how many requests the quota has left."""
        return self._client.remaining()

    def deliver(self, callback: Callback, _traceparent: str | None = None, /) -> DeliveryAnswer:
        """Make one attempt, as the quota allows it; no failure of network or platform is raised."""
        list_id = self._list_of(callback.campaign_id)
        if not fits_list(callback.target, list_id):
            return made_for_another_target(callback)
        entries = _entries(callback)
        if entries is None:
            return self._client.add_contacts(list_id, callback.body, do_not_queue=True).answer
        started = self._monotonic()
        columns = dict.fromkeys(column for entry in entries for column in entry.data)
        info = self._fitting_list(list_id, columns)
        if isinstance(info, DeliveryAnswer):
            return info
        delivery = _Delivery(info.address_columns(columns))
        answer = self._add_all(list_id, delivery.with_address(entries), delivery)
        if answer is not None:
            return answer
        return delivery.result(len(entries), (self._monotonic() - started) * 1000.0)

    def contact_list(self, list_id: str, max_age_s: float = _LIST_AGE_S) -> ContactListInfo | DeliveryAnswer:
        """Return a contact list, read at most ``max_age_s`` ago, or why it cannot be read."""
        called_at, known = self._monotonic(), self._lists[list_id]
        with known.lock:
            started_at = self._monotonic()
            if known.info is not None and (started_at - known.read_at < max_age_s or known.read_at > called_at):
                return known.info
            if known.failure is not None and known.failed_at > called_at:
                return known.failure
            info = self._read_list(list_id)
            if isinstance(info, DeliveryAnswer):
                known.failure, known.failed_at = info, self._monotonic()
            else:
                known.info, known.read_at = info, started_at
            return info

    def check(self, list_id: str) -> ContactListCheck:
        """Read a contact list, and compare it with the columns."""
        info = self.contact_list(list_id)
        if isinstance(info, DeliveryAnswer):
            return ContactListCheck(list_id, None, info.message)
        if (problem := info.problem(self._columns.names)) is not None:
            return ContactListCheck(list_id, info, problem, has_other_columns=True)
        return ContactListCheck(list_id, info, _full(info) if info.size >= MAX_CONTACTS else None)

    def close(self) -> None:
        """Abort exchanges in flight, and close the connections."""
        self._client.close()

    # --- contacts

    def _read_list(self, list_id: str) -> ContactListInfo | DeliveryAnswer:
        got = self._client.read_list(list_id)
        if not got.is_delivered:
            return _not_refused(got.answer)
        info = None if got.body is None else ContactListInfo.parse(got.body)
        return _unreadable(got.answer, "the answer is no contact list") if info is None else info

    def _fitting_list(self, list_id: str, columns: Mapping[str, None]) -> ContactListInfo | DeliveryAnswer:
        """Return the list, read again if it does not fit these columns: it may have been corrected."""
        info = self.contact_list(list_id)
        if not isinstance(info, DeliveryAnswer) and info.problem(columns) is not None:
            info = self.contact_list(list_id, 0.0)
        if isinstance(info, DeliveryAnswer) or (problem := info.problem(columns)) is None:
            return info
        if {*columns} != {*self._columns.names}:
            # Planned under another setting: the present one may fit, so the others must not wait for this one.
            message = f"its body was made for other columns than callbacks.columns has now: {problem}"
            return DeliveryAnswer(DeliveryKind.HELD, message, None, 0.0)
        return _unfit(problem)

    def _add_all(self, list_id: str, entries: list[_Entry], delivery: _Delivery) -> DeliveryAnswer | None:
        """Add the contacts; return the answer that ended that too early, or None."""
        scored_at = self._columns.scored_at
        if not entries:
            return None
        if not self._requeue_newer or scored_at is None:
            return self._add(list_id, entries, delivery, do_not_queue=True)
        # Between reading and writing a contact no other callback may write it: see `_by_age`.
        with self._claims.holding({(list_id, entry.contact["id"]) for entry in entries}):
            stored = self._stored(list_id, entries, scored_at)
            if isinstance(stored, DeliveryAnswer):
                return stored
            newer, new, left_alone = _by_age(entries, stored, scored_at)
            delivery.accepted += left_alone
            for part, do_not_queue in ((newer, False), (new, True)):
                if part and (answer := self._add(list_id, part, delivery, do_not_queue=do_not_queue)) is not None:
                    return answer
        return None

    def _add(
        self, list_id: str, entries: list[_Entry], delivery: _Delivery, *, do_not_queue: bool
    ) -> DeliveryAnswer | None:
        """Add contacts in one request, or in several if it is refused; return the answer that ended it, or None."""
        parts = [entries]
        while parts:
            part = parts.pop()
            body = _body([orjson.dumps(entry.contact) for entry in part])
            got = self._client.add_contacts(list_id, body, do_not_queue=do_not_queue)
            answer = got.answer
            if got.is_delivered:
                delivery.accept(len(part), answer)
                continue
            if answer.kind is not DeliveryKind.REFUSED or answer.status not in _DIVIDED:
                return answer
            if delivery.is_first_refusal() and (problem := self._changed(list_id, part)) is not None:
                return problem
            if len(part) > 1:
                middle = len(part) // 2
                parts += [part[middle:], part[:middle]]
                continue
            delivery.refuse(part[0], answer)
            if delivery.is_refused_throughout:
                return answer
        return None

    def _changed(self, list_id: str, part: list[_Entry]) -> DeliveryAnswer | None:
        """Read the list again after a refusal; return the answer if the list is the cause."""
        info = self.contact_list(list_id, 0.0)
        if isinstance(info, DeliveryAnswer):
            return info
        problem = info.problem(dict.fromkeys(column for entry in part for column in entry.data))
        if problem is None and info.size + len(part) > MAX_CONTACTS:
            problem = _full(info)
        return None if problem is None else _unfit(problem)

    def _stored(self, list_id: str, entries: list[_Entry], scored_at: str) -> dict[str, str] | DeliveryAnswer:
        """Return the times of the scores that the list has, by contact id; empty: the contact has none."""
        got = self._client.read_contacts(list_id, [entry.contact["id"] for entry in entries])
        if not got.is_delivered:
            return _not_refused(got.answer)
        try:
            found = orjson.loads(got.body or b"")
            return {one["id"]: str(one["data"].get(scored_at) or "") for one in found}
        except (ValueError, KeyError, TypeError, AttributeError):
            return _unreadable(got.answer, "the answer is no list of contacts")

    # --- lists

    def _list_of(self, campaign_id: str | None) -> str:
        return self._list_id if campaign_id is None else self._list_ids.get(campaign_id, self._list_id)

    def _name_of(self, list_id: str) -> str:
        return f"{OUTBOUND_KIND}{self._base_url}{list_suffix(list_id)}"


class _KnownList:
    """A contact list as it was last read. Times are monotonic seconds.

    One thread reads a list at a time. Those that wait for it take its result, a failure too: each of 32 threads would
    otherwise use a request of the quota, and wait for the time-out of all before it.

    Attributes:
        lock: held while the list is read.
        info: the list; None: it was never read.
        read_at: when the request for it was made.
        failure: why the last attempt that failed did.
        failed_at: when it failed.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.info: ContactListInfo | None = None
        self.read_at = 0.0
        self.failure: DeliveryAnswer | None = None
        self.failed_at = 0.0


class _Claims:
    """Claims of threads on contacts: a contact has one owner at a time."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._owned: set[tuple[str, str]] = set()

    @contextmanager
    def holding(self, contacts: set[tuple[str, str]]) -> Iterator[None]:
        """Wait until no other thread has one of these contacts; own them in the block."""
        with self._changed:
            self._changed.wait_for(lambda: self._owned.isdisjoint(contacts))
            self._owned |= contacts
        try:
            yield
        finally:
            with self._changed:
                self._owned -= contacts
                self._changed.notify_all()


class _Delivery:
    """What has become of the contacts of one callback so far.

    Attributes:
        accepted: contacts that the list has, with this score or a newer one.
    """

    def __init__(self, addresses: Sequence[str]) -> None:
        self._addresses = addresses
        self._refused: list[RefusedContact] = []
        self._refusals = 0
        self._has_refusal = False
        self._last: DeliveryAnswer | None = None
        self.accepted = 0

    def with_address(self, entries: Sequence[_Entry]) -> list[_Entry]:
        """Return the contacts that can be added; refuse those without an address or an id."""
        good: list[_Entry] = []
        for entry in entries:
            if not any(entry.data.get(column, "").strip() for column in self._addresses):
                names = ", ".join(self._addresses)
                why = RefusedContact(entry.position, "no_address", f"no value for {names} of the contact list", None)
                self._refused.append(why)
            elif not entry.contact.get("id"):
                why = RefusedContact(entry.position, "no_contact_id", "no value for callbacks.contact_id", None)
                self._refused.append(why)
            else:
                good.append(entry)
        return good

    def accept(self, contacts: int, answer: DeliveryAnswer) -> None:
        """Count contacts that were added."""
        self.accepted += contacts
        self._last = answer

    def refuse(self, entry: _Entry, answer: DeliveryAnswer) -> None:
        """Record a contact that is refused alone."""
        self._refused.append(RefusedContact(entry.position, "refused", answer.message, answer.status))
        self._last = self._last or answer
        self._refusals += 1

    def is_first_refusal(self) -> bool:
        """Return whether no request was refused before; the next call returns False."""
        first, self._has_refusal = not self._has_refusal, True
        return first

    @property
    def is_refused_throughout(self) -> bool:
        """Whether so many contacts are refused, and none is accepted, that no contact is the cause."""
        return self.accepted == 0 and self._refusals >= _ALL_REFUSED

    def result(self, contacts: int, latency_ms: float) -> DeliveryAnswer:
        """Return the answer for the whole callback."""
        refused = tuple(sorted(self._refused))
        last = self._last
        status = None if last is None else last.status
        if not refused:
            message = last.message if last is not None else "the list has these scores or newer ones"
            return DeliveryAnswer(DeliveryKind.DELIVERED, message, status, latency_ms)
        kind = DeliveryKind.REFUSED if len(refused) == contacts else DeliveryKind.DELIVERED
        if contacts == 1:
            [one] = refused
            return DeliveryAnswer(kind, one.detail, one.status, latency_ms, refused=refused)
        text = f"{len(refused)} of {contacts} contacts are refused: {refused[0].detail}"
        return DeliveryAnswer(kind, text, status, latency_ms, refused=refused)


def _entries(callback: Callback) -> list[_Entry] | None:
    """Return the contacts of a body that this target has made; None: it has another form, so the platform judges it.

    ``callable`` of a body that an older version has planned is left out.
    """
    try:
        contacts = orjson.loads(callback.body)
        entries = [_Entry(index, {**contact}) for index, contact in enumerate(contacts)]
        for entry in entries:
            entry.contact.pop("callable", None)
            if not all(isinstance(text, str) for text in (entry.contact["id"], *entry.data.values())):
                return None
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return entries if 0 < len(entries) == len(callback.sources) else None


def _by_age(
    entries: Sequence[_Entry], stored: Mapping[str, str], scored_at: str
) -> tuple[list[_Entry], list[_Entry], int]:
    """Return the contacts with a newer score than in the list, those that are new there, and how many are left alone.

    One with the same or an older score is left alone. An older score would make that of the list look new at its next
    attempt. Either would stand in a contact that waits for a call about another score, and the call would be a second
    one about this score. For the same reason, of several scores of one contact only the newest counts.

    A contact without a readable time, in the list or in the callback, may be either, so it is added and not queued
    again. A callback has none if it was planned before the column was renamed. The time in the list stays then: without
    it, the next attempt for the score there would queue the contact again.
    """
    newest: dict[str, _Entry] = {}
    for entry in entries:
        known = newest.get(entry.contact["id"])
        if known is None or known.data.get(scored_at, "") <= entry.data.get(scored_at, ""):
            newest[entry.contact["id"]] = entry
    newer: list[_Entry] = []
    new: list[_Entry] = []
    for contact_id, entry in newest.items():
        listed, scored = stored.get(contact_id), entry.data.get(scored_at, "")
        if not _TIME.fullmatch(scored):
            data = {**entry.data, scored_at: listed} if listed else entry.data
            new.append(_Entry(entry.position, {**entry.contact, "data": data}))
        elif listed is None or (listed and not _TIME.fullmatch(listed)):
            new.append(entry)
        elif listed < scored:
            newer.append(entry)
    return newer, new, len(entries) - len(newer) - len(new)


def _full(info: ContactListInfo) -> str:
    return f"the contact list has {info.size:,} contacts of at most {MAX_CONTACTS:,}: remove some from it"


def _body(entries: Sequence[bytes]) -> bytes:
    return b"[" + b",".join(entries) + b"]"


def _not_refused(answer: DeliveryAnswer) -> DeliveryAnswer:
    """Return the answer to a request that reads: its refusal is no refusal of the contacts."""
    if answer.kind is not DeliveryKind.REFUSED or answer.status in OURS:
        return answer
    return replace(answer, kind=DeliveryKind.TRY_LATER, message=f"{answer.message}: the contact list cannot be read")


def _unfit(problem: str) -> DeliveryAnswer:
    """Return the answer while a list does not fit or is full: that fails every callback of the list."""
    remedy = "correct the contact list or callbacks.columns; config check --connect compares them"
    return DeliveryAnswer(DeliveryKind.TRY_LATER, problem, None, 0.0, remedy=remedy)


def _unreadable(answer: DeliveryAnswer, why: str) -> DeliveryAnswer:
    return DeliveryAnswer(DeliveryKind.TRY_LATER, f"{answer.message}: {why}", answer.status, answer.latency_ms)
