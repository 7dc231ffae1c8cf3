"""Learners continue from a checkpoint as if nothing had happened, and refuse the checkpoint of another learner."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from tianshou.algorithm.algorithm_base import Algorithm, OffPolicyWrapperAlgorithm, Policy, TrainingStats
from tianshou.algorithm.modelfree.ddpg import DDPG, ContinuousDeterministicPolicy
from tianshou.algorithm.modelfree.discrete_sac import DiscreteSAC, DiscreteSACPolicy
from tianshou.algorithm.modelfree.redq import REDQ, REDQPolicy
from tianshou.algorithm.modelfree.sac import SAC, AutoAlpha, SACPolicy
from tianshou.algorithm.modelfree.td3 import TD3
from tianshou.algorithm.optim import AdamOptimizerFactory, LRSchedulerFactoryLinear, RMSpropOptimizerFactory
from tianshou.data import Batch, ReplayBuffer
from tianshou.data.types import RolloutBatchProtocol
from tianshou.exploration import GaussianNoise, OUNoise
from tianshou.utils.net.common import EnsembleLinear, Net
from tianshou.utils.net.continuous import ContinuousActorDeterministic, ContinuousActorProbabilistic, ContinuousCritic
from tianshou.utils.net.discrete import DiscreteActor, DiscreteCritic
from tianshou.utils.torch_utils import policy_within_training_step
from torch import Tensor, nn

from presage.common import checkpoint
from presage.common.checkpoint import CheckpointError
from presage.common.learner_state import learner_state, restore_learner
from presage.common.random_state import global_random_state, restore_global_random_state
from presage.common.tree import Tree

OBS, ACT, ROWS = 5, 2, 48
BOX = spaces.Box(-1, 1, (ACT,))
CHOICE = spaces.Discrete(3)
AnyAlgorithm = Algorithm[Any, Any]


def net(hidden: int = 8, **options: Any) -> Net:
    return Net(state_shape=OBS, hidden_sizes=[hidden], **options)


def gaussian_actor(hidden: int = 8) -> ContinuousActorProbabilistic:
    return ContinuousActorProbabilistic(preprocess_net=net(hidden), action_shape=(ACT,), unbounded=True)


def critic(hidden: int = 8) -> ContinuousCritic:
    # batch normalisation, since its running statistics are buffers
    return ContinuousCritic(preprocess_net=net(hidden, action_shape=ACT, concat=True, norm_layer=nn.BatchNorm1d))


def alpha() -> AutoAlpha:
    return AutoAlpha(target_entropy=-2.0, log_alpha=0.3, optim=AdamOptimizerFactory(lr=0.05))


def sac(hidden: int = 8, temperature: float | None = None, noise: Any = None, fast: bool = False) -> SAC[Any]:
    adam = AdamOptimizerFactory(lr=1e-2)
    return SAC(
        policy=SACPolicy(actor=gaussian_actor(hidden), action_space=BOX, exploration_noise=noise),
        policy_optim=RMSpropOptimizerFactory(lr=1e-2, momentum=0.9) if fast else adam,
        critic=critic(hidden),
        critic_optim=adam,
        alpha=alpha() if temperature is None else temperature,
    )


def deterministic_policy() -> ContinuousDeterministicPolicy:
    actor = ContinuousActorDeterministic(preprocess_net=net(), action_shape=(ACT,))
    return ContinuousDeterministicPolicy(
        actor=actor, exploration_noise=OUNoise(), action_space=BOX, action_scaling=False, action_bound_method=None
    )


def decaying() -> AdamOptimizerFactory:
    linear = LRSchedulerFactoryLinear(max_epochs=1, epoch_num_steps=20, collection_step_num_env_steps=1)
    factory: AdamOptimizerFactory = AdamOptimizerFactory(lr=1e-2).with_lr_scheduler_factory(linear)
    return factory


def td3() -> TD3:
    return TD3(
        policy=deterministic_policy(),
        policy_optim=decaying(),
        critic=critic(),
        critic_optim=RMSpropOptimizerFactory(lr=1e-3, momentum=0.9, centered=True),
        critic2_optim=AdamOptimizerFactory(lr=1e-3, weight_decay=0.1),
        update_actor_freq=3,
    )


def ddpg() -> DDPG:
    return DDPG(policy=deterministic_policy(), policy_optim=decaying(), critic=critic(), critic_optim=decaying())


def discrete_sac() -> DiscreteSAC:
    actor = DiscreteActor(preprocess_net=net(), action_shape=3, softmax_output=False)
    return DiscreteSAC(
        policy=DiscreteSACPolicy(actor=actor, action_space=CHOICE),
        policy_optim=AdamOptimizerFactory(lr=1e-2),
        critic=DiscreteCritic(preprocess_net=net(), last_size=3),
        critic_optim=AdamOptimizerFactory(lr=1e-2),
        alpha=alpha(),
    )


def redq() -> REDQ:
    def linear(inputs: int, outputs: int) -> nn.Module:
        return EnsembleLinear(4, inputs, outputs)

    preprocess = net(action_shape=ACT, concat=True, linear_layer=linear)
    return REDQ(
        policy=REDQPolicy(actor=gaussian_actor(), action_space=BOX, action_bound_method=None, action_scaling=False),
        policy_optim=AdamOptimizerFactory(lr=1e-2),
        critic=ContinuousCritic(preprocess_net=preprocess, linear_layer=linear, flatten_input=False),
        critic_optim=AdamOptimizerFactory(lr=1e-2),
        ensemble_size=4,
        alpha=alpha(),
        actor_delay=3,
    )


class Imagining(OffPolicyWrapperAlgorithm[Policy]):
    """A wrapper with a world of its own: a module, an optimiser that tianshou does not know, a generator, counters."""

    def __init__(self, wrapped: Any) -> None:
        super().__init__(wrapped)
        self.world = nn.Sequential(nn.Linear(OBS, 8), nn.Dropout(0.2), nn.Linear(8, OBS))
        self.tools = {"world": (torch.optim.AdamW(self.world.parameters(), lr=1e-2), "fitted by least squares")}
        self.rng = torch.Generator().manual_seed(7)
        self.fits = 0
        self.smoothed: list[float] = []

    def _wrapper_update_with_batch(self, batch: RolloutBatchProtocol, original_stats: TrainingStats) -> TrainingStats:
        optimiser = self.tools["world"][0]
        optimiser.zero_grad()
        obs = torch.as_tensor(batch.obs) + torch.randn(len(batch), OBS, generator=self.rng)
        loss = (self.world(obs) - torch.as_tensor(batch.obs_next)).square().mean() / (1 + self.fits)
        loss.backward()
        optimiser.step()
        self.fits += 1
        self.smoothed.append(loss.item())
        return original_stats


def wrapped_sac() -> Imagining:
    return Imagining(sac(noise=GaussianNoise()))


LEARNERS: dict[str, Callable[[], AnyAlgorithm]] = {
    "sac": sac, "td3": td3, "ddpg": ddpg, "discrete_sac": discrete_sac, "redq": redq, "wrapped_sac": wrapped_sac,
    "twice_wrapped_td3": lambda: Imagining(Imagining(td3())),
}  # fmt: skip


def seeded(seed: int, build: Callable[[], AnyAlgorithm]) -> AnyAlgorithm:
    torch.manual_seed(seed)
    np.random.seed(seed)
    return build()


class GloballyDrawn(ReplayBuffer):
    """A buffer without a random state of its own."""

    def sample_indices(self, batch_size: int | None) -> np.ndarray:
        return np.random.randint(len(self), size=batch_size)


def replay(discrete: bool) -> ReplayBuffer:
    rng = np.random.default_rng(0)
    buffer = GloballyDrawn(ROWS)
    for i in range(ROWS):
        row: dict[str, Any] = {
            "obs": rng.normal(size=OBS).astype(np.float32),
            "act": rng.integers(3) if discrete else rng.uniform(-1, 1, ACT).astype(np.float32),
            "rew": rng.normal(),
            "terminated": i % 12 == 11,
            "truncated": False,
            "obs_next": rng.normal(size=OBS).astype(np.float32),
            "info": {},
        }
        buffer.add(Batch(row))
    return buffer


def train(algorithm: Any, buffer: ReplayBuffer, updates: int) -> list[Any]:
    """Update, and draw exploration noise in between; what came out of both."""
    seen: list[Any] = []
    for _ in range(updates):
        with policy_within_training_step(algorithm.policy):
            losses = algorithm.update(buffer=buffer, sample_size=16).get_loss_stats_dict()
        noise = algorithm.policy.add_exploration_noise(np.zeros((3, ACT)), Batch())
        seen.append((losses, noise.tolist()))
    return seen


def optimisers(algorithm: AnyAlgorithm) -> list[torch.optim.Optimizer]:
    """Those that these learners are known to have."""
    found = [wrapper._optim for wrapper in algorithm._optimizers]
    temperature = getattr(algorithm, "alpha", None)
    if isinstance(temperature, AutoAlpha):
        found.append(temperature._optim)
    if isinstance(algorithm, Imagining):
        found += [algorithm.tools["world"][0], *optimisers(algorithm.wrapped_algorithm)]
    return found


def weights(algorithm: AnyAlgorithm) -> dict[str, Tensor]:
    """Parameters, buffers and optimiser states, gathered by torch's own means."""
    found = dict(algorithm.named_parameters()) | dict(algorithm.named_buffers())
    for i, optimiser in enumerate(optimisers(algorithm)):
        for j, state in optimiser.state_dict()["state"].items():
            found |= {f"optimiser {i}.{j}.{name}": torch.as_tensor(value) for name, value in state.items()}
        for j, group in enumerate(optimiser.param_groups):
            found[f"optimiser {i}.{j}.lr"] = torch.tensor(group["lr"], dtype=torch.float64)
    return {name: tensor.detach().clone() for name, tensor in found.items()}


