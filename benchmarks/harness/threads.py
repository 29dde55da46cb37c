"""Cases that bring their own number of threads: each number is a row of its own."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import torch

from harness.bars import select
from harness.options import Options
from harness.peer import Peer
from harness.problem import Problem
from harness.record import Row
from harness.sweep import Budget, sweep

COUNTS = (1, 2)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """torch.set_num_threads(count), and the number that was set before at the end."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def counts(options: Options) -> tuple[int, ...]:
    """What `--threads` asks for, or each of COUNTS."""
    return (options.threads,) if options.threads else COUNTS


def count_of(row: Row) -> int | None:
    """The number of threads that a row says; None of a case that brings none of its own."""
    found = re.search(r"\bthreads(\d+)\b", row.form)
    return int(found[1]) if found else None


def counts_in(rows: list[Row]) -> list[int]:
    """The numbers of threads that rows say."""
    return sorted({count for row in rows if (count := count_of(row))})


def word(count: int) -> str:
    """How a case's name and a row's `form` say it, for `--only` and for bars."""
    return f"threads{count}"


def sweep_by_threads(
    suite: str, cases: list, peers: list[Peer], budget: Budget, make: Callable = Problem
) -> list[Row]:
    """sweep() with `case.threads` threads for each case; the rows' `form` ends with that number."""
    rows: list[Row] = []
    said: set[str] = set()
    for case in cases:
        with threads(case.threads):
            told = partial(_with_word, count=case.threads)
            rows += sweep(suite, [case], peers, budget, make=make, finish=told, said=said)
    return rows


def _with_word(entry: Row, count: int) -> Row:
    return replace(entry, form=f"{entry.form} {word(count)}")


def with_threads(rows: list[Row], count: int) -> list[Row]:
    return select(rows, form=lambda form: word(count) in form.split())


def with_form(rows: list[Row], form: str) -> list[Row]:
    return select(rows, form=lambda text: form in text.split())
