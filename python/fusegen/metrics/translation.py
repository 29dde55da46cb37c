"""Measures of written sentences: BLEU by sacrebleu, self-BLEU, exact matches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def bleu(hypotheses: Sequence[str], references: Sequence[str], *, tokenize: str = "13a") -> float:
    """Corpus BLEU, 0 to 100 (Papineni et al. 2002), by sacrebleu (Post 2018, arXiv:1804.08771): up to four
    words, one reference for each hypothesis, its exponential smoothing. tokenize: sacrebleu's name of how
    sentences are cut ("13a": mteval's; "char", "intl", "none", ...).

    Raises TypeError or ValueError for what is not as many strings, or none, ModuleNotFoundError where
    sacrebleu is missing.

    hypotheses: what was written. references: as many, what it should be.
    """
    _check_pairs(hypotheses, references)
    # force: text that is cut into words already is nothing to be told of at every measure
    made = _sacrebleu().BLEU(tokenize=tokenize, force=True)
    return made.corpus_score(list(hypotheses), [list(references)]).score


def self_bleu(texts: Sequence[str], *, tokenize: str = "13a") -> float:
    """How alike the texts are, 0 to 100: the mean of each one's BLEU against all others as its references
    (Zhu et al. 2018, arXiv:1802.01886, section 3.2). 100: each n-gram is in another text; real text of the
    same size is what to compare with, since it rises with the number of texts.

    By sacrebleu, with the n-gram order of the shorter texts where they have fewer than four words.
    Takes time in the square of their number. Raises as ``bleu``, ValueError for fewer than two.

    tokenize: as in ``bleu``.
    """
    _check_texts("texts", texts)
    if len(texts) < 2:
        raise ValueError(f"texts: expected at least two, got {len(texts)}")
    made = _sacrebleu().BLEU(tokenize=tokenize, effective_order=True, force=True)
    scores = [made.sentence_score(text, [*texts[:i], *texts[i + 1 :]]).score for i, text in enumerate(texts)]
    return sum(scores) / len(scores)


def exact_match(hypotheses: Sequence[str], references: Sequence[str]) -> float:
    """The share of hypotheses, 0 to 1, that equal their references, character for character.

    Raises TypeError or ValueError as ``bleu``.

    No paper: the first sentence is the definition.
    """
    _check_pairs(hypotheses, references)
    return sum(a == b for a, b in zip(hypotheses, references, strict=True)) / len(references)


def check_sacrebleu() -> None:
    """Raises ModuleNotFoundError, saying what to install, where sacrebleu is missing."""
    _sacrebleu()


def _check_texts(name: str, texts: object) -> None:
    if isinstance(texts, str) or not isinstance(texts, Sequence):
        raise TypeError(f"{name}: expected a list of texts, got {type(texts).__name__}")
    if wrong := next((type(text).__name__ for text in texts if not isinstance(text, str)), None):
        raise TypeError(f"{name}: expected texts, got {wrong}")


def _check_pairs(hypotheses: Sequence[str], references: Sequence[str]) -> None:
    _check_texts("hypotheses", hypotheses)
    _check_texts("references", references)
    if len(hypotheses) != len(references):
        raise ValueError(f"references: expected {len(hypotheses)}, one a hypothesis, got {len(references)}")
    if not hypotheses:
        raise ValueError("hypotheses: expected at least one, got none")


def _sacrebleu() -> Any:
    try:
        from sacrebleu import metrics
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "sacrebleu is needed for BLEU: pip install sacrebleu", name=error.name
        ) from error
    return metrics