def assert_equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    assert a.keys() == b.keys()
    for name, tensor in a.items():
        assert torch.equal(tensor, b[name]), name


def save(folder: Path, algorithm: AnyAlgorithm) -> None:
    tree = {"learner": learner_state(algorithm), "random": global_random_state()}
    checkpoint.save(folder, tree, kind="test", version=1)


@pytest.mark.parametrize("name", LEARNERS)
def test_k_updates_save_load_m_updates_equal_k_plus_m_updates(name: str, tmp_path: Path) -> None:
    buffer = replay(discrete=name == "discrete_sac")
    straight = seeded(1, LEARNERS[name])
    expected = train(straight, buffer, 12)

    interrupted = seeded(1, LEARNERS[name])
    assert train(interrupted, buffer, 7) == expected[:7]
    save(tmp_path / "one", interrupted)
    train(interrupted, buffer, 2)  # what goes on after a checkpoint does not leak into it

    resumed = seeded(2, LEARNERS[name])
    tree = checkpoint.load(tmp_path / "one")
    restore_learner(resumed, tree["learner"])
    restore_global_random_state(tree["random"])
    assert train(resumed, buffer, 5) == expected[7:]
    assert_equal(weights(resumed), weights(straight))
    resumed_parts, straight_parts = (
        [optimiser.param_groups for optimiser in optimisers(algorithm)] for algorithm in (resumed, straight)
    )
    assert [[group.keys() for group in groups] for groups in resumed_parts] == [
        [group.keys() for group in groups] for groups in straight_parts
    ]


