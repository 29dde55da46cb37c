"""What a GAN of text writes, beside a bigram model, a `TextLSTM` that was taught as much, and the text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from fusegen.metrics import NGram
from fusegen.models import TextLSTM
from fusegen.train.learner import learning_rate
from fusegen.train.tasks.gan.characters import Characters
from fusegen.train.workers import Shard
from learning.figures import Asked, Figure
from learning.gan import measured

FLAGS = ("--arch", "recurrent", "--data", "pydocs", "--evaluations", "1")
LSTM, BIGRAMS = " of a TextLSTM", " of a bigram model"
_AT_ONCE = 500


def writing(asked: Asked) -> Iterator[Figure]:
    """A GAN's text beside a bigram model's, whose perplexity it has to beat, and a TextLSTM's."""
    done = measured(replace(asked, flags=(*FLAGS, *asked.flags)), "fusegen")
    task, sections = done.run.task(), done.run.sections
    model = taught(task, sections, asked.seed)
    samples = drawn(model, task.source, sections["data"].samples, asked.seed)
    lstm = {f"{name}{LSTM}": value for name, value in task.source.written(samples).items()}
    for measure, value in (done.last | lstm).items():
        figure = replace(done, last={measure: value}).figure(measure)
        baseline = done.last.get(f"{measure.removesuffix(LSTM)}{BIGRAMS}")
        if baseline is not None:
            judged = measure.startswith("perplexity") and not measure.endswith(LSTM)
            figure = figure.beside("a bigram model", baseline, value < baseline if judged else "")
        yield figure


def taught(task: Any, sections: Mapping[str, Any], seed: int) -> TextLSTM:
    """A `TextLSTM` of the GAN's cell, units and layers, taught batches of the same text, as large, in as many
    steps at the same rates, by likelihood alone."""
    options, fit = sections["model"], sections["fit"]
    torch.manual_seed(seed)
    V = len(task.source.vocabulary)
    model = TextLSTM(V, options.hidden, options.hidden, options.layers, cell=options.cell)
    optimizer = torch.optim.Adam(model.parameters(), fit.lr, fused=True)
    batches = task.data(Shard())
    for step in range(fit.steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, fit)
        real = next(batches)[0]["real"]
        optimizer.zero_grad(set_to_none=True)
        model.loss(real[:-1], real[1:])[0].backward()
        if fit.clip:
            torch.nn.utils.clip_grad_norm_(model.parameters(), fit.clip)
        optimizer.step()
    return model.eval()


@torch.no_grad()
def drawn(model: TextLSTM, source: Characters, count: int, seed: int) -> Tensor:
    """Sequences [T, count]: the first token as often as it is in the text, the others by the model."""
    random = torch.Generator().manual_seed(seed)
    first = NGram(1, len(source.vocabulary)).fit(source.tokens).chances(())
    parts = []
    for begin in range(0, count, _AT_ONCE):
        n = min(_AT_ONCE, count - begin)
        tokens = [torch.multinomial(first, n, replacement=True, generator=random)]
        state = None
        for _ in range(source.steps - 1):
            logits, state = model(tokens[-1][None], state)
            tokens.append(torch.multinomial(logits[0].double().softmax(1), 1, generator=random)[:, 0])
        parts.append(torch.stack(tokens))
    return torch.cat(parts, 1)
