"""fusegen.onnx: models with fusegen's layers as ONNX, whose own LSTM, GRU and RNN nodes stand for them.

``export`` writes a file; ``translation_table`` is for those who call torch.onnx.export themselves. Needs the
packages of the ``onnx`` extra: onnx, onnxscript, onnxruntime to run what comes out.
"""

from .export import export
from .nodes import translation_table

__all__ = ["export", "translation_table"]