@pytest.mark.parametrize("name", ["wrapped_sac", "twice_wrapped_td3"])
def test_restoring_over_a_trained_learner_leaves_nothing_of_it(name: str) -> None:
    buffer = replay(discrete=False)
    straight, other = seeded(1, LEARNERS[name]), seeded(2, LEARNERS[name])
    train(straight, buffer, 3)
    tree, random = learner_state(straight), global_random_state()
    expected = train(straight, buffer, 4)
    train(other, buffer, 5)
    restore_learner(other, tree)
    restore_global_random_state(random)
    assert train(other, buffer, 4) == expected


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("sac", "tensors: critic.preprocess.model.model.0.weight"),
        ("sac", "tensors: critic_old.module.preprocess.model.model.0.weight"),
        ("sac", "tensors: alpha._log_alpha"),
        ("sac", "optimisers: alpha._optim"),
        ("sac", "optimisers: policy_optim._optim"),
        ("td3", "values: _cnt"),
        ("td3", "values: _last"),
        ("td3", "values: policy.exploration_noise._x"),
        ("td3", "values: lr_schedulers[0].last_epoch"),
        ("td3", "tensors: actor_old.module.last.model.0.bias"),
        ("td3", "optimisers: critic2_optim._optim"),
        ("redq", "values: critic_gradient_step"),
        ("wrapped_sac", "optimisers: tools['world'][0]"),
        ("wrapped_sac", "optimisers: wrapped_algorithm.critic_optim._optim"),
        ("wrapped_sac", "generators: rng"),
        ("wrapped_sac", "values: fits"),
    ],
)
def test_each_part_matters(name: str, part: str) -> None:
    """The same proof fails as soon as one part of the tree is taken from a fresh learner instead."""
    table, path = part.split(": ")
    buffer = replay(discrete=False)
    straight, resumed = seeded(1, LEARNERS[name]), seeded(2, LEARNERS[name])
    train(straight, buffer, 7)
    tree, random = learner_state(straight), global_random_state()
    expected = train(straight, buffer, 5)
    tree[table][path] = learner_state(resumed)[table][path]
    restore_learner(resumed, tree)
    restore_global_random_state(random)
    differs = train(resumed, buffer, 5) != expected
    assert differs or any(not torch.equal(a, b) for a, b in zip(*map(values, (resumed, straight)), strict=True))


