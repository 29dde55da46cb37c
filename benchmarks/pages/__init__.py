"""README's and docs/benchmarks.md's measured parts, from result files; `benchmarks/report.py` writes them."""
