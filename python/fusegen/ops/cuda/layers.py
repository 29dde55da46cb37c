"""One layer on a GPU: torch multiplies by the input weights and forms the weight gradients, the engine's
kernels run what goes step by step.

Shapes are those of ``fusegen.ops.functional``. Matrix products of float32 tensors outside the recurrence
follow torch's own switch (torch.backends.cuda.matmul); the recurrence follows torch.backends.cudnn's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ... import _backend, _precision
from ..._inside import CANDIDATE_DROPOUT, STATE_DROPOUT, ZONEOUT_C, Inside, single
from ..layout import dense, present
from ..recurrent import Call, Outputs, Passes, Weights
from ..spec import GRU, LSTM, CellSpec
from ..transform.per_sample import Gates
from .engine import Engine, dtype_name, error_word, stream_of


class Steps(NamedTuple):
    """What a recurrence reads beside its gate inputs; R, W_hr and b_hn have an entry for each direction."""

    R: Sequence[Tensor]
    W_hr: Sequence[Tensor] = ()
    b_hn: Sequence[Tensor | None] = ()  # GRU's only, which r multiplies
    h0: Tensor | None = None
    c0: Tensor | None = None
    lengths: Tensor | None = None
    relu: bool = False
    inside: Inside | None = None

    def sizes(self, spec: CellSpec) -> tuple[int, int, int]:
        """H, P, D."""
        GH, P = self.R[0].shape
        return GH // spec.gates, P, len(self.R)

    @property
    def asked(self) -> tuple[bool, bool]:
        """Whether sequences start anew, and whether there are masks: what a plan knows of ``inside``."""
        inside = self.inside
        return (False, False) if inside is None else (inside.resets is not None, any(inside.rates))

    def rate(self, mask: int) -> float:
        """Of a mask that is drawn; 0: of none."""
        inside = self.inside
        return inside.rates[mask] if inside is not None and inside.training and inside.rates else 0.0


def passes(engine: Engine, spec: CellSpec) -> Passes:
    """The layer's op on this engine."""
    return Passes(
        partial(_forward, engine, spec),
        partial(_backward, engine, spec),
        partial(_gate_gradients, engine, spec),
    )


def _plan(engine: Engine, spec: CellSpec, steps: Steps, like: Tensor, backward: bool) -> Any:
    """The engine's plan of a pass, made once: it says the workspace, and is handed on to the kernels."""
    B, (H, P, D) = like.shape[1], steps.sizes(spec)
    tf32 = _precision.recurrence_in_tf32(like.dtype)
    asked = (spec.engine_name(steps.relu), dtype_name(like), tf32, backward, B, H, P, D)
    return engine.plan((*asked, like.device.index or 0), *steps.asked)


def _workspace(plan: Any, like: Tensor) -> Tensor:
    return like.new_empty(plan.workspace_bytes, dtype=torch.uint8)


def _inside(engine: Engine, steps: Steps, like: Tensor, spec: CellSpec) -> tuple[Any, ...]:
    """What the kernels are given of ``steps.inside``: nothing, or a tuple."""
    inside = steps.inside
    if inside is None:
        return ()
    resets, (T, B, _) = inside.resets, like.shape
    if any(inside.rates) and inside.training:
        refuse_capture(spec.name, like)
    boundaries = None
    if resets is not None:
        resets = resets.contiguous().view(torch.uint8)
        size = engine.kernels.gpu_boundary_bytes(T, B, steps.sizes(spec)[2])
        boundaries = like.new_empty(size, dtype=torch.uint8)
    starts = dense(inside.reset_h), dense(inside.reset_c)
    return ((resets, *starts, boundaries, inside.key, inside.rates, inside.layer, inside.training),)


def refuse_capture(name: str, like: Any) -> None:
    """Raises RuntimeError where a CUDA graph would repeat a call's masks: their key is an argument of the
    kernels, drawn on the host."""
    if like.is_cuda and torch.cuda.is_current_stream_capturing():
        raise RuntimeError(
            f"{name}: dropout and zoneout inside the recurrence cannot be captured in a CUDA graph on "
            f"{like.device}: every replay would have this call's masks"
        )


def _note(engine: Engine, spec: CellSpec, plan: Any, transport: str) -> None:
    asked = plan.transport if engine.transport == "best" else engine.transport
    if asked != transport:
        _backend.note(f"{spec.name} on GPU: {asked} does not fit on this device, {transport} ran")


