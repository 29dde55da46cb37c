"""The CUDA half of the ops: what torch computes, and the engine's kernels beside it.

``fusegen._C`` has the kernels for CUDA tensors; ``_simt`` of the tests runs the same ones on CPU
tensors. An ``Engine`` says which, and is an argument throughout.
"""
