"""Text by rows, streamed and not; files of the tokenizers library; runs on either, and what is refused."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from fusegen.cli import main
from fusegen.data import StreamedLanes, StreamError, TextStream, Vocabulary, open_text, tokenize
from fusegen.data import stream as streams
from fusegen.train.run import Run, read_log
from fusegen.train.tasks.text import BITS
from runs import QUIET, SHAPE, equal

SENTENCES = [
    f"row {number}: " + "the cat sat on the mat, zwölf times. " * (1 + number % 4) for number in range(60)
]


@pytest.fixture
def rows(tmp_path):
    """A .jsonl file of texts, one of them missing and one empty."""
    pytest.importorskip("datasets")
    path = tmp_path / "rows.jsonl"
    texts = [*SENTENCES[:30], None, "", *SENTENCES[30:]]
    path.write_text("".join(json.dumps({"text": text, "n": i}) + "\n" for i, text in enumerate(texts)))
    return str(path)


@pytest.fixture
def absent(monkeypatch):
    return lambda name: monkeypatch.setitem(sys.modules, name, None)


@pytest.fixture
def tokenizer(tmp_path):
    """A byte-level BPE with an unknown token, told to cut off and to pad, which must not happen."""
    library = pytest.importorskip("tokenizers")
    made = library.Tokenizer(library.models.BPE(unk_token="<unk>"))
    made.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = library.decoders.ByteLevel()
    trainer = library.trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<unk>"],
        initial_alphabet=library.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(SENTENCES, trainer)
    made.enable_truncation(5)
    made.enable_padding(length=50)
    path = tmp_path / "tokenizer.json"
    made.save(str(path))
    return str(path)


def test_pieces_of_a_tokenizers_tokens_are_the_text(tokenizer):
    """Of a long one too, of which no more than a stretch is decoded at a time; a character of several tokens
    stands at the last."""
    vocabulary = Vocabulary.from_file(tokenizer)
    text = "the cat's \u201cwörd\u201d \U0001f600 sat; " * 12
    tokens = vocabulary.encode(text)
    pieces = vocabulary.pieces(tokens)
    assert len(pieces) == len(tokens) > 100 and "".join(pieces) == text == vocabulary.decode(tokens)
    assert "\U0001f600" in pieces and "" in pieces


# Rows


@pytest.mark.parametrize("suffix", ["jsonl", "json", "parquet"])
def test_files_of_rows_are_read_by_column(tmp_path, suffix):
    datasets = pytest.importorskip("datasets")
    path = tmp_path / f"rows.{suffix}"
    made = datasets.Dataset.from_dict({"text": ["eins\n", "", "zwölf"], "body": ["a", "b", "c"]})
    made.to_parquet(str(path)) if suffix == "parquet" else made.to_json(str(path))
    assert bytes(open_text(str(path)).tokens.tolist()) == "eins\n\nzwölf".encode()
    assert bytes(open_text(str(path), column="body").tokens.tolist()) == b"a\n\nb\n\nc"
    with pytest.raises(ValueError, match=r"^--data: .* has no column 'txt': text, body"):
        open_text(str(path), "--data", column="txt")


# A stream


def test_a_stream_holds_out_its_first_rows_and_reads_the_others_in_order(rows, monkeypatch):
    monkeypatch.setattr(streams, "WINDOW", 2)
    stream = TextStream(rows, "text", "train", 3)
    assert stream.measured == "\n\n".join(text.strip("\n") for text in SENTENCES[:3])
    lanes = StreamedLanes(stream, Vocabulary("byte").encode, 3, 20)
    whole = "".join(f"{text}\n\n" for text in SENTENCES[3:]).encode()
    whole = whole * 3  # it begins anew
    for window in range(60):
        for chunk in range(2):
            (inputs, targets), begins = next(lanes)
            assert begins == (chunk == 0) and inputs.shape == targets.shape == (20, 3)
            assert inputs.dtype == targets.dtype == torch.int64
            for lane in range(3):
                at = window * 120 + lane * 40 + chunk * 20
                assert bytes(inputs[:, lane].tolist()) == whole[at : at + 20]
                assert bytes(targets[:, lane].tolist()) == whole[at + 1 : at + 21]


def test_parts_deal_the_rows_that_are_not_held_out(rows, monkeypatch):
    monkeypatch.setattr(streams, "WINDOW", 2)
    stream = TextStream(rows, "text", "train", 3)
    parts = [StreamedLanes(stream, Vocabulary("byte").encode, 2, 20, i, 3) for i in range(3)]
    taken = [*SENTENCES[:30], None, "", *SENTENCES[30:]][3:]
    for index, part in enumerate(parts):
        own = "".join(f"{text}\n\n" for text in taken[index::3] if text).encode()
        read = b"".join(bytes(next(part)[0][0][:, 0].tolist()) for _ in range(2))
        assert read == own[:40]


@pytest.mark.parametrize("suffix", ["jsonl", "parquet", "files"])
@pytest.mark.parametrize("window", [1, 3, 40])
def test_a_stream_goes_on_where_it_was(tmp_path, rows, monkeypatch, window, suffix):
    """At every position of more than one pass, from the state alone."""
    datasets = pytest.importorskip("datasets")
    if suffix == "parquet":
        made = datasets.load_dataset("json", data_files=rows, split="train")
        made.to_parquet(tmp_path / "rows.parquet", batch_size=7)
        rows = str(tmp_path / "rows.parquet")
    elif suffix == "files":
        lines = Path(rows).read_text().splitlines(keepends=True)
        for number in range(4):
            (tmp_path / f"part-{number}.jsonl").write_text("".join(lines[number * 16 : number * 16 + 16]))
        rows = f"hf:json:{tmp_path}/part-*.jsonl"
    monkeypatch.setattr(streams, "WINDOW", window)

    def opened():
        return StreamedLanes(TextStream(rows, "text", "train", 2), Vocabulary("byte").encode, 2, 30, 1, 2)

    lanes, states, seen = opened(), [], []
    for _ in range(70):
        states.append(lanes.state_dict())
        seen.append(next(lanes))
    for at in [*random.Random(0).sample(range(70), 8), 0, 1]:
        again = opened()
        again.load_state_dict(states[at])
        for (inputs, targets), begins in seen[at : at + 9]:
            (got, got_targets), got_begins = next(again)
            assert torch.equal(got, inputs) and torch.equal(got_targets, targets) and got_begins == begins
        if at:
            with pytest.raises(ValueError, match=r"dealt over 2 parts .*, not 3"):
                StreamedLanes(again._stream, str.encode, 2, 30, 1, 3).load_state_dict(states[at])


@pytest.mark.parametrize(
    ("content", "options", "words"),
    [
        (None, {}, "cannot read .*: No such file"),
        ("", {}, "cannot (load|read) "),
        ('{"text": "a"}\n', {}, "has 1 rows: expected more than the 2 held out"),
        ('{"text": "a"}\n' * 4, {"column": "txt"}, "has no column 'txt': text"),
        ('{"text": 3}\n' * 4, {}, "column 'text' holds int, not text"),
        ('{"text": ""}\n' * 4, {}, "column 'text' is empty in the rows held out"),
        ('{"text": "a"\n', {}, "cannot (load|read) "),
        ('{"text": "a"}\n' * 4, {"split": "test"}, "cannot (load|read) "),
    ],
)
def test_what_cannot_be_streamed_is_refused_by_name(tmp_path, content, options, words):
    pytest.importorskip("datasets")
    path = tmp_path / "rows.jsonl"
    if content is not None:
        path.write_text(content)
    with pytest.raises((OSError, ValueError), match=words) as caught:
        TextStream(**{"source": str(path), "column": "text", "split": "train", "held_out": 2, **options})
    assert str(path) in str(caught.value)


def test_a_part_without_rows_is_said(tmp_path):
    pytest.importorskip("datasets")
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "a"}\n' * 3)
    stream = TextStream(str(path), "text", "train", 2)
    with pytest.raises(StreamError, match="has no text for part 1 of 2"):
        next(StreamedLanes(stream, Vocabulary("byte").encode, 1, 4, 1, 2))


def test_data_that_break_on_the_way_are_said(rows):
    stream = TextStream(rows, "text", "train", 2)
    lanes = StreamedLanes(stream, Vocabulary("byte").encode, 2, 30)
    os.truncate(rows, os.path.getsize(rows) // 2)
    with pytest.raises(StreamError, match=r"cannot read on in .*rows\.jsonl after \d+ rows: "):
        for _ in range(1000):
            next(lanes)


def test_a_run_whose_data_break_on_the_way_says_so(rows, tmp_path, capsys):
    with open(rows, "a") as file:
        file.write('{"text": 3, "n": 99}\n')
    folder = str(tmp_path / "run")
    arguments = ["--data", rows, "--stream", "--held-out", "4", "--steps", "2", "--folder", folder]
    assert main(["train", "text", *SHAPE, *QUIET, *arguments, "--chunk", "32"]) == 1
    err = capsys.readouterr().err
    assert err.startswith(f"fusegen train: cannot read on in {rows} after ") and err.count("\n") == 1


# A tokenizer


def test_a_tokenizer_encodes_all_and_decodes_it(tokenizer):
    vocabulary = Vocabulary.from_file(tokenizer)
    text = " ".join(SENTENCES)
    tokens = vocabulary.encode(text)
    assert tokens.dtype == torch.int32 and 100 < len(tokens) < len(text) // 2  # nothing cut off or padded
    assert vocabulary.decode(tokens) == text and vocabulary.count_characters(tokens) == len(text)
    assert len(vocabulary) == 300 and int(tokens.max()) < 300 and vocabulary.unknown == 0
    assert vocabulary.decode(torch.tensor([0])) == "<unk>"


def test_numbers_that_were_left_out_count(tokenizer):
    content = json.loads(Path(tokenizer).read_text())
    content["added_tokens"].append(
        {**content["added_tokens"][0], "id": 300, "content": "<a>"},
    )
    made = Vocabulary("tokenizer", definition=json.dumps(content))
    assert len(made) == 301 and made.encode("<a>").tolist() == [300]


def test_a_text_in_its_tokens(tokenizer, tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("\n".join(SENTENCES), encoding="utf-8")
    vocabulary = Vocabulary.from_file(tokenizer)
    text = tokenize(open_text(str(path), utf8=True), "tokenizer", 9, vocabulary)
    assert text.vocabulary.decode(text.tokens) == path.read_text()


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda p: None, OSError, "cannot read {}: No such file or directory"),
        (lambda p: p.mkdir(), OSError, "cannot read {}: Is a directory"),
        (lambda p: p.write_text(""), ValueError, "{}: it is not a file of the tokenizers library"),
        (lambda p: p.write_text("[]"), ValueError, "{}: it is not a file of the tokenizers library"),
        (lambda p: p.write_text('{"a": 1}'), ValueError, "{}: it is not a file of the tokenizers library"),
        (lambda p: p.write_bytes(b"\xff\xfe"), ValueError, "{}: "),
    ],
)
def test_what_is_no_tokenizer_is_refused_by_name(tmp_path, make, error, words):
    pytest.importorskip("tokenizers")
    path = tmp_path / "t.json"
    make(path)
    with pytest.raises(error) as caught:
        Vocabulary.from_file(path, "--tokens")
    assert str(caught.value).startswith("--tokens: " + words.format(path))


def test_without_the_library_it_is_said(tmp_path, absent):
    (tmp_path / "t.json").write_text("{}")
    absent("tokenizers")
    with pytest.raises(ValueError, match=r"^--tokens: .*t\.json: it needs the tokenizers library: pip"):
        Vocabulary.from_file(tmp_path / "t.json", "--tokens")


# Runs


def finished(folder):
    assert Run.open(folder).load("last")["step"] == 6
    return {name: value for name, value in Run.open(folder).load("last").items() if name != "run"}


def test_a_run_with_a_tokenizer_keeps_it(tmp_path, tokenizer, rows, capsys):
    folder = tmp_path / "run"
    arguments = ["--data", rows, "--tokens", tokenizer, "--steps", "6", "--folder", str(folder)]
    assert main(["train", "text", *SHAPE, *QUIET, *arguments]) == 0
    measures = read_log(folder)[0]
    assert 0 < measures[BITS] < 12 and 50 < measures["perplexity"] < 5000 and measures["unknown %"] == 0
    os.remove(tokenizer)
    capsys.readouterr()
    assert main(["sample", str(folder), "--length", "5", "--prompt", "the cat", "--beam", "3"]) == 0
    assert capsys.readouterr().out.startswith("the cat")
    assert main(["evaluate", str(folder)]) == 0
    content = json.loads((folder / "vocabulary.json").read_text())
    assert content["kind"] == "tokenizer"
    smaller = json.loads(content["definition"])
    smaller["model"]["merges"].pop()
    dropped = max(smaller["model"]["vocab"], key=smaller["model"]["vocab"].get)
    del smaller["model"]["vocab"][dropped]
    (folder / "vocabulary.json").write_text(json.dumps({**content, "definition": json.dumps(smaller)}))
    assert main(["sample", str(folder)]) == 2
    err = capsys.readouterr().err
    assert "does not fit: embedding.weight is [300, 8] there, and [299, 8] by this run's" in err
    assert main(["resume", str(folder), "--steps", "8"]) == 2
    assert "does not fit: the data are not those of its run" in capsys.readouterr().err
    (folder / "vocabulary.json").write_text('{"kind": "tokenizer", "definition": "{}"}')
    assert main(["resume", str(folder), "--steps", "8"]) == 2
    assert "vocabulary.json is not a vocabulary of fusegen" in capsys.readouterr().err


@pytest.mark.parametrize("accumulate", ["1", "2"])
@pytest.mark.parametrize("tokens", ["byte", "tokenizer"])
def test_a_streamed_run_stopped_and_resumed_equals_one_that_was_not(
    tmp_path, rows, request, monkeypatch, tokens, accumulate
):
    from fusegen.train.tasks.text import TextTask

    monkeypatch.setattr(streams, "WINDOW", 3)
    if tokens == "tokenizer":
        tokens = request.getfixturevalue("tokenizer")
    arguments = ["train", "text", *SHAPE, *QUIET, "--data", rows, "--tokens", tokens, "--stream"]
    arguments += ["--held-out", "4", "--accumulate", accumulate, "--dropout", "0.2", "--weight-drop", "0.2"]
    assert main([*arguments, "--steps", "6", "--folder", str(tmp_path / "never")]) == 0

    class Killed(Exception):
        pass

    def at(self, step, steps):
        if step == 5:
            raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(TextTask, "at", at)
        main([*arguments, "--steps", "6", "--checkpoint-every", "2", "--folder", str(tmp_path / "killed")])
    assert Run.open(tmp_path / "killed").checkpoints.steps()[-1] == 4
    assert main(["resume", str(tmp_path / "killed")]) == 0
    assert equal(finished(tmp_path / "never"), finished(tmp_path / "killed"))


def test_a_stream_is_resumed_by_as_many_parts(tmp_path, rows, capsys):
    arguments = ["--data", rows, "--stream", "--held-out", "4", "--steps", "4", "--accumulate", "2"]
    folder = tmp_path / "run"
    assert main(["train", "text", *SHAPE, *QUIET, *arguments, "--folder", str(folder)]) == 0
    assert main(["resume", str(folder), "--steps", "6", "--accumulate", "4"]) == 2
    err = capsys.readouterr().err
    assert "does not fit: the stream was dealt over 2 parts (processes x accumulate), not 4" in err
    with open(rows, "r+") as file:
        file.write('{"text": "other"')
    assert main(["resume", str(folder), "--steps", "6"]) == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--data", "pydocs", "--stream"], "--data: expected hf:NAME or a .parquet or .json file to stream"),
        (["--data", "{rows}", "--stream", "--tokens", "word"], "--tokens: expected byte or FILE.json"),
        (["--data", "{rows}", "--stream", "--held-out", "0"], "--held-out: expected an integer at least 1"),
        (["--data", "{rows}", "--stream", "--held-out", "99"], "expected more than the 99 held out"),
        (
            ["--data", "{rows}", "--tokens", "runes"],
            "--tokens: expected one of byte, character, word or FILE",
        ),
        (["--data", "{rows}", "--tokens", "{tmp}/no.json"], "--tokens: cannot read {tmp}/no.json: No such"),
        (["--data", "{rows}", "--column", "txt"], "has no column 'txt': text, n"),
        (["--data", "{rows}", "--column", "n"], "column 'n' holds int, not text"),
        (["--data", "{tmp}/no.parquet"], "--data: cannot read {tmp}/no.parquet: No such file or directory"),
        (["--data", "{tmp}/bad.parquet"], "--data: cannot load hf:parquet:{tmp}/bad.parquet"),
        (["--data", "{tmp}/latin.jsonl"], "latin.jsonl: column 'text' is not UTF-8: "),
    ],
)
def test_bad_input_is_one_line_and_status_2(tmp_path, rows, capsys, arguments, words):
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 no")
    (tmp_path / "latin.jsonl").write_bytes('{"text": "zwölf"}\n'.encode("latin-1"))
    given = [each.format(tmp=tmp_path, rows=rows) for each in arguments]
    assert main(["train", "text", *SHAPE, *given, "--folder", str(tmp_path / "run")]) == 2
    err = capsys.readouterr().err
    assert err.startswith("fusegen train: error: ") and err.count("\n") == 1
    assert words.format(tmp=tmp_path) in err


@pytest.mark.slow
def test_two_processes_stream_their_own_rows_and_go_on(tmp_path, rows):
    """Stopped after 4 of 8 steps and resumed: the losses of a run that was not."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TORCH_CPP_LOG_LEVEL": "ERROR"}
    arguments = [*SHAPE, *QUIET, "--data", rows, "--stream", "--held-out", "4", "--checkpoint-every", "4"]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]

    def run(*command):
        command = [*launch, "-m", "fusegen.cli", *command]
        subprocess.run(command, check=True, env=environment, timeout=300, stdout=subprocess.DEVNULL)

    run("train", "text", *arguments, "--steps", "8", "--folder", str(tmp_path / "never"))
    run("train", "text", *arguments, "--steps", "8", "--folder", str(tmp_path / "again"))
    kept = tmp_path / "again/checkpoints"
    assert len(Run.open(tmp_path / "again").load("4")["data"]) == 2
    (kept / "step-00000008.pt").unlink()
    run("resume", str(tmp_path / "again"))
    never, again = (Run.open(tmp_path / name).load("last") for name in ("never", "again"))
    assert all(equal(never[name], again[name]) for name in never.keys() - {"run"})
