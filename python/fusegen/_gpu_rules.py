"""Written by `python benchmarks/choice.py FILE...` from result files; not by hand.

A GPU's name as in benchmarks/results -> ranges of shapes in which torch.nn (cuDNN) measured faster: (cell,
dtype, train, (H from, to), (B from, to), (T from, to), source). A GPU that is not here was not measured.
"""

MEASURED: dict[str, tuple] = {}
