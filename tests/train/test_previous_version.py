"""What version 0.1.0 wrote is read, goes on, and gives what it gave then (tests/fixtures/v0_1)."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import fusegen
import pytest
import torch
from tolerances import agree

pytest.importorskip("PIL")
pytest.importorskip("sacrebleu")

SCRIPT = Path(__file__).parents[1] / "fixtures/v0_1/previous.py"
RECORDED = json.loads((SCRIPT.parent / "recorded.json").read_text())

# Its penalty was by a second backward and is in closed form since: the same figures to rounding, other bits.
ANOTHER_WAY = "/runs/conditional-gan/"
MEASURED_MORE = "/runs/text-gan/evaluated/"  # where there was the bigram divergence alone
LATER = {"precision", "recall", "spread"}  # what the log of a GAN has had since


@pytest.fixture(scope="module")
def previous():
    spec = importlib.util.spec_from_file_location("previous", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def flat(tree, name=""):
    """{path: leaf} of nested dicts and lists."""
    if isinstance(tree, dict | list):
        pairs = tree.items() if isinstance(tree, dict) else enumerate(tree)
        return {key: leaf for part, each in pairs for key, leaf in flat(each, f"{name}/{part}").items()}
    return {name: tree}


def test_the_engine_that_is_at_hand_gives_the_same_figures(previous):
    """To the rounding of sums in another order; what is counted (BLEU, exact matches) and the printed six
    digits come out alike."""
    wanted, found = flat(RECORDED), flat({"by": RECORDED["by"], **previous.replay()})
    later = {name for name in found.keys() - wanted.keys() if not name.startswith(MEASURED_MORE)}
    more = {name.rpartition("/")[2] for name in later}
    assert found.keys() >= wanted.keys() and more <= LATER
    for name, value in wanted.items():
        if isinstance(value, float):
            agree(torch.tensor(found[name]), torch.tensor(value), name)
        elif not name.endswith("/digest") and "/evaluated/" not in name:
            assert found[name] == value, name


@pytest.mark.skipif(
    "baseline" not in fusegen._C.available_isas(), reason="this build has no instruction set baseline"
)
@pytest.mark.skipif(
    torch.__version__ != RECORDED["by"]["torch"],
    reason=f"bits are those of torch {RECORDED['by']['torch']}, here is {torch.__version__}",
)
def test_the_plainest_instructions_give_the_same_bits(tmp_path, previous):
    found = tmp_path / "found.json"
    subprocess.run([sys.executable, str(SCRIPT), "replay", str(found)], check=True, timeout=300)
    found, wanted = flat(json.loads(found.read_text())), flat(RECORDED)
    for name, value in wanted.items():
        assert name.startswith(("/by/", ANOTHER_WAY)) or found[name] == value, name


def test_every_layer_model_and_task_of_then_is_among_them():
    """None was left out: the names of 0.1.0, which later ones add to."""
    kinds = {name.split()[0] for name in RECORDED["layers"]}
    assert kinds == {"GRU", "LSTM", "RNN", "GRUCell", "LSTMCell", "RNNCell"}
    kinds = {name.split()[0] for name in RECORDED["models"]}
    assert kinds == {
        *("DCGAN", "MLPGAN", "RecurrentGAN", "VAE", "ConvVAE", "SequenceVAE", "Seq2Seq", "TextLSTM")
    }
    configs = [json.loads(path.read_text()) for path in SCRIPT.parent.glob("runs/*/config.json")]
    assert {each["task"] for each in configs} == {"text", "vae", "seqvae", "seq2seq", "gan"}
    archs = {each["model"]["arch"] for each in configs if each["task"] == "gan"}
    assert archs == {"mlp", "dcgan", "recurrent"} and any(
        each["model"].get("conditional") for each in configs
    )
