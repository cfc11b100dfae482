"""Character encoding of foreign text: bytes of another program, in UTF-8, UTF-16 or UTF-32, with or without a mark.

All text from outside is decoded here: responses, tokens, secrets, settings and files.
Windows tools write a byte order mark before UTF-8, PowerShell and Excel write UTF-16. All text that is read here begins
with an ASCII character. So the zero bytes among the first four show the encoding if there is no mark.
"""

from __future__ import annotations

import codecs
from typing import Final, NamedTuple

MARK: Final = "\ufeff"
# How many bytes `detect` needs.
HEAD_BYTES: Final = 4
# The longer marks first: that of UTF-32 begins with that of UTF-16.
_MARKS: Final = (
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


class Charset(NamedTuple):
    """An encoding by Python's name, and how many bytes its mark takes."""

    encoding: str
    mark_bytes: int = 0


def detect(head: bytes) -> Charset:
    """Return the encoding of a text that begins with these bytes; `HEAD_BYTES` are enough."""
    for mark, encoding in _MARKS:
        if head.startswith(mark):
            return Charset(encoding, len(mark))
    zeros = tuple(byte == 0 for byte in head[:HEAD_BYTES])
    match zeros:
        case (True, True, True, False):
            return Charset("utf-32-be")
        case (False, True, True, True):
            return Charset("utf-32-le")
        case (True, False, *_):
            return Charset("utf-16-be")
        case (False, True, *_):
            return Charset("utf-16-le")
        case _:
            return Charset("utf-8")


def decode_text(data: bytes, errors: str = "strict") -> str:
    """Return the text without its marks; some tools write several.

    Args:
        data: the whole text.
        errors: Python's error handler for invalid bytes.

    Raises:
        UnicodeDecodeError: a ValueError; the bytes are invalid in the detected encoding.
    """
    charset = detect(data)
    return data[charset.mark_bytes :].decode(charset.encoding, errors).lstrip(MARK)
