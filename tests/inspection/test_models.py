"""fusegen's own models are seen into, and give what they gave."""

import fusegen
import pytest
import torch
from fusegen import inspect, models


def tokens():
    return torch.randint(13, (6, 3))


MODELS = {
    "TextLSTM": (lambda: models.TextLSTM(13, 8, 8), lambda m: m.loss(tokens(), tokens())[0], ["rnn"]),
    "TextLSTM, generating": (
        lambda: models.TextLSTM(13, 8, 8, cell="gru"),
        lambda m: m.generate(torch.tensor([1, 2]), 4, seed=0),
        ["rnn"],
    ),
    "Seq2Seq": (
        lambda: models.Seq2Seq(13, 13, 8, 8, bidirectional=True),
        lambda m: m.loss(tokens(), tokens(), torch.tensor([6, 2, 1])),
        None,
    ),
    "SequenceVAE": (lambda: models.SequenceVAE(13, 8, 8, 4), lambda m: m(tokens())[0], None),
    "RecurrentGAN": (
        lambda: models.RecurrentGAN(2, steps=5, hidden_size=8),
        lambda m: m.sample(3),
        None,
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_model(name):
    make, run, names = MODELS[name]
    m = make().eval()

    with torch.no_grad():
        torch.manual_seed(2)
        want = run(m)
        torch.manual_seed(2)
        with inspect.record(m) as rec:
            got = run(m)
    assert torch.allclose(got, want, atol=1e-6)
    called = [module for module in rec.modules.values() if module.calls]
    assert called and (names is None or [module.name for module in called] == names)
    for module in called:
        for plane in module:
            assert (
                plane.h.isfinite().all() and plane.h.abs().max() > 0 and plane.mask.shape == plane.h.shape[:2]
            )


def test_awd_lstms_own_dropouts_go_round_the_module():
    m = models.TextLSTM(13, 8, 8, weight_drop=0.5)
    with inspect.record(m) as rec:
        m.loss(tokens(), tokens())
    with pytest.raises(ValueError, match="rnn was not called"):
        _ = rec["rnn"][0, 0]
    assert isinstance(m.rnn, fusegen.nn.LSTM)
