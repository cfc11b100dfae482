"""Redaction of contact data that an API error may quote from its request.

The API's free text is logged at `debug` only, without the ids and values of the batch. The error's code is passed on,
unless it quotes one of them.
"""

from __future__ import annotations

import re
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import orjson

from stream_scorer.redaction.escapes import unescaped

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_HIDDEN: Final = "***"
_MAX_TEXT: Final = 4_000
_NUMBER: Final = re.compile(r"\d+(?:[.,:]\d+)*(?:[eE][+-]?\d+)?")
_NUMBER_IN_CODE: Final = re.compile(r"(?<![A-Za-z0-9])\d+(?:\.\d+)?(?![A-Za-z0-9])")
# A shorter value is hidden only as a separate word: "a" is a part of every text.
_SHORT: Final = 4
# The API may truncate a long value; this number of first characters identifies it.
_PREFIX: Final = 8


class _Values(NamedTuple):
    texts: Mapping[str, Sequence[str]]  # by their first characters, which are searched first
    numbers: frozenset[float]


class ContactRedactor:
    """Redactor for the ids and values of one request's contacts in the API's answer.

    The body is parsed at the first use: most requests have no error text.

    Args:
        body: JSON body of the request. If it has ``contacts``, only their values are hidden, else all values.
    """

    def __init__(self, body: bytes) -> None:
        self._body = body

    def hide_in_text(self, text: str) -> str:
        """Return free text without ids and values. All numbers are removed: one value has many spellings."""
        if len(text) > _MAX_TEXT:
            return f"(a text of {len(text)} characters)"  # not truncated: a cut value would leave a part of it
        text = self._without_texts(unescaped(self._without_texts(text)))
        return _NUMBER.sub(_HIDDEN, text)

    def hide_in_code(self, code: str) -> str:
        """Return an error's code; empty if it contains an id or value of the request."""
        if not code:
            return ""
        low = code.lower()
        if any(value in low and re.search(_as_word(value), low) for value in self._texts_begun_in(low)):
            return ""
        if any(float(number) in self._values.numbers for number in _NUMBER_IN_CODE.findall(code)):
            return ""
        return code

    def is_quoted(self, token: str) -> bool:
        """Return whether an ASCII token without quotes is an id or a value of the request. Does not parse the body."""
        written = token.encode()
        return any(
            before + written + after in self._body for before, after in ((b'"', b'"'), (b":", b","), (b":", b"}"))
        )

    @cached_property
    def _values(self) -> _Values:
        try:
            request = orjson.loads(self._body) if self._body else None
        except ValueError:
            request = None
        if isinstance(request, dict) and "contacts" in request:
            request = request["contacts"]
        texts: set[str] = set()
        numbers: set[float] = set()
        for value in _leaves(request):
            if isinstance(value, str):
                texts |= {value.lower().strip(), unescaped(value).lower().strip()}
            elif isinstance(value, bool):
                texts.add(str(value).lower())
            elif isinstance(value, int | float):
                numbers.add(float(value))
        by_beginning: dict[str, list[str]] = {}
        for text in texts - {""}:
            by_beginning.setdefault(text[:_PREFIX], []).append(text)
        return _Values(by_beginning, frozenset(numbers))

    def _texts_begun_in(self, low: str) -> list[str]:
        """Return the candidates, longest first, so that nothing is left of a value that contains another one."""
        found = (text for beginning, texts in self._values.texts.items() if beginning in low for text in texts)
        return sorted(found, key=len, reverse=True)

    def _without_texts(self, text: str) -> str:
        for value in self._texts_begun_in(text.lower()):
            text = _without(text, value)
        return text


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        for item in value.values():
            yield from _leaves(item)
    elif isinstance(value, list):
        for item in value:
            yield from _leaves(item)
    else:
        yield value


def _as_word(value: str) -> str:
    return rf"(?<![^\W_]){re.escape(value)}(?![^\W_])"


def _without(text: str, value: str) -> str:
    """Return the text without a value, and without the beginning of a long one."""
    low = text.lower()
    if len(value) < _SHORT:
        return re.sub(_as_word(value), _HIDDEN, text, flags=re.IGNORECASE) if value in low else text
    beginning = value[:_PREFIX]
    if beginning not in low or len(low) != len(text):
        return text if beginning not in low else _HIDDEN
    parts, at = [], 0
    while (found := low.find(beginning, at)) >= 0:
        end = found + len(beginning)
        while end < len(low) and end - found < len(value) and low[end] == value[end - found]:
            end += 1
        parts.append(text[at:found])
        at = end
    return _HIDDEN.join((*parts, text[at:]))
