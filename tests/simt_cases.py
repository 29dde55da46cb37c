"""What the tests of the emulated CUDA kernels of layers and of cells share."""

from fusegen.ops.spec import GRU, LSTM, RNN

SPECS = {"lstm": LSTM, "gru": GRU, "rnn_tanh": RNN, "rnn_relu": RNN}
DTYPES = ("float32", "tf32", "bfloat16", "float16")
ORDERS = [("forward", 0), ("reverse", 0)] + [("random", seed) for seed in range(8)]
STUCK = "a lane looks at a flag without end"
