"""What `fusegen.onnx.export` says: nothing that its caller cannot act on, and all the rest."""

import logging
import warnings

import fusegen
import pytest
import torch
from torch import nn

pytest.importorskip("onnxscript", reason="onnxscript is not installed")

REGISTRATION = "torch.onnx._internal.exporter._registration"


class Tagger(nn.Module):
    """Warns once in a forward; two outputs share the dimensions that the input names."""

    def __init__(self):
        super().__init__()
        self.gru = nn.GRU(3, 4, batch_first=True)

    def forward(self, x):
        warnings.warn("of the model's own", UserWarning, stacklevel=1)
        logging.getLogger(REGISTRATION).warning("of another kind")
        y, h = self.gru(x)
        return y.relu(), h


def test_only_what_can_be_acted_on_is_said(tmp_path, caplog):
    shapes = ({0: "batch", 1: "time"},)
    path, handled = tmp_path / "a.onnx", []
    log = logging.getLogger(REGISTRATION)
    before = list(log.filters)
    handler = logging.Handler()
    handler.emit = handled.append
    log.addHandler(handler)
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            program = fusegen.onnx.export(
                Tagger(), (torch.randn(2, 5, 3),), path, dynamic_shapes=shapes, output_names=["tags", "last"]
            )
    finally:
        log.removeHandler(handler)
    texts = [str(each.message) for each in said]
    assert "of the model's own" in texts
    assert [t for t in texts if "LeafSpec" in t or "The axis name" in t] == []
    messages = [record.getMessage() for record in handled]
    assert "of another kind" in messages and not any("torchvision" in each for each in messages)
    assert log.filters == before
    assert [each.name for each in program.model.graph.outputs] == ["tags", "last"]
