"""Text: read it, split it, cut it into lanes that carry state.

Bytes stay uint8 until a batch is made, so a corpus costs its own size in memory and no more.
"""

import os
import sys
import unicodedata
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from .files import tables
from .files.encodings import as_utf8, marked
from .files.folders import files_below
from .files.hub import hub_name, read_hub_text
from .files.kinds import kind_of
from .files.paths import path_of, source_of
from .vocabulary import BYTES, Vocabulary, cut

_STRUCTURED = (*tables.SUFFIXES, ".json", ".jsonl", ".ndjson")
_BY_RULE = ("CJK UNIFIED IDEOGRAPH-", "CJK COMPATIBILITY IDEOGRAPH-", "HANGUL SYLLABLE ")
HELD_OUT = 0.1  # of a text, its end
ROWS = "text"  # the column that is read where none is named
IGNORED = -100  # the target that torch's cross_entropy leaves out by default


@dataclass(frozen=True)
class Text:
    """A corpus, of bytes unless `tokenize` made words or characters of it.

    name: where it came from, for people. tokens: integers [N], uint8 for bytes.
    skipped: the files of a folder that were left out, each with the reason. vocabulary: what the tokens mean.
    notes: how it was read, where that is not plain.
    """

    name: str
    tokens: Tensor
    skipped: tuple[str, ...] = ()
    vocabulary: Vocabulary = BYTES
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return self.tokens.numel()


def pydocs() -> Text:
    """The language reference that ships inside CPython (`pydoc_data.topics`), topics in alphabetical order.

    About 0.45 MB of English prose with code; needs no download. The text differs a little from one Python
    version to the next. Raises ModuleNotFoundError where a distribution has taken `pydoc_data` out.
    """
    from pydoc_data.topics import topics

    joined = "\n\n".join(topics[name].strip("\n") for name in sorted(topics))
    return Text("pydoc_data.topics", _as_tokens(joined.encode()))


def character_names() -> Text:
    """The names of Unicode's characters that this Python knows (`unicodedata`), a line each, small letters,
    without those made by a rule (ideographs, Hangul syllables).

    About 0.9 MB in 33,500 lines; needs no download. Newer versions of Python know a few more.
    """
    names = (unicodedata.name(chr(code), "") for code in range(sys.maxunicode + 1))
    kept = [name for name in names if name and not name.startswith(_BY_RULE)]
    return Text("unicodedata", _as_tokens("\n".join(kept).lower().encode()))


def open_text(
    source: str | os.PathLike[str],
    argument: str = "source",
    *,
    utf8: bool = False,
    column: str | None = None,
    split: str = "train",
) -> Text:
    """A text by its name: "pydocs"; "unicode" (`character_names`); "hf:NAME", or a .parquet, .json or .jsonl
    file (column, by default "text", and split as the data set calls them); a column, by default "text", of a
    .csv or .tsv whose first row holds names; numbers of tokens in a .npy or .npz (column names the array),
    memory-mapped; or a path as `read_text` takes it.

    utf8: refuse what is not UTF-8. Raises OSError or ValueError, beginning with `argument`, or with `column`
    or `split` where the source has no such thing.
    """
    source = source_of(source, argument)
    named, end = hub_name(source, argument), source.lower()
    if split != "train" and named is None:
        raise ValueError(f"split: expected an hf: data set to read {split!r} of, got {source}")
    if end.endswith(tables.SUFFIXES) and not Path(source).is_dir():
        texts, notes = tables.read_text_column(source, column, argument)
        return replace(_joined(source, texts, column or ROWS, argument), notes=notes)
    if column not in (None, "text") and named is None and not end.endswith(".npz"):
        raise ValueError(
            f"column: expected rows (hf:, .parquet, .json, .csv) or an .npz to read {column!r} of, "
            f"got {source}"
        )
    if source == "pydocs":
        try:
            return pydocs()
        except ModuleNotFoundError as error:
            raise ValueError(
                f"{argument}: this Python came without its documentation; give a path"
            ) from error
    if source == "unicode":
        return character_names()
    if named is not None:
        joined, notes = read_hub_text(named, column or ROWS, split, argument)
        return Text(source, _as_tokens(joined.encode()), notes=notes)
    if end.endswith((".npy", ".npz")) and not Path(source).is_dir():
        from .files.arrays import read_tokens

        tokens, size = read_tokens(source, None if column == "text" else column, argument)
        return Text(source, tokens, (), Vocabulary("ids", size=size))
    return read_text(source, argument, utf8=utf8)


