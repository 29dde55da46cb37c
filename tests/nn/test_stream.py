"""fusegen.Stream: a sequence, step by step and block by block, is the layer's whole call."""

import copy
import gc
import importlib.util
import pickle
import re
import threading
import warnings
from pathlib import Path
from time import perf_counter

import fusegen
import numpy as np
import pytest
import torch
from cases import CELL_NAMES, CELLS, DTYPES, label, layer
from tolerances import agree
from torch import nn
from torch.nn.utils import parametrizations

T = 11
SIZES = ((7, 33, 1, 1), (5, 16, 3, 2), (64, 40, 1, 9), (3, 5, 60, 2))  # I, H, B, layers
THREADS = 2


def whole(model, x):
    """y, and the final states as a tuple."""
    with torch.no_grad():
        y, final = fusegen.convert(model)(x)
    return y, final if isinstance(final, tuple) else (final,)


def states_of(stream):
    return stream.state if isinstance(stream.state, tuple) else (stream.state,)


def assert_same(stream, outputs, y, final):
    agree(torch.cat(outputs), y, "y")
    for ours, theirs in zip(states_of(stream), final, strict=True):
        agree(ours, theirs, "states")


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("I, H, B, L", SIZES)
@pytest.mark.parametrize("cell_name", CELL_NAMES)
def test_steps_and_blocks_are_the_layers_sequence(cell_name, I, H, B, L, dtype, threads):
    model = layer(cell_name, I, H, num_layers=L, own=False).to(dtype)
    stream = fusegen.Stream(model, B, threads=threads)
    x = torch.randn(T, B, I, dtype=dtype)
    steps = [stream(x[t], copy=True).unsqueeze(0) for t in range(3)]
    blocks = [stream(x[3:4], copy=True), stream(x[4:], copy=True)]
    assert_same(stream, steps + blocks, *whole(model, x))


@pytest.mark.parametrize(
    "options", [{"bias": False}, {"proj_size": 5}, {"proj_size": 5, "bias": False}], ids=label
)
def test_options(options):
    model = layer("LSTM", 7, 33, num_layers=2, **options)
    stream, x = fusegen.Stream(model, 3), torch.randn(T, 3, 7)
    assert_same(stream, [stream(x, copy=True)], *whole(model, x))


@pytest.mark.parametrize("cell", CELLS)
def test_cells(cell):
    name, _, nonlinearity = cell.partition("_")
    model = getattr(nn, name)(7, 33, **({"nonlinearity": nonlinearity} if nonlinearity else {}))
    stream, h = fusegen.Stream(model, 2), None
    for x in torch.randn(T, 2, 7):
        with torch.no_grad():
            h = model(x, h)
        y = h[0] if isinstance(h, tuple) else h
        agree(stream(x), y)


def test_a_block_longer_than_a_chunk():
    model, x = nn.GRU(7, 33), torch.randn(150, 1, 7)
    stream = fusegen.Stream(model)
    assert_same(stream, [stream(x, copy=True)], *whole(model, x))


def test_rows_are_sessions_of_their_own():
    model, x = nn.LSTM(5, 8, 2), torch.randn(6, 4, 5)
    stream = fusegen.Stream(model, 4)
    stream(x)
    stream.reset([1, 3])
    kept = stream.state_of([0, 2])
    y = stream(x)
    fresh = fusegen.Stream(model, 4)(x, copy=True)
    agree(y[:, [1, 3]], fresh[:, [1, 3]])
    assert not torch.allclose(y[:, [0, 2]], fresh[:, [0, 2]])
    y = y.clone()
    stream.set_state_of(torch.tensor([2, 0]), tuple(s.flip(1) for s in kept))
    agree(stream(x)[:, [0, 2]], y[:, [0, 2]])


@pytest.mark.parametrize("cell_name", CELL_NAMES)
def test_state_can_be_put_back(cell_name):
    stream, x = fusegen.Stream(layer(cell_name, 5, 8, num_layers=2), 3), torch.randn(4, 3, 5)
    stream(x[:3])  # an odd number of steps
    before = stream.state
    y = stream(x, copy=True)
    stream.state = before
    assert torch.equal(stream(x), y)
    stream.state = None
    assert all(not s.any() for s in states_of(stream))


def test_the_output_is_the_streams_memory_unless_copied():
    stream = fusegen.Stream(nn.GRU(5, 8), 3)
    y = stream(torch.randn(3, 5))
    kept, copied = y.clone(), stream(torch.randn(3, 5), copy=True)
    again = stream(torch.randn(3, 5))
    assert again is y and not torch.equal(y, kept) and copied.data_ptr() != y.data_ptr()
    assert stream(torch.randn(2, 3, 5)).shape == (2, 3, 8)
    assert stream(torch.randn(3, 5)).shape == (3, 8)


