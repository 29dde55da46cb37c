"""Whether an installed fusegen works: smoke.py. Needs what the wheel asks for and nothing else.

Layers and their gradients, cells, a stream and a quantized layer against torch.nn, from one thread and from
four that share them; one OpenMP runtime, which torch brought; types; and without a GIL, that there still is
none.
"""

import copy
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fusegen
import torch
from fusegen._info import openmp_runtimes

I, H, B, T = 7, 24, 5, 9
OPTIONS: list[tuple[str, dict[str, Any]]] = [
    ("LSTM", {}),
    ("LSTM", {"num_layers": 2, "bidirectional": True, "batch_first": True}),
    ("LSTM", {"proj_size": 11}),
    ("GRU", {"num_layers": 2, "bidirectional": True}),
    ("RNN", {"nonlinearity": "relu"}),
]
CLOSE = {"rtol": 1e-4, "atol": 1e-5}  # of float32: sums of 24 products in another order, nine steps


def close(got: Any, want: Any) -> None:
    torch.testing.assert_close(got, want, **CLOSE)


def with_gradients(m: torch.nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    x = x.clone().requires_grad_()
    y, states = m(x)
    wanted = [x, *m.parameters()]
    return [
        y,
        *(states if isinstance(states, tuple) else (states,)),
        *torch.autograd.grad(y.square().sum(), wanted),
    ]


def layers() -> None:
    for name, options in OPTIONS:
        theirs = getattr(torch.nn, name)(I, H, **options)
        ours = fusegen.convert(copy.deepcopy(theirs))
        assert type(ours) is getattr(fusegen.nn, name)
        x = torch.randn(*((B, T) if options.get("batch_first") else (T, B)), I)
        want = with_gradients(theirs, x)
        close(with_gradients(ours, x), want)
        with ThreadPoolExecutor(4) as pool:
            for got in pool.map(lambda _, m=ours, x=x: with_gradients(m, x), range(16)):
                close(got, want)
        with torch.no_grad(), fusegen.frozen(ours):
            close(ours(x)[0], want[0])


def cells() -> None:
    for name in ("LSTMCell", "GRUCell", "RNNCell"):
        theirs = getattr(torch.nn, name)(I, H)
        x = torch.randn(B, I)
        close(fusegen.convert(copy.deepcopy(theirs))(x), theirs(x))


def streams() -> None:
    lstm = torch.nn.LSTM(I, H, num_layers=2)
    x = torch.randn(T, B, I)
    with torch.no_grad():
        want = lstm(x)[0]

    def run(_: int) -> torch.Tensor:
        stream = fusegen.Stream(lstm, batch=B)
        return torch.stack([stream(step, copy=True) for step in x])

    with ThreadPoolExecutor(4) as pool:
        for got in pool.map(run, range(16)):
            close(got, want)


def quantized() -> None:
    lstm, x = torch.nn.LSTM(I, H), torch.randn(T, B, I)
    small = fusegen.quantize(lstm)
    with torch.no_grad(), ThreadPoolExecutor(4) as pool:
        exact = fusegen.dequantize(small)(x)[0]

        @torch.no_grad()
        def run(_: int) -> torch.Tensor:
            return small(x)[0]

        for got in pool.map(run, range(16)):
            # activations of 8 bits: a 1/254th of the largest, over nine steps
            torch.testing.assert_close(got, exact, rtol=0, atol=0.05)


def environment() -> None:
    assert Path(fusegen.__file__).with_name("py.typed").is_file()
    assert Path(fusegen.__file__).with_name("_C.pyi").is_file()
    runtimes = openmp_runtimes()
    assert len(runtimes) == 1 or not Path("/proc/self/maps").exists(), f"OpenMP runtimes: {runtimes}"
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        assert not sys._is_gil_enabled(), "an import has brought the GIL back"  # type: ignore[attr-defined]
        print("without a GIL")


def main() -> None:
    torch.manual_seed(0)
    fusegen.set_backend("fused")
    for check in (environment, layers, cells, streams, quantized):
        check()
    print(
        f"fusegen {fusegen.__version__} agrees with torch.nn: Python {sys.version.split()[0]}, "
        f"torch {torch.__version__}, {fusegen._C.isa()}, OpenMP {[Path(p).name for p in openmp_runtimes()]}"
    )


if __name__ == "__main__":
    main()
