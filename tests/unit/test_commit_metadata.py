"""Metadata of commits, and which of it is carried over."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_scorer.core.exactly_once.commit_metadata import CommitMetadata, parse_metadata

FULL = CommitMetadata(7, "LqTzBx8rQy6iA1t8Qr3dYg", 1_700_000_000_000, (5, 17), (("lane", "2"),))


def test_the_form_is_pairs_separated_by_semicolons() -> None:
    assert str(FULL) == "start=7;topic=LqTzBx8rQy6iA1t8Qr3dYg;since=1700000000000;schemas=5,17;lane=2"
    assert parse_metadata(str(FULL)) == FULL


def test_what_the_version_before_wrote_is_read_and_has_no_topic() -> None:
    assert parse_metadata("start=12") == CommitMetadata(12)
    assert str(CommitMetadata(12)) == "start=12"


@pytest.mark.parametrize(
    "foreign", [None, "", "host-7", "start=", "start=-1", "start=1e3", "start=²", "start=" + "9" * 20]
)
def test_metadata_of_other_programs_names_no_start(foreign: str | None) -> None:
    assert parse_metadata(foreign).start is None


def test_unknown_keys_are_kept_in_any_place() -> None:
    metadata = parse_metadata("epoch=a=b;start=3;lane=;topic=x")
    assert metadata.others == (("epoch", "a=b"), ("lane", ""))
    assert str(metadata._replace(start=9)) == "start=9;topic=x;epoch=a=b;lane="


def test_unknown_keys_never_make_a_commit_too_large() -> None:
    others = tuple((f"key{number}", "ü" * 100) for number in range(100))
    text = str(FULL._replace(others=others))
    assert len(text.encode()) <= 2_048
    assert parse_metadata(text)[:4] == FULL[:4]


def test_ids_of_schemas_are_numbers_and_bounded() -> None:
    assert parse_metadata("schemas=5,,x,-1,17").schema_ids == (5, 17)
    assert len(parse_metadata("schemas=" + ",".join(["1234567890"] * 200)).schema_ids) == 50


def test_a_commit_without_topic_adopts_the_present_one() -> None:
    assert parse_metadata("start=12").adopt("b") == CommitMetadata(12, "b")
    assert CommitMetadata(12, "a").adopt("b") == CommitMetadata(12, "a")
    assert CommitMetadata(12).adopt(None) == CommitMetadata(12)


def test_only_two_known_ids_contradict() -> None:
    assert CommitMetadata(1, "a").contradicts("b")
    for metadata, present in ((CommitMetadata(1, "a"), "a"), (CommitMetadata(1, "a"), None), (CommitMetadata(1), "b")):
        assert not metadata.contradicts(present)


@given(st.text(max_size=60))
def test_any_text_is_read_and_stays_what_it_was_read_as(text: str) -> None:
    metadata = parse_metadata(text)
    assert parse_metadata(str(metadata)) == metadata