def test_numpy_in_and_out():
    model = nn.LSTM(5, 8)
    ours, theirs = fusegen.Stream(model, 2), fusegen.Stream(model, 2)
    x = torch.randn(4, 2, 5)
    y = ours(x.numpy())
    assert isinstance(y, np.ndarray)
    np.testing.assert_array_equal(y, theirs(x).numpy())
    np.testing.assert_array_equal(ours(x[0].numpy(), copy=True), theirs(x[0]).numpy())


def test_other_layouts_of_x():
    stream, x = fusegen.Stream(nn.GRU(5, 8), 3), torch.randn(4, 3, 10)
    y = stream(x[..., ::2].contiguous(), copy=True)
    stream.reset()
    assert torch.equal(stream(x[..., ::2]), y)
    stream.reset()
    assert torch.equal(stream(x[..., ::2].contiguous().transpose(0, 1).contiguous().transpose(0, 1)), y)


def test_weights_are_those_of_when_it_was_made():
    model, x = nn.LSTM(5, 8), torch.randn(4, 1, 5)
    stream, y = fusegen.Stream(model), whole(model, x)[0]
    nn.init.zeros_(model.weight_hh_l0)
    nn.init.zeros_(model.bias_ih_l0)
    del model
    gc.collect()
    agree(stream(x), y)


def test_the_module_is_left_as_it_was_and_may_be_a_part():
    model = nn.Sequential(nn.Linear(5, 5), nn.LSTM(5, 8), nn.Flatten())
    fusegen.Stream(model)
    assert type(model[1]) is nn.LSTM
    parametrizations.weight_norm(model[1], "weight_hh_l0")
    x = torch.randn(4, 1, 5)
    agree(fusegen.Stream(model)(x), model[1](x)[0].detach())


def test_threads_share_nothing_but_the_module():
    model, x = nn.LSTM(16, 32), torch.randn(200, 1, 16)
    y, wrong = whole(model, x)[0], []

    def run():
        stream = fusegen.Stream(model)
        for _ in range(20):
            stream.reset()
            if not torch.allclose(torch.stack([stream(step, copy=True) for step in x]), y, atol=1e-5):
                wrong.append(1)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_many_threads_on_many_streams():
    model, x = nn.GRU(16, 32, 2), torch.randn(64, 20, 1, 16)
    alone = [torch.cat([fusegen.Stream(model)(sound, copy=True)]) for sound in x]
    streams, found = [fusegen.Stream(model) for _ in x], [None] * len(x)
    start = threading.Barrier(len(x))

    def run(i):
        start.wait()
        found[i] = torch.stack([streams[i](step, copy=True) for step in x[i]])

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(x))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    agree(found, alone)
    again = fusegen.Stream(model)
    assert torch.equal(found[-1], torch.stack([again(step, copy=True) for step in x[-1]]))


def test_a_stream_at_work_holds_up_no_other():
    """Its steps end in the middle of another's long block: the GIL is free, and no lock is shared."""
    model = nn.LSTM(16, 64)
    long, short = fusegen.Stream(model), fusegen.Stream(model)
    x, step, times = torch.randn(40_000, 1, 16), torch.randn(1, 16), []

    def run():
        begin = perf_counter()
        long(x)
        times.extend((begin, perf_counter()))

    for _ in range(5):  # the system may give one of them no core for so long
        times.clear()
        thread, ends = threading.Thread(target=run), []
        thread.start()
        while thread.is_alive():
            short(step)
            ends.append(perf_counter())
        begin, end = times
        quarter = (end - begin) / 4
        if any(begin + quarter < each < end - quarter for each in ends):
            return
    pytest.fail("no step ended in the middle half of the other stream's block")


