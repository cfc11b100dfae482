"""Scripted faults: affected requests, number of times, and effect. `docs/simulator.md` lists all words, with examples.

A fault is JSON (in a scenario file: TOML)::

    {"match":  {"path": "score", "contact_id": "C-17"},   the affected requests
     "after":  2,                                         number of requests that pass first (default 0)
     "times":  3,                                         number of affected requests (default 1; null: all)
     "action": {"status": 503, "retry_after": "3"}}       the effect

``match`` has ``path`` (``score``, the default, or another `FaultPath`) and, for ``score``, any of these
conditions, all of which must hold:

- ``contact_id``, ``contact_prefix``: the request contains this contact, or one whose id has this prefix;
- ``model_version``: the request has this version (``""``: none);
- ``min_contacts``: the request contains at least this number of contacts.

For all paths, ``share`` (with ``seed``) selects a share of the requests that meet the other
conditions, the same ones in every run.

An action returns a scripted answer, or processes the request and damages the answer. Any action may have
``"delay_ms": N``, a delay before it; alone, it gives a correct but late answer (billed).

- ``{"status": N}`` (**unpaid**, as the request is not processed), with ``retry_after`` (seconds or an HTTP date, sent
  unchanged), ``headers`` (an object, with ``Location`` for a 3xx), ``code`` (of the platform's error), ``names`` (the
  contacts of ``details[].entityId``: a selection, see below, or a list of ids, in the request or not),
  ``revoke_tokens`` (true: all tokens are revoked) and ``body``: ``platform`` (the platform's error, the default),
  ``html``, ``empty``, ``not_json``, ``wrong_shape``, ``nested`` (100,000 levels of JSON), or any other text, which is
  sent unchanged as JSON;
- ``{"results": [edit, …]}`` (**paid**, left out or not): the real answer, damaged by these edits in order;
- ``{"transfer": …}`` (**paid**; **unpaid** with a ``status``): the transport of the body. ``cut`` and ``cut_chunked``
  close the connection after half of it, ``drip`` sends a byte every 100 ms without end, ``endless`` sends at full
  speed without end, ``gzip`` is valid compression, ``gzip_bomb`` is small and expands to 200 MB. Can be combined with
  ``status`` or ``results``;
- ``{"drop": "before"}`` (**unpaid**) closes the connection before the request is processed, ``{"drop": "after"}``
  (**paid**) afterwards.

An edit is ``{"do": word, "of": selection}``; without ``of`` it applies to all results:

- ``omit`` removes them; ``repeat`` sends them twice; ``contradict`` sends them twice, with other values; ``unknown``
  adds a result for ``unknown-<id>``, a contact that was not in the request; ``reverse`` reverses the order of all;
- ``swap`` exchanges the bounds; ``outside`` moves both to one side of the score;
- ``remove`` removes a ``field``: ``contactId``, ``score``, ``confidenceInterval``, ``lower`` or ``upper``; ``set``
  sets it to a ``value`` (any JSON) or a ``literal`` (sent unchanged: ``NaN``, ``Infinity``, ``1e999``).

A selection is ``"all"``, ``{"count": N}`` (the first ones), ``{"share": 0.3}`` (by the checksum of the id, so the same
contacts in every request), ``{"ids": […]}`` or ``{"prefix": "C-1"}``.

Faults apply to requests that pass authentication and quota, in the order in which they were added; only the first due
one acts. Edits change only a 200; other answers are sent unchanged.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field, model_validator

from stream_scorer.local.http_server.models import BODILESS, AnswerFault, Frozen, ScriptedFault, Share

FaultPath: TypeAlias = Literal["token", "score", "outbound", "outbound_list", "outbound_read"]
ResultField: TypeAlias = Literal["contactId", "score", "confidenceInterval", "lower", "upper"]


class Selection(Frozen):
    """Selection of a request's contacts; exactly one field is set."""

    count: Annotated[int, Field(ge=0)] | None = None
    share: Share | None = None
    ids: tuple[str, ...] | None = None
    prefix: str | None = None

    @model_validator(mode="after")
    def _one(self) -> Selection:
        if len(self.model_fields_set) != 1:
            raise ValueError("a selection is 'all' or has exactly one of count, share, ids, prefix")
        return self


