"""A batch in parts, over accumulation and processes, and what is carried between them."""

import numpy as np
import pytest
import torch
from fusegen.cli import main
from fusegen.train import FitOptions, RunOptions
from fusegen.train.learner import Learner, _recut
from fusegen.train.workers import Shard, Workers
from runs import SHAPE, equal, text_task, weights_of
from tolerances import TOLERANCE


@pytest.mark.parametrize("parts", [2, 4])
def test_a_batch_in_parts_is_the_whole_batch(parts):
    runs = []
    for accumulate in (1, parts):
        task = text_task(dropout=0.0)
        setup = RunOptions(device="cpu", precision="float64", accumulate=accumulate)
        learner = Learner(task, FitOptions(steps=20, lr=0.01), setup, Workers("cpu"))
        runs.append(([learner.advance()["loss"].item() for _ in range(20)], weights_of(task.model)))
    assert np.abs(np.subtract(runs[0][0], runs[1][0])).max() < TOLERANCE[torch.float64, "training"]
    for name, value in runs[0][1].items():
        assert (value - runs[1][1][name]).abs().max() < TOLERANCE[torch.float64, "weights"]


def test_a_run_goes_on_with_another_number_of_parts(tmp_path):
    def advance(*accumulated):
        state, losses = None, []
        for accumulate in accumulated:
            setup = RunOptions(device="cpu", precision="float64", accumulate=accumulate)
            learner = Learner(text_task(dropout=0.0), FitOptions(steps=20, lr=0.01), setup, Workers("cpu"))
            if state is not None:
                learner.load_state_dict(state, "here")
            losses += [learner.advance()["loss"].item() for _ in range(5)]
            state = learner.state_dict()
        return losses

    apart = np.abs(np.subtract(advance(1, 1, 1), advance(1, 4, 2)))
    assert apart.max() < TOLERANCE[torch.float64, "training"]


def test_carried_state_is_cut_anew_along_the_batch():
    h, c = torch.arange(24.0).view(2, 4, 3), torch.zeros(2, 4, 3)
    halves = list(zip(h.tensor_split(2, 1), c.tensor_split(2, 1), strict=True))
    assert equal(_recut([(h, c)], 2), halves) and equal(_recut(halves, 1), [(h, c)])
    assert equal(_recut([h], 4), list(h.split(1, 1))) and _recut([None], 3) == [None] * 3


@pytest.mark.parametrize("accumulate", [3, 8])
def test_a_batch_that_does_not_divide_is_refused(story, tmp_path, capsys, accumulate):
    arguments = ["train", "text", *SHAPE, "--data", story, "--folder", str(tmp_path / "run")]
    assert main([*arguments, "--accumulate", str(accumulate)]) == 2
    expected = f"--batch: expected a multiple of {accumulate} (processes x accumulate), got 4"
    assert expected in capsys.readouterr().err


def test_shards_are_the_whole_in_order():
    parts = [Shard(index, 3).of(12) for index in range(3)]
    assert [i for part in parts for i in range(12)[part]] == list(range(12))
