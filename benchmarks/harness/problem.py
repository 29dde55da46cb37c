"""What is run: one recurrent layer or cell on one random batch, and the float64 answer it is held against."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from math import sqrt

import torch

from harness.runners import module_runner

GATES = {"lstm": 4, "gru": 3, "rnn": 1}
CELLS = tuple(GATES)
CLASSES = {"lstm": "LSTM", "gru": "GRU", "rnn": "RNN"}


def torch_dtype(name: str) -> torch.dtype:
    """Of the tensors of a case whose `dtype` is `name`."""
    return torch.float32 if name == "tf32" else getattr(torch, name)


@dataclass(frozen=True)
class Case:
    """One point of a grid: T steps, B batch, I input size (0 stands for H), H hidden size.

    form: "layer" (a padded batch), "ragged" (lengths uniform in 1..T) or "cell" (one step; T is 1).
    dtype: of the tensors; "tf32" is float32 whose products may round to TF32.
    """

    cell: str
    H: int
    B: int
    T: int
    train: bool = False
    dtype: str = "float32"
    form: str = "layer"
    I: int = 0
    device: str = "cpu"

    def __post_init__(self):
        object.__setattr__(self, "I", self.I or self.H)

    @property
    def mode(self) -> str:
        return "training" if self.train else "inference"

    @property
    def name(self) -> str:
        form = "" if self.form == "layer" else f" {self.form}"
        return f"{self.cell}{form} {self.mode} {self.dtype} H{self.H} B{self.B} T{self.T}"

    @property
    def torch_dtype(self) -> torch.dtype:
        return torch_dtype(self.dtype)

    @property
    def bytes_of_number(self) -> int:
        return self.torch_dtype.itemsize


class Problem:
    """Random tensors of a case; every peer reads the same ones.

    weights: W [G*H,I], R [G*H,H], b_ih, b_hh [G*H] ~ U(-1/sqrt(H), 1/sqrt(H)) as in torch.nn; all else ~
    N(0,1). Layer: x [T,B,I], dy [T,B,H], zero initial state; ragged: lengths [B] int64 beside them, dy zero
    past the end (lengths lie on the CPU, all else on the case's device). Cell: x [B,I], `state` and `dstate`:
    h [B,H] (and c [B,H] for LSTM) and the gradients of what comes out.
    """

    def __init__(self, case: Case, seed: int = 0):
        self.case = case
        g = torch.Generator(case.device).manual_seed(seed)
        rows, bound = GATES[case.cell] * case.H, 1 / sqrt(case.H)

        def weight(*shape):
            drawn = torch.empty(shape, device=case.device).uniform_(-bound, bound, generator=g)
            return drawn.to(case.torch_dtype)

        def normal(*shape):
            return torch.randn(shape, generator=g, device=case.device).to(case.torch_dtype)

        self.weights = [weight(rows, case.I), weight(rows, case.H), weight(rows), weight(rows)]
        self.lengths = None
        if case.form == "cell":
            states = 2 if case.cell == "lstm" else 1
            self.x = normal(case.B, case.I)
            self.state = [normal(case.B, case.H) for _ in range(states)]
            self.dstate = [normal(case.B, case.H) for _ in range(states)]
            return
        self.x, self.dy = normal(case.T, case.B, case.I), normal(case.T, case.B, case.H)
        if case.form == "ragged":
            self.lengths = torch.randint(1, case.T + 1, (case.B,), generator=g, device=case.device).cpu()
            self.dy[(torch.arange(case.T)[:, None] >= self.lengths).to(case.device)] = 0

    @property
    def tokens(self) -> int:
        """Rows of x that are computed."""
        return self.case.T * self.case.B if self.lengths is None else int(self.lengths.sum())

    @property
    def flops(self) -> int:
        """Of the matrix products, a multiply-add counted twice; backward has twice the forward's."""
        case = self.case
        forward = 2 * GATES[case.cell] * case.H * (case.I + case.H) * self.tokens
        return 3 * forward if case.train else forward

    @property
    def bytes(self) -> int:
        """That a whole call must move at least: each input read once, each output written once."""
        case = self.case
        weights = GATES[case.cell] * case.H * (case.I + case.H + 2)
        moved = weights + self.tokens * (case.I + case.H)
        return case.bytes_of_number * (2 * moved if case.train else moved)

    def module(self, namespace) -> torch.nn.Module:
        """The layer or cell of torch.nn or fusegen.nn, holding a copy of the weights."""
        case = self.case
        cls = getattr(namespace, CLASSES[case.cell] + ("Cell" if case.form == "cell" else ""))
        module = cls(case.I, case.H, dtype=case.torch_dtype, device=case.device)
        with torch.no_grad():
            for parameter, weight in zip(module.parameters(), self.weights, strict=True):
                parameter.copy_(weight)
        return module.train(case.train).requires_grad_(case.train)

    def leaf(self, tensor: torch.Tensor) -> torch.Tensor:
        """A copy of `tensor`, with gradient if the case trains."""
        return tensor.clone().requires_grad_(self.case.train)

    def reference(self) -> dict[str, torch.Tensor]:
        """Results by torch.nn in float64 on the case's device, gradients included; named as Runner.results
        says."""
        return _reference(replace(self.case, train=True))


@lru_cache(maxsize=1)  # a case's inference and training stand side by side in a grid
def _reference(case: Case) -> dict[str, torch.Tensor]:
    problem = Problem(case)
    problem.case = replace(case, dtype="float64")
    for name, value in vars(problem).items():
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            setattr(problem, name, value.double())
        elif isinstance(value, list):
            setattr(problem, name, [tensor.double() for tensor in value])
    runner = module_runner(torch.nn, problem)
    runner.run()
    return runner.results()
