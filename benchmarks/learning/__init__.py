"""What the tasks learn on this machine; `benchmarks/learn.py` runs it."""
