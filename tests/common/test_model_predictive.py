"""Acting by planning: what imagined plans are worth, and closed loops against known optima."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

from presage.common.evaluate import evaluate, first_window
from presage.common.game import AgentSpec, Carry, GameError, GameSpec, Head, Outcome, View, Window
from presage.common.model_predictive import PlanningActor, imagined_returns
from presage.common.planning import CEM, ICEM, Planner, RandomShooting
from presage.envs.batched import BatchedGame, RulesKernel
from presage.envs.registry import make
from presage.envs.toy import BitFlip, LinearQuadratic

TWO = GameSpec(
    name="two",
    agents=tuple(
        AgentSpec(name=f"agent_{i}", obs=(i,), heads=(Head(kind="box", size=1),), low=(-1.0,), high=(1.0,), shape=(1,))
        for i in range(2)
    ),
    obs_dim=2, terminates=True, frames=2,
)  # fmt: skip


@dataclass
class Counting:
    """Pays both agents their action plus noise; agent 0 ends after two steps. Remembers what it was started from."""

    noise: float = 0.0
    started: list[Window] = field(default_factory=list)

    def init(self, window: Window, ego: Tensor, rng: torch.Generator) -> Carry:
        """The number of steps made."""
        self.started.append(window)
        return torch.zeros(len(ego))

    def step(self, carry: Carry, view: View, act: Tensor, rng: torch.Generator) -> tuple[Carry, Outcome]:
        """One step."""
        steps = carry + 1
        over = torch.stack([steps >= 2, torch.zeros_like(steps, dtype=torch.bool)], 1)
        reward = act + self.noise * torch.randn(act.shape, generator=rng)
        reward = torch.where(steps[:, None] > 2, torch.tensor([torch.nan, 1.0]), reward)
        return steps, Outcome(after=View.of(TWO, view.obs + 1), reward=reward, terminated=over)


def window(size: int) -> Window:
    """Episodes that begin."""
    return first_window(TWO, View.of(TWO, torch.zeros(size, 2)))


def test_returns_are_the_teams_and_end_with_whoever_ends() -> None:
    plans = torch.tensor([[[[0.5, 0.1], [0.25, 0.1], [0.9, 0.9], [0.9, 0.9]]]]).repeat(3, 5, 1, 1)
    plans[1] *= 0.5
    score = imagined_returns(TWO, Counting(), window(3), torch.Generator(), particles=2, discount=0.5)
    # Agent 0 earns two steps and then, whatever is predicted for it, nothing; agent 1 earns all four.
    first = (0.5 + 0.25 * 0.5 + 0.1 + 0.1 * 0.5 + 0.25 + 0.125) / 2
    second = (0.25 + 0.125 * 0.5 + 0.05 + 0.05 * 0.5 + 0.25 + 0.125) / 2
    expected = torch.tensor([first, second, first])[:, None].expand(3, 5)
    assert torch.allclose(score(plans), expected)


def test_risk_takes_away_deviations_of_the_particles() -> None:
    plans = torch.zeros(1, 3, 1, 2)
    kernel = Counting(noise=1.0)
    plain = imagined_returns(TWO, kernel, window(1), torch.Generator().manual_seed(0), particles=4_000)(plans)
    averse = imagined_returns(TWO, kernel, window(1), torch.Generator().manual_seed(0), particles=4_000, risk=2.0)
    assert torch.allclose(averse(plans), plain - 2.0 * 0.5**0.5, atol=0.05)
    with pytest.raises(ValueError, match="particles=1 must be >= 2"):
        imagined_returns(TWO, kernel, window(1), torch.Generator(), risk=1.0)
    with pytest.raises(ValueError, match=r"discount=1\.5"):
        imagined_returns(TWO, kernel, window(1), torch.Generator(), discount=1.5)


def test_the_kernel_is_shown_the_frames_that_it_needs() -> None:
    kernel = Counting()
    actor = PlanningActor(TWO, kernel, RandomShooting(horizon=1, population=4))
    carry = actor.init(window(1))
    acts = []
    for k in range(3):
        carry, act = actor.step(carry, View.of(TWO, torch.full((1, 2), float(k))), torch.Generator().manual_seed(k))
        acts.append(act[0])
    seen = [w[:1] for w in kernel.started]
    assert [w.obs[0, :, 0].tolist() for w in seen] == [[0.0, 0.0], [0.0, 1.0], [1.0, 2.0]]
    assert [w.valid[0].tolist() for w in seen] == [[False, True], [True, True], [True, True]]
    for k in (1, 2):
        assert torch.equal(seen[k].act[0], torch.stack([acts[k - 1], torch.zeros(2)]))


@pytest.mark.parametrize(
    "planner",
    [
        CEM(horizon=10, population=300, elites=30, iterations=8),
        ICEM(horizon=10, population=200, iterations=8, noise_exponent=0.5, shrink=1.0),
    ],
    ids=["cem", "icem"],
)
def test_a_linear_system_is_controlled_within_five_percent_of_the_formula(planner: Planner) -> None:
    rules = LinearQuadratic(noise=0.0)
    game, kernel = BatchedGame(rules, 16), RulesKernel(rules)
    actor = PlanningActor(rules.spec, kernel, planner)
    found = evaluate(game, actor, 16, 7)
    best = float(rules.optimum(game.reset(7).obs).mean())
    assert 1.05 * best < found.mean_return <= best + 1e-4
    assert evaluate(game, actor, 16, 7).mean_return == found.mean_return


def test_bits_are_flipped_as_fast_as_can_be_and_episodes_after_the_first_as_well() -> None:
    rules = BitFlip(4)
    actor = PlanningActor(rules.spec, RulesKernel(rules), CEM(horizon=4, population=300, elites=30, execute="best"))
    game = BatchedGame(rules, 8)
    found = evaluate(game, actor, 24, 3)
    view = game.reset(3)
    best = rules.optimum(view.obs, view.desired)
    assert found.mean_returns.reshape(8, 3)[:, 0].tolist() == best.tolist()
    assert found.mean_return > -2.2  # 24 episodes: half of 4 bits are wrong at first, on average


def test_games_in_which_legality_varies_are_refused() -> None:
    game = make("classic/tictactoe", 1)
    with pytest.raises(GameError, match="legal at every step"):
        PlanningActor(game.spec, Counting(), CEM())
