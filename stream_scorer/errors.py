"""Error tree of this package.

With the fault in brackets (who has to act) and the exit code of the command line::

    StreamScorerError
    ├── SettingsError            [operator] 2   a setting is unknown, missing or contradicts another
    ├── UsageError               [operator] 2   a command was called wrongly
    ├── InputError               [caller]   1   a file, row or contact cannot be read
    │   ├── ContactError         [caller]   1   one contact breaks the model's feature list; names the contact
    │   └── InputTypeError       [caller]   1   an argument of the library has the wrong type, such as a dict for a list
    ├── ClientClosed             [caller]   1   a client of the library was used after its `close`
    ├── ApiError
    │   ├── ApiRefused           [operator] 1   the API refuses every request: credentials, scope, model id
    │   └── ApiUnavailable       [platform] 1   all retries failed; a later attempt may succeed
    ├── BrokerError
    │   ├── BrokerUnavailable    [platform] 1   not reachable, or timed out; a later attempt may succeed
    │   ├── BrokerRefused        [operator] 1   missing topic, missing right, offsets gone, start refused
    │   └── ProducerFenced       [operator] 1   another running worker has the same `kafka.instance_id`
    ├── RegistryError
    │   ├── RegistryUnavailable  [platform] 1   the schema registry is not reachable; a later attempt may succeed
    │   └── RegistryRefused      [operator] 1   wrong credentials, a schema that is missing or not compatible
    ├── LocalError               [operator] 1   the embedded Kafka or the simulator cannot start here
    ├── CheckFailed              [product]  1   a reconciliation or verification found a difference
    └── NotJudged                [operator] 3   a reconciliation could not be judged

An exception means that the operation cannot proceed. An invalid *contact* on the stream is not an exception but a
value, `stream_scorer.core.records.Rejected`, which is carried forward to its topic.
"""

from __future__ import annotations

from typing import ClassVar, Literal

Fault = Literal["caller", "operator", "platform", "product"]


class StreamScorerError(Exception):
    """Base of all errors of this package; `str(error)` is one readable line.

    Attributes:
        fault: who has to act.
        retryable: whether the same call may succeed later without a change.
        exit_code: exit code of the command line.
        partial: the finished part of a library calculation (a ``ScoringOutcome``); else None.
    """

    fault: ClassVar[Fault] = "product"
    retryable: ClassVar[bool] = False
    exit_code: ClassVar[int] = 1
    partial: object | None = None


class SettingsError(StreamScorerError):
    """A setting is unknown, missing, malformed, or contradicts another. The message names key and origin."""

    fault: ClassVar[Fault] = "operator"
    exit_code = 2


class UsageError(StreamScorerError):
    """A command was called with arguments that contradict each other."""

    fault: ClassVar[Fault] = "operator"
    exit_code = 2


class InputError(StreamScorerError):
    """A file, a row or a message cannot be read. The message names the place."""

    fault: ClassVar[Fault] = "caller"


class ContactError(InputError, ValueError):
    """One contact does not match the model's feature list. The message names contact, feature and remedy."""


class InputTypeError(InputError, TypeError):
    """An argument of the library has the wrong type. The message names the remedy."""


class ClientClosed(StreamScorerError, RuntimeError):
    """A client of the library was used after its `close`; no request is sent."""

    fault: ClassVar[Fault] = "caller"


class ApiError(StreamScorerError):
    """Error of the scoring API or its token endpoint.

    Attributes:
        status_code: HTTP status of the last response; None: there was no response.
        correlation_id: its ``ININ-Correlation-Id``, for the platform's support; None: there is none.
    """

    fault: ClassVar[Fault] = "platform"

    def __init__(self, *args: object, status_code: int | None = None, correlation_id: str | None = None) -> None:
        super().__init__(*args)
        self.status_code = status_code
        self.correlation_id = correlation_id


class ApiRefused(ApiError):
    """The API refuses every request (credentials, scope, model id); a retry does not help."""

    fault: ClassVar[Fault] = "operator"


class ApiUnavailable(ApiError):
    """The API did not answer usefully within the retries; a later attempt may succeed."""

    retryable = True


class BrokerError(StreamScorerError):
    """Error of Kafka."""

    fault: ClassVar[Fault] = "platform"


class BrokerUnavailable(BrokerError):
    """Kafka is not reachable or timed out; a later attempt may succeed."""

    retryable = True


class BrokerRefused(BrokerError):
    """Kafka refuses the request: missing topic or right, offsets no longer in the log, a start that is not allowed."""

    fault: ClassVar[Fault] = "operator"


class ProducerFenced(BrokerError):
    """Another running worker uses the same transactional id: `kafka.instance_id` must be unique."""

    fault: ClassVar[Fault] = "operator"


class RegistryError(StreamScorerError):
    """Error of the schema registry."""

    fault: ClassVar[Fault] = "platform"


class RegistryUnavailable(RegistryError):
    """The schema registry is not reachable or does not answer usefully; a later attempt may succeed."""

    retryable = True


class RegistryRefused(RegistryError):
    """The schema registry refuses the request, or lacks a schema: wrong credentials, not registered, not compatible."""

    fault: ClassVar[Fault] = "operator"


class LocalError(StreamScorerError):
    """The embedded Kafka or the simulator cannot start on this machine."""

    fault: ClassVar[Fault] = "operator"


class CheckFailed(StreamScorerError):
    """A reconciliation or verification found a difference; the message names it."""


class NotJudged(StreamScorerError):
    """A reconciliation could not be judged, so it neither holds nor is broken; the message names the reason."""

    fault: ClassVar[Fault] = "operator"
    exit_code = 3


class NothingToCheck(NotJudged):
    """The group has no commits: it has never run here, or its name is mistyped."""


def extra_command(extra: str) -> str:
    """Return how to install an extra, for an error text. No package index has the package, so it names the wheel."""
    return f"pip install 'WHEEL[{extra}]', where WHEEL is the file stream_scorer-….whl of this version"


def printable(text: str) -> str:
    """Escape line breaks and terminal control characters, since errors repeat names with any content."""
    return text if text.isprintable() else "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)


def one_line(error: BaseException) -> str:
    """Return an error as one readable line; of a foreign one its class only, because its text may hold anything."""
    return str(error) if isinstance(error, StreamScorerError) else f"unexpected {type(error).__name__}"
