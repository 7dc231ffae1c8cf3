"""The rollout generator: branches from real states through a model of the world, with a table of who answers.

All egos' branches are one batch, ego after ego. At step u of ego i's branches agent j is answered for by the policy
being trained, by i's model of j, or by the real opponent, as the table `(ego, agent, step)` says. Shapes stay fixed:
branches that have ended are masked, and left out only when rows are stored.

Shape suffixes: I egos, M starts of each ego, R = I M branches, N agents, H horizon.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from presage.common.answers import Answer
from presage.common.game import Actor, Carry, GameError, GameSpec, Kernel, Rows, View, Window
from presage.common.ledger import Ledger


class OpponentModels(Protocol):
    """Every ego's models of the others; rows are ego-major, equally many for each ego."""

    def init(self, window: Window) -> Carry:
        """What to remember at the start of R branches; None if memoryless."""
        ...

    def step(self, carry: Carry, view: View, rng: torch.Generator | None) -> tuple[Carry, Tensor]:
        """What each row's ego expects all agents to do, `(R, A)`; its own slice means nothing."""
        ...


@dataclass(frozen=True, kw_only=True)
class Answerers:
    """Who can speak in a rollout."""

    policy: Actor
    """the policies being trained; answers on the full batch"""
    models: OpponentModels | None = None
    """every ego's opponent models; answer on the full batch"""
    real: Actor | None = None
    """the real opponents, asked on the branches that need them; None: the policies being trained are the opponents, and
    what `policy` answered for them counts as asked"""


def branch_rollouts(
    spec: GameSpec,
    kernel: Kernel,
    answerers: Answerers,
    starts: Window,
    ego: Tensor,
    table: Tensor,
    rng: torch.Generator,
    store: Callable[[Rows, Tensor], None],
    ledger: Ledger,
) -> Tensor:
    """Imagine `H` steps from every start and hand each step's rows to `store`.

    Args:
        spec: the game. kernel: the world to imagine in.
        answerers: who can answer.
        starts: R windows that end at real states, ego-major.
        ego: (R,) whose branch each is, an index into the table; with `ALL_AGENTS` throughout, everybody answers by the
            policy, no one is asked, and `table (1, N, H)` gives the horizon alone.
        table: (I, N, H) int8 of `Answer` codes.
        rng: draws answers and outcomes.
        store: takes the rows of one step of the branches still running, and which these are, `(B,)` in 0..R-1.
        ledger: counts the queries.

    Returns:
        (H,) branches still running before each step.

    Raises:
        GameError: the table needs opponent models and there are none.
    """
    horizon = table.shape[2]
    needs_models = bool((table == Answer.MODEL.value).any())
    if needs_models and answerers.models is None:
        raise GameError("the rollout table lets opponent models answer, but there are none; pass `models`")
    together = bool((ego < 0).all())
    codes = None if together else table[ego.long()]
    kernel_carry = kernel.init(starts, ego, rng)
    policy_carry = answerers.policy.init(starts)
    models_carry = answerers.models.init(starts) if answerers.models is not None and needs_models else None
    real_carry = answerers.real.init(starts) if answerers.real is not None and not together else None
    view = starts.now
    alive = torch.ones(len(view), dtype=torch.bool, device=view.obs.device)
    everyone = torch.arange(len(view), device=view.obs.device)
    running = torch.zeros(horizon, dtype=torch.int64, device=view.obs.device)
    for u in range(horizon):
        running[u] = alive.sum()
        policy_carry, act = answerers.policy.step(policy_carry, view, rng)
        if codes is not None:
            code = codes[:, :, u]
            if answerers.models is not None and needs_models:
                models_carry, modelled = answerers.models.step(models_carry, view, rng)
                act = torch.where(_by_slice(spec, code == Answer.MODEL.value), modelled, act)
            asked = (code == Answer.REAL.value) & alive[:, None] & view.acting
            counts = torch.zeros_like(ledger.queries, device=act.device)
            ledger.add_queries(counts.index_add_(0, ego.long(), asked.to(counts.dtype)))
            if answerers.real is not None:
                real_carry, act = _ask(spec, answerers.real, real_carry, asked, view, act, rng)
        kernel_carry, outcome = kernel.step(kernel_carry, view, act, rng)
        rows = Rows.of(
            spec, view, act, outcome.reward, outcome.after, outcome.terminated, torch.zeros_like(alive),
            torch.full_like(running[:1], u).expand(len(alive)), ego,
        )  # fmt: skip
        branch = alive.nonzero().squeeze(1) if spec.terminates else everyone
        store(rows[branch] if spec.terminates else rows, branch)
        if spec.terminates:
            own = ego.long().clamp_min(0)[:, None]
            ended = outcome.terminated.all(1) if together else outcome.terminated.gather(1, own).squeeze(1)
            alive = alive & ~ended
        view = outcome.after
    return running


def _by_slice(spec: GameSpec, agents: Tensor) -> Tensor:
    """A per-agent flag `(R, N)` repeated over each agent's slice of the joint action: `(R, A)`."""
    widths = torch.tensor([agent.width for agent in spec.agents], device=agents.device)
    return agents.repeat_interleave(widths, 1)


def _ask(
    spec: GameSpec, real: Actor, carry: Carry, asked: Tensor, view: View, act: Tensor, rng: torch.Generator
) -> tuple[Carry, Tensor]:
    """Ask the real opponents where `asked (R, N)` says so, and put their answers into `act (R, A)`."""
    if carry is not None:  # opponents that remember see every step, whoever is asked
        carry, answers = real.step(carry, view, rng)
        return carry, torch.where(_by_slice(spec, asked), answers, act)
    some = asked.any(1).nonzero().squeeze(1)
    if not len(some):
        return carry, act
    _, answers = real.step(None, view[some], rng)
    return carry, act.index_copy(0, some, torch.where(_by_slice(spec, asked[some]), answers, act[some]))