def _of_each_direction(weights: Weights, spec: CellSpec, name: str) -> list[Tensor | None]:
    return list(weights[spec.weights.index(name) :: len(spec.weights)])


def _projection(weights: Weights, spec: CellSpec) -> list[Tensor]:
    return present(_of_each_direction(weights, spec, "W_hr")) if "W_hr" in spec.weights else []


def _dense(ts: Sequence[Tensor]) -> list[Tensor]:
    return [t.contiguous() for t in ts]


def _bias(spec: CellSpec, H: int, b_ih: Tensor | None, b_hh: Tensor | None) -> Tensor | None:
    """What is added to W x: both biases, but for GRU's b_hn, which r multiplies."""
    if b_hh is None:
        return b_ih
    if spec is not GRU:
        return b_hh if b_ih is None else b_ih + b_hh
    if b_ih is None:
        return F.pad(b_hh[: 2 * H], (0, H))
    bias = b_ih.clone()
    bias[: 2 * H].add_(b_hh[: 2 * H])
    return bias


def gate_inputs(spec: CellSpec, x: Tensor, weights: Weights) -> tuple[Tensor, list[Tensor | None]]:
    """(W x and the biases [T, B, D*G*H], b_hn of each direction: GRU's only, which r multiplies)."""
    W = present(_of_each_direction(weights, spec, "W"))
    b_ih, b_hh = (_of_each_direction(weights, spec, name) for name in ("b_ih", "b_hh"))
    H = W[0].shape[0] // spec.gates
    sums = [_bias(spec, H, i, h) for i, h in zip(b_ih, b_hh, strict=True)]
    b_hn = [b[2 * H :] if spec is GRU and b is not None else None for b in b_hh]
    bias = sums[0]
    if len(sums) == 2 and present(sums):
        bias = torch.cat([W[0].new_zeros(spec.gates * H) if b is None else b for b in sums])
    both = W[0] if len(W) == 1 else torch.cat(W)
    return F.linear(x, both, bias).contiguous(), b_hn


def _forward(
    engine: Engine,
    spec: CellSpec,
    x: Tensor,
    h0: Tensor | None,
    c0: Tensor | None,
    weights: Weights,
    relu: bool,
    lengths: Tensor | None,
    packed: None,
    train: bool,
    inside: Inside | None = None,
    recompute: int = 0,
) -> Outputs:
    gx, b_hn = gate_inputs(spec, x, weights)
    R = present(_of_each_direction(weights, spec, "R"))
    steps = Steps(R, _projection(weights, spec), b_hn, h0, c0, lengths=lengths, relu=relu, inside=inside)
    out = recurrence(engine, spec, gx, steps, train and not recompute)
    return (*out[:3], *_nothing_saved(spec, steps, gx)) if train and recompute else out


def _nothing_saved(spec: CellSpec, steps: Steps, like: Tensor) -> tuple[Tensor, Tensor | None]:
    """Gates and cells of no step. Here ``recompute`` runs the whole forward again in backward, whatever k is:
    products of fewer rows could be summed in another order, and the gates' last bits would differ."""
    B, (H, _, D) = like.shape[1], steps.sizes(spec)
    cells = like.new_empty(D, 0, B, H, dtype=torch.float32) if spec is LSTM else None
    return like.new_empty(D, 0, B, 4 * H), cells


def recurrence(engine: Engine, spec: CellSpec, gx: Tensor, steps: Steps, train: bool) -> Outputs:
    """(y, h_n, c_n or None, gates or None, cells or None): what goes step by step of a layer whose gate
    inputs gx [T, B, D*G*H] are W x and the biases."""
    (T, B, _), (H, P, D) = gx.shape, steps.sizes(spec)
    y, h_n = gx.new_empty(T, B, D * P), gx.new_empty(D, B, P)
    c_n = gx.new_empty(D, B, H) if spec is LSTM else None
    gates = gx.new_empty(D, T, B, 4 * H) if train and spec.saved else None
    cells = gx.new_empty(D, T, B, H, dtype=torch.float32) if train and spec is LSTM else None
    if train and not spec.saved and steps.inside is not None and steps.inside.expects:
        gates = gx.new_zeros(D, T, B, H)  # nothing is written past a sequence's end
    plan = _plan(engine, spec, steps, gx, False)
    transport = engine.kernels.gpu_forward(
        plan, stream_of(gx), engine.patience, gx, _dense(steps.R), _dense(steps.W_hr),
        [dense(b) for b in steps.b_hn], dense(steps.h0), dense(steps.c0), steps.lengths, y, h_n, c_n, gates,
        cells, _workspace(plan, gx), error_word(gx.device), *_inside(engine, steps, gx, spec),
    )  # fmt: skip
    _note(engine, spec, plan, transport)
    return y, h_n, c_n, gates, cells


