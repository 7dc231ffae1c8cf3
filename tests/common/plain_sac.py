"""tianshou's SAC over networks of plain layers in any precision: its own cast everything to single precision."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Protocol, TypeVar

import pytest
import torch
from tianshou.algorithm import algorithm_base
from tianshou.algorithm.modelfree.sac import SAC, AutoAlpha, SACPolicy
from tianshou.algorithm.optim import TorchOptimizerFactory
from torch import Tensor, nn

from presage.common.game import GameSpec
from presage.common.policy import joint_action_space

S = TypeVar("S", bound=SAC[Any])


class PlainActor(nn.Module):
    """What tianshou's SAC policy asks of an actor."""

    def __init__(self, inputs: int, hidden: Sequence[int], outputs: int) -> None:
        super().__init__()
        widths = [inputs, *hidden]
        self.body = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        self.mean, self.log_sigma = nn.Linear(widths[-1], outputs), nn.Linear(widths[-1], outputs)

    def forward(self, obs: Tensor, state: None = None, info: Any = None) -> tuple[tuple[Tensor, Tensor], None]:
        for layer in self.body:
            obs = layer(obs).relu()
        return (self.mean(obs), self.log_sigma(obs).clamp(-20, 2).exp()), None


class PlainCritic(nn.Module):
    """A critic over observation and action side by side."""

    def __init__(self, inputs: int, hidden: Sequence[int]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise([inputs, *hidden, 1]))

    def forward(self, obs: Tensor, act: Tensor) -> Tensor:
        x = torch.cat([obs, act], 1)
        for layer in self.layers[:-1]:
            x = layer(x).relu()
        value: Tensor = self.layers[-1](x)
        return value


class Numbers(Protocol):
    """What configurations of soft actor-critic have in common."""

    @property
    def hidden(self) -> tuple[int, ...]: ...

    @property
    def learning_rate(self) -> float: ...

    @property
    def discount(self) -> float: ...

    @property
    def target_rate(self) -> float: ...


def plain_sac(kind: type[S], spec: GameSpec, numbers: Numbers, initial_temperature: float, target_entropy: float) -> S:
    """tianshou's SAC, or a class of its kind, in torch's default precision; weights from the global generator."""
    critics = [PlainCritic(spec.obs_dim + spec.act_dim, numbers.hidden) for _ in range(2)]
    adam = TorchOptimizerFactory(torch.optim.Adam, lr=numbers.learning_rate)
    start = float(torch.tensor(initial_temperature, dtype=torch.float64).log())
    actor = PlainActor(spec.obs_dim, numbers.hidden, spec.act_dim)
    return kind(
        policy=SACPolicy(actor=actor, action_space=joint_action_space(spec), action_scaling=False),
        policy_optim=adam, critic=critics[0], critic_optim=adam, critic2=critics[1], critic2_optim=adam,
        tau=numbers.target_rate, gamma=numbers.discount, alpha=AutoAlpha(target_entropy, start, adam),
    )  # fmt: skip


def python_returns(monkeypatch: pytest.MonkeyPatch) -> None:
    """tianshou's return kernels as the Python functions they are: compiling them takes longer than the tests."""
    monkeypatch.setattr(SACPolicy, "_compile", staticmethod(lambda: None))
    monkeypatch.setattr(algorithm_base, "_nstep_return", algorithm_base._nstep_return.py_func)