def tokenize(
    text: Text, kind: str, limit: int, vocabulary: Vocabulary | None = None, argument: str = "text"
) -> Text:
    """`text` in bytes ("byte": as it is), characters, words, or the tokens of a "tokenizer".

    vocabulary: the one to use, which a tokenizer must be given with; by default the `limit` most frequent
    characters or words of the first 90 % are kept.
    Raises ValueError, naming `argument`, for text that is not UTF-8 and for token numbers in place of text.

    kind: "byte", "character", "word" or "tokenizer".
    """
    if text.vocabulary.kind == "ids":
        if kind != "byte":
            raise ValueError(
                f"{argument}: {text.name} holds token numbers: expected tokens 'byte', which leaves them as "
                f"they are, got {kind!r}"
            )
        if vocabulary is not None and len(text.vocabulary) > len(vocabulary):
            raise ValueError(
                f"{argument}: {text.name} has tokens up to {len(text.vocabulary) - 1}, this run's vocabulary "
                f"ends at {len(vocabulary) - 1}"
            )
        return text if vocabulary is None else replace(text, vocabulary=vocabulary)
    if kind == "byte":
        return text
    content = bytes(text.tokens.numpy())
    if reason := _why_not_text(content, utf8=True):
        raise ValueError(f"{argument}: {text.name} {reason}")
    if kind == "tokenizer":
        if vocabulary is None:
            raise ValueError("vocabulary: expected that of a tokenizer, got None")
        return replace(text, tokens=vocabulary.encode(content.decode()), vocabulary=vocabulary)
    pieces = cut(content.decode(), kind)
    if vocabulary is None:
        training = pieces[: len(pieces) - round(len(pieces) * HELD_OUT)]
        vocabulary = Vocabulary.build(kind, training, limit)
    return replace(text, tokens=vocabulary.encode_pieces(pieces), vocabulary=vocabulary)


def read_text(path: str | os.PathLike[str], argument: str = "path", *, utf8: bool = False) -> Text:
    """The text in a file, or in every file below a folder (sorted by path, joined by a blank line).

    UTF-16 and UTF-32 with a byte order mark become UTF-8; any other encoding without NUL bytes is taken as it
    is, or with `utf8` UTF-8 alone; a byte order mark is no part of the text. Of a folder, hidden files and
    folders and what programs leave behind are passed over, links are followed; folders passed over and files
    that are not text are listed in `Text.skipped`.

    Raises OSError (FileNotFoundError, PermissionError, ...) for what cannot be read and ValueError for what
    holds no text; the message begins with `argument`.
    """
    path = path_of(path, argument)
    try:
        if path.is_dir():
            return _read_folder(path, argument, utf8)
        content, encoding = _read_file(path, argument)
    except UnicodeDecodeError as error:
        raise ValueError(f"{argument}: {path} {_why_not_decoded(error)}") from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise type(error)(f"{argument}: cannot read {error.filename or path}: {reason}") from error
    if fault := _why_not_text(content, utf8):
        raise ValueError(f"{argument}: {path} {fault}")
    notes: tuple[str, ...] = ()
    if encoding not in (None, "utf-8-sig"):
        notes += (f"{path} is {encoding.upper()}, and read as UTF-8",)
    if path.suffix.lower() in _STRUCTURED:
        notes += (f"{path} is read as it is, signs between columns and all",)
    return Text(str(path), _as_tokens(content), notes=notes)


def split(tokens: Tensor, held_out: float = HELD_OUT) -> tuple[Tensor, Tensor]:
    """tokens [N] -> (the first part, the last `held_out` of it), both views.

    tokens: of any dtype, uint8 or int64 among them. held_out: a share from 0 to 1. Nothing is raised; a
    part may be empty.
    """
    cut = tokens.numel() - round(tokens.numel() * held_out)
    return tokens[:cut], tokens[cut:]