Selected: TypeAlias = Literal["all"] | Selection


class FaultMatch(Frozen):
    """Condition for the affected requests."""

    path: FaultPath = "score"
    contact_id: str | None = None
    contact_prefix: Annotated[str, Field(min_length=1)] | None = None
    model_version: str | None = None
    min_contacts: Annotated[int, Field(ge=1)] | None = None
    share: Share = 1.0
    seed: int = 0

    @property
    def needs_body(self) -> bool:
        """Whether the condition depends on the body, which must then be parsed."""
        given = (self.contact_id, self.contact_prefix, self.model_version, self.min_contacts)
        return any(value is not None for value in given)

    @model_validator(mode="after")
    def _tokens_hold_no_contacts(self) -> FaultMatch:
        if self.path != "score" and self.needs_body:
            words = "contact_id, contact_prefix, model_version, min_contacts"
            raise ValueError(f"to a fault, a request of path {self.path} holds no contact: leave out {words}")
        return self


class ResultEdit(Frozen):
    """Change to the results of an answer."""

    do: Literal["omit", "repeat", "contradict", "unknown", "reverse", "swap", "outside", "remove", "set"]
    of: Selected = "all"
    field: ResultField | None = None
    value: Any = None
    literal: Annotated[str, Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _complete(self) -> ResultEdit:
        given = self.model_fields_set
        if (self.do in {"set", "remove"}) != (self.field is not None):
            raise ValueError("'set' and 'remove' need a field, the others have none")
        if len(given & {"value", "literal"}) != (self.do == "set"):
            raise ValueError("'set' needs either a value or a literal, the others have none")
        if self.do == "reverse" and "of" in given:
            raise ValueError("'reverse' concerns all results: leave out of")
        return self


class FaultAction(AnswerFault):
    """Effect of a fault on a request."""

    code: str | None = None
    names: Selected | tuple[str, ...] | None = None
    revoke_tokens: bool = False
    body: str = "platform"
    results: tuple[ResultEdit, ...] = ()

    @model_validator(mode="after")
    def _one_kind(self) -> FaultAction:
        if self.status is not None and self.drop is not None:
            raise ValueError("an action has either a status or a drop")
        if self.results and (self.status is not None or self.drop is not None):
            raise ValueError("results are those of a real answer: leave out status and drop")
        if self.transfer is not None and self.drop is not None:
            raise ValueError("nothing travels over a dropped connection: leave out transfer or drop")
        if self.transfer is not None and self.status in BODILESS:
            raise ValueError(f"a {self.status} has no body: leave out transfer")
        if self.status is None and self.drop is None and self.transfer is None and not (self.results or self.delay_ms):
            raise ValueError("an action needs status, results, transfer, drop or delay_ms")
        self._check_words_of_a_status()
        return self

    def _check_words_of_a_status(self) -> None:
        words = self.model_fields_set & {"retry_after", "headers", "code", "names", "revoke_tokens", "body"}
        if self.status is None and words:
            raise ValueError(f"{', '.join(sorted(words))} belong to a status")
        if self.body != "platform" and self.model_fields_set & {"code", "names"}:
            raise ValueError("code and names stand in the body 'platform'")


class Fault(ScriptedFault):
    """One entry of the simulator's script."""

    match: FaultMatch = FaultMatch()
    action: FaultAction

    @model_validator(mode="after")
    def _tokens_have_no_results(self) -> Fault:
        if self.match.path != "score" and (self.action.results or self.action.names is not None):
            raise ValueError(
                f"to a fault, a request of path {self.match.path} holds no contact: leave out results and names"
            )
        return self