def recurrence_backward(
    engine: Engine,
    spec: CellSpec,
    steps: Steps,
    kept: Outputs,
    grads: Sequence[Tensor | None],
    states: Sequence[bool] = (False, False),
    resets: Sequence[bool] = (False, False),
) -> tuple[Tensor, Tensor | None, list[Tensor | None]]:
    """(dgates [T, B, D*n*H], dh [T, B, D*P] or None, [dh0, dc0, dreset_h, dreset_c]) from ``grads`` of y, h_n
    and c_n: what goes step by step. n is 4 for LSTM and GRU, 1 for RNN; ``kept`` is y, gates, cells;
    ``states``: whether dh0 and dc0 are wanted, ``resets``: those of reset_h and reset_c."""
    y, gates, cells = kept
    assert y is not None
    (T, B, _), (H, P, D) = y.shape, steps.sizes(spec)
    dgates = y.new_empty(T, B, D * _columns(spec) * H)
    dh = y.new_empty(T, B, D * P) if steps.W_hr else None
    dh0 = y.new_empty(D, B, P) if states[0] else None
    dc0 = y.new_empty(D, B, H) if states[1] else None
    # where they are added up
    dreset = [
        y.new_zeros(D, B, n, dtype=torch.float32) if want else None
        for n, want in zip((P, H), resets, strict=True)
    ]
    inside = _inside(engine, steps, y, spec)
    plan = _plan(engine, spec, steps, y, True)
    transport = engine.kernels.gpu_backward(
        plan, stream_of(y), engine.patience, *map(dense, grads), _dense(steps.R),
        _dense(steps.W_hr), y, dense(steps.h0), dense(steps.c0), steps.lengths,
        gates, cells, dgates, dh, dh0, dc0, _workspace(plan, y), error_word(y.device),
        *((*inside, *dreset) if inside else ()),
    )  # fmt: skip
    _note(engine, spec, plan, transport)
    return dgates, dh, [dh0, dc0, *(None if t is None else t.to(y.dtype) for t in dreset)]


def _columns(spec: CellSpec) -> int:
    """Gradients of a unit that the kernels write: GRU's n has two, of W x and of R h."""
    return 4 if spec.saved else 1


def _first_rows(g: Tensor, lengths: Tensor | None, reverse: bool) -> Tensor:
    """g [T, B, n] at the step that read h_0: the first, or in the reverse direction each sequence's last."""
    if not reverse:
        return g[0]
    if lengths is None:
        return g[-1]
    at = (lengths.clamp(1, g.shape[0]) - 1).view(1, -1, 1).expand(1, g.shape[1], g.shape[2])
    return g.gather(0, at)[0]


def states_read(
    all_steps: Tensor,
    start: Tensor | None,
    lengths: Tensor | None,
    reverse: bool,
    resets: Tensor | None,
    anew: Tensor | None,
) -> Tensor:
    """The states [T, B, n] that every step read: those of the step before, ``start`` [B, n] first, and
    ``anew`` where its sequence starts anew."""
    T, B, n = all_steps.shape
    first = all_steps.new_zeros(1, B, n) if start is None else start.to(all_steps.dtype).unsqueeze(0)
    read = torch.cat([all_steps[1:], first] if reverse else [first, all_steps[:-1]])
    if reverse and lengths is not None:
        read = read.scatter(0, (lengths.clamp(1, T) - 1).view(1, B, 1).expand(1, B, n), first)
    if resets is None:
        return read
    at = torch.cat([resets[1:], resets.new_zeros(1, B)]) if reverse else resets
    if lengths is not None:
        at = at & (torch.arange(T, device=lengths.device).unsqueeze(1) + reverse < lengths)
    anew = read.new_zeros(()) if anew is None else anew.to(read.dtype)
    return torch.where(at.unsqueeze(-1), anew, read)


