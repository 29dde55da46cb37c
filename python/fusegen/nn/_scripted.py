"""TorchScript and the exporter built on it, which torch means to drop, do not take fusegen's modules."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import nn


class NotScripted(nn.Module):
    """Refuses them in one line that names the way out; torch.jit.trace records torch's own operators."""

    _way_out = "fusegen.revert(model) makes them torch.nn's again, and fusegen.onnx.export writes ONNX"

    def __prepare_scriptable__(self) -> None:
        """torch.jit.script asks for it."""
        self._refuse()

    def _slow_forward(self, *input: Any, **kwargs: Any) -> Any:
        """What a call runs while TorchScript traces, before any argument is looked at: the exporter gives a
        bare layer one more than ``forward`` takes."""
        if torch.onnx.is_in_onnx_export():
            self._refuse()
        return super()._slow_forward(*input, **kwargs)

    @property
    def qconfig(self) -> Any:
        try:
            return self.__dict__["qconfig"]
        except KeyError:
            raise AttributeError("qconfig") from None

    @qconfig.setter
    def qconfig(self, value: Any) -> None:
        """What torch.ao's ways of quantizing set on every module before they swap those that they know."""
        warnings.warn(
            f"torch.ao.quantization leaves fusegen.nn.{self._get_name()} as it is; fusegen.quantize(model) "
            "makes 8-bit layers of fusegen's, fusegen.revert(model) torch.nn's again for torch.ao",
            stacklevel=2,
        )
        self.__dict__["qconfig"] = value

    @qconfig.deleter
    def qconfig(self) -> None:
        del self.__dict__["qconfig"]

    def _refuse(self) -> None:
        raise RuntimeError(
            f"fusegen.nn.{self._get_name()}: torch.jit.script and torch.onnx.export(dynamo=False) do not "
            f"take fusegen's layers; {self._way_out}"
        )
