"""Written by `python benchmarks/choice.py FILE...` from result files; not by hand.

(instruction set, vendor) -> ranges of calls in which torch measured faster than the fused kernels: (cell,
dtype, train, (I from, to), (H from, to), (B from, to), (T from, to), (threads from, to), source). What is not
here runs on the fused kernels.
"""

MEASURED = {}