def _recurrent_gradient(
    g: Tensor, y: Tensor, h0: Tensor | None, lengths: Tensor | None, reverse: bool
) -> Tensor:
    """dR [G*H, P] from g [T, B, G*H] and the h that each step read: y of the step before, h0 [B, P] first.

    Past a sequence's end g and y are zero."""
    late, early = (g[:-1], y[1:]) if reverse else (g[1:], y[:-1])
    dR = late.flatten(0, 1).t() @ early.flatten(0, 1)
    if h0 is not None:
        dR = torch.addmm(dR, _first_rows(g, lengths, reverse).t(), h0)
    return dR


def _steps_of(spec: CellSpec, call: Call) -> Steps:
    """What a backward's recurrence reads of its call."""
    _, h0, c0, weights, relu, lengths, inside = call
    R = present(_of_each_direction(weights, spec, "R"))
    return Steps(R, _projection(weights, spec), (), h0, c0, lengths=lengths, relu=relu, inside=inside)


def _backward(
    engine: Engine,
    spec: CellSpec,
    call: Call,
    kept: Outputs,
    grads: Sequence[Tensor | None],
    wanted: Sequence[bool],
    recompute: int = 0,
) -> list[Tensor]:
    x, weights, inside, steps = call[0], call[3], call[6], _steps_of(spec, call)
    of_resets = wanted[3 + len(weights) :] or (False, False)
    # under autocast, torch's products would come out in another dtype than the tensors they are gradients of
    with torch._C._DisableAutocast():
        if recompute:
            kept = (kept[0], *_forward(engine, spec, *call[:6], None, True, inside)[3:])
        dgates, dh, of_states = recurrence_backward(
            engine, spec, steps, kept, grads, states=wanted[1:3], resets=of_resets
        )
        products = _Products(engine, spec, steps, x=x, kept=kept, dgates=dgates, dh=dh)
        dx = [products.of_input(present(_of_each_direction(weights, spec, "W")))] if wanted[0] else []
        per = len(spec.weights)
        of_weights = [
            products.of_weight(d, name)
            for d in range(len(steps.R))
            for name, want in zip(spec.weights, wanted[3 + d * per : 3 + (d + 1) * per], strict=True)
            if want
        ]
        return [*dx, *present(of_states[:2]), *of_weights, *present(of_states[2:])]


def _gate_gradients(
    engine: Engine,
    spec: CellSpec,
    call: Call,
    kept: Outputs,
    grads: Sequence[Tensor | None],
    wanted: Sequence[bool],
) -> Gates:
    x, weights, steps = call[0], call[3], _steps_of(spec, call)
    dgates, dh, of_states = recurrence_backward(engine, spec, steps, kept, grads, wanted[1:3])
    (dh0, dc0), dx = of_states[:2], None
    if wanted[0]:
        products = _Products(engine, spec, steps, x=x, kept=kept, dgates=dgates, dh=dh)
        dx = products.of_input(present(_of_each_direction(weights, spec, "W")))
    return Gates(dx, dh0, dc0, dgates, dh)


