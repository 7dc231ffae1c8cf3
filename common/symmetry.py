"""Learning from rows under every name: what a game declares interchangeable (agents, landmarks) is exchanged at random.

A game of three agents and three landmarks that are alike has 36 ways to say the same transition. Networks that read
joint vectors do not know that; they are shown it, each row under a renaming drawn for it.

Shape suffixes: B rows, P renamings, the identity first.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from presage.common.game import ALL_AGENTS, GameSpec, Rows, Symmetry, View, Window


class Renamings(nn.Module):
    """The symmetries of a game as tables of indices on a device, the identity first among them.

    Tables say for every place after the renaming, by renaming, which place it is taken from.
    """

    obs: Tensor
    """(P, O)"""
    act: Tensor
    """(P, A)"""
    agents: Tensor
    """(P, N)"""
    goal: Tensor
    """(P, G)"""
    place: Tensor
    """(P, N) where each agent goes"""

    def __init__(self, spec: GameSpec, device: torch.device | str = "cpu") -> None:
        super().__init__()
        sizes = {"obs": spec.obs_dim, "act": spec.act_dim, "agents": spec.n, "goal": spec.goal_dim}
        everything = [Symmetry(**{name: tuple(range(size)) for name, size in sizes.items()}), *spec.symmetries]
        self.count = len(everything)
        """P"""

        for name, size in sizes.items():
            places = [getattr(symmetry, name) for symmetry in everything]
            table = torch.tensor(places, dtype=torch.long, device=device).view(self.count, size)
            self.register_buffer(name, table, persistent=False)
        self.register_buffer("place", self.agents.argsort(1), persistent=False)

    def draw(self, size: int, rng: torch.Generator) -> Tensor:
        """`(size,)` renamings, uniform."""
        return torch.randint(self.count, (size,), generator=rng, device=self.obs.device)

    def view(self, view: View, chosen: Tensor) -> View:
        """The views `(B)` under the renamings `chosen (B,)`."""
        obs, act, agents, goal = (table[chosen] for table in (self.obs, self.act, self.agents, self.goal))
        return View(
            obs=view.obs.gather(1, obs), acting=view.acting.gather(1, agents), legal=view.legal.gather(1, act),
            achieved=view.achieved.gather(1, goal), desired=view.desired.gather(1, goal),
        )  # fmt: skip

    def rows(self, rows: Rows, chosen: Tensor) -> Rows:
        """The rows `(B)` under the renamings `chosen (B,)`, in new tensors; an ego takes its new name."""
        act, agents = self.act[chosen], self.agents[chosen]
        before, after = self.view(rows.view, chosen), self.view(rows.next_view, chosen)
        known = rows.ego != ALL_AGENTS
        ego = self.place[chosen].gather(1, rows.ego.long().clamp_min(0)[:, None]).squeeze(1)
        return Rows(
            obs=before.obs, act=rows.act.gather(1, act), reward=rows.reward.gather(1, agents), next_obs=after.obs,
            acting=before.acting, next_acting=after.acting, terminated=rows.terminated.gather(1, agents),
            truncated=rows.truncated, legal=before.legal, next_legal=after.legal, achieved=before.achieved,
            next_achieved=after.achieved, desired=before.desired, step=rows.step,
            ego=torch.where(known, ego.to(rows.ego.dtype), rows.ego),
        )  # fmt: skip

    def window(self, window: Window, chosen: Tensor) -> Window:
        """The windows `(B)` under the renamings `chosen (B,)`."""
        length = window.obs.shape[1]
        obs, act = (table[chosen][:, None].expand(-1, length, -1) for table in (self.obs, self.act))
        return replace(
            window, obs=window.obs.gather(2, obs), act=window.act.gather(2, act), now=self.view(window.now, chosen)
        )
