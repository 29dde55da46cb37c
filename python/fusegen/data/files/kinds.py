"""What a file is by how it begins, for those that are not what their reader takes."""

from __future__ import annotations

_BEGINNINGS = (
    (b"\x1f\x8b", "a gzip archive"),
    (b"PK\x03\x04", "a zip archive, or a document or workbook made of one"),
    (b"BZh", "a bzip2 archive"),
    (b"\xfd7zXZ\x00", "an xz archive"),
    (b"(\xb5/\xfd", "a zstd archive"),
    (b"7z\xbc\xaf", "a 7z archive"),
    (b"%PDF-", "a PDF document"),
    (b"{\\rtf", "a document in rich text (RTF)"),
    (b"\xd0\xcf\x11\xe0", "an old Word or Excel document"),
    (b"\x89PNG", "a picture (PNG)"),
    (b"\xff\xd8\xff", "a picture (JPEG)"),
    (b"GIF8", "a picture (GIF)"),
    (b"RIFF", "a sound or a picture (RIFF)"),
    (b"fLaC", "a sound (FLAC)"),
    (b"OggS", "a sound (Ogg)"),
    (b"ID3", "a sound (MP3)"),
    (b"PAR1", "a table (parquet)"),
    (b"\x93NUMPY", "an array (.npy)"),
    (b"\x7fELF", "a program"),
    (b"SQLite format 3\x00", "a database (SQLite)"),
    (
        b"version https://git-lfs.github.com/spec/",
        "a pointer of Git LFS; git lfs pull fetches the file itself",
    ),
)
_LOOKED_AT = 512  # bytes


def kind_of(content: bytes) -> str:
    """What a file that begins so is, in words; "" where it is nothing of that kind."""
    for begin, kind in _BEGINNINGS:
        if content.startswith(begin):
            # A text may begin with such letters too.
            plain = begin.isalnum() and not any(byte < 9 or byte > 126 for byte in content[:_LOOKED_AT])
            return "" if plain else kind
    return ""
