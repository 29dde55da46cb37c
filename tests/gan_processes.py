"""What each of two processes does to one discriminator: here, so that a spawned process can import it."""

import copy

import pytest
import torch
from fusegen.gan import DiscriminatorStep, discriminator_step
from gan_networks import PATHS, PENALTIES, samples
from torch import nn


def ddp(module):
    return nn.parallel.DistributedDataParallel(module)


def fsdp1(module):
    from torch.distributed.fsdp import FullyShardedDataParallel

    return FullyShardedDataParallel(module, device_id=torch.device("cpu"), use_orig_params=True)


def fsdp2(module):
    from torch.distributed.fsdp import fully_shard

    return fully_shard(module, mesh=torch.distributed.device_mesh.init_device_mesh("cpu", (2,)))


def gradients(wrap, step):
    """The whole gradient of every parameter, wherever its parts are."""
    if wrap is fsdp2:
        return [p.grad.full_tensor() for p in step.parameters()]
    if wrap is ddp:
        return [p.grad for p in step.parameters()]
    with type(step).summon_full_params(step, with_grads=True):
        return [p.grad.clone() for p in step.parameters()]


def distributed(rank, file, queue):
    """Puts (name of the wrapper, largest difference of a gradient from that of one process) for each case."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
    for wrap in WRAPPERS:
        for path in COMPARED:
            for penalties in PENALTIES.values():
                queue.put((wrap.__name__, _difference(rank, wrap, path, penalties)))
    torch.distributed.destroy_process_group()


def _difference(rank, wrap, path, penalties):
    make, shape, dim, _ = PATHS[path]
    torch.manual_seed(0)
    D = make().double()
    alone = copy.deepcopy(D)
    real, fake = samples(shape, 6, dim), samples(shape, 6, dim)
    with pytest.raises(RuntimeError, match="DiscriminatorStep"):
        discriminator_step(wrap(copy.deepcopy(D)), real, fake)
    step = wrap(DiscriminatorStep(D, "hinge", **penalties))
    mine = torch.Generator().manual_seed(1)
    torch.rand(3 * rank, dtype=real.dtype, generator=mine)  # the shares of gp that are the other's
    halves = (x.narrow(dim, 3 * rank, 3) for x in (real, fake))
    step(*halves, generator=mine).loss.backward()
    both = torch.Generator().manual_seed(1)
    discriminator_step(alone, real, fake, "hinge", **penalties, generator=both).loss.backward()
    pairs = zip(gradients(wrap, step), alone.parameters(), strict=True)
    return max((g - q.grad).abs().max().item() for g, q in pairs)


WRAPPERS = (ddp, fsdp1, fsdp2)
COMPARED = ("dense", "conv", "smooth", "softplus", "recurrent")