def values(algorithm: AnyAlgorithm) -> list[Tensor]:
    return list(weights(algorithm).values())


def test_parts_go_by_the_names_a_reader_expects() -> None:
    tree = learner_state(sac(noise=OUNoise()))
    assert set(tree["optimisers"]) == {f"{part}_optim._optim" for part in ("policy", "critic", "critic2")} | {
        "alpha._optim"
    }
    assert set(tree["tensors"]) == {
        *(f"policy.{name}" for name, _ in sac().policy.named_parameters()),
        *(f"{part}.{name}" for part in ("critic", "critic2") for name in sac().critic.state_dict()),
        *(f"{part}_old.module.{name}" for part in ("critic", "critic2") for name in sac().critic.state_dict()),
        "alpha._log_alpha",
    }
    assert tree["values"]["gamma"] == 0.99
    assert tree["classes"]["policy.exploration_noise"] == "OUNoise"
    assert tree["optimisers"]["alpha._optim"][0]["parameters"] == ["alpha._log_alpha"]


def test_the_state_is_a_copy() -> None:
    algorithm, buffer = seeded(1, sac), replay(discrete=False)
    train(algorithm, buffer, 2)
    tree = learner_state(algorithm)
    before = {name: tensor.clone() for name, tensor in tree["tensors"].items()}
    step = tree["optimisers"]["alpha._optim"][0]["state"][0]["step"].item()
    train(algorithm, buffer, 2)
    restored = seeded(2, sac)
    restore_learner(restored, tree)
    train(restored, buffer, 2)
    assert_equal(tree["tensors"], before)
    assert tree["optimisers"]["alpha._optim"][0]["state"][0]["step"].item() == step == 2


