"""Model-based policy optimisation (MBPO; Janner, Fu, Zhang, Levine 2019, 1906.08253): one agent, tianshou's SAC, a
probabilistic ensemble, and short branches from real states. `real_share=1` is plain SAC.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch

from presage.common.dyna import Dyna, DynaConfig
from presage.common.dynamics import DynamicsEnsemble, EnsembleConfig
from presage.common.fit import FitConfig
from presage.common.game import GameError, GameSpec, GoalRule, Kernel
from presage.common.propagation import Propagation
from presage.common.sac import SACConfig, build_sac
from presage.common.schedules import LengthRamp
from presage.common.streams import Streams
from presage.common.worlds import GivenWorld, LearnedWorld, rules_of

Body = Literal["InvertedPendulum", "Hopper", "Walker2d", "Ant", "HalfCheetah", "Humanoid"]
"""the bodies of the paper"""

_PAPER: dict[Body, tuple[int, int, tuple[int, int, int, int], int, float]] = {
    "InvertedPendulum": (10, 250, (0, 0, 1, 1), 1, -0.05),
    "Hopper": (20, 250, (20, 150, 1, 15), 1, -1.0),
    "Walker2d": (20, 250, (0, 0, 1, 1), 1, -3.0),
    "Ant": (20, 250, (20, 100, 1, 25), 1, -4.0),
    "HalfCheetah": (40, 250, (0, 0, 1, 1), 1, -3.0),
    "Humanoid": (20, 1_000, (20, 300, 1, 25), 5, -2.0),
}
"""by body: updates per env step, env steps between fits, the branches' ramp (first and last epoch, first and last
length), epochs of imagined rows kept, entropy target; from the released configurations"""


def _pendulum_loop() -> DynaConfig:
    return DynaConfig(
        updates_per_step=10, warmup_steps=500, real_share=0.05, fit_every=250, rollout_every=250,
        rollout_starts=10_000, kept_rollouts=1, horizon=LengthRamp(start_epoch=0, end_epoch=0, start=1, end=1),
        epoch_steps=250, replay_capacity=100_000,
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class MBPOConfig:
    """MBPO's parts; the loop's defaults are those of its pendulum runs with a tenth of the branch starts."""

    sac: SACConfig = field(default_factory=SACConfig)
    """the learner"""
    loop: DynaConfig = field(default_factory=_pendulum_loop)
    """when to fit, how far to imagine, what to learn from"""
    model: Literal["ensemble", "true"] = "ensemble"
    """imagine in a learned ensemble, or in the game's own dynamics where it offers them"""
    ensemble: EnsembleConfig = field(default_factory=EnsembleConfig)
    """the networks of the learned world"""
    fit: FitConfig = field(default_factory=FitConfig)
    """how they are fitted"""
    propagation: Propagation = "fresh"
    """which of them answers for a row; see `EnsembleKernel`, whose "moments" are for plans alone"""

    @classmethod
    def paper(cls, body: Body) -> MBPOConfig:
        """The released configuration for one of the paper's bodies: days on a CPU.

        Ends of episodes are learned here where the release has rules for them; Ant's and Humanoid's observations are
        the environments' own, where the release cuts off contact forces.
        """
        updates, fit_every, (first, last, start, end), kept, entropy = _PAPER[body]
        pendulum, epoch = body == "InvertedPendulum", 250 if body == "InvertedPendulum" else 1_000
        ramp = LengthRamp(start_epoch=first, end_epoch=last, start=start, end=end)
        return cls(
            sac=SACConfig(learning_rate=3e-4, target_entropy=entropy),
            loop=DynaConfig(
                updates_per_step=updates, warmup_steps=500 if pendulum else 5_000, real_share=0.05, fit_every=fit_every,
                rollout_every=fit_every, rollout_starts=100_000, kept_rollouts=kept * epoch // fit_every,
                horizon=ramp, epoch_steps=epoch,
            ),
            ensemble=EnsembleConfig(
                hidden=(400,) * 4 if body == "Humanoid" else (200,) * 4, linear_skip=False, normalise_targets=False,
                reward_input="joint",
            ),
            fit=FitConfig(
                loss="likelihood", learning_rate=1e-3, bootstrap=True, holdout_stretch=1, max_updates=100_000,
                variance_weight=1.0,
            ),
        )  # fmt: skip

    def build(
        self, spec: GameSpec, streams: Streams, device: torch.device, true_kernel: Kernel | None = None,
        goal_rule: GoalRule | None = None,
    ) -> Dyna:  # fmt: skip
        """MBPO on a game of one agent; see `presage.common.method.Method`."""
        learner, actor = build_sac(spec, self.sac, streams("learner", "cpu"), device)
        world = None
        if self.loop.real_share < 1:
            world = build_world(
                spec, self.model, self.ensemble, self.fit, streams, device, true_kernel, self.propagation, goal_rule
            )
        return Dyna(spec, self.loop, learner, actor, streams, world=world, device=device)


def build_world(
    spec: GameSpec, model: Literal["ensemble", "true"], ensemble: EnsembleConfig, fit: FitConfig, streams: Streams,
    device: torch.device, true_kernel: Kernel | None, propagation: Propagation = "fresh",
    goal_rule: GoalRule | None = None,
) -> LearnedWorld | GivenWorld:  # fmt: skip
    """The world that a configuration names.

    Args:
        goal_rule: of a game of goals: pays and ends imagined steps, which then are not learned; None to learn them.

    Raises:
        GameError: the true dynamics are asked for and the game does not offer them.
    """
    if model == "ensemble":
        reward, terminates = rules_of(goal_rule) if goal_rule is not None and spec.goal_dim else (None, None)
        networks = DynamicsEnsemble(
            spec,
            ensemble,
            streams("ensemble", "cpu"),
            reward=reward,
            terminates=terminates if spec.terminates else None,
        ).to(device)
        return LearnedWorld(networks, fit, streams("holdout"), propagation)
    if true_kernel is None:
        raise GameError(f"{spec.name!r} offers no true dynamics to imagine in; use model='ensemble'")
    return GivenWorld(true_kernel)
