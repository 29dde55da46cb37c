"""torch's own module cases for its recurrent layers and cells, run with fusegen's classes in their place."""

import copy
import gc
import pickle
import warnings

import fusegen
import pytest
import torch
from cases import flat, tree
from tolerances import agree
from torch import nn
from torch.nn.utils.rnn import PackedSequence
from torch.testing._internal.common_modules import ModuleErrorEnum, module_db
from torch.testing._internal.common_utils import freeze_rng_state

OWN = {getattr(nn, name): getattr(fusegen.nn, name) for name in fusegen.nn.__all__ if hasattr(nn, name)}
INFOS = [info for info in module_db if info.module_cls in OWN]
DTYPES = (torch.float32, torch.float64)

each = pytest.mark.parametrize("info", INFOS, ids=lambda i: i.name)
each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)
each_mode = pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])


def cases(info, dtype, training, requires_grad=False):
    """(torch's module, fusegen's with its weights, forward input, reference function) for each of torch's
    cases."""
    more = {} if info.module_cls not in (nn.RNN, nn.GRU) else {"with_packed_sequence": True}
    inputs = info.module_inputs_func(
        info, device="cpu", dtype=dtype, requires_grad=requires_grad, training=training, **more
    )
    for case in inputs:
        given = case.constructor_input
        theirs = info.module_cls(*given.args, **given.kwargs, dtype=dtype).train(training)
        mine = OWN[info.module_cls](*given.args, **given.kwargs, dtype=dtype).train(training)
        mine.load_state_dict(theirs.state_dict())
        yield theirs, mine, case.forward_input, case.reference_fn


def same(got, want):
    if isinstance(want, PackedSequence):
        got, want = got.data, want.data
    if isinstance(want, (tuple, list)):
        for g, w in zip(got, want, strict=True):
            same(g, w)
    else:
        agree(got, want)


def test_there_are_cases():
    assert {info.module_cls for info in INFOS} == set(OWN)
    for info in INFOS:
        assert len(list(cases(info, torch.float32, True))) >= 2, info.name


@each_mode
@each_dtype
@each
def test_forward(info, dtype, training):
    for theirs, mine, given, reference in cases(info, dtype, training):
        with freeze_rng_state():
            got = mine(*given.args, **given.kwargs)
        same(got, theirs(*given.args, **given.kwargs))
        if reference is not None and not isinstance(given.args[0], PackedSequence):
            same(got, reference(mine, *given.args, **given.kwargs))
        assert str(mine) == str(theirs)


@each_dtype
@each
def test_gradients(info, dtype):
    for theirs, mine, given, _ in cases(info, dtype, True, requires_grad=True):
        inputs = [t for t in _tensors(given.args) if t.requires_grad]
        results = []
        for m in (mine, theirs):
            out = _tensors(m(*given.args, **given.kwargs))
            results.append(
                torch.autograd.grad(sum(o.square().sum() for o in out), [*inputs, *m.parameters()])
            )
        same(*results)


@each
def test_gradcheck(info):
    for i, (_, mine, given, _) in enumerate(cases(info, torch.float64, True, requires_grad=True)):
        if any(isinstance(a, PackedSequence) for a in given.args):
            continue
        leaves = [t for t in flat(given.args) if t.requires_grad]

        def run(*ts, mine=mine, given=given):
            it = iter(ts)
            args = tree(lambda s, it=it: next(it) if s.requires_grad else s, given.args)
            return tuple(flat(mine(*args, **given.kwargs)))

        assert torch.autograd.gradcheck(run, leaves, fast_mode=True)
        if i % 4 == 0:  # test_second_order has every option
            assert torch.autograd.gradgradcheck(run, leaves, fast_mode=True)


@each_dtype
@each
def test_errors(info, dtype):
    for case in info.module_error_inputs_func(
        info, device="cpu", dtype=dtype, requires_grad=False, training=True
    ):
        given, forward = case.module_error_input.constructor_input, case.module_error_input.forward_input
        make = OWN[info.module_cls]
        if case.error_on == ModuleErrorEnum.CONSTRUCTION_ERROR:
            with pytest.raises(case.error_type, match=case.error_regex):
                make(*given.args, **given.kwargs)
        else:
            m = make(*given.args, **{"dtype": dtype, **given.kwargs})
            with pytest.raises(case.error_type, match=case.error_regex):
                m(*forward.args, **forward.kwargs)


@each
def test_pickle_and_deepcopy(info):
    for _, mine, given, _ in cases(info, torch.float32, True):
        want = mine(*given.args, **given.kwargs)
        for twin in (copy.deepcopy(mine), pickle.loads(pickle.dumps(mine))):
            same(twin(*given.args, **given.kwargs), want)


@each
def test_to_dtype_and_factory(info):
    for theirs, mine, given, _ in cases(info, torch.float32, False):
        mine.to(torch.float64)
        assert all(p.dtype == torch.float64 for p in mine.parameters())
        if not isinstance(given.args[0], PackedSequence):
            args = tree(lambda t: t.double(), given.args)
            same(mine(*args, **given.kwargs), theirs.double()(*args, **given.kwargs))
        assert (
            type(mine)(3, 4, device="meta", dtype=torch.float64).weight_ih.is_meta
            if hasattr(mine, "weight_ih")
            else type(mine)(3, 4, device="meta").weight_ih_l0.is_meta
        )


@each
def test_non_contiguous_inputs(info):
    for _, mine, given, _ in cases(info, torch.float32, True):
        if isinstance(given.args[0], PackedSequence):
            continue
        want = mine(*given.args, **given.kwargs)
        args = tree(lambda t: torch.stack([t, t], -1)[..., 0], given.args)
        same(mine(*args, **given.kwargs), want)


@pytest.fixture
def only_new_garbage():
    """gc.collect() looks at nothing that was there before, and is not run in between."""
    gc.disable()
    gc.freeze()
    yield
    gc.unfreeze()
    gc.enable()


@each
def test_no_reference_cycle(info, only_new_garbage):
    """A call leaves nothing behind for the garbage collector to find."""
    _, mine, given, _ = next(iter(cases(info, torch.float32, True, requires_grad=True)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gc.collect()  # what making the case left
        out = mine(*given.args, **given.kwargs)
        flat(out)[0].sum().backward()
        del out
        assert gc.collect() == 0


def _tensors(t):
    if isinstance(t, PackedSequence):
        return [t.data]
    return [u for s in t for u in _tensors(s)] if isinstance(t, (tuple, list)) else [t]
