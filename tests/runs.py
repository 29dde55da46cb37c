"""What the tests of training share: small options, tasks and runs, and how they are compared."""

import torch
from fusegen.cli import main
from fusegen.data import open_text
from fusegen.train import FitOptions, RunOptions, TextOptions, TextTask, fit
from fusegen.train.run import Run
from fusegen.train.tasks.text import TextData

SHAPE = ["--hidden", "16", "--embedding", "8", "--batch", "4", "--chunk", "8"]
SMALL = {"hidden": 16, "embedding": 8, "batch": 4, "chunk": 8}
AWD = {"locked_dropout": True, "embedding_dropout": 0.1, "weight_drop": 0.3, "ar": 2.0, "tar": 1.0}
QUIET = ["--no-tensorboard", "--evaluations", "2", "--log-every", "1"]
STORY = "a short story about a short story, zwölf lines long. " * 12


def silent(task, options, **more):
    return fit(task, options, say=lambda line: None, **more)


def weights_of(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def equal(a, b):
    """Bit for bit, through lists, tuples and dicts."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b) and a.dtype == b.dtype
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[name], b[name]) for name in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(equal, a, b))
    return a == b


def run_of(folder, task_name="text", **options):
    """A new run's folder, with defaults but for `options` of the section "run"."""
    sections = {"fit": FitOptions(), "run": RunOptions(device="cpu", tensorboard=False, **options)}
    if task_name == "text":
        sections |= {"model": TextOptions(**SMALL), "data": TextData()}
    return Run.create(folder, task_name, sections)


class StopAt:
    """Ends a run before a step as a kill would: nothing is saved on the way out."""

    class Killed(BaseException):
        pass

    def __init__(self, task, step):
        self._at, self._step = task.at, step
        task.at = self

    def __call__(self, step, steps):
        if step == self._step:
            raise self.Killed
        self._at(step, steps)


def text_task(seed=0, dropout=0.2, **options):
    torch.manual_seed(seed)
    text = open_text("pydocs")
    return TextTask.make(
        type(text)("some", text.tokens[:2000]), TextOptions(**{**SMALL, "dropout": dropout, **options})
    )


def refusal(capsys, *arguments):
    assert main([*map(str, arguments)]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"fusegen {arguments[0]}: error: ") and err.count("\n") == 1
    return err
