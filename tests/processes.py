"""The command line in processes of its own, one thread each."""

import os
import sys
from pathlib import Path

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "TORCH_CPP_LOG_LEVEL": "ERROR"}

# For a program that imports what tests share.
WITH_TESTS = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]),
}


def torchrun(processes, *arguments, restarts=0):
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    launch += ["--max-restarts", str(restarts)]
    return [sys.executable, *launch, "-m", "fusegen.cli", *arguments]
