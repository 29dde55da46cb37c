"""Models of other people (networks/published.py) on fusegen and torch.nn, training too, one thread and two.

A row's `form` names the part (the recurrent layers, or the whole training or evaluation step around them) and
the number of threads. fusegen's contestants are `fusegen.convert` of the same network, as users have them.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import cached_property

import torch

import fusegen
from harness.bars import Bar, mean_and_worst, ratios, select
from harness.options import Options
from harness.peer import BaseRunner
from harness.record import Row
from harness.threads import COUNTS, counts, counts_in, sweep_by_threads, with_form, with_threads, word
from networks.published import MODELS, Published


@dataclass(frozen=True)
class ModelCase:
    model: Published
    train: bool
    threads: int

    dtype, device = "float32", "cpu"

    I = property(lambda self: self.model.I)
    H = property(lambda self: self.model.H)
    B = property(lambda self: self.model.B)
    T = property(lambda self: self.model.T)
    cell = property(lambda self: self.model.name)
    form = property(lambda self: self.model.form)

    @property
    def mode(self) -> str:
        return "training" if self.train else "inference"

    @property
    def name(self) -> str:
        sizes = f"H{self.H} B{self.B} T{self.T}"
        return f"{self.cell} {self.form} {self.mode} {self.dtype} {sizes} {word(self.threads)}"

    @property
    def work(self) -> float:
        """For `--part`: one layer's products with eight gates' rows, and the vocabulary's."""
        products = self.T * self.B * self.H * (8 * (self.I + self.H) + self.model.vocabulary)
        return (products + self.T * 5e5) * (3 if self.train else 1)


class ModelProblem:
    """A network with seeded weights, its inputs, and the gradients that come in; every contestant has copies.

    Dropout draws from the generator that each run seeds anew; its masks are the same in float32 and float64.
    """

    flops = bytes = 0  # not reckoned: a model is more than its layers' products

    def __init__(self, case: ModelCase, seed: int = 0):
        self.case, model = case, case.model
        torch.manual_seed(seed)
        self.net = model.make(model)
        self.inputs = model.draw(model, torch.Generator().manual_seed(seed))
        with torch.no_grad():
            outputs = copy.deepcopy(self.net).eval()(**self.inputs)
        self.gradients = {name: torch.randn_like(outputs[name]) for name in model.driven}
        if model.driven == ("loss",):
            self.gradients = {"loss": torch.ones(())}
        rows = self.inputs.get("rows")
        self.tokens = case.T * case.B if rows is None else len(rows.data)

    @cached_property
    def _reference(self) -> dict[str, torch.Tensor]:
        problem = copy.copy(self)
        problem.inputs = {name: double(value) for name, value in self.inputs.items()}
        problem.gradients = {name: value.double() for name, value in self.gradients.items()}
        runner = ModelRunner(problem, copy.deepcopy(self.net).double())
        runner.reset()
        runner.run()
        return runner.results()

    def reference(self) -> dict[str, torch.Tensor]:
        """Outputs and gradients of the same network on torch.nn in float64."""
        return self._reference


def double(value):
    """A Tensor or PackedSequence in float64; whole numbers as they are."""
    data = value if isinstance(value, torch.Tensor) else value.data
    return value.double() if data.is_floating_point() else value


class ModelRunner(BaseRunner):
    def __init__(self, problem: ModelProblem, net: torch.nn.Module, backend: str = ""):
        self.net, self.backend, self.model = net, backend, problem.case.model
        self.train = problem.case.train
        net.train(self.train).requires_grad_(self.train)
        self.leaves = {
            name: problem.inputs[name].clone().requires_grad_(self.train) for name in self.model.leaves
        }
        self.inputs = problem.inputs | self.leaves
        self.gradients = list(problem.gradients.values())
        self.before = fusegen.get_backend()

    def reset(self) -> None:
        if self.backend:
            fusegen.set_backend(self.backend)
        torch.manual_seed(1)
        for leaf in (*self.leaves.values(), *self.net.parameters()):
            leaf.grad = None

    def run(self) -> None:
        if not self.train:
            with torch.inference_mode():
                self.outputs = self.net(**self.inputs)
            return
        self.outputs = self.net(**self.inputs)
        torch.autograd.backward([self.outputs[name] for name in self.model.driven], self.gradients)
        if self.model.update:
            self.model.update(self.net)

    def results(self) -> dict[str, torch.Tensor]:
        found = {name: value.detach() for name, value in self.outputs.items()}
        if self.train:
            found |= {f"d{name}": leaf.grad for name, leaf in self.leaves.items()}
            found |= {f"d{name}": p.grad for name, p in self.net.named_parameters()}
        return found

    def close(self) -> None:
        fusegen.set_backend(self.before)


class OnTorch:
    name = "torch"

    def prepare(self, problem: ModelProblem) -> ModelRunner:
        return ModelRunner(problem, copy.deepcopy(problem.net))


class Converted:
    """fusegen.convert of the network, under `backend`."""

    def __init__(self, backend: str):
        self.name = backend

    def prepare(self, problem: ModelProblem) -> ModelRunner:
        return ModelRunner(problem, fusegen.convert(copy.deepcopy(problem.net)), self.name)


PEERS = [Converted("fused"), Converted("auto"), OnTorch()]


def cases(quick: bool, counts: tuple[int, ...] = COUNTS) -> list[ModelCase]:
    """On each of `counts` threads; quick: the layers of the smaller models, on the most."""
    models = [m for m in MODELS if m.H <= 256 and m.form == "recurrent"] if quick else MODELS
    return [
        ModelCase(model, train, count)
        for model in models
        for train in (False, True)
        for count in (counts[-1:] if quick else counts)
    ]


def run(options: Options) -> list[Row]:
    chosen = options.cases(cases(options.quick, counts(options)))
    budget = options.budget(len(chosen), 9, 1)
    return sweep_by_threads("models", chosen, options.contestants(PEERS), budget, make=ModelProblem)


def bars(rows: list[Row]) -> list[Bar]:
    """The mean is over the recurrent layers; the whole step, most of which is the vocabulary's product, must
    not lose and is shown apart."""
    made = []
    for count in counts_in(rows):
        torch_rows = select(with_threads(rows, count), peer="torch")
        layers, steps = with_form(torch_rows, "recurrent"), with_form(torch_rows, "step")
        on = f"{count} thread{'s' if count > 1 else ''}"
        made += mean_and_worst(f"models, {on}, torch.nn / fused", ratios(layers), 1.3, 1.0)
        for mode in ("inference", "training"):
            made += mean_and_worst(f"  {mode}", ratios(select(layers, mode=mode)), None)
        for name in dict.fromkeys(model.name for model in MODELS):
            made += mean_and_worst(f"  {name}", ratios(select(layers, cell=name)), None)
        made += mean_and_worst(f"models, {on}, a language model's whole step", ratios(steps), None, 1.0)
        made += mean_and_worst(f"  {on}, torch.nn / auto", ratios(torch_rows, "auto"), None, 0.99)
    return made
