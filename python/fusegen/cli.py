"""The command line: `fusegen demo`, `train`, `resume`, `sample`, `evaluate`, `explain`, `export`, `info`.

Exit status: 0 done; 2 wrong arguments or data, after one line that names them; 1 training that failed (a
loss that is no longer finite, a full disk, another process that is gone); 3 training that was to stop when it
goes wrong, and did; 130 stopped by Ctrl-C, 143 by SIGTERM and 129 by SIGHUP, after `train` and `resume` have
saved what there is to save.
"""

import argparse
import sys
from collections.abc import Sequence

from . import _C, __version__, get_backend
from ._info import GPUS, SHAPE, info
from .train.commands import CommandParser, add_commands
from .train.commands.refusal import refuse, refuse_unknown


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; `argv` as in `sys.argv[1:]`. Returns the exit status."""
    # A model of bytes may write characters that the terminal's encoding lacks.
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")
    words = list(sys.argv[1:] if argv is None else argv)
    parser = make_parser()
    parsed, rest = parser.parse_known_args(words)
    if parsed.command is None:
        refuse_unknown(parser, rest)
        parser.print_help()
        return 0
    if getattr(parsed, "takes_words", False):
        parsed.words = words[words.index(parsed.command) + 1 :]
    else:
        refuse_unknown(parsed.parser, rest)
    try:  # FUSEGEN_ISA and FUSEGEN_CACHES, which the engine reads at its first call, and FUSEGEN_BACKEND
        _C.isa(), _C.machine(), get_backend()
    except (RuntimeError, ValueError) as error:
        return refuse(parsed, error)
    try:
        return parsed.run_command(parsed)
    except KeyboardInterrupt:
        print(f"\nfusegen {parsed.command}: interrupted, nothing is saved", file=sys.stderr)
        return 130


def make_parser() -> CommandParser:
    """The parser of all commands; the flags of one are added when it is asked for."""
    parser = CommandParser(
        prog="fusegen", description="Fast recurrent layers for PyTorch.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"fusegen {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    add_commands(commands)
    about = commands.add_parser(
        "info", help="versions, instruction set, threads; the kernel for a shape", allow_abbrev=False
    )
    about.add_argument("--shape", metavar=SHAPE, help="for example lstm,256,256,32,100,float32,train")
    about.add_argument(
        "--device",
        default="cpu",
        help=f"of --shape: cpu (default), cuda, or a GPU not here: {', '.join(GPUS)}",
    )
    about.set_defaults(run_command=_info, parser=about)
    return parser


def _info(parsed: argparse.Namespace) -> int:
    try:
        report = info(parsed.shape, parsed.device)
    except ValueError as error:
        return refuse(parsed, f"--{error}")
    print(report)
    return 0


if __name__ == "__main__":
    sys.exit(main())
