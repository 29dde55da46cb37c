"""Functional forms of the recurrent layers and cells; shapes and errors in ``fusegen.ops.functional``."""

from .functional import gru, gru_cell, lstm, lstm_cell, rnn, rnn_cell

__all__ = ["gru", "gru_cell", "lstm", "lstm_cell", "rnn", "rnn_cell"]
