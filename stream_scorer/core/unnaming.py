"""Takes contacts' ids out of what the API says: its words go into log lines, ``/readyz``, headers and traces."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from stream_scorer.core.events import Answer, Answered

if TYPE_CHECKING:
    from collections.abc import Iterable

_HIDDEN: Final = "***"


def unnamed(answer: Answer, contact_ids: Iterable[str]) -> Answer:
    """Return the answer with none of these ids in its message, where they stand there as words of their own.

    A status stays what it is, although an id may be the same number.
    """
    if isinstance(answer, Answered):
        return answer
    message = answer.message
    for contact_id in contact_ids:
        if contact_id in message:
            message = re.sub(rf"(?<![\w-])(?<!\bHTTP ){re.escape(contact_id)}(?![\w-])", _HIDDEN, message)
    return answer if message == answer.message else replace(answer, message=message)
