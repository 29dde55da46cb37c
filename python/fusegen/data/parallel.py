"""Parallel text, for translation: two files, a TSV, or gettext's catalogues."""

import gettext
import os
import struct
from dataclasses import dataclass
from random import Random
from string import ascii_lowercase

from .._arguments import whole
from .files.paths import path_of, source_of
from .text import read_text


@dataclass(frozen=True)
class Pairs:
    """Sentence i of `targets` renders sentence i of `sources`. skipped: what was left out, and why.

    name: where they came from, for people.
    """

    name: str
    sources: tuple[str, ...]
    targets: tuple[str, ...]
    skipped: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.sources)


def read_pairs(source: str | os.PathLike[str], argument: str = "source", *, utf8: bool = True) -> Pairs:
    """Pairs of sentences from
    "reverse": 50,000 `reversals`, no download;
    "a.txt,b.txt": two UTF-8 files of as many lines; FILE.tsv: its first two columns;
    "mo:FOLDER:LANGUAGE": all gettext catalogues LANGUAGE/LC_MESSAGES/*.mo below a folder (without :LANGUAGE
    every .mo below it), messages with an empty or unchanged rendering left out, each pair once, in order.

    utf8: refuse what is not UTF-8; else it is read as Latin-1, which any bytes are, and `Pairs.skipped` says
    so. Raises OSError or ValueError, beginning with `argument`, for what cannot be read, does not
    match line by line, or holds no pair.

    source: one of these.
    """
    source = source_of(source, argument)
    if source == "reverse":
        pairs = reversals()
    elif source.startswith("mo:"):
        pairs = _catalogues(source, argument)
    elif source.lower().endswith(".tsv"):
        pairs = _tsv(source, argument, utf8)
    else:
        pairs = _two_files(source, argument, utf8)
    if not len(pairs):
        raise ValueError(f"{argument}: {source} holds no pair of sentences")
    return pairs


def reversals(count: int = 50_000, shortest: int = 5, longest: int = 20, seed: int = 0) -> Pairs:
    """Words of random small letters and the same words backwards; `count` different ones, each length from
    `shortest` to `longest` as likely. Raises TypeError or ValueError, naming the argument.

    seed: of the letters; the same one gives the same words.
    """
    count, shortest = whole("count", count, 1), whole("shortest", shortest, 1)
    longest = whole("longest", longest, shortest)
    possible = sum(26**length for length in range(shortest, longest + 1))
    if count > possible // 2:
        raise ValueError(f"count: expected at most {possible // 2}, half of all words, got {count}")
    drawn = Random(whole("seed", seed, 0))
    words: dict[str, None] = {}
    while len(words) < count:
        words["".join(drawn.choices(ascii_lowercase, k=drawn.randint(shortest, longest)))] = None
    return Pairs("reverse", tuple(words), tuple(word[::-1] for word in words))


def _two_files(source: str, argument: str, utf8: bool) -> Pairs:
    names = [name if os.path.exists(name) else name.strip() for name in source.split(",")]
    if len(names) != 2:
        raise ValueError(f"{argument}: expected reverse, FILE,FILE, a .tsv or mo:FOLDER, got {source!r}")
    sides, remarks = zip(*(_lines(name, argument, utf8) for name in names), strict=True)
    if len(sides[0]) != len(sides[1]):
        counts = f"{names[0]} has {len(sides[0])} lines, {names[1]} {len(sides[1])}"
        raise ValueError(f"{argument}: the two do not match: {counts}")
    kept = [(a, b) for a, b in zip(*sides, strict=True) if a.strip() and b.strip()]
    empty = _left_out(len(sides[0]) - len(kept), "lines with an empty side")
    return Pairs(source, *_unzip(kept), (*remarks[0], *remarks[1], *empty))


def _tsv(source: str, argument: str, utf8: bool) -> Pairs:
    kept: list[tuple[str, str]] = []
    most = 2
    lines, remarks = _lines(source, argument, utf8)
    for number, line in enumerate(lines, 1):
        fields = line.split("\t")
        most = max(most, len(fields))
        if line.strip() and len(fields) < 2:
            raise ValueError(f"{argument}: {source}: line {number} has no tab: {line[:60]!r}")
        if line.strip() and fields[0].strip() and fields[1].strip():
            kept.append((fields[0], fields[1]))
    empty = _left_out(len(lines) - len(kept), "lines with an empty side")
    more = (f"what {source} has after its first two columns",) if most > 2 else ()
    return Pairs(source, *_unzip(kept), (*remarks, *empty, *more))


def _catalogues(source: str, argument: str) -> Pairs:
    folder, _, language = source.removeprefix("mo:").rpartition(":")
    if not folder:
        folder, language = language, ""
    root = path_of(folder, argument)
    if not root.is_dir():
        raise FileNotFoundError(f"{argument}: cannot read {root}: it is not a folder")
    found = sorted(root.rglob(f"{language}/LC_MESSAGES/*.mo" if language else "*.mo"))
    if not found:
        raise ValueError(f"{argument}: there is no .mo file for {source}")
    kept: dict[tuple[str, str], None] = {}
    skipped = []
    for path in found:
        try:
            with open(path, "rb") as file:
                # It has no public way to all messages.
                catalogue = vars(gettext.GNUTranslations(file))["_catalog"]
        except (OSError, ValueError, LookupError, struct.error) as error:
            skipped.append(f"{path} is not a catalogue, or is damaged: {error}")
            continue
        for key, rendered in catalogue.items():
            # (message, n) is the n-th plural; of those the plain form alone has a source of its own.
            message, form = key if isinstance(key, tuple) else (key, 0)
            message = message.rpartition("\x04")[2]  # a context stands before it
            if form == 0 and message.strip() and rendered.strip() and rendered != message:
                kept.setdefault((message, rendered))
    if not kept and skipped:
        raise ValueError(f"{argument}: {skipped[0]}")
    return Pairs(source, *_unzip(list(kept)), tuple(skipped))


def _lines(path: str, argument: str, utf8: bool) -> tuple[list[str], tuple[str, ...]]:
    """The lines, and a remark where they are not UTF-8.

    Ended by line feeds, as in every tool that made or counts them: str.splitlines would also cut at form
    feeds and at Unicode's separators, and put all pairs after one of them out of step."""
    text_read = read_text(path, argument, utf8=utf8)
    content = bytes(text_read.tokens.numpy())
    remarks = tuple(f"nothing, but {note}" for note in text_read.notes if not path.lower().endswith(".tsv"))
    try:
        text = content.decode()
    except UnicodeDecodeError:
        text = content.decode("latin-1")
        remarks += (f"nothing of {path}, but it is not UTF-8: read as Latin-1",)
    return [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")], remarks


def _unzip(pairs: list[tuple[str, str]]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return tuple(a for a, _ in pairs), tuple(b for _, b in pairs)


def _left_out(count: int, what: str) -> tuple[str, ...]:
    return (f"{count} {what}",) if count else ()