def test_restoring_keeps_every_reference() -> None:
    algorithm: Any = seeded(1, sac)
    held = [id(parameter) for parameter in algorithm.parameters()]
    target = algorithm._lagged_networks._lagged_network_pairs[0].target
    restore_learner(algorithm, learner_state(seeded(2, sac)))
    assert [id(parameter) for parameter in algorithm.parameters()] == held
    assert algorithm.critic_old.module is target
    in_optimiser = {id(p) for optimiser in optimisers(algorithm) for p in optimiser.param_groups[0]["params"]}
    assert in_optimiser <= set(held)


class SubclassedSAC(SAC[Any]):
    pass


def other_class() -> AnyAlgorithm:
    algorithm = sac()
    algorithm.__class__ = SubclassedSAC
    return algorithm


def double() -> AnyAlgorithm:
    return sac().double()


def split_groups() -> AnyAlgorithm:
    algorithm = sac()
    first, *rest = algorithm.critic.parameters()
    algorithm.critic_optim._optim = torch.optim.Adam([{"params": [first]}, {"params": rest}], lr=1e-2)
    return algorithm


def reordered() -> AnyAlgorithm:
    algorithm = sac()
    algorithm.critic_optim._optim = torch.optim.Adam(list(algorithm.critic.parameters())[::-1], lr=1e-2)
    return algorithm


def other_settings() -> AnyAlgorithm:
    algorithm = sac()
    algorithm.critic_optim._optim = torch.optim.Adam(algorithm.critic.parameters(), lr=1e-2)
    algorithm.critic_optim._optim.param_groups[0]["share"] = 1.0
    return algorithm


def with_schedulers() -> AnyAlgorithm:
    algorithm = sac()
    algorithm.lr_schedulers.append(torch.optim.lr_scheduler.ExponentialLR(algorithm.critic_optim._optim, 0.9))
    return algorithm


def counting() -> AnyAlgorithm:
    algorithm = sac()
    algorithm.policy.calls = 3  # type: ignore[assignment] # as code without annotations does
    return algorithm


@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        (lambda: sac(hidden=9), r"'critic\.last\.model\.0\.weight' has shape \(1, 8\) in the checkpoint and \(1, 9\)"),
        (lambda: sac(temperature=0.2), "'alpha' has class AutoAlpha in the checkpoint and FixedAlpha"),
        (lambda: sac(noise=OUNoise()), r"the checkpoint lacks 'policy\.exploration_noise' \(of classes\)"),
        (lambda: sac(fast=True), r"'policy_optim\._optim' has class Adam in the checkpoint and RMSprop"),
        (double, r"'alpha\._log_alpha' has dtype torch\.float32 in the checkpoint and torch\.float64"),
        (split_groups, r"'critic_optim\._optim' has number of parameter groups 1 in the checkpoint and 2"),
        (reordered, r"among its parameters critic\.preprocess\.\S+weight in the checkpoint and critic\.last\.\S+bias"),
        (other_settings, r"'critic_optim\._optim' has among its settings weight_decay in the checkpoint and share"),
        (with_schedulers, r"the checkpoint lacks 'lr_schedulers\[0\]'"),
        (counting, r"the checkpoint lacks 'policy\.calls' \(of values\)"),
        (other_class, "'the learner' has class SAC in the checkpoint and SubclassedSAC"),
        (td3, "'the learner' has class SAC in the checkpoint and TD3"),
        (wrapped_sac, "'the learner' has class SAC in the checkpoint and Imagining"),
    ],
)
def test_another_learner_is_refused_before_anything_is_changed(
    build: Callable[[], AnyAlgorithm], sentence: str
) -> None:
    tree = learner_state(seeded(1, sac))
    other = seeded(2, build)
    before = weights(other)
    with pytest.raises(CheckpointError, match=sentence) as caught:
        restore_learner(other, tree)
    assert "build the learner as the saved one was built" in str(caught.value)
    assert_equal(weights(other), before)


@pytest.mark.parametrize("tree", [None, [], {}, {"tensors": {}}])
def test_a_tree_of_something_else_is_refused(tree: Tree) -> None:
    with pytest.raises(CheckpointError, match="no learner's state"):
        restore_learner(nn.Linear(1, 1), tree)
