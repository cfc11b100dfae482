"""Values whose schema the registry does not have, from their bytes to their outcome."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stream_scorer.core.avro.codec import UndecodableError
from stream_scorer.core.avro.confluent import ConfluentCodec, SchemaMissingError, confluent_header
from stream_scorer.core.records import SourceRecord
from stream_scorer.core.scoring.feature_types import Feature
from stream_scorer.core.scoring.features import ContactChecker, FeatureList
from stream_scorer.core.scoring.types import Deferred, Rejected
from stream_scorer.genesys.wire import encode_contact
from stream_scorer.schema_files import SchemaFile, load_schema
from stream_scorer.scoring.intake import Intake

if TYPE_CHECKING:
    from collections.abc import Mapping

MISSING, OF_ANOTHER_KIND = 17, 18


def writer_of(schema_id: int) -> Mapping[str, Any]:
    if schema_id == MISSING:
        raise SchemaMissingError("the schema registry has no schema with id 17")
    raise UndecodableError("the value was written with schema id 18, a schema of type JSON, not Avro")


def examined(schema_id: int) -> object:
    intake = Intake(
        codec=ConfluentCodec.confluent(load_schema(SchemaFile.CONTACT_FEATURES), writer_of),
        checker=ContactChecker(FeatureList([Feature("calls", "integer")])),
        encode=encode_contact,
        fits=lambda _: True,
        model_version=None,
        on_missing_schema=lambda record, detail: Deferred(record, "", 1, 1, 60_000, held=detail),
    )
    return intake.examine(SourceRecord("in", 0, 7, b"k", confluent_header(schema_id) + b"body", []), 0)


def test_a_missing_schema_defers_the_record_and_one_of_another_kind_rejects_it() -> None:
    deferred = examined(MISSING)
    assert isinstance(deferred, Deferred)
    assert deferred.held == "the schema registry has no schema with id 17"
    rejected = examined(OF_ANOTHER_KIND)
    assert isinstance(rejected, Rejected)
    assert "of type JSON" in rejected.detail
