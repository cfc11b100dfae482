"""Contacts of requests to the API: `ContactFeatureVector` and `ScoringPayload`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Self

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, field_validator

from stream_scorer.core.records import SourceRecord
from stream_scorer.core.scoring.batcher import Batcher
from stream_scorer.core.scoring.features import MAX_ID_BYTES
from stream_scorer.core.scoring.types import Contact
from stream_scorer.core.text import is_text, quoted
from stream_scorer.errors import ContactError
from stream_scorer.genesys.wire import body_overhead, build_body, encode_contact
from stream_scorer.library.plain_values import plain_features
from stream_scorer.library.validation import failures_of, impute

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

MAX_CONTACTS: Final = 1000
MAX_REQUEST_BYTES: Final = 512_000


class ContactFeatureVector(BaseModel):
    """Contact with its features.

    Attributes:
        contact_id: 1 to 256 bytes of UTF-8; in a dict also ``contactId``.
        features: value by name; a pandas Series counts as a dict by its labels. numpy scalars become Python's; NaN, NA
            and NaT become None.
    """

    model_config = ConfigDict(populate_by_name=True)

    contact_id: str = Field(alias="contactId")
    features: dict[str, Any]
    _imputed: tuple[str, ...] = PrivateAttr(default=())

    @field_validator("features", mode="before")
    @classmethod
    def _as_plain_values(cls, value: Any) -> Any:
        return plain_features(value)

    @field_validator("contact_id")
    @classmethod
    def _is_an_id(cls, value: str) -> str:
        if not value:
            raise ValueError("contactId must not be empty")
        if not is_text(value):
            raise ValueError("contactId is not valid Unicode")
        if len(value.encode()) > MAX_ID_BYTES:
            raise ValueError(f"contactId must not have more than {MAX_ID_BYTES} bytes")
        return value

    @property
    def imputed_features(self) -> tuple[str, ...]:
        """The features that `ScoringPayload.impute_missing_values` has imputed."""
        return self._imputed

    def encoded(self) -> bytes:
        """Return the contact's JSON in a request.

        Raises:
            ContactError: a feature is null or cannot be written as JSON.
        """
        null = [quoted(name) for name, value in self.features.items() if value is None]
        if null:
            raise ContactError(f"contact {self.contact_id!r}: null, and nothing imputed: {', '.join(null)}")
        return encode_contact(self.contact_id, self.features)


class ScoringPayload(BaseModel):
    """Contacts with the settings of their requests.

    Attributes:
        contacts: any number; `chunk` splits them into requests.
        model_version: the requested version; None: the platform's default. In a dict also ``modelVersion``.
        max_features: maximum number of features of one contact.
        batch_limit: maximum number of contacts of one request, at most 1000.

        The two limits are not part of any dump: a request has contacts and model version only.
    """

    model_config = ConfigDict(populate_by_name=True, protected_namespaces=())

    contacts: list[ContactFeatureVector]
    model_version: str | None = Field(default=None, alias="modelVersion")
    max_features: int = Field(default=50, ge=1, exclude=True)
    batch_limit: int = Field(default=MAX_CONTACTS, ge=1, le=MAX_CONTACTS, exclude=True)

    def __repr__(self) -> str:
        return f"<ScoringPayload contacts={len(self.contacts)}, model_version={self.model_version!r}>"

    __str__ = __repr__

    def validate_dimensions(self, expected_features: Sequence[str]) -> Self:
        """Check that every contact has exactly these features, each null or a JSON scalar.

        Null values may be imputed before or after this check; `chunk` and `body` reject those that are left.

        Raises:
            ContactError: a `ValueError` that names the first invalid contact, and all of its problems.
        """
        for contact in self.contacts:
            absent = [name for name in expected_features if name not in contact.features]
            failures = failures_of(contact.features, dict.fromkeys(expected_features), self.max_features, absent)
            if failures:
                problems = "; ".join(sentence for _, sentence in failures)
                raise ContactError(f"contact {contact.contact_id!r}: {problems}")
        return self

    def impute_missing_values(self, imputation_map: Mapping[str, Any]) -> Self:
        """Impute absent and null features in this payload, and return it."""
        for contact in self.contacts:
            contact.features, filled = impute(contact.features, imputation_map)
            contact._imputed += filled  # noqa: SLF001 - the two classes are one unit
        return self

    def chunk(self) -> list[ScoringPayload]:
        """Return payloads of one request each, with the settings of this one.

        A request has at most ``batch_limit`` contacts and 512,000 bytes, and no contact id twice, since results are
        matched by id: a repeated contact goes to a later request. A contact too large for any request gets its own,
        which the API will reject. Without contacts the list is empty.

        Raises:
            ContactError: a feature is null or cannot be written as JSON.
        """
        parts = [contact.encoded() for contact in self.contacts]
        ids = [contact.contact_id for contact in self.contacts]
        groups = [
            [self.contacts[index] for index in group]
            for group in grouped(ids, parts, self.model_version, self.batch_limit)
        ]
        if len(groups) == 1 and len(groups[0]) == len(self.contacts):
            return [self]
        return [self.model_copy(update={"contacts": group}) for group in groups]

    def body(self) -> bytes:
        """Return the body of one request: ``contacts``, and ``modelVersion`` if it is set.

        Raises:
            ContactError: a feature is null or cannot be written as JSON.
        """
        return build_body([contact.encoded() for contact in self.contacts], self.model_version)


def grouped(
    ids: Sequence[str], parts: Sequence[bytes], model_version: str | None, max_contacts: int = MAX_CONTACTS
) -> Iterator[tuple[int, ...]]:
    """Yield the indexes of the contacts of each request, first come, first served."""
    batcher = Batcher(
        max_contacts=max_contacts, max_body_bytes=MAX_REQUEST_BYTES, overhead_bytes=body_overhead, linger_s=0.0
    )
    oversized: list[int] = []
    for index, (contact_id, part) in enumerate(zip(ids, parts, strict=True)):
        contact = as_contact(index, contact_id, part, model_version)
        if batcher.fits(contact):
            batcher.add(contact, float(index))
        else:
            oversized.append(index)
    while (batch := batcher.take_any()) is not None:
        yield tuple(_indexes(batch.contacts))
    for index in oversized:
        yield (index,)


def as_contact(
    index: int, contact_id: str, body: bytes, model_version: str | None, imputed: tuple[str, ...] = ()
) -> Contact:
    """Return a contact of the core; its record holds only its index in the caller's list."""
    record = SourceRecord("", 0, index, None, None, [])
    return Contact(record, "", contact_id, None, 0, model_version, False, imputed, body)


def _indexes(contacts: Iterable[Contact]) -> Iterator[int]:
    return (contact.record.offset for contact in contacts)
