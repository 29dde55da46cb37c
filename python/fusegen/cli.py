"""The command line: `fusegen demo`, `train`, `resume`, `sample`, `evaluate`, `export`, `info`.

Exit status: 0 done; 2 wrong arguments or data, after one line that names them; 1 training that failed (a
loss that is no longer finite, a full disk, another process that is gone); 130 stopped by Ctrl-C and 143 by
SIGTERM, after `train` and `resume` have saved the run.
"""

import argparse
import sys
from collections.abc import Sequence

from . import _C
from ._info import GPUS, SHAPE, info


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; `argv` as in `sys.argv[1:]`. Returns the exit status."""
    from .train.commands import refuse_unknown

    # A model of bytes may write characters that the terminal's encoding lacks.
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")
    parser = _parser()
    parsed, rest = parser.parse_known_args(argv)
    if getattr(parsed, "takes_rest", False):
        parsed.rest = rest
    else:
        refuse_unknown(parsed.parser, rest)
    try:  # FUSEGEN_ISA and FUSEGEN_CACHES, which the engine reads at its first call
        _C.isa(), _C.machine()
    except RuntimeError as error:
        return _refuse(parsed, error)
    try:
        return parsed.run_command(parsed)
    except KeyboardInterrupt:
        print(f"\nfusegen {parsed.command}: interrupted, nothing is saved", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    # Imported here, not above: `import fusegen` must not pay for it.
    from .train.commands import add_commands
    from .train.options import FitOptions, TextOptions, add_flags

    parser = argparse.ArgumentParser(prog="fusegen", description="Fast recurrent layers for PyTorch.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    demo = commands.add_parser(
        "demo",
        help="a text model learns real English here, timed beside torch.nn",
        description="Trains a byte-level text model, printing held-out bits per character as they fall, a "
        "sample of what it writes, and the time per training step beside the same model on torch.nn. Nothing "
        "is downloaded.",
    )
    demo.add_argument(
        "--text", metavar="PATH", help="a text file, or a folder of them (default: Python's own)"
    )
    add_flags(demo, TextOptions)
    add_flags(demo, FitOptions)
    demo.set_defaults(run_command=_demo, parser=demo)

    add_commands(commands)

    about = commands.add_parser("info", help="versions, instruction set, threads; the kernel for a shape")
    about.add_argument("--shape", metavar=SHAPE, help="for example lstm,256,256,32,100,float32,train")
    about.add_argument(
        "--device",
        default="cpu",
        help=f"of --shape: cpu (default), cuda, or a GPU not here: {', '.join(GPUS)}",
    )
    about.set_defaults(run_command=_info, parser=about)
    return parser


def _demo(parsed: argparse.Namespace) -> int:
    from .data import pydocs, read_text
    from .train.demo import Demo
    from .train.options import FitOptions, TextOptions, from_flags

    try:
        model, how = from_flags(TextOptions, parsed), from_flags(FitOptions, parsed)
    except ValueError as error:
        return _refuse(parsed, f"--{error}")
    try:
        text = pydocs() if parsed.text is None else read_text(parsed.text, argument="--text")
        demo = Demo(text, model, how, argument="--text")
    except (OSError, ValueError) as error:
        return _refuse(parsed, error)
    except ModuleNotFoundError as error:
        return _refuse(parsed, f"{error}: this Python came without its documentation; give --text PATH")
    except RuntimeError as error:
        if "allocate" not in str(error):
            raise
        return _refuse(parsed, "this model does not fit into memory; a smaller --hidden or --embedding would")
    try:
        demo.run()
    except FloatingPointError as error:
        print(f"fusegen demo: {error}", file=sys.stderr)
        return 1
    return 0


def _info(parsed: argparse.Namespace) -> int:
    try:
        report = info(parsed.shape, parsed.device)
    except ValueError as error:
        return _refuse(parsed, f"--{error}")
    print(report)
    return 0


def _refuse(parsed: argparse.Namespace, reason: object) -> int:
    print(f"fusegen {parsed.command}: error: {reason}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
