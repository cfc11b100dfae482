"""Scoring without Kafka: contacts as dicts in, scores out.

with PredictiveScoreCalculator(model_id, client_id, client_secret, expected_features, imputation_map) as calculator:
outcome = calculator.calculate([{"contactId": "c-1", "features": {"previous_calls": 3}}])
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Self, TypeAlias

from pydantic import ValidationError

from stream_scorer.core.scoring.response_policy import Policy
from stream_scorer.core.scoring.types import Contact, Reason, Rejected, Scored
from stream_scorer.core.text import is_text, quoted
from stream_scorer.errors import InputTypeError, SettingsError
from stream_scorer.genesys.wire import body_overhead
from stream_scorer.library.audit_log import AuditLogger
from stream_scorer.library.client import GenesysAuthManager, ScoreClient
from stream_scorer.library.environment import check_present, text_argument
from stream_scorer.library.frame import contacts_of, is_frame, results_beside
from stream_scorer.library.messages import in_library_words
from stream_scorer.library.payload import MAX_REQUEST_BYTES, ContactFeatureVector, as_contact
from stream_scorer.library.plain_values import plain
from stream_scorer.library.results import (
    ConfidenceVerifier,
    PartialOnError,
    RejectedContact,
    ScoreResult,
    ScoringOutcome,
)
from stream_scorer.library.scoring_run import ScoringRun
from stream_scorer.library.validation import check_text, failures_of, impute, value_problem

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stream_scorer.core.scoring.types import Outcome

_MAX_IN_FLIGHT: Final = 1000
_KEPT_CONNECTIONS: Final = 8
_NOTHING_IMPUTED: Final[Mapping[str, Any]] = MappingProxyType({})

Progress: TypeAlias = "Callable[[int, int], object]"
"""Called with the number of finished contacts and of all contacts."""


class PredictiveScoreCalculator:
    """Scorer for lists of contacts, with one model."""

    def __init__(  # noqa: PLR0917 - callers pass these seven by position
        self,
        model_id: str | None = None,
        client_id: str | None = None,
        client_secret: str | None = None,
        expected_features: Sequence[str] | None = None,
        imputation_map: Mapping[str, Any] = _NOTHING_IMPUTED,
        callback_handler: Callable[[list[ScoreResult]], None] | None = None,
        base_url: str | None = None,
        *,
        region: str | None = None,
        login_url: str | None = None,
        model_version: str | None = None,
        max_features: int = 50,
        max_in_flight: int = 1,
        auditor: AuditLogger | None = None,
        verifier: ConfidenceVerifier | None = None,
        client: ScoreClient | None = None,
    ) -> None:
        """Check the arguments; no request is sent before the first calculation.

        Args:
            model_id: the model that scores; None: ``GENESYS_MODEL_ID``.
            client_id: id of an OAuth client with the scope ``predictiveengagement:score``; None: see
                `GenesysAuthManager`.
            client_secret: its secret; no repr, log or error shows it. None: see `GenesysAuthManager`.
            expected_features: the names of the model's features, required; a contact must have exactly these.
            imputation_map: values for absent or missing features, by name; also a pandas Series.
            callback_handler: called by `calculate_scores` with its results.
            base_url: URL of the API; None: see `GenesysAuthManager`.
            region: region of Genesys Cloud, such as ``mypurecloud.de``, in place of ``base_url``.
            login_url: URL of the login service, if it differs from the default of `GenesysAuthManager`.
            model_version: the requested version; None: the platform's default.
            max_features: maximum number of features of one contact.
            max_in_flight: limit of requests at a time in one calculation, 1 to 1000; the quota holds for all together.
            auditor: records the outcome of every contact; None: an `AuditLogger` with its defaults.
            verifier: selects results for review; None: a `ConfidenceVerifier` with its defaults.
            client: sends the requests, with its retries, quota, credentials and URLs; None: a `ScoreClient` with its
                defaults.

        Raises:
            SettingsError: model id or credentials are neither passed nor in the environment, all named in one error; an
                imputed feature is not expected or has no valid value; an id, name or URL is invalid; the callback
                handler is not callable.
        """
        if client is None:
            check_present(model_id=model_id, client_id=client_id, client_secret=client_secret)
        self.model_id = text_argument("model_id", model_id)
        if model_version is not None:
            check_text("model_version", model_version)
        if type(max_features) is not int:
            raise SettingsError("max_features must be a whole number")
        if type(max_in_flight) is not int or not 1 <= max_in_flight <= _MAX_IN_FLIGHT:
            raise SettingsError(f"max_in_flight must be a whole number from 1 to {_MAX_IN_FLIGHT}")
        self.model_version = model_version
        if client is None:
            auth = GenesysAuthManager(
                *(client_id, client_secret, base_url),
                region=region,
                login_url=login_url,
                max_connections=max(_KEPT_CONNECTIONS, max_in_flight),
            )
            client = ScoreClient(auth)
        self.auth = client.auth
        self.client = client
        self.expected_features = _names(expected_features)
        self.imputation_map = _imputation(imputation_map, self.expected_features)
        if callback_handler is not None and not callable(callback_handler):
            raise SettingsError("callback_handler must be callable with a list of ScoreResult")
        self.callback = callback_handler
        self.auditor = auditor or AuditLogger()
        self.verifier = verifier or ConfidenceVerifier()
        self.max_features = max_features
        self.max_in_flight = max_in_flight

    def __repr__(self) -> str:
        features = len(self.expected_features)
        return f"PredictiveScoreCalculator(model_id={self.model_id!r}, {features} features, client={self.client!r})"

    def calculate_scores(self, raw_contacts: Iterable[Any], *, progress: Progress | None = None) -> list[ScoreResult]:
        """Score contacts, pass the verified results to the callback handler, and return them.

        Rejected contacts and results for review are not included. `calculate` returns those as well, and the audit file
        has both.

        Args:
            raw_contacts: as in `calculate`.
            progress: as in `calculate`.

        Returns:
            The verified results in the order of the contacts.

        Raises:
            StreamScorerError: as in `calculate`.
            BaseException: the callback handler's exception; its ``partial`` is the whole `ScoringOutcome`.
        """
        outcome = self.calculate(raw_contacts, progress=progress)
        scored = list(outcome.scored)
        if self.callback is not None:
            with PartialOnError(lambda: outcome, lambda: (*outcome.scored, *outcome.review, *outcome.rejected)):
                self.callback(scored)
        return scored

    def calculate(self, raw_contacts: Iterable[Any], *, progress: Progress | None = None) -> ScoringOutcome:
        """Score contacts and return the outcome of each; an invalid one fails no other.

        Args:
            raw_contacts: any iterable of dicts ``{"contactId": …, "features": {…}}``, read once, before the first
                request. The dicts are not changed. None, NaN, NA and NaT are missing; features may be a pandas Series.
            progress: called with the number of finished contacts and of all, on the calling thread, after each response
                that finishes some; at the end both are equal. Its exception ends the calculation.

        Raises:
            ApiRefused: the API refuses every request: credentials, scope, model id.
            ApiUnavailable: all retries failed.
            ClientClosed: `close` was called before.
            SettingsError: the audit file cannot be written; raised before the first request, unless the disk is full.
            InputTypeError: a `TypeError`: ``raw_contacts`` is one contact, a text or a DataFrame.

            Every exception, Ctrl-C included, has a `ScoringOutcome` of the finished contacts as ``partial``.
        """
        found = _Found(self, progress)
        with PartialOnError(found.outcome, lambda: found.settled):
            self.auth.check_open()  # before a generator is read
            self._score(found, _listed(raw_contacts))
        return found.outcome()

    def calculate_frame(self, frame: Any, id: str, *, progress: Progress | None = None) -> Any:  # noqa: A002 - the public keyword
        """Score the rows of a pandas DataFrame.

        Args:
            frame: one contact a row; only the expected features and the id are read. It is not changed.
            id: the column, or the level of the index, with the contact ids; integers become text.
            progress: as in `calculate`.

        Returns:
            A DataFrame with the same index, in the same order: the id column, ``outcome`` (``scored``, ``review`` or
            ``rejected``), ``score``, ``confidence_interval_lower``, ``confidence_interval_upper``, ``latency_ms``,
            ``timestamp``, ``imputed_features``, ``reasons`` and ``detail``.

        Raises:
            InputTypeError: ``frame`` is not a DataFrame.
            InputError: a column is absent or occurs twice; both are raised before the first request.
            StreamScorerError: as in `calculate`. Every exception has the DataFrame as ``partial``; ``outcome`` is None
                in unfinished rows.
        """
        contacts = contacts_of(frame, id, self.expected_features, self.imputation_map)
        results_beside(frame, id, {})  # fail before the billed requests if columns cannot be added
        found = _Found(self, progress)
        with PartialOnError(lambda: results_beside(frame, id, found.settled), lambda: found.settled):
            self._score(found, contacts)
        return results_beside(frame, id, found.settled)

    def _score(self, found: _Found, raw_contacts: Sequence[Any]) -> None:
        self.auth.check_open()
        contacts = found.prepare(raw_contacts)
        if contacts:
            self.auditor.check()
        found.report()
        policy = Policy(
            model_id=self.model_id,
            verifier=self.verifier.rules,
            max_retries=self.client.max_retries,
            backoff_base_s=self.client.backoff_base_s,
            max_backoff_s=self.client.max_backoff_s,
        )
        run = ScoringRun(
            *(self.client, policy, found.finished, self.client.sleep),
            max_in_flight=self.max_in_flight,
            answered=found.report,
        )
        run.run(contacts, self.model_version)
        found.report()

    def close(self) -> None:
        """Close the connections."""
        self.auth.close()

    def __enter__(self) -> Self:
        self.auth.check_open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Found:
    """State of one calculation, by contact.

    Attributes:
        settled: the finished contacts by their index in the list.
    """

    def __init__(self, calculator: PredictiveScoreCalculator, progress: Progress | None) -> None:
        if progress is not None and not callable(progress):
            raise InputTypeError("progress must be callable: pass a function of two numbers, finished and total")
        self._calculator = calculator
        self._progress = progress
        self._reported = 0
        self._raw: Sequence[Any] = ()
        self.settled: dict[int, ScoreResult | RejectedContact] = {}

    def prepare(self, raw_contacts: Sequence[Any]) -> list[Contact]:
        """Check and impute all contacts; reject and audit the invalid ones before the first request."""
        self._raw = raw_contacts
        examined = [self._examine(index, raw) for index, raw in enumerate(self._raw)]
        rejected = [one for one in examined if isinstance(one, RejectedContact)]
        self.settled.update((one.index, one) for one in rejected)
        if rejected:
            self._calculator.auditor.log_score_batch([], self._calculator.model_id, 0, rejected=rejected)
        return [one for one in examined if isinstance(one, Contact)]

    def finished(self, outcomes: Sequence[Outcome]) -> None:
        """Store and audit the outcomes of a request; a contact is audited once."""
        settled: dict[int, ScoreResult | RejectedContact] = {}
        facts = outcomes[0].request
        for outcome in outcomes:
            index = outcome.record.offset
            if index in self.settled:
                continue
            if isinstance(outcome, Scored):
                settled[index] = _result(outcome)
            elif isinstance(outcome, Rejected):
                settled[index] = self._rejection(index, outcome)
        if not settled:
            return
        self.settled.update(settled)
        self._calculator.auditor.log_score_batch(
            [one for one in settled.values() if isinstance(one, ScoreResult)],
            self._calculator.model_id,
            len(outcomes) if facts is None else facts.request_contacts,
            rejected=[one for one in settled.values() if isinstance(one, RejectedContact)],
            batch_id=None if facts is None else facts.batch_id,
        )

    def report(self) -> None:
        """Call the progress callback if contacts were finished since its last call."""
        if self._progress is not None and len(self.settled) > self._reported:
            self._reported = len(self.settled)
            self._progress(self._reported, len(self._raw))

    def outcome(self) -> ScoringOutcome:
        """Return the outcomes so far, in the order of the list."""
        settled = [self.settled[index] for index in sorted(self.settled)]
        results = [one for one in settled if isinstance(one, ScoreResult)]
        return ScoringOutcome(
            scored=tuple(one for one in results if not one.review_reasons),
            review=tuple(one for one in results if one.review_reasons),
            rejected=tuple(one for one in settled if isinstance(one, RejectedContact)),
        )

    def _examine(self, index: int, raw: Any) -> Contact | RejectedContact:
        calculator = self._calculator
        try:
            vector = ContactFeatureVector.model_validate(raw)
        except ValidationError as error:
            given = raw.get("contactId") if isinstance(raw, Mapping) else None
            known = given if isinstance(given, str) and is_text(given) else ""
            return RejectedContact(index, known, (Reason.INVALID_CONTACT.value,), _findings(error), raw)
        features, imputed = impute(vector.features, calculator.imputation_map)
        missing = [name for name in calculator.expected_features if features.get(name) is None]
        failures = failures_of(features, dict.fromkeys(calculator.expected_features), calculator.max_features, missing)
        if failures:
            reasons = tuple(reason.value for reason, _ in failures)
            return RejectedContact(index, vector.contact_id, reasons, "; ".join(detail for _, detail in failures), raw)
        vector.features = {name: features[name] for name in calculator.expected_features}
        body = vector.encoded()
        size = len(body) + body_overhead(calculator.model_version)
        if size > MAX_REQUEST_BYTES:
            detail = f"its request would take {size} bytes, and the API takes {MAX_REQUEST_BYTES}"
            return RejectedContact(index, vector.contact_id, (Reason.TOO_LARGE.value,), detail, raw)
        return as_contact(index, vector.contact_id, body, calculator.model_version, imputed)

    def _rejection(self, index: int, rejected: Rejected) -> RejectedContact:
        detail = in_library_words(rejected.detail)
        return RejectedContact(index, rejected.contact_id, rejected.reasons, detail, self._raw[index])


def _names(expected_features: Any) -> list[str]:
    """Return the names of the features, with numpy's text as Python's."""
    if isinstance(expected_features, str):
        raise SettingsError("expected_features is one text: pass a list of names")
    try:
        names = [plain(name) for name in expected_features]
    except TypeError:
        raise SettingsError("expected_features must be a list of names") from None
    for name in names:
        if not isinstance(name, str) or not is_text(name):
            raise SettingsError(f"expected_features: {ascii(name)[:60]} must be text: in a DataFrame rename the column")
    return names


def _imputation(imputation_map: Any, expected_features: Sequence[str]) -> dict[str, Any]:
    """Return the values for absent features by name, with numpy's scalars as Python's."""
    try:
        values = {plain(name): plain(value) for name, value in dict(imputation_map).items()}
    except (TypeError, ValueError):
        raise SettingsError("imputation_map must be a dict: pass {} where nothing is to be imputed") from None
    for name, value in values.items():
        if name not in expected_features:
            raise SettingsError(f"imputation_map: {quoted(name)} is not one of the expected features")
        problem = (Reason.MISSING_FEATURE, "has no value to put in") if value is None else value_problem(value)
        if problem is not None:
            raise SettingsError(f"imputation_map: {quoted(name)} {problem[1]}")
    return values


def _listed(raw_contacts: Iterable[Any]) -> list[Any]:
    """Return the contacts of any iterable as a list: generators can be read once, and a Series is indexed by label."""
    if is_frame(raw_contacts):
        raise InputTypeError("raw_contacts is a DataFrame: use calculate_frame(frame, id=…)")
    if isinstance(raw_contacts, Mapping):
        raise InputTypeError("raw_contacts is one dict: pass [contact], or contacts.values() of a dict of contacts")
    try:
        contacts = None if isinstance(raw_contacts, str | bytes | bytearray) else iter(raw_contacts)
    except TypeError:
        contacts = None
    if contacts is None:
        kind = type(raw_contacts).__name__
        raise InputTypeError(f"raw_contacts must be an iterable of contacts, not {kind}: pass a list of dicts")
    return list(contacts)


def _result(scored: Scored) -> ScoreResult:
    at = datetime.fromtimestamp(scored.request.finished_at_ms / 1000.0, UTC)
    return ScoreResult(
        contact_id=scored.contact.contact_id,
        score=scored.score,
        confidence_interval_lower=scored.confidence_lower,
        confidence_interval_upper=scored.confidence_upper,
        latency_ms=scored.request.latency_ms or 0.0,
        timestamp=at.isoformat(timespec="milliseconds"),
        imputed_features=scored.contact.imputed_features,
        review_reasons=scored.review_reasons,
    )


def _findings(error: ValidationError) -> str:
    """Return pydantic's findings in one line, without the values."""
    parts = []
    for found in error.errors(include_url=False, include_input=False):
        place = ".".join(quoted(part)[1:-1] if isinstance(part, str) else str(part) for part in found["loc"])
        parts.append(f"{place}: {found['msg']}" if place else found["msg"])
    return "; ".join(parts[:5])
