"""Subjects of this version's schemas: comparison with the registry, and registration.

The registry applies a compatibility rule of its own, which may be "none". The rule here is Avro's backward
compatibility with every registered version: records on a topic must stay readable.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from stream_scorer.core.avro.compatibility import incompatibilities
from stream_scorer.core.avro.schema_safety import check_schema
from stream_scorer.errors import RegistryRefused, SettingsError
from stream_scorer.schema_files import SchemaFile, load_schema, released_schemas

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from stream_scorer.kafka.registry.client import Registered, SchemaRegistry
    from stream_scorer.settings import Settings


class Comparison(NamedTuple):
    """Result for a subject: its version that equals the schema, or the ``problems``, one line each."""

    subject: str
    registered: Registered | None
    problems: list[str]


def schemas_of(settings: Settings) -> dict[str, SchemaFile]:
    """Return the schema of each topic's values, by topic. Rejected records keep their own schema, so theirs have none.

    Raises:
        SettingsError: one topic is configured for values of two schemas, but its subject can have one.
    """
    topics = settings.topics
    uses = [
        (topics.features, SchemaFile.CONTACT_FEATURES),
        (topics.scores, SchemaFile.CONTACT_SCORE),
        (topics.review, SchemaFile.CONTACT_SCORE),
        (topics.audit, SchemaFile.BATCH_AUDIT),
        (topics.callbacks, SchemaFile.CAMPAIGN_CALLBACK),
        *((name, SchemaFile.CAMPAIGN_CALLBACK) for name in topics.retries(len(settings.callbacks.retry_delays_s))),
        (topics.receipts, SchemaFile.CALLBACK_RECEIPT),
        (topics.decisions, SchemaFile.DECISION),
    ]
    schemas: dict[str, SchemaFile] = {}
    for topic, schema in uses:
        other = schemas.setdefault(topic, schema)
        if other is not schema:
            raise SettingsError(
                f"topic {topic} is to have values of two schemas, {other.value} and {schema.value}, and its subject can"
                " have one: with a schema registry, give them topics of their own"
            )
    return schemas


def compare_released(schema: SchemaFile) -> tuple[list[str], list[str]]:
    """Return the releases that a schema was compared with, and why values of some cannot be read."""
    ours = load_schema(schema)
    released = released_schemas(schema)
    return list(released), [
        f"{schema.value} cannot read what {release} wrote: {problem}"
        for release, before in released.items()
        for problem in incompatibilities(ours, before)
    ]


def compare(registry: SchemaRegistry, subject: str, schema: Mapping[str, Any]) -> Comparison:
    """Compare a schema with the versions of a subject.

    Raises:
        RegistryError: the registry does not answer, or denies the request.
    """
    registered = registry.find(subject, schema)
    if registered is not None:
        return Comparison(subject, registered, [])
    return Comparison(subject, None, _problems(registry, subject, schema))


def register(registry: SchemaRegistry, subject: str, schema: Mapping[str, Any]) -> Comparison:
    """Register a schema under a subject, unless it is registered or would leave records unreadable.

    Raises:
        RegistryError: the registry does not answer, or denies the request.
    """
    found = compare(registry, subject, schema)
    if found.registered is not None or found.problems:
        return found
    try:
        return Comparison(subject, registry.register(subject, schema), [])
    except RegistryRefused as error:
        return Comparison(subject, None, [str(error)])


def _problems(registry: SchemaRegistry, subject: str, schema: Mapping[str, Any]) -> list[str]:
    problems = []
    for before in registry.versions(subject):
        place = f"{subject}: not compatible with version {before.version} (id {before.schema_id})"
        if before.unreadable is not None:
            problems.append(f"{place}, {before.unreadable}")
            continue
        try:
            check_schema(before.schema, str(schema["name"]))
        except SettingsError as error:
            problems.append(f"{place}: {error}")
        else:
            problems += [f"{place}: {problem}" for problem in incompatibilities(schema, before.schema)]
    return problems
