"""Reinforcement learning: recurrent policies whose episodes end inside a batch, on the layers' ``resets=``.

sb3-contrib's and cleanrl's recurrent PPO hold a batch as rows [T*B, F], states, and a flag a row where an
episode starts, and run a layer step by step wherever there is one. Here the whole batch is one call of the
kernels.
"""

from .policies import fused_policy
from .rows import run

__all__ = ["fused_policy", "run"]
