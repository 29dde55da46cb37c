"""Encodings that a file names itself, by a byte order mark at its beginning."""

from __future__ import annotations

import codecs

_MARKS = {  # the longer ones first: one begins with another
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
    codecs.BOM_UTF8: "utf-8-sig",
}


def marked(content: bytes) -> str | None:
    """The encoding that a mark says, as Python calls it: utf-8-sig, utf-16 or utf-32; None without a mark."""
    return next((name for mark, name in _MARKS.items() if content.startswith(mark)), None)


def as_utf8(content: bytes) -> bytes:
    """A text in UTF-8 without a mark, whichever of the marked encodings it is in; content without a mark is
    left as it is. Raises UnicodeDecodeError where it is not in the encoding that its mark says."""
    encoding = marked(content)
    if encoding is None:
        return content
    if encoding == "utf-8-sig":
        return content.removeprefix(codecs.BOM_UTF8)  # what follows may be bytes of any kind
    return content.decode(encoding).encode()