def test_voice_activity_by_a_published_model():
    """Silero's, whose LSTMCell runs once for every 32 ms of sound: the same probabilities."""
    package = importlib.util.find_spec("silero_vad")
    if package is None:
        pytest.skip("silero-vad is not installed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated
        model = torch.jit.load(Path(package.origin).parent / "data/silero_vad.jit")._model
    weights = {
        name.removeprefix("decoder.rnn."): w for name, w in model.state_dict().items() if ".rnn." in name
    }
    cell = nn.LSTMCell(128, 128)
    cell.load_state_dict(weights)
    stream, state = fusegen.Stream(cell), torch.zeros(0)
    sound = torch.randn(40, 1, 576) * torch.linspace(0, 1, 40).view(-1, 1, 1)
    with torch.no_grad():
        for block in sound:
            theirs, state = model(block, state)
            features = model.encoder(model.run_extractors(block))
            h = stream(features.squeeze(-1))
            ours = model.decoder.decoder(h.unsqueeze(-1)).squeeze(1).mean(1, keepdim=True)
            agree(ours, theirs)
        agree(stream.state, tuple(s.unsqueeze(0) for s in state))


def test_what_the_page_shows_runs():
    page = Path(__file__).parents[2] / "docs/stream.md"
    names = {}
    for code in re.findall(r"```python\n(.*?)```", page.read_text(), re.S):
        exec(compile(code, str(page), "exec"), names)
    assert names["y"].shape == (1000, 128)


@pytest.mark.parametrize(
    "call, error, text",
    [
        (lambda: fusegen.Stream(3), TypeError, "expected a torch.nn.Module, got int"),
        (lambda: fusegen.Stream(nn.Linear(2, 2)), ValueError, "Linear to have one recurrent .* got none"),
        (
            lambda: fusegen.Stream(nn.ModuleDict({"a": nn.GRU(2, 2), "b": nn.GRU(2, 2)})),
            ValueError,
            "ModuleDict to have one .* got a, b",
        ),
        (lambda: fusegen.Stream(nn.GRU(2, 2, bidirectional=True)), ValueError, "GRU is bidirectional"),
        (lambda: fusegen.Stream(nn.GRU(2, 2), 0), ValueError, "expected batch .* got 0"),
        (lambda: fusegen.Stream(nn.GRU(2, 2), threads=True), ValueError, "expected threads .* got True"),
        (lambda: fusegen.Stream(nn.GRU(2, 2, device="meta")), ValueError, "on the CPU .* on meta"),
    ],
)
def test_errors_of_making(call, error, text):
    with pytest.raises(error, match=text):
        call()


@pytest.mark.parametrize(
    "x, text",
    [
        (torch.zeros(3, 5), r"expected x of shape \[2, 5\] or \[T, 2, 5\], got \[3, 5\]"),
        (torch.zeros(2, 4), r"got \[2, 4\]"),
        (torch.zeros(5), r"got \[5\]"),
        (torch.zeros(1, 1, 2, 5), r"got \[1, 1, 2, 5\]"),
        (torch.zeros(2, 5, dtype=torch.double), "x: expected .*float32"),
        (np.zeros((2, 5)), "x: expected .*float32"),
        (torch.zeros(2, 5, device="meta"), "expected x on the CPU, got a tensor on meta"),
    ],
    ids=["batch", "features", "rank 1", "rank 4", "dtype", "numpy dtype", "device"],
)
def test_errors_of_a_call_change_nothing(x, text):
    stream = fusegen.Stream(nn.LSTM(5, 8), 2)
    stream(torch.randn(2, 5))
    before = stream.state
    with pytest.raises(ValueError, match=text):
        stream(x)
    assert all(map(torch.equal, stream.state, before))


@pytest.mark.parametrize("carry", [copy.copy, copy.deepcopy, pickle.dumps])
def test_it_is_neither_copied_nor_pickled(carry):
    stream = fusegen.Stream(fusegen.nn.GRU(3, 4))
    with pytest.raises(TypeError, match=r"make another from its module, and set its state"):
        carry(stream)


@pytest.mark.parametrize("x", [None, [1.0], "x"])
def test_what_is_no_tensor_is_refused(x):
    with pytest.raises(TypeError, match="expected x to be a Tensor or a numpy array, got"):
        fusegen.Stream(nn.GRU(5, 8))(x)


@pytest.mark.parametrize(
    "states, text",
    [
        (torch.zeros(1, 2, 8), r"expected a pair \(h, c\) as state, got 1"),
        (
            (torch.zeros(1, 2, 8), torch.zeros(1, 2, 7)),
            r"the state c of shape \(1, 2, 8\) .* got \(1, 2, 7\)",
        ),
        ((torch.zeros(1, 2, 8).double(), torch.zeros(1, 2, 8)), "the state h of .* got .* torch.float64"),
        ((torch.zeros(1, 2, 8), 3), "the state c of .* got int"),
    ],
)
def test_errors_of_states(states, text):
    stream = fusegen.Stream(nn.LSTM(5, 8), 2)
    with pytest.raises(ValueError, match=text):
        stream.state = states
    with pytest.raises(ValueError, match="rows: expected 0 to 1, got 2"):
        stream.reset([2])
    with pytest.raises(ValueError, match="expected rows as a list of integers"):
        stream.reset(torch.tensor([0.5]))
