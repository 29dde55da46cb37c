"""An update of sb3-contrib's RecurrentPPO on its own LSTM policy and on fusegen's, after the same rollout of
its test's task."""

from __future__ import annotations

import importlib.util

import torch

import fusegen
from fusegen import rl
from harness.bars import Bar, select
from harness.options import Options
from harness.peer import BaseRunner, Unavailable
from harness.problem import Case
from harness.record import Row
from harness.sweep import sweep

LIMIT = 2.0
NEEDED = ("gymnasium", "stable_baselines3", "sb3_contrib")


class Rollout:
    """CartPole for T steps of each of 8 environments; batches of B rows."""

    flops = 0  # not reckoned: the step is more than its matrix products

    def __init__(self, case: Case):
        self.case, self.tokens = case, case.T * 8


class UpdateRunner(BaseRunner):
    def __init__(self, problem: Rollout, fused: bool):
        if missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
            raise Unavailable(f"{', '.join(missing)} not installed (pip install 'fusegen[rl]')")
        from sb3_contrib import RecurrentPPO
        from sb3_contrib.ppo_recurrent.policies import MlpLstmPolicy
        from stable_baselines3.common.env_util import make_vec_env

        fusegen.set_backend("fused")
        case = problem.case
        self.model = RecurrentPPO(
            rl.fused_policy(MlpLstmPolicy) if fused else MlpLstmPolicy,
            make_vec_env("CartPole-v1", n_envs=8, seed=0),
            n_steps=case.T,
            batch_size=case.B,
            n_epochs=1,
            learning_rate=1e-9,  # every round trains on the same policy
            policy_kwargs={"lstm_hidden_size": case.H},
            seed=0,
            device="cpu",
        )
        self.model.learn(case.T * 8)  # a rollout, and an update of no consequence

    def run(self) -> None:
        self.model.train()

    def results(self) -> dict[str, torch.Tensor]:
        """tests/test_rl.py compares the two."""
        return {}


class Peer:
    def __init__(self, name: str, fused: bool):
        self.name, self.fused = name, fused

    def prepare(self, problem: Rollout) -> UpdateRunner:
        return UpdateRunner(problem, self.fused)


def run(options: Options) -> list[Row]:
    sizes = [64] if options.quick else [64, 256]
    chosen = options.cases([Case("lstm", H, 256, 128, True, form="ppo", I=4) for H in sizes])
    peers = [Peer("fused", fused=True), Peer("sb3-contrib", fused=False)]
    budget = options.budget(len(chosen), 4, 1.0)
    return sweep("ppo", chosen, options.contestants(peers), budget, make=Rollout)


def bars(rows: list[Row]) -> list[Bar]:
    return [
        Bar(f"ppo, LSTM {entry.H}: RecurrentPPO's update, its own policy / fused", entry.ratio_fused, LIMIT)
        for entry in select(rows, peer="sb3-contrib")
    ]
