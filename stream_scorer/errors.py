"""Every error this package raises.

The tree (fault in brackets: who has to act; exit code of the command line behind it)::

    StreamScorerError
    ├── SettingsError            [operator] 2   a setting is unknown, missing or contradicts another
    ├── UsageError               [operator] 2   a command was called wrongly
    ├── InputError               [caller]   1   a file, row or contact cannot be read
    │   └── ContactError         [caller]   1   one contact breaks the model's feature list; names the contact
    ├── ApiError
    │   ├── ApiRefused           [operator] 1   the API refuses us for good: credentials, scope, model id
    │   └── ApiUnavailable       [platform] 1   retries did not help; asking again later may
    ├── BrokerError
    │   ├── BrokerUnavailable    [platform] 1   cannot be reached, or timed out; asking again later may help
    │   ├── BrokerRefused        [operator] 1   missing topic, missing right, offsets gone, start refused
    │   └── ProducerFenced       [operator] 1   another running worker has the same `kafka.instance_id`
    ├── RegistryError
    │   ├── RegistryUnavailable  [platform] 1   the schema registry cannot be reached; asking again later may help
    │   └── RegistryRefused      [operator] 1   wrong credentials, a schema that is missing or not compatible
    ├── LocalError               [operator] 1   the embedded Kafka or the simulator cannot start here
    ├── CheckFailed              [product]  1   a reconciliation or verification found a difference
    └── NotJudged                [operator] 3   a reconciliation could not be judged

An exception means: this cannot proceed. A bad *contact* on the stream is no exception but a value,
`stream_scorer.core.records.Rejected`, that is carried forward to its topic.
"""

from __future__ import annotations

from typing import ClassVar, Literal

Fault = Literal["caller", "operator", "platform", "product"]


class StreamScorerError(Exception):
    """Base of all errors of this package; `str(error)` is one line for people.

    Attributes:
        fault: who has to act.
        retryable: whether the same call may succeed later with nothing changed here.
        exit_code: what the command line exits with.
        partial: what a calculation of the library had finished before (a ``ScoringOutcome``); else None.
    """

    fault: ClassVar[Fault] = "product"
    retryable: ClassVar[bool] = False
    exit_code: ClassVar[int] = 1
    partial: object | None = None


class SettingsError(StreamScorerError):
    """A setting is unknown, missing, malformed, or contradicts another. Names the key and where it came from."""

    fault: ClassVar[Fault] = "operator"
    exit_code = 2


class UsageError(StreamScorerError):
    """A command was called with arguments that make no sense together."""

    fault: ClassVar[Fault] = "operator"
    exit_code = 2


class InputError(StreamScorerError):
    """A file, a row or a message cannot be read. Names the place."""

    fault: ClassVar[Fault] = "caller"


class ContactError(InputError, ValueError):
    """One contact does not fit the model's feature list. Names the contact, the feature and the remedy."""


class ApiError(StreamScorerError):
    """The scoring API or its token endpoint."""

    fault: ClassVar[Fault] = "platform"


class ApiRefused(ApiError):
    """The API refuses us for good (credentials, scope, model id): repeating it does not help."""

    fault: ClassVar[Fault] = "operator"


class ApiUnavailable(ApiError):
    """The API did not answer usefully within the retries; asking again later may help."""

    retryable = True


class BrokerError(StreamScorerError):
    """Kafka."""

    fault: ClassVar[Fault] = "platform"


class BrokerUnavailable(BrokerError):
    """Kafka cannot be reached or timed out; asking again later may help."""

    retryable = True


class BrokerRefused(BrokerError):
    """Kafka refuses us: a missing topic or right, offsets that the log no longer holds, a start that is not allowed."""

    fault: ClassVar[Fault] = "operator"


class ProducerFenced(BrokerError):
    """Another running worker uses the same transactional id: `kafka.instance_id` must be unique."""

    fault: ClassVar[Fault] = "operator"


class RegistryError(StreamScorerError):
    """The schema registry."""

    fault: ClassVar[Fault] = "platform"


class RegistryUnavailable(RegistryError):
    """The schema registry cannot be reached or does not answer usefully; asking again later may help."""

    retryable = True


class RegistryRefused(RegistryError):
    """The schema registry refuses us, or lacks a schema: wrong credentials, not registered, not compatible."""

    fault: ClassVar[Fault] = "operator"


class LocalError(StreamScorerError):
    """The embedded Kafka or the simulator cannot start on this machine."""

    fault: ClassVar[Fault] = "operator"


class CheckFailed(StreamScorerError):
    """A reconciliation or verification found a difference; the line says which."""


class NotJudged(StreamScorerError):
    """A reconciliation could not be judged, so it neither holds nor is broken; the line names the reason."""

    fault: ClassVar[Fault] = "operator"
    exit_code = 3


class NothingToCheck(NotJudged):
    """The group has no commits: it has not worked here, or its name is mistyped."""


def printable(text: str) -> str:
    """Escape what would break the line, or steer a terminal: an error repeats names that may hold anything."""
    return "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)


def one_line(error: BaseException) -> str:
    """Return an error as one line for people; of a foreign one its type only, because its text may hold anything."""
    return str(error) if isinstance(error, StreamScorerError) else f"unexpected {type(error).__name__}"
