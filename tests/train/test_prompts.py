"""What a prompt or a source has that a model does not know is named, beside some of what it knows."""

import pytest
from fusegen.cli import main
from fusegen.data import Vocabulary
from fusegen.data.vocabulary import visible
from fusegen.train.tasks.prompt import check_known
from runs import QUIET, refusal

WORDS = Vocabulary.build("word", ["The", "The", "The", " ", "cat", "cat", "sat", "\n", "mat"], 20)
LETTERS = Vocabulary.build("character", "abcabca  \n", 20)


@pytest.mark.parametrize(
    ("vocabulary", "text", "words"),
    [
        (
            WORDS,
            "The dog sat",
            "prompt: word 'dog' is not in this run's vocabulary; it has 'The', 'cat', 'mat', ",
        ),
        (WORDS, "the cat", "prompt: word 'the' is not in this run's vocabulary; near is 'The'; it has"),
        (WORDS, "cats\tdog", "words 'cats', '\u21e5', 'dog' are not in this run's vocabulary; near is 'cat'"),
        (WORDS, "a b c d e f g", "words 'a', 'b', 'c', 'd', 'e', ... are not"),
        (
            LETTERS,
            "abZ",
            "character 'Z' is not in this run's vocabulary; it has 'a', 'b', 'c' and others, 6 in all",
        ),
        (LETTERS, "A", "near is 'a'"),
        (LETTERS, "\x07\u00a0", "characters '\\\\x07', '\u2423' are not"),
    ],
)
def test_what_is_unknown_is_named(vocabulary, text, words):
    with pytest.raises(ValueError) as caught:
        check_known("prompt", text, vocabulary)
    assert words in str(caught.value) and str(caught.value).isprintable()


def test_what_is_known_is_taken():
    check_known("prompt", "The cat sat", WORDS)
    check_known("prompt", "anything", Vocabulary("byte"))
    assert Vocabulary("byte").unknown_in("\u00e4") == [] and Vocabulary("byte").some() == []
    assert WORDS.some(2) == ["The", "cat"] and Vocabulary("ids", size=3).unknown_in("9") == []


def test_of_a_tokenizer_the_part_of_the_text_is_named():
    pytest.importorskip("tokenizers")
    from tokenizers import Tokenizer, models, pre_tokenizers

    made = Tokenizer(models.WordLevel({"?": 0, "cat": 1, "sat": 2}, unk_token="?"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    vocabulary = Vocabulary("tokenizer", definition=made.to_str())
    assert vocabulary.unknown_in("cat dog sat dog") == ["dog"] and vocabulary.some() == ["cat", "sat"]
    with pytest.raises(
        ValueError, match="prompt: token 'dog' is not in this run's vocabulary; it has 'cat', "
    ):
        check_known("prompt", "cat dog", vocabulary)


@pytest.mark.parametrize(
    ("token", "seen"),
    [
        (" ", "\u2423"),
        (" a b", "\u2423a\u2423b"),
        ("\r\n", "\\r\u21b5"),
        ("\u00e4", "\u00e4"),
        ("\x00", "\\x00"),
    ],
)
def test_white_space_is_seen_in_lists_of_tokens(token, seen):
    assert visible(token) == seen


def test_a_command_names_what_its_run_does_not_know(done, capsys):
    said = refusal(capsys, "sample", done, "--prompt", "a story QX")
    assert "--prompt: characters 'Q', 'X' are not in this run's vocabulary" in said


def test_a_source_is_translated_as_far_as_it_is_known(tmp_path, capsys):
    pytest.importorskip("sacrebleu")
    (tmp_path / "pairs.tsv").write_text("".join(f"red cat {i}\tcat red {i}\n" for i in range(20)))
    shape = ["--hidden", "4", "--embedding", "3", "--batch", "4", "--tokens", "word", "--steps", "1"]
    pairs = ["--data", str(tmp_path / "pairs.tsv"), "--folder", str(tmp_path / "run")]
    assert main(["train", "seq2seq", *shape, *QUIET[:1], "--evaluations", "1", *pairs]) == 0
    capsys.readouterr()
    assert main(["sample", str(tmp_path / "run"), "--source", "red dog"]) == 0
    assert "--source: 'dog' read as unknown: not in this run's vocabulary" in capsys.readouterr().err
    said = refusal(capsys, "sample", tmp_path / "run", "--source", "my dog")
    assert "--source: words 'my', 'dog' are not in this run's vocabulary" in said
    assert "--source: expected at least one character" in refusal(
        capsys, "sample", tmp_path / "run", "--source="
    )
