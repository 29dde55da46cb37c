// Built where there is no CUDA backend; CPU only.
