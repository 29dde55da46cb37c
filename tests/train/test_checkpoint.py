"""Checkpoints: there whole or not at all, and nothing that is not one is taken for one."""

import errno
import io
import os
import pickle
import resource
import zipfile

import pytest
import torch
from fusegen.models import TextLSTM
from fusegen.train import checkpoint, files
from fusegen.train.checkpoint import CheckpointError, Checkpoints

STATE = {"step": 3, "weights": torch.arange(500.0), "nested": [(1, None), {"a": "b"}]}


def same(a, b):
    return a["step"] == b["step"] and torch.equal(a["weights"], b["weights"]) and a["nested"] == b["nested"]


def test_what_is_saved_is_loaded(tmp_path):
    checkpoint.save(tmp_path / "a.pt", STATE)
    assert same(checkpoint.load(tmp_path / "a.pt"), STATE)
    assert [path.name for path in tmp_path.iterdir()] == ["a.pt"]


def test_it_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    calls = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *a, real=real, name=name: (calls.append(name), real(*a))[1])
    files.write(tmp_path / "a", b"content")
    assert calls == ["fsync", "replace", "fsync"]  # the file, its name, its folder


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_crash_between_writing_and_renaming_leaves_the_old_one(tmp_path, call):
    path = tmp_path / "a.pt"
    checkpoint.save(path, STATE)
    child = os.fork()
    if child == 0:
        setattr(os, call, lambda *_: os._exit(9))
        checkpoint.save(path, {**STATE, "step": 4})
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert same(checkpoint.load(path), STATE)
    assert len(list(tmp_path.iterdir())) == 2  # it and what was left aside
    checkpoint.save(path, {**STATE, "step": 5})
    assert checkpoint.load(path)["step"] == 5 and len(list(tmp_path.iterdir())) == 1


def test_a_full_disk_leaves_the_old_one_and_is_named(tmp_path, monkeypatch):
    path = tmp_path / "a.pt"
    checkpoint.save(path, STATE)
    monkeypatch.setattr(files, "clear_aside", lambda folder: None)
    (tmp_path / f".a.pt.{os.getpid()}.aside").symlink_to("/dev/full")
    with pytest.raises(OSError, match=r"cannot write .*a\.pt: No space left on device") as caught:
        checkpoint.save(path, {**STATE, "step": 4})
    assert caught.value.errno == errno.ENOSPC
    assert same(checkpoint.load(path), STATE) and len(list(tmp_path.iterdir())) == 1


def test_a_file_that_may_not_grow_leaves_the_old_one(tmp_path):
    path = tmp_path / "a.pt"
    checkpoint.save(path, STATE)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            checkpoint.save(path, {**STATE, "step": 4})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert same(checkpoint.load(path), STATE) and len(list(tmp_path.iterdir())) == 1


class Trap:
    """Would run code where it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ("trapped",)


def flipped(content):
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        largest = max(archive.infolist(), key=lambda each: each.file_size)
    at = largest.header_offset + 30 + len(largest.filename) + largest.file_size // 2
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


def saved(value):
    content = io.BytesIO()
    torch.save(value, content)
    return content.getvalue()


def other_zip():
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("a.txt", "text")
    return content.getvalue()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda c: b"", "is empty"),
        (lambda c: c[:3], "is torn or cut short"),
        *((lambda c, part=part: c[: len(c) * part // 10], "is torn or cut short") for part in range(1, 10)),
        (lambda c: c[:-1], "is torn or cut short"),
        (lambda c: c[: len(c) // 2] + bytes(len(c) - len(c) // 2), "is torn or cut short"),
        (flipped, "is damaged"),
        (lambda c: other_zip(), "is foreign"),
        (lambda c: saved({"model": {}}), "was not written by fusegen"),
        (lambda c: saved([1, 2]), "was not written by fusegen"),
        (lambda c: saved({"fusegen checkpoint": 99}), "does not know"),
        (lambda c: saved(Trap()), "holds code, which is not run"),
        (lambda c: pickle.dumps(Trap()), "is foreign"),
        (lambda c: b"some text", "is foreign"),
    ],
)
def test_what_is_not_a_whole_checkpoint_is_refused_and_the_last_good_one_offered(
    tmp_path, monkeypatch, damage, words
):
    monkeypatch.chdir(tmp_path)
    kept = Checkpoints(tmp_path)
    good, bad = kept.save(1, STATE), kept.save(2, STATE)
    bad.write_bytes(damage(bad.read_bytes()))
    with pytest.raises(CheckpointError, match=words) as caught:
        kept.load("last")
    assert str(caught.value).startswith(f"checkpoint {bad} ")
    assert str(caught.value).endswith(f"the last good one is {good}")
    assert not (tmp_path / "trapped").exists()
    good.write_bytes(b"")
    with pytest.raises(CheckpointError, match="no other one is whole"):
        kept.load("last")


@pytest.mark.parametrize("make", [lambda p: None, lambda p: p.mkdir()], ids=["missing", "folder"])
def test_what_cannot_be_read_is_refused(tmp_path, make):
    path = tmp_path / "a.pt"
    make(path)
    with pytest.raises(CheckpointError, match=r"a\.pt cannot be read"):
        checkpoint.load(path)


def test_the_last_few_and_the_best_are_kept(tmp_path):
    kept = Checkpoints(tmp_path / "made", keep=2)
    with pytest.raises(CheckpointError, match="there is no checkpoint in"):
        kept.find("last")
    for step in (5, 10, 15, 20):
        kept.save(step, {"step": step}, best=step == 10)
    assert kept.steps() == [15, 20]
    assert [kept.load(which)["step"] for which in ("last", "best", "15")] == [20, 10, 15]
    assert kept.load(str(kept.path(20)))["step"] == 20
    with pytest.raises(CheckpointError, match=r"no checkpoint of step 10 in .*: 15, 20"):
        kept.load("10")
    kept.best.unlink()
    assert kept.load("best")["step"] == 20


def test_the_best_is_kept_where_there_are_no_hard_links(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    kept = Checkpoints(tmp_path, keep=1)
    kept.save(1, {"step": 1}, best=True)
    kept.save(2, {"step": 2})
    assert kept.load("best")["step"] == 1 and kept.steps() == [2]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda w: w.pop("decoder.bias"), "decoder.bias is in the model only"),
        (lambda w: w.update(more=torch.zeros(1)), "more is in the checkpoint only"),
        (lambda w: w.update({"decoder.bias": torch.zeros(9)}), r"decoder.bias is \[9\] there, and \[7\]"),
    ],
)
def test_weights_that_do_not_fit_are_named_and_nothing_is_loaded(change, words):
    model, other = (TextLSTM(7, 4, 5, 1) for _ in range(2))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    weights = dict(other.state_dict())
    change(weights)
    with pytest.raises(CheckpointError, match=rf"^checkpoint X\.pt does not fit: {words}"):
        checkpoint.fill(model, weights, "X.pt")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_safetensors_give_the_same_weights_tied_ones_too(tmp_path):
    safetensors = pytest.importorskip("safetensors.torch")
    model, other = (TextLSTM(7, 4, 5, 1) for _ in range(2))
    checkpoint.export(model, tmp_path / "model.safetensors", {"fusegen": "{}"})
    assert safetensors.load_model(other, tmp_path / "model.safetensors") == (set(), [])
    for name, value in other.state_dict().items():
        assert torch.equal(value, model.state_dict()[name])
    assert other.decoder.weight is other.embedding.weight
