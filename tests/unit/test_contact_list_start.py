"""An invalid contact list at the start of the campaign worker is a warning: other campaigns continue."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from stream_scorer.cli.callbacks import _log_contact_lists
from stream_scorer.errors import SettingsError
from stream_scorer.targets.contact_list import ContactListCheck, ContactListInfo

if TYPE_CHECKING:
    from collections.abc import Iterator

INFO: Any = ContactListInfo.parse(b'{"columnNames": ["phone"], "phoneColumns": [{"columnName": "phone"}], "size": 1}')
GOOD = ContactListCheck("good", INFO, None)
FULL = ContactListCheck("full", INFO, "the contact list is full")
OTHER = ContactListCheck("other", INFO, "the contact list has no column 'x'", has_other_columns=True)
UNREADABLE = ContactListCheck("away", None, "HTTP 503")


class Log:
    def __init__(self) -> None:
        self.details: list[str] = []

    def warning(self, _event: str, *, detail: str) -> None:
        self.details.append(detail)


def warnings(*checks: ContactListCheck) -> list[str]:
    log = Log()
    _log_contact_lists(iter(checks), log)
    return log.details


def test_one_invalid_list_does_not_prevent_the_start() -> None:
    assert INFO is not None
    assert warnings(GOOD, FULL, OTHER) == [f"contact list {one.list_id}: {one.problem}" for one in (FULL, OTHER)]
    assert warnings(OTHER, GOOD) == [f"contact list other: {OTHER.problem}"]
    assert warnings(FULL) == [f"contact list full: {FULL.problem}"]


def test_a_start_without_any_list_that_fits_is_refused() -> None:
    with pytest.raises(SettingsError, match="contact list other: the contact list has no column 'x'"):
        warnings(OTHER, OTHER)


def test_after_a_list_that_cannot_be_read_no_other_is_waited_for() -> None:
    read = []

    def checks() -> Iterator[ContactListCheck]:
        for one in (OTHER, UNREADABLE, GOOD):
            read.append(one.list_id)
            yield one

    log = Log()
    _log_contact_lists(checks(), log)
    assert read == ["other", "away"]
    assert log.details[-1] == "contact list away: HTTP 503"
