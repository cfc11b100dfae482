"""Decoder for escapes in foreign text: JSON, HTML and percent-encoding, for the comparison with secrets."""

from __future__ import annotations

import html
import re
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

if TYPE_CHECKING:
    from collections.abc import Iterator

# Text in JSON in HTML in a URL; deeper nesting does not occur.
_ROUNDS: Final = 3
_JSON: Final = re.compile(r"((?:\\u[0-9a-fA-F]{4})+)|\\(.)", re.DOTALL)
_JSON_CONTROLS: Final = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
# `html.unescape` raises an error for numbers of thousands of digits; no character has more than seven.
_NO_CHARACTER: Final = re.compile(r"&#(?:[0-9]{8,}|[xX][0-9a-fA-F]{8,});?")


def decoded(text: str) -> Iterator[str]:
    """Yield the text with each kind of escape decoded alone, then with all kinds; repeated up to three times."""
    for _ in range(_ROUNDS):
        before = text
        for mark, decode in (("\\", _decode_json), ("&", _decode_html), ("%", unquote)):
            if mark in before:
                yield decode(before)
            if mark in text:
                text = decode(text)
        if text == before:
            return
        yield text


def unescaped(text: str) -> str:
    """Return the text with all escapes decoded."""
    plain = text
    for plain in decoded(text):  # noqa: B007 - the last one
        pass
    return plain


def _decode_json(text: str) -> str:
    return _JSON.sub(_character, text)


def _character(found: re.Match[str]) -> str:
    if found[2] is not None:
        return _JSON_CONTROLS.get(found[2], found[2])
    return bytes.fromhex(found[1].replace("\\u", "")).decode("utf-16-be", "replace")


def _decode_html(text: str) -> str:
    return html.unescape(_NO_CHARACTER.sub(" ", text))