class Lanes:
    """Text cut into `batch` contiguous lanes that are read side by side, `chunk` steps at a time.

    Lane b holds the b-th stretch of the text; chunk k of every lane continues chunk k-1, so a recurrent state
    carried from one to the next has seen all of the lane so far. Every token but the first is a target once,
    except that `drop_last=True` leaves out what does not fill all lanes with whole chunks (for training: all
    batches of one shape), while `drop_last=False` marks the padding with `IGNORED` (for measuring).

    tokens: integer [N]. Raises ValueError when N is too short for one batch.
    """

    def __init__(self, tokens: Tensor, batch: int, chunk: int, *, drop_last: bool):
        count = tokens.numel() - 1
        needed = batch * chunk if drop_last else 1
        if count < needed:
            raise ValueError(f"tokens: expected at least {needed + 1}, got {tokens.numel()}")
        if drop_last:
            length = count // (batch * chunk) * chunk
        else:
            batch = min(batch, count)
            length = -(-count // batch)
        self.batch, self.chunk = batch, chunk
        self._inputs = _lanes(tokens[:-1], batch, length, fill=0)
        self._targets = _lanes(tokens[1:] if drop_last else tokens[1:].long(), batch, length, fill=IGNORED)

    def keep(self, lanes: slice) -> None:
        """Reads these lanes only."""
        self._inputs, self._targets = self._inputs[:, lanes], self._targets[:, lanes]
        self.batch = self._inputs.shape[1]

    def __len__(self) -> int:
        """Chunks in one pass."""
        return -(-self._inputs.shape[0] // self.chunk)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Chunk `index`: (inputs, targets), both int64 [T, B], T = chunk except perhaps in the last one."""
        if not 0 <= index < len(self):
            raise IndexError(f"chunk {index} of {len(self)}")
        rows = slice(index * self.chunk, (index + 1) * self.chunk)
        return self._inputs[rows].contiguous().long(), self._targets[rows].contiguous().long()


def _lanes(tokens: Tensor, batch: int, length: int, fill: int) -> Tensor:
    """[N] -> [length, batch], a view where nothing is missing (a text may be a file on disk); else filled."""
    missing = batch * length - tokens.numel()
    if missing > 0:
        tokens = torch.cat([tokens, tokens.new_full((missing,), fill)])
    return tokens[: batch * length].view(batch, length).t()


def _joined(source: str, texts: list[str], column: str, argument: str) -> Text:
    """A row's text after another, with a blank line between."""
    joined = "\n\n".join(text.strip("\n") for text in texts if text.strip())
    if not joined:
        raise ValueError(f"{argument}: {source}: column {column!r} is empty")
    return Text(source, _as_tokens(joined.encode()))


def _as_tokens(content: bytes) -> Tensor:
    return torch.frombuffer(bytearray(content), dtype=torch.uint8)


def _why_not_text(content: bytes, utf8: bool = False) -> str | None:
    if not content.strip():
        return "is empty"
    if kind := kind_of(content):
        return f"is not text, but {kind}"
    if (where := content.find(0)) >= 0:
        return f"is not text: byte {where} is NUL (UTF-16 without a byte order mark? then convert it)"
    if utf8:
        try:
            content.decode()
        except UnicodeDecodeError as error:
            found = f"byte {error.start} is 0x{content[error.start]:02x}"
            return f"is not UTF-8: {found} (tokens that are bytes take any encoding)"
    return None


def _why_not_decoded(error: UnicodeDecodeError) -> str:
    return f"is not text: it begins as {error.encoding.upper()} does, and is not: {error.reason}"


def _read_file(path: Path, argument: str) -> tuple[bytes, str | None]:
    """The text, and the encoding that its byte order mark says. Raises UnicodeDecodeError where it is in
    another."""
    # A pipe or a device could block for ever or never end.
    if path.exists() and not path.is_file():
        raise ValueError(f"{argument}: {path} is neither a file nor a folder")
    content = path.read_bytes()
    return as_utf8(content), marked(content)


def _read_folder(folder: Path, argument: str, utf8: bool) -> Text:
    files, skipped = files_below(folder)
    parts, notes = [], []
    for path in files:
        try:
            content = as_utf8(path.read_bytes())
        except UnicodeDecodeError as error:
            skipped.append(f"{path} {_why_not_decoded(error)}")
            continue
        if reason := _why_not_text(content, utf8):
            skipped.append(f"{path} {reason}")
        else:
            parts.append(content.strip(b"\n"))
            if path.suffix.lower() in _STRUCTURED:
                notes.append(path)
    if not parts:
        raise ValueError(f"{argument}: no text in {folder}: {_briefly(skipped) or 'it holds no files'}")
    said = [
        f"{len(notes)} of {len(parts)} files are read as they are, signs between columns and all, {path} "
        "among them; give such a file alone to read a column of it"
        for path in notes[:1]
    ]
    return Text(str(folder), _as_tokens(b"\n\n".join(parts)), tuple(skipped), notes=tuple(said))


def _briefly(lines: list[str]) -> str:
    return "; ".join(lines[:3]) + (f"; and {len(lines) - 3} more" if len(lines) > 3 else "")
