"""Several processes under torchrun: what one would compute, and a clear end when one of them dies."""

import os
import signal
import subprocess
import time

import numpy as np
import pytest
import torch
from fusegen.cli import main
from fusegen.train.errors import ProcessLost, type_of, typed
from fusegen.train.run import Run, read_log
from processes import ENVIRONMENT, torchrun
from runs import SHAPE
from tolerances import TOLERANCE

torch_distributed = pytest.importorskip("torch.distributed")
pytestmark = pytest.mark.skipif(
    not torch_distributed.is_available() or not torch_distributed.is_gloo_available(),
    reason="this torch has no gloo",
)


def train(story, folder, *arguments):
    return ["train", "text", *SHAPE, "--no-tensorboard", "--data", story, "--folder", str(folder), *arguments]


def workers_of(agent):
    """{rank: pid} of the processes that torchrun started."""
    found = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/stat") as stat, open(f"/proc/{pid}/environ") as environ:
                if int(stat.read().rpartition(")")[2].split()[1]) != agent:
                    continue
                values = dict(each.partition("=")[::2] for each in environ.read().split("\0"))
        except OSError:
            continue
        if "RANK" in values:
            found[int(values["RANK"])] = int(pid)
    return found


def wait_for(agent, condition, seconds=120):
    until = time.monotonic() + seconds
    while not (value := condition()):
        assert agent.poll() is None, agent.stderr.read()
        assert time.monotonic() < until
        time.sleep(0.05)
    return value


@pytest.mark.parametrize("precision", ["float64", pytest.param("float32", marks=pytest.mark.slow)])
def test_two_processes_compute_what_one_does_and_one_goes_on_with_their_run(story, tmp_path, precision):
    """Dropout 0: the losses of 50 steps, gradients exchanged once for two parts each."""
    exact = ["--precision", precision, "--steps", "50", "--log-every", "1", "--evaluations", "2"]
    one, two = tmp_path / "one", tmp_path / "two"
    assert main(train(story, one, *exact)) == 0
    command = torchrun(2, *train(story, two, *exact, "--accumulate", "2"))
    subprocess.run(command, check=True, env=ENVIRONMENT, timeout=300)
    for name in ("loss", "held-out bits per character"):
        a, b = ([line[name] for line in read_log(folder) if name in line] for folder in (one, two))
        assert len(a) == len(b) == (50 if name == "loss" else 3)
        assert np.abs(np.subtract(a, b)).max() < TOLERANCE[getattr(torch, precision), "training"]
    state = Run.open(two).load("last")
    assert len(state["carried"]) == 4 and len(state["random"]) == 2
    assert main(["resume", str(two), "--steps", "54", "--accumulate", "1"]) == 0
    assert Run.open(two).load("last")["step"] == 54


@pytest.mark.parametrize("dying", [1, pytest.param(0, marks=pytest.mark.slow)])
def test_when_a_process_dies_the_others_stop_and_name_it(story, tmp_path, dying):
    folder = tmp_path / "run"
    command = torchrun(
        2, *train(story, folder, "--steps", "1000000", "--log-every", "1", "--checkpoint-every", "5")
    )
    agent = subprocess.Popen(
        command, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    try:
        wait_for(agent, lambda: (folder / "checkpoints/step-00000005.pt").exists())
        begin = time.monotonic()
        os.kill(workers_of(agent.pid)[dying], signal.SIGKILL)
        _, err = agent.communicate(timeout=60)
    finally:
        agent.kill()
    assert agent.returncode == 1 and time.monotonic() - begin < 45
    assert f"rank {1 - dying}: rank {dying} of 2 no longer answers" in err
    assert Run.open(folder).load("last")["step"] >= 5


@pytest.mark.slow
def test_torchrun_begins_anew_from_the_last_checkpoint_and_a_signal_to_one_stops_all(story, tmp_path):
    folder = tmp_path / "run"
    arguments = train(story, folder, "--steps", "1000000", "--log-every", "1", "--checkpoint-every", "50")
    command = torchrun(2, *arguments, restarts=1)
    agent = subprocess.Popen(
        command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        wait_for(agent, lambda: (folder / "checkpoints/step-00000050.pt").exists())
        first = workers_of(agent.pid)
        os.kill(first[1], signal.SIGKILL)
        second = wait_for(
            agent,
            lambda: (
                len(now := workers_of(agent.pid)) == 2 and not set(now.values()) & set(first.values()) and now
            ),
        )
        steps = lambda: max(line["step"] for line in read_log(folder))
        reached = steps()
        wait_for(agent, lambda: steps() > reached + 20)
        os.kill(second[1], signal.SIGTERM)
        out, err = agent.communicate(timeout=90)
    finally:
        agent.kill()
    assert "going on from last" in out and "stopped by SIGTERM at step" in err
    assert Run.open(folder).load("last")["step"] == steps()


def test_an_error_of_ones_own_is_not_blamed_on_another_process():
    own = RuntimeError("mat1 and mat2 shapes cannot be multiplied")
    assert type_of(own) is RuntimeError
    gloo = "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:553] Connection closed by peer"
    for error in (RuntimeError(gloo), torch_distributed.DistBackendError("x")):
        with pytest.raises(ProcessLost, match=str(error)[-6:]), typed():
            raise error
    with pytest.raises(RuntimeError) as caught, typed():
        raise own
    assert caught.value is own
