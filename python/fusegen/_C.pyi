"""The engine. Tensors are passed as they are; outputs are allocated by the caller and written whole; None is
absent.

T steps, B batch, I input size, H hidden size, P projected size or H, D directions, G gates (4, 3, 1). All
tensors of a call have one dtype (float32, bfloat16, float16, float64), but for ``cells`` (float32 for the
16-bit ones) and ``lengths`` (int64 [B]). The last dim of every tensor is contiguous; x, dy, y and dx may have
any other strides. ``cell``: "lstm", "gru", "rnn_tanh" or "rnn_relu"; what a cell does not have is None.
``weights``: per direction W [G*H, I], R [G*H, P], b_ih, b_hh [G*H] or None, and for the LSTM W_hr [P, H] or
None (not of a single step); ``dweights`` the same, None where not wanted. ``packed``: a blob of ``pack`` per
direction, in place of W, R and W_hr. ``inside``: resets [T, B] bool, reset_h, reset_c [D, B, n], key (an
int64), four rates or none, the layer's number, training. A wrong shape, dtype, length or name raises
ValueError.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ._inside import Inside

_T = Tensor | None
_Ts = Sequence[Tensor | None]
_Blobs = Sequence[Tensor] | None
_Call = tuple[Any, ...]
_Inside = Inside | None

def layer_forward(
    cell: str,
    x: Tensor,  # [T, B, I]
    h0: _T,  # [D, B, P]
    c0: _T,  # [D, B, H]
    weights: _Ts,
    lengths: _T,
    y: Tensor,  # [T, B, D*P]
    h_n: Tensor,  # [D, B, P]
    c_n: _T,  # [D, B, H]
    gates: _T,  # [D, T, B, 4H], saved for backward: LSTM i, f, g, o; GRU r, z, n, and R_n h + b_hn
    cells: _T,  # [D, T, B, H], saved for backward
    packed: _Blobs,
    threads: int,
    inside: _Inside = None,
    recompute: int = 0,  # k: no gates, and the cells of every k-th step, [D, (T-1)//k, B, H]
) -> None: ...
def layer_backward(
    cell: str,
    dy: _T,
    dh_n: _T,
    dc_n: _T,
    x: Tensor,
    h0: _T,
    c0: _T,
    weights: _Ts,
    lengths: _T,
    y: Tensor,
    gates: _T,
    cells: _T,
    dx: _T,
    dh0: _T,
    dc0: _T,
    dweights: _Ts,
    threads: int,
    inside: _Inside = None,
    dreset_h: _T = None,  # [D, B, P], the gradient of what the state starts anew from
    dreset_c: _T = None,  # [D, B, H]
    recompute: int = 0,
    # what gradients of weights are formed from, as gpu_backward gives it, in float32 or wider
    dgates: _T = None,
    dh: _T = None,
) -> None: ...
def layer_group_gradients(
    cell: str,
    groups: int,
    x: Tensor,
    h0: _T,
    weights: _Ts,
    lengths: _T,
    y: _T,
    gates: _T,  # and cells and dh, where W_hr's gradient is wanted
    cells: _T,
    dgates: Tensor,  # as layer_backward gave it
    dh: _T,
    dweights: _Ts,  # [groups, ...]
    threads: int,
) -> None: ...
def normalised_forward(
    # cell, norm, blocks, eps, x [T, B, I], h0, c0 [D, B, H], weights (fusegen.ops.normalised.formula.WEIGHTS
    # of each direction), lengths, resets [T, B] uint8, reset_h, reset_c, threads
    call: _Call,
    y: Tensor,  # [T, B, D*H]
    h_n: Tensor,
    c_n: _T,
    saved: _T,  # [D, T, B, ...], all three or none
    cells: _T,
    stats: _T,
) -> None: ...
def normalised_backward(
    call: _Call,
    dy: _T,
    dh_n: _T,
    dc_n: _T,
    y: Tensor,
    saved: _T,
    cells: _T,
    stats: _T,
    dx: _T,
    dh0: _T,
    dc0: _T,
    dreset_h: _T,
    dreset_c: _T,
    dweights: _Ts,
) -> None: ...
def cell_forward(
    cell: str,
    x: Tensor,  # [B, I]
    h: _T,  # [B, H]
    c: _T,
    weights: _Ts,  # W, R, b_ih, b_hh
    h_out: Tensor,
    c_out: _T,
    gates: _T,  # [B, 4H]
    cells: _T,  # [B, H], c in float32 or wider; c_out itself serves for float32 and float64
    packed: _Blobs,
    threads: int,
) -> None: ...
def cell_backward(
    cell: str,
    dh_out: _T,
    dc_out: _T,
    x: Tensor,
    h: _T,
    c: _T,
    weights: _Ts,
    h_out: _T,  # RNN
    gates: _T,
    cells: _T,
    dx: _T,
    dh: _T,
    dc: _T,
    dweights: _Ts,
    threads: int,
) -> None: ...
def weight_drop(R: Tensor, key: Tensor, place: int, rate: float, out: Tensor, threads: int) -> None: ...
def packed_bytes(cell: str, I: int, H: int, P: int, dtype: str) -> int: ...  # P 0: no projection
def pack(cell: str, weights: _Ts, blob: Tensor, threads: int) -> None: ...

# Weights of 8 bits. ``weights`` of a direction: W [G*H, I], R [G*H, P] and W_hr [P, H] or None, int8; the
# scales of their rows; b_ih, b_hh [G*H] or None, float32. x is float32, bfloat16 or float16.
def int8_packed_bytes(cell: str, weights: _Ts, weight_only: bool) -> int: ...
def int8_pack(cell: str, weights: _Ts, weight_only: bool, blob: Tensor) -> None: ...
def int8_layer(
    cell: str,
    x: Tensor,
    h0: _T,
    c0: _T,
    packed: _Ts,  # a blob a direction
    form: tuple[int, int, bool, bool],  # H, P, whether projected, weight_only
    lengths: _T,
    y: Tensor,
    h_n: Tensor,
    c_n: _T,
    threads: int,
) -> None: ...
def int8_linear_bytes(weight: Tensor, scale: Tensor, bias: _T, weight_only: bool) -> int: ...
def int8_linear_pack(weight: Tensor, scale: Tensor, bias: _T, weight_only: bool, blob: Tensor) -> None: ...
def int8_linear(x: Tensor, packed: Tensor, weight_only: bool, y: Tensor, threads: int) -> None: ...

# A stack of layers that keeps its packed weights and states.
class Stream:
    def __init__(self, cell: str, layers: Sequence[_Ts], batch: int, threads: int) -> None: ...
    def run(self, x: Tensor, y: Tensor) -> None: ...  # [B, I] -> [B, P], or [T, B, I] -> [T, B, P]
    # of the sessions `rows` [n]: h [L, n, P], c [L, n, H] of an LSTM; None of what is set: zero
    def get_states(self, rows: Tensor, h: Tensor, c: _T) -> None: ...
    def set_states(self, rows: Tensor, h: _T, c: _T) -> None: ...

# One discriminator step of a dense network; the tuple is, in order: loss: str, generator: bool,
# target, r1, r2, gp: float, real [Nr, n0] or None, fake [Nf, n0], mixed [Nm, n0] or None, weights,
# biases (None where a layer has none), slopes, weight_gradients, dx_real, dx_fake: bool, threads: int.
# What backward is given, forward was told with the same tuple.
_Step = tuple[Any, ...]

def mlp_saved_bytes(step: _Step) -> int: ...
def mlp_forward(
    step: _Step,
    loss: Tensor,  # []: float64 for float64, else float32
    scalars: Tensor,  # float64 [9]
    logits: Tensor,  # [Nr + Nf]
    saved: Tensor,  # uint8 [mlp_saved_bytes(step)]
) -> None: ...
def mlp_backward(
    step: _Step, scale: float, saved: Tensor, dweights: _Ts, dbiases: _Ts, dx_real: _T, dx_fake: _T
) -> None: ...

# Convolutions and batch norms of contiguous tensors [blocks, pixels, channels, width], width being one to
# four vectors of conv_lanes() samples; float32 or float64. shape: height and width of the input, of stride,
# padding and dilation, and the groups. slope: of an activation below zero, 1 for none.
_Shape = Sequence[int]

def conv_lanes(wide: bool) -> int: ...  # wide: float64
def conv_forward(
    shape: _Shape,
    x: Tensor,
    W: Tensor,  # [O, C / groups, kh, kw]
    b: _T,  # [O]
    slope: float,
    y: Tensor,
    threads: int,
) -> None: ...
def conv_input_gradient(
    shape: _Shape,
    dy: Tensor,
    W: Tensor,
    below: _T,  # as dx: what the activation before gave, whose slope is applied
    slope: float,
    dx: Tensor,
    threads: int,
) -> None: ...
def conv_weight_gradient(shape: _Shape, dy: Tensor, x: Tensor, dW: Tensor, threads: int) -> None: ...
def batch_norm_forward(
    x: Tensor,
    n: int,  # samples; what lies past them takes no part
    weight: _T,  # [C]
    bias: _T,
    eps: float,
    slope: float,
    y: Tensor,
    mean: Tensor,  # [C]
    var: Tensor,  # [C], divided by the count
    threads: int,
) -> None: ...
def batch_norm_backward(
    dy: Tensor,
    y: Tensor,
    x: Tensor,
    n: int,
    weight: _T,
    mean: Tensor,
    var: Tensor,
    eps: float,
    slope: float,
    dx: _T,  # zero past the samples
    dweight: _T,
    dbias: _T,
    threads: int,
) -> None: ...

# The discriminator step of a dense network on a GPU; also in _simt of the tests, on CPU tensors. tf32:
# products of float32 may round to TF32.
class MlpRun:
    """How forward or backward ran."""

    @property
    def together(self) -> bool: ...  # in the launches that were planned
    @property
    def tile(self) -> str: ...  # of the products: "small", "medium", "large" or "warpgroups"
    @property
    def products(self) -> int: ...
    @property
    def bulk(self) -> int: ...  # of these: whose operands came by bulk copies (warpgroups alone)
    @property
    def torn_tiles(self) -> int: ...  # of the latter: in which lanes copied all the same

def gpu_mlp_saved_bytes(step: _Step) -> int: ...
def gpu_mlp_workspace_bytes(step: _Step) -> int: ...  # of backward
def gpu_mlp_forward(
    step: _Step,
    tf32: bool,
    stream: int,
    loss: Tensor,  # float32 []
    scalars: Tensor,  # float64 [9]
    logits: Tensor,  # [Nr + Nf]
    saved: Tensor,  # uint8 [gpu_mlp_saved_bytes(step)]
) -> MlpRun: ...
def gpu_mlp_backward(
    step: _Step,
    tf32: bool,
    stream: int,
    scale: Tensor,  # float32 [], the gradient that reached the loss
    saved: Tensor,
    workspace: Tensor,  # uint8 [gpu_mlp_workspace_bytes(step)]
    dweights: _Ts,
    dbiases: _Ts,
    dx_real: _T,
    dx_fake: _T,
) -> MlpRun: ...

# The build, the processor, the plan of a call.
def isa() -> str: ...
def float_isa() -> str: ...  # whose kernels run all but int8's beside it
def available_isas() -> list[str]: ...
def build_info() -> dict[str, Any]: ...

# The processor: vendor "intel", "amd" or "other"; family and model, 0 where there is no CPUID; l1d and l2,
# bytes of one core, l3, of the l3_cores that share it (0: unknown); source of the sizes: "CPUID", "sysfs",
# "default", "FUSEGEN_CACHES", or "L1 CPUID, L2 CPUID, L3 default". Raises RuntimeError where FUSEGEN_CACHES
# is wrong.
def machine() -> dict[str, Any]: ...

# Bytes that follow from its caches, by names of csrc/kernels/cpu/plan.h: resident, input, rows, panel,
# columns, past_cache.
def blocks() -> dict[str, int]: ...

# The same from readings alone, for the tests. A reading: (level, holds data, bytes, logical processors that
# share it, 0 unknown).
_Caches = Sequence[tuple[int, bool, int, int]]

def machine_from(
    vendor: str = "",  # CPUID leaf 0: "GenuineIntel"
    signature: int = 0,  # CPUID leaf 1, EAX
    hybrid: bool = False,
    cpuid: _Caches = ...,
    sysfs: _Caches = ...,
    caches: str = "",  # as FUSEGEN_CACHES
) -> dict[str, Any]: ...
def choose(
    cell: str, I: int, H: int, B: int, T: int, dtype: str, train: bool, threads: int
) -> dict[str, Any]: ...
def peak_gflops(threads: int) -> float: ...

# The recurrence of a layer on a GPU; also in _simt of the tests, on CPU tensors. dtype as in "bfloat16";
# transport "best", "launch", "block", "l2" or "cluster"; stream a cudaStream_t; patience in nanoseconds,
# 0: for ever; both passes return the transport that ran. A plan is of one pass over batches of one size.
class GpuPlan:
    @property
    def transport(self) -> str: ...
    @property
    def blocks(self) -> int: ...
    @property
    def k_splits(self) -> int: ...
    @property
    def rows(self) -> int: ...
    @property
    def slices(self) -> int: ...
    @property
    def groups(self) -> int: ...
    @property
    def shared_bytes(self) -> int: ...
    @property
    def workspace_bytes(self) -> int: ...
    @property
    def why(self) -> str: ...

def gpu_code(
    device: int,
) -> tuple[int, int]: ...  # 90: machine code of sm_90; compiled from PTX of compute_90
def gpu_plan(
    cell: str,
    dtype: str,
    tf32: bool,
    backward: bool,
    B: int,
    H: int,
    P: int,
    D: int,
    device: int,
    transport: str,
    resets: bool = False,  # whether sequences start anew inside the call
    masked: bool = False,  # whether there is dropout or zoneout inside the recurrence
) -> GpuPlan: ...

# True where an element is dropped; ``mask``: its number in csrc/kernels/philox.h.
def gpu_mask(
    stream: int,
    key: _T,  # int64 [] on the CPU
    mask: int,
    place: int,  # layer * D + direction
    rate: float,
    dropped: _T,  # uint8 [rows, n], written
) -> None: ...
def gpu_boundary_bytes(T: int, B: int, D: int) -> int: ...  # of what gpu_forward and gpu_backward write
def gpu_plan_on(  # for a device that need not be here
    sms: int,
    shared_bytes: int,  # the most a block may have
    major: int,  # of the compute capability
    code: int,  # 10 times the capability that the kernels loaded there were compiled for
    cell: str,
    dtype: str,
    tf32: bool,
    backward: bool,
    B: int,
    H: int,
    P: int,
    D: int,
    transport: str,
    resets: bool = False,
    masked: bool = False,
) -> GpuPlan: ...
def gpu_forward(
    plan: GpuPlan,
    stream: int,
    patience: int,
    gx: Tensor,  # [T, B, D*G*H]: W x and the biases, but for GRU's b_hn
    R: _Ts,  # [G*H, P] each
    W_hr: _Ts,  # [P, H] each, or none
    b_hn: _Ts,  # [H] each, or None
    h0: _T,
    c0: _T,
    lengths: _T,
    y: Tensor,
    h_n: Tensor,
    c_n: _T,
    gates: _T,  # [D, T, B, 4*H]
    cells: _T,  # [D, T, B, H]
    workspace: Tensor,  # uint8 [plan.workspace_bytes]
    error: Tensor,  # int64 [1] in host memory
    inside: _Inside = None,
) -> str: ...
def gpu_backward(
    plan: GpuPlan,
    stream: int,
    patience: int,
    dy: _T,
    dh_n: _T,
    dc_n: _T,
    R: _Ts,  # transposed: [P, G*H]
    W_hr: _Ts,  # transposed: [H, P]
    y: Tensor,
    h0: _T,
    c0: _T,
    lengths: _T,
    gates: _T,
    cells: _T,
    dgates: Tensor,  # [T, B, D*G*H]; GRU [T, B, D*4*H], columns n_x, r, z, n_h
    dh: _T,  # [T, B, D*P], with a projection
    dh0: _T,
    dc0: _T,
    workspace: Tensor,
    error: Tensor,
    inside: _Inside = None,
    dreset_h: _T = None,  # [D, B, P] float32
    dreset_c: _T = None,  # [D, B, H] float32
) -> str: ...

# A layer of normalised cells, or of cells whose recurrent matrix is of blocks, on a GPU, likewise.
class GpuNormalisedPlan:
    @property
    def tiles(self) -> int: ...  # of the product, of all blocks of R
    @property
    def splits(self) -> int: ...  # blocks of the device that share K
    @property
    def groups(self) -> int: ...  # of rows of the batch
    @property
    def lanes(self) -> int: ...  # that share a row
    @property
    def workspace_bytes(self) -> int: ...

def gpu_normalised_plan(
    cell: str, norm: str, dtype: str, tf32: bool, backward: bool, B: int, H: int, D: int, blocks: int,
    device: int,
) -> GpuNormalisedPlan: ...  # fmt: skip
def gpu_normalised_forward(
    plan: GpuNormalisedPlan,
    stream: int,
    # eps, R of each direction [blocks, G*m, m], gains and biases (formula.WEIGHTS from g_ih on), h0, c0
    # [D, B, H], lengths, resets [T, B] uint8, reset_h, reset_c, boundaries, workspace, error
    call: _Call,
    gx: Tensor,  # [T, B, D*G*H]: W x alone
    y: Tensor,
    h_n: Tensor,
    c_n: _T,
    saved: _T,
    cells: _T,
    stats: _T,
) -> None: ...
def gpu_normalised_backward(
    plan: GpuNormalisedPlan,
    stream: int,
    call: _Call,
    dy: _T,
    dh_n: _T,
    dc_n: _T,
    y: Tensor,
    saved: _T,
    cells: _T,
    stats: _T,
    dx_part: Tensor,  # [T, B, D*G*H], of W x
    dh_part: _T,  # of R h, [T, B, D, blocks, G*m]; None where it is the same
    dh0: _T,
    dc0: _T,
    dreset_h: _T,  # float32
    dreset_c: _T,
    dvectors: _Ts,
) -> None: ...

# One step of a cell on a GPU, likewise.
class GpuCellPlan:
    @property
    def multiplies(self) -> bool: ...  # W x and R h too; else torch does
    @property
    def blocks(self) -> int: ...
    @property
    def k_splits(self) -> int: ...
    @property
    def rows(self) -> int: ...
    @property
    def groups(self) -> int: ...
    @property
    def shared_bytes(self) -> int: ...
    @property
    def why(self) -> str: ...

def gpu_cell_plan(cell: str, dtype: str, tf32: bool, B: int, I: int, H: int, device: int) -> GpuCellPlan: ...
def gpu_cell_forward(
    plan: GpuCellPlan,
    stream: int,
    x: Tensor,
    h: _T,
    c: _T,
    W: Tensor,
    R: Tensor,
    b_ih: _T,
    b_hh: _T,
    x_gates: _T,  # [B, G*H], where the plan leaves the products to torch
    h_gates: _T,
    h_out: Tensor,
    c_out: _T,
    gates: _T,  # [B, 4*H]
    cells: _T,  # [B, H]
) -> None: ...
def gpu_cell_backward(
    cell: str,
    stream: int,
    dh: _T,
    dc: _T,
    h: _T,
    c: _T,
    h_out: _T,
    gates: _T,
    cells: _T,
    dx_gates: Tensor,
    dh_gates: _T,  # GRU
    dh_direct: _T,
    dc_in: _T,
) -> None: ...
