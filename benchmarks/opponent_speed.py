"""Fitting and asking models of 1, 3 and 8 opponents: one batched bank beside a loop over one model for each.

Both sides fit categorical models of two hidden layers of 64 to 4,000 moments (18 numbers observed, 5 actions) by five
passes in batches of 256 with a held-out look after each, and draw everybody's actions at 20, 256 and 4,096 moments. The
loop is what one would write around torch: a `Sequential`, a `Categorical` and an Adam, fused, for every opponent. The
bank answers for the ego as well, which costs it one network more. Sides take turns, and medians are compared.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Categorical

from benchmarks.claims import Aim, imported, write
from presage.common.game import AgentSpec, GameSpec, Head, View
from presage.common.memory import keep_freed_memory
from presage.marl.opponents.behaviour_cloning import BehaviourCloning, BehaviourCloningConfig
from presage.marl.opponents.moments import Moments

OPPONENTS, ASKED = (1, 3, 8), (20, 256, 4_096)
MOMENTS, OBS, CHOICES, HIDDEN = 4_000, 18, 5, 64
NUMBERS = BehaviourCloningConfig(
    hidden=(HIDDEN, HIDDEN), window=MOMENTS, passes=5, patience=5, batch_size=256, entropy_bonus=0.0
)


def game_spec(agents: int) -> GameSpec:
    """Agents of the widths of spread."""
    return GameSpec(
        name="wide", obs_dim=OBS * agents,
        agents=tuple(
            AgentSpec(name=f"agent_{i}", obs=tuple(range(OBS * i, OBS * (i + 1))),
                      heads=(Head(kind="discrete", size=CHOICES),))
            for i in range(agents)
        ),
    )  # fmt: skip


def played(spec: GameSpec, count: int, rng: torch.Generator) -> Moments:
    """Moments at which everybody chose at random."""
    chosen = torch.randint(CHOICES, (count, spec.n), generator=rng)
    act = nn.functional.one_hot(chosen, CHOICES).flatten(1).float()
    return Moments(view=View.of(spec, torch.randn(count, spec.obs_dim, generator=rng)), act=act)


class Alone:
    """A model of one opponent, written by hand around torch."""

    def __init__(self) -> None:
        self.network = nn.Sequential(
            nn.Linear(OBS, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, CHOICES)
        )
        self.optimiser = torch.optim.Adam(self.network.parameters(), lr=NUMBERS.learning_rate, fused=True)
        self.mean, self.deviation = torch.zeros(OBS), torch.ones(OBS)

    def expected(self, obs: Tensor) -> Any:
        """torch's distribution, of `obs (B, O)`; its methods have no types."""
        return Categorical(logits=self.network((obs - self.mean) / self.deviation))

    def fit(self, obs: Tensor, chosen: Tensor) -> None:
        """Five passes, the weights of the best one kept."""
        self.mean, self.deviation = obs.mean(0), obs.std(0)
        order = torch.randperm(len(obs))
        held, train = order[: len(obs) // 5], order[len(obs) // 5 :]
        best, kept = float("inf"), {}
        for _ in range(NUMBERS.passes):
            for batch in torch.split(train[torch.randperm(len(train))], NUMBERS.batch_size):
                loss = -self.expected(obs[batch]).log_prob(chosen[batch]).mean()
                self.optimiser.zero_grad()
                torch.autograd.backward(loss)
                self.optimiser.step()
            with torch.no_grad():
                nll = -float(self.expected(obs[held]).log_prob(chosen[held]).mean())
            if nll < best:
                best, kept = nll, {name: value.clone() for name, value in self.network.state_dict().items()}
        self.network.load_state_dict(kept)

    @torch.no_grad()
    def answer(self, obs: Tensor) -> Tensor:
        """A drawn action for each of `obs (B, O)`, one-hot `(B, a)`."""
        return nn.functional.one_hot(self.expected(obs).sample(), CHOICES).to(obs.dtype)


def timed(call: Callable[[], object], count: int) -> float:
    """Seconds of one call, the mean of `count`."""
    start = time.perf_counter()
    for _ in range(count):
        call()
    return (time.perf_counter() - start) / count


def sides(opponents: int) -> dict[str, tuple[Callable[[], object], Callable[[], object], int]]:
    """What is timed: the bank's call, the loop's, and how often in a row."""
    spec, rng = game_spec(opponents + 1), torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    moments = played(spec, MOMENTS, rng)
    bank, alone = BehaviourCloning(spec, NUMBERS, rng, egos=(0,)), [Alone() for _ in range(opponents)]
    observed = [moments.view.obs[:, list(agent.obs)] for agent in spec.agents[1:]]
    chosen = [moments.act[:, spec.act[i]].argmax(1) for i in range(1, spec.n)]

    def loop_fit() -> None:
        for model, obs, act in zip(alone, observed, chosen, strict=True):
            model.fit(obs, act)

    def loop_answer(view: View) -> Tensor:
        own = (view.obs[:, list(agent.obs)] for agent in spec.agents[1:])
        return torch.cat([model.answer(obs) for model, obs in zip(alone, own, strict=True)], 1)

    found: dict[str, tuple[Callable[[], object], Callable[[], object], int]] = {
        "fit": (partial(bank.fit, moments, rng), loop_fit, 1)
    }
    for rows in ASKED:
        view = played(spec, rows, rng).view
        found[f"predict_{rows}"] = (partial(bank.step, None, view, rng), partial(loop_answer, view), 20)
    return found


def main() -> None:
    """Measure in turn, and keep the ratios of medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--threads", type=int, default=2, help="of torch, on both sides")
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    figures: dict[str, float] = {}
    for opponents in OPPONENTS:
        asked = sides(opponents)
        times: dict[str, tuple[list[float], list[float]]] = {what: ([], []) for what in asked}
        for round_ in range(-1, options.rounds):
            for what, (bank, loop, count) in asked.items():
                pair = timed(bank, count), timed(loop, count)
                if round_ >= 0:
                    for kept, seconds in zip(times[what], pair, strict=True):
                        kept.append(seconds)
        for what, (ours, theirs) in times.items():
            ratio = statistics.median(theirs) / statistics.median(ours)
            figures |= {f"{what}_{opponents}_ms": 1e3 * statistics.median(ours),
                        f"{what}_over_loop_{opponents}": ratio}  # fmt: skip
    most = OPPONENTS[-1]
    figures[f"batched_over_loop_{most}"] = min(
        figures[f"{what}_over_loop_{most}"] for what in ("fit", *(f"predict_{rows}" for rows in ASKED))
    )
    write(
        "opponent_speed", figures=figures, depends=imported(),
        aims={f"batched_over_loop_{most}": Aim(op=">=", value=3.0)},
        notes=f"{options.threads} threads, float32, medians of {options.rounds} rounds in turn. `x_over_loop_k` is the "
        f"loop's time over the bank's for k opponents, `batched_over_loop_{most}` the smallest of them. A fit is "
        f"{MOMENTS:,} moments in five passes, a prediction one drawn action of everybody at so many moments.",
    )  # fmt: skip


if __name__ == "__main__":
    main()
