"""The GAN step over processes: DDP and FSDP give the gradients of one process on the joint batch."""

import pytest
import torch
from fusegen.gan import DiscriminatorStep, generator_step
from gan_networks import PENALTIES, Checkpointed, dense
from gan_processes import COMPARED, WRAPPERS, distributed
from tolerances import TOLERANCE
from torch import nn


@pytest.fixture(scope="module")
def differences(tmp_path_factory):
    """By wrapper, how far each case of two processes is from one. They start once for all."""
    context = torch.multiprocessing.get_context("spawn")
    queue, rendezvous = context.Queue(), tmp_path_factory.mktemp("processes") / "rendezvous"
    workers = [context.Process(target=distributed, args=(rank, rendezvous, queue)) for rank in range(2)]
    for worker in workers:
        worker.start()
    found = [queue.get(timeout=300) for _ in range(2 * len(WRAPPERS) * len(COMPARED) * len(PENALTIES))]
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    return {w.__name__: [apart for name, apart in found if name == w.__name__] for w in WRAPPERS}


@pytest.mark.parametrize("wrap", ["ddp", "fsdp1", "fsdp2"])
def test_two_processes_equal_one(differences, wrap):
    assert len(differences[wrap]) == 2 * len(COMPARED) * len(PENALTIES)
    assert max(differences[wrap]) < TOLERANCE[torch.float64, "ways"]


@pytest.fixture
def group(tmp_path):
    """A process group of this process alone."""
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path / 'rendezvous'}", rank=0, world_size=1
    )
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("penalty", ["r1", "r2", "gp"])
def test_a_penalty_of_layers_that_are_sharded_one_by_one_is_refused(group, penalty):
    """Their weights are gone after forward, when the penalty differentiates through them."""
    from torch.distributed.fsdp import fully_shard

    D, x = dense(), torch.randn(3, 13)
    mesh = torch.distributed.device_mesh.init_device_mesh("cpu", (1,))
    for layer in D[:-1:2]:
        fully_shard(layer, mesh=mesh)
    step = fully_shard(DiscriminatorStep(D), mesh=mesh)
    step(x, x).loss.backward()
    with pytest.raises(RuntimeError, match=f"{penalty}: .*DiscriminatorStep"):
        step(x, x, **{penalty: 1.0})


@pytest.mark.parametrize("layers", [False, True], ids=["as one", "and its layers"])
def test_generator_step_of_unsharded_weights(group, layers):
    from torch.distributed.fsdp import fully_shard

    D, x = Checkpointed(dense(activation=nn.Softplus)), torch.randn(3, 13, requires_grad=True)
    (want,) = torch.autograd.grad(generator_step(D, x).loss, x)
    mesh = torch.distributed.device_mesh.init_device_mesh("cpu", (1,))
    for layer in D.net[::2] if layers else ():
        fully_shard(layer, mesh=mesh)
    step = fully_shard(DiscriminatorStep(D), mesh=mesh)
    for _ in range(2):
        step(x.detach().requires_grad_(), x.detach()).loss.backward()
        assert all(p.grad is not None for p in step.parameters())
        step.zero_grad()
        step.unshard()
        (got,) = torch.autograd.grad(generator_step(D, x).loss, x)
        step.reshard()
        torch.testing.assert_close(got, want)
        assert all(p.grad is None for p in step.parameters())