class _Products:
    """The matrix products that make gradients of ``dgates``, which the kernels gave."""

    def __init__(
        self,
        engine: Engine,
        spec: CellSpec,
        steps: Steps,
        x: Tensor,
        kept: Outputs,
        dgates: Tensor,
        dh: Tensor | None,
    ) -> None:
        self.engine = engine
        self.spec, self.steps, self.kept, self.dgates, self.dh = spec, steps, kept, dgates, dh
        self.T, self.B, self.I = x.shape
        self.H, self.P, self.D = steps.sizes(spec)
        self.summed: dict[int, Tensor] = {}  # of a direction: its dgates added up
        self.past = None
        if steps.lengths is not None:  # what lies past the end must not matter, NaN included
            self.past = (torch.arange(self.T, device=x.device).unsqueeze(1) >= steps.lengths).unsqueeze(-1)
            x = x.masked_fill(self.past, 0)
        self.x = x.reshape(self.T * self.B, self.I)
        H, of_direction = self.H, dgates.view(self.T, self.B, self.D, -1).unbind(2)
        # of the input's product: GRU's columns come as n, r, z
        self.inner = [g[..., : spec.gates * H].flatten(0, 1) for g in of_direction]
        self.outer = [g[..., H:] if spec is GRU else g for g in of_direction]

    def of_input(self, W: Sequence[Tensor]) -> Tensor:
        if self.spec is not GRU:
            both = W[0] if self.D == 1 else torch.cat([*W])
            dx = self.dgates.view(self.T * self.B, -1) @ both
        else:
            turned = [torch.cat([w[2 * self.H :], w[: 2 * self.H]]) for w in W]
            dx = self.inner[0] @ turned[0]
            for g, w in zip(self.inner[1:], turned[1:], strict=True):
                dx = torch.addmm(dx, g, w)
        return dx.view(self.T, self.B, self.I)

    def of_weight(self, d: int, name: str) -> Tensor:
        """The gradient of this weight of direction d."""
        of: dict[str, Callable[[int], Tensor]] = {
            "W": lambda d: self._in_gate_order(self.inner[d].t() @ self.x),
            "R": self._of_R,
            "b_ih": self._of_input_bias,
            "b_hh": self._of_recurrent_bias,
            "W_hr": self._of_projection,
        }
        return of[name](d)

    def _of_input_bias(self, d: int) -> Tensor:
        b = self._in_gate_order(self.inner[d].sum(0))
        if self.spec is not GRU:
            self.summed[d] = b
        return b

    def _of_recurrent_bias(self, d: int) -> Tensor:
        """That of the input's, where both are added to the same sums; a copy, which its reader may change."""
        same = self.summed.get(d)
        return self.outer[d].sum((0, 1)) if same is None else same.clone()

    def _in_gate_order(self, t: Tensor) -> Tensor:
        return torch.cat([t[self.H :], t[: self.H]]) if self.spec is GRU else t

    def _part(self, d: int) -> slice:
        return slice(d * self.P, (d + 1) * self.P)

    def _of_R(self, d: int) -> Tensor:
        y, h0 = self.kept[0], self.steps.h0
        assert y is not None
        start, (y, g) = None if h0 is None else h0[d], (y[..., self._part(d)], self.outer[d])
        inside, rate = self.steps.inside, self.steps.rate(STATE_DROPOUT)
        if inside is None or (inside.resets is None and rate == 0):
            return _recurrent_gradient(g, y, start, self.steps.lengths, d == 1)
        read = self._read(d, y, start, inside.reset_h)
        if rate > 0:
            read = torch.where(
                self._dropped(d, STATE_DROPOUT, self.B, self.P), 0, read * (1 / (1 - single(rate)))
            )
        return g.flatten(0, 1).t() @ read.flatten(0, 1)

    def _read(self, d: int, all_steps: Tensor, start: Tensor | None, anew: Tensor | None) -> Tensor:
        assert self.steps.inside is not None
        anew, resets = None if anew is None else anew[d], self.steps.inside.resets
        return states_read(all_steps, start, self.steps.lengths, d == 1, resets, anew)

    def _dropped(self, d: int, mask: int, rows: int, n: int) -> Tensor:
        """[rows, n] of bool: a mask, as the kernels had it."""
        inside = self.steps.inside
        assert inside is not None
        made = self.x.new_empty(rows, n, dtype=torch.uint8)
        place = inside.layer * self.D + d
        self.engine.kernels.gpu_mask(stream_of(made), inside.key, mask, place, inside.rates[mask], made)
        return made.view(torch.bool)

    def _fresh_cells(self, d: int) -> Tensor:
        """c [T, B, H] before zoneout."""
        _, gates, cells = self.kept
        assert gates is not None and cells is not None
        inside, c0 = self.steps.inside, self.steps.c0
        if inside is None or not any(inside.rates[ZONEOUT_C:]):
            as_kept: Tensor = cells[d]
            return as_kept
        i, f, g, _ = gates[d].float().chunk(4, -1)
        rate = self.steps.rate(CANDIDATE_DROPOUT)
        if rate > 0:
            dropped = self._dropped(d, CANDIDATE_DROPOUT, self.T * self.B, self.H)
            g = torch.where(dropped.view_as(g), 0, g / (1 - single(rate)))
        before = self._read(d, cells[d], None if c0 is None else c0[d], inside.reset_c)
        made: Tensor = f * before + i * g
        return made

    def _of_projection(self, d: int) -> Tensor:
        _, gates, cells = self.kept
        assert gates is not None and cells is not None and self.dh is not None
        m: Tensor = gates[d, ..., 3 * self.H :] * torch.tanh(self._fresh_cells(d)).to(self.x.dtype)
        if self.past is not None:
            m = m.masked_fill(self.past, 0)
        return self.dh[..., self._part(d)].flatten(0, 1).t() @ m.flatten(0, 1)
