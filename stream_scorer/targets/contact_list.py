"""A contact list as the platform describes it: its columns, the columns with addresses, its size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

import orjson

from stream_scorer.core.callbacks.columns import MAX_COLUMNS
from stream_scorer.core.text import quoted

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

# The platform's limit of a list.
MAX_CONTACTS: Final = 1_000_000
_ADDRESS_KINDS: Final = ("phoneColumns", "emailColumns", "whatsAppColumns", "smsColumns", "messagingColumns")


class ContactListInfo(NamedTuple):
    """Attributes of a list.

    Attributes:
        columns: names of its columns.
        addresses: names of those with a phone number or another address.
        size: number of its contacts.
    """

    columns: frozenset[str]
    addresses: tuple[str, ...]
    size: int = 0

    @classmethod
    def parse(cls, body: bytes) -> Self | None:
        """Return the list of an answer; None: it is no contact list."""
        try:
            content = orjson.loads(body)
            columns = frozenset(map(_text, content["columnNames"]))
            found = [_text(one["columnName"]) for kind in _ADDRESS_KINDS for one in content.get(kind) or ()]
            size = content.get("size") or 0
            return cls(columns, tuple(dict.fromkeys(found)), int(size))
        except (ValueError, KeyError, TypeError, AttributeError):
            return None

    def problem(self, columns: Iterable[str]) -> str | None:
        """Return why contacts with these columns cannot be dialled from this list, with the remedy; None: they can."""
        wanted = list(columns)
        if missing := [column for column in wanted if column not in self.columns]:
            names = ", ".join(map(quoted, missing[:5]))
            more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""  # noqa: PLR2004 - those that are named
            room = MAX_COLUMNS - len(self.columns)
            remedy = (
                "add them to the list, or leave them out of callbacks.columns"
                if len(missing) <= room
                else f"a list has at most {MAX_COLUMNS} columns, and {max(room, 0)} are free: leave them out of"
                " callbacks.columns"
            )
            return f"the contact list has no column {names}{more}: {remedy}"
        if not self.address_columns(wanted):
            names = ", ".join(map(quoted, self.addresses)) or "none"
            return (
                f"callbacks.columns fills no address column of the contact list ({names}), so no contact could be"
                ' called: name one, such as phone = "attributes.phone"'
            )
        return None

    def address_columns(self, columns: Collection[str]) -> list[str]:
        """Return those of the columns that have an address."""
        return [name for name in self.addresses if name in columns]


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


class ContactListCheck(NamedTuple):
    """Result of the check of one contact list.

    Attributes:
        list_id: its id.
        info: the list; None: it could not be read.
        problem: why it could not be read, or why its contacts cannot be dialled; None: there is none.
        has_other_columns: whether the problem is its columns; otherwise the list is full, for example.
    """

    list_id: str
    info: ContactListInfo | None
    problem: str | None
    has_other_columns: bool = False
