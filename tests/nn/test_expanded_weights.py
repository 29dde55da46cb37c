"""torch.nn.utils._expanded_weights, an older way to gradients of each sample: taken where torch.nn's layers
are, refused in a line elsewhere."""

import fusegen
import pytest
import torch
from torch.nn.utils._per_sample_grad import call_for_per_sample_grads
from torch.nn.utils.rnn import pack_padded_sequence


@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "bidirectional": True}, {"bias": False}])
@pytest.mark.parametrize("name", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("packed", [False, True])
def test_layers_give_gradients_of_each_sample(name, options, packed):
    m = getattr(fusegen.nn, name)(3, 4, batch_first=True, dtype=torch.float64, **options)
    x = torch.randn(2, 5, 3, dtype=torch.float64)
    given = pack_padded_sequence(x, [5, 3], batch_first=True) if packed else x
    with torch.backends.mkldnn.flags(enabled=False):
        y = call_for_per_sample_grads(m, batch_size=2, loss_reduction="sum")(given)[0]
        (y.data if packed else y).square().sum().backward()
    for i, length in enumerate((5, 3 if packed else 5)):
        grads = torch.autograd.grad(m(x[i : i + 1, :length])[0].square().sum(), list(m.parameters()))
        for p, want in zip(m.parameters(), grads, strict=True):
            assert torch.allclose(p.grad_sample[i], want, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["LSTM", "LSTMCell", "GRUCell", "RNNCell"])
def test_what_torch_has_no_formula_for_is_refused_in_a_line(name):
    m = getattr(fusegen.nn, name)(3, 4)
    x = torch.randn(2, 3) if name.endswith("Cell") else torch.randn(5, 2, 3)
    own = "takes an LSTM" if name == "LSTM" else "takes no cells"
    batch = {"batch_size": 2, "batch_first": name.endswith("Cell")}
    with pytest.raises(RuntimeError, match=rf"_expanded_weights {own}.*torch.func.vmap") as refused:
        call_for_per_sample_grads(m, **batch)(x)
    assert "\n" not in str(refused.value)
