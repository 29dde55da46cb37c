"""The guide's code runs, and gives what it says beside it."""

import re
from pathlib import Path

import pytest
import torch

pytest.importorskip("sklearn")

PAGE = Path(__file__).parents[2] / "docs/inspect.md"


@pytest.mark.filterwarnings("error")
def test_the_guide_runs():
    names: dict = {}
    for code in re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S):
        exec(compile(code, str(PAGE), "exec"), names)
    assert names["lstm"].h.shape == (40, 8, 16) and names["few"]["rnn"].c.shape == (20, 8, 4)
    assert names["later"]["rnn"].c.shape == (5000, 1, 16)
    assert names["losses"].shape == (8, 8) and names["parts"].relevant.shape == (2, 8, 5)
    assert names["spectrum"].shape == (32, 32) and names["tau"].shape == (16,)
    logit = names["text"](names["tokens"])[0][-1]
    shares = names["shares"]
    assert (shares.steps.sum(0) + shares.bias - logit).abs().max() <= 1e-4
    assert torch.isfinite(names["whole"].gap).all()
    assert (
        names["driven"].effects.shape[1] == 16 and names["raised"][0].effect > 0 > names["lowered"][0].effect
    )
    assert names["found"].accuracy > names["found"].control and names["shown"].html.startswith("<div")
    assert names["rows"].shape == (3, 7, 64) and names["ways"].shape == (2, 7, 1, 28, 28)
    assert names["looks"].shape == (2, 1, 28, 28) and [len(row) for row in names["lines"]] == [7, 7]
    assert names["effects"].maps.shape[1:] == (1, 28, 28) and names["near"].ratio > 0
    assert names["overlap"].matrix.shape == (200, 200) and names["dimensions"].kl.shape == (8,)
