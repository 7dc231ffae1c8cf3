"""mpe2 itself, one game at a time, with its world's state written and read in float64, to hold our games against.

mpe2 rounds what it shows to float32; here its scenarios are asked before that.
"""

from __future__ import annotations

import importlib
from dataclasses import fields, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from presage.common.game import GameSpec
from presage.envs.particle import (
    Adversary,
    CollectTreasure,
    Crypto,
    Formation,
    Line,
    Push,
    Reference,
    Scenario,
    Simple,
    SpeakerListener,
    Spread,
    Tag,
    WorldComm,
    WorldState,
)

Floats = NDArray[np.float64]

SCENARIOS: tuple[Scenario, ...] = (
    Simple(),
    Spread(),
    Spread(agents=2, local_ratio=0.0),
    Spread(agents=5, local_ratio=0.8),
    SpeakerListener(),
    Tag(),
    Tag(good=2, adversaries=4, obstacles=1, terminate_on_success=True),
    Adversary(),
    Adversary(good=3),
    Push(),
    Crypto(),
    Reference(),
    Reference(local_ratio=0.9),
    WorldComm(),
    WorldComm(good=1, adversaries=2, obstacles=2, food=1, forests=3),
    Formation(),
    Formation(agents=3, terminate_on_success=True),
    Line(),
    Line(agents=6, terminate_on_success=True),
    CollectTreasure(),
    CollectTreasure(collectors=3, deposits=3, treasures=2),
)
"""what is compared with mpe2"""

MPE2 = {
    Simple: "simple_v3", Spread: "simple_spread_v3", SpeakerListener: "simple_speaker_listener_v4",
    Tag: "simple_tag_v3", Adversary: "simple_adversary_v3", Push: "simple_push_v3", Crypto: "simple_crypto_v3",
    Reference: "simple_reference_v3", WorldComm: "simple_world_comm_v3", Formation: "simple_formation_v1",
    Line: "simple_line_v1", CollectTreasure: "collect_treasure_v1",
}  # fmt: skip
"""the environment that a scenario is equal to"""

OPTIONS = {
    "agents": "N", "good": "num_good", "adversaries": "num_adversaries", "obstacles": "num_obstacles",
    "food": "num_food", "forests": "num_forests", "collectors": "num_collectors", "deposits": "num_deposits",
    "treasures": "num_treasures",
}  # fmt: skip
"""mpe2's names for fields of scenarios, where they differ"""


def named(scenario: Scenario) -> str:
    """A readable test id."""
    return f"{scenario.name}{len(scenario.world.agents)}"


def options(scenario: Scenario) -> dict[str, Any]:
    """What mpe2's environment is made with to be the same game."""
    given = {field.name: getattr(scenario, field.name) for field in fields(scenario)}  # type: ignore[arg-type]  # scenarios are dataclasses
    if isinstance(scenario, Adversary):
        return {"N": scenario.good}
    return {OPTIONS.get(name, name): value for name, value in given.items() if name not in ("reward", "prey_speed")}


class Chances:
    """Stands in for mpe2's generator inside a step: gives the numbers that our step took.

    mpe2 asks for them treasure by treasure, in the order of the landmarks that are about to appear.
    """

    def __init__(self, scenario: CollectTreasure) -> None:
        self._scenario = scenario
        self.numbers = np.zeros(scenario.chances)
        self.treasure = 0

    def uniform(self, low: float = 0.0, high: float = 1.0, size: int | None = None) -> Any:
        """A coin, which always falls so that a treasure appears; or where it does."""
        places = self.numbers[: 2 * self._scenario.treasures].reshape(-1, 2) * 2.0 - 1.0
        return 0.0 if size is None else places[self.treasure] * high

    def integers(self, low: int, high: int) -> int:
        """The type of a treasure that appears."""
        return int(self.numbers[2 * self._scenario.treasures + self.treasure] * high)

    def follow(self, landmarks: list[Any]) -> None:
        """Be told by a treasure which one it is when mpe2 looks whether it appears."""
        chances = self

        class Telling(type(landmarks[0])):  # type: ignore[misc]  # mpe2's own class
            """A treasure that tells its number."""

            @property
            def respawn_prob(self) -> float:
                chances.treasure = self.number
                return 1.0

            @respawn_prob.setter
            def respawn_prob(self, value: float) -> None:
                raise AssertionError("mpe2 changes no probability")

        for number, landmark in enumerate(landmarks):
            landmark.__class__, landmark.number = Telling, number


class Mpe2Game:
    """One mpe2 parallel environment of a scenario."""

    def __init__(self, scenario: Scenario, *, continuous: bool = False) -> None:
        self.scenario = scenario
        module = importlib.import_module(f"mpe2.{MPE2[type(scenario)]}")
        self.env: Any = module.parallel_env(continuous_actions=continuous, **options(scenario))
        self.env.reset(seed=0)
        self.raw: Any = self.env.unwrapped
        self.world: Any = self.raw.world
        if isinstance(scenario, CollectTreasure):
            self._chances = Chances(scenario)
            self._chances.follow(self.world.landmarks)

    def write(self, state: WorldState, row: int) -> None:
        """Overwrite the world's state with one row of `state`, and begin an episode there."""
        self.env.reset(seed=0)
        world = self.world
        for i, agent in enumerate(world.agents):
            agent.state.p_pos = state.position[row, i].double().numpy().copy()
            agent.state.p_vel = state.velocity[row, i].double().numpy().copy()
        for k, landmark in enumerate(world.landmarks):
            landmark.state.p_pos = state.landmarks[row, k].double().numpy().copy()
        speakers = [agent for agent in world.agents if not agent.silent]
        for s, agent in enumerate(speakers):
            agent.state.c = state.message[row, s].double().numpy().copy()
        self._write_private(state.private[row].double().numpy(), state.landmarks[row].double().numpy())

    def _write_private(self, own: Floats, landmarks: Floats) -> None:
        """Overwrite what the scenario keeps of its own."""
        world, scenario = self.world, self.scenario
        if isinstance(scenario, SpeakerListener):
            for agent in world.agents:
                agent.goal_b = world.landmarks[int(own.argmax())]
        elif isinstance(scenario, Adversary | Push):
            goal = int(np.abs(landmarks - own[:2]).sum(1).argmin())
            for agent in world.agents:
                agent.goal_a = world.landmarks[goal]
            if isinstance(scenario, Push):
                world.agents[1].color = own[2:5].copy()
        elif isinstance(scenario, Crypto):
            message, key = (world.landmarks[int(part.argmax())] for part in (own[:4], own[4:]))
            world.agents[1].color, world.agents[2].key = message.color, key.color
            for agent in world.agents:
                agent.goal_a = message
        elif isinstance(scenario, Reference):
            for i, agent in enumerate(world.agents):
                agent.goal_b = world.landmarks[int(own[3 * i : 3 * i + 3].argmax())]
        elif isinstance(scenario, Line):
            way = (landmarks[1] - landmarks[0]) / max(scenario.agents - 1, 1)
            self.raw.scenario._expected_positions = [landmarks[0] + i * way for i in range(scenario.agents)]
        elif isinstance(scenario, CollectTreasure):
            self._write_treasures(scenario, own)

    def _write_treasures(self, scenario: CollectTreasure, own: Floats) -> None:
        c, p, k = scenario.collectors, scenario.deposits, scenario.treasures
        carried, kinds = own[: c * p].reshape(c, p), own[c * p : (c + k) * p].reshape(k, p)
        for agent, held in zip(self.world.agents, carried, strict=False):
            agent.holding = int(held.argmax()) if held.any() else None
        for landmark, kind in zip(self.world.landmarks, kinds, strict=True):
            landmark.alive, landmark.type = bool(kind.any()), int(kind.argmax())

    def observation(self) -> Floats:
        """The joint observation `(O,)` before mpe2 rounds it to float32."""
        seen = [self.raw.scenario.observation(agent, self.world) for agent in self.world.agents]
        return np.concatenate(seen).astype(np.float64)

    def step(self, spec: GameSpec, act: Tensor, chance: Tensor | None = None) -> tuple[Floats, Floats, bool, bool]:
        """Play one joint action `(A,)`: next observation, rewards `(N,)`, whether it was terminated, truncated.

        Args:
            chance: `(U,)` the numbers that stand in for mpe2's draws inside a step.
        """
        if chance is not None:
            self._chances.numbers = chance.numpy()
            self.world._np_random = self._chances
        _, rewards, terminations, truncations, _ = self.env.step(spec.to_env(act.numpy()))
        assert len(set(terminations.values())) == len(set(truncations.values())) == 1
        paid = np.array([rewards[name] for name in spec.names], dtype=np.float64)
        return self.observation(), paid, terminations[spec.names[0]], truncations[spec.names[0]]


def world_state(scenario: Scenario, seed: int, rows: int, *, spread: float) -> WorldState:
    """Random float64 states in the middle of play: agents within `spread` of the middle, moving, having spoken."""
    rng = torch.Generator().manual_seed(seed)
    start = scenario.draw(rows, rng)

    def noise(like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=rng, dtype=torch.float64)

    movable = torch.tensor([body.movable for body in scenario.world.agents])[:, None]
    state = replace(
        start, position=start.position * spread, velocity=noise(start.velocity) * movable, message=noise(start.message)
    )
    return _busy(scenario, state, rng) if isinstance(scenario, CollectTreasure) else state


def mixed_states(scenario: Scenario, seed: int, rows: int) -> WorldState:
    """Random states, half of which crowd the agents, so that most of them are in contact."""
    crowded, apart = (world_state(scenario, seed, rows, spread=spread) for spread in (0.2, 1.0))
    half = rows // 2
    parts = {f.name: torch.cat([getattr(crowded, f.name)[:half], getattr(apart, f.name)[half:]]) for f in fields(apart)}
    return WorldState(**parts)


def _busy(scenario: CollectTreasure, state: WorldState, rng: torch.Generator) -> WorldState:
    """Half of the collectors carry something, a quarter of the treasures are gone."""
    c, p, k = scenario.collectors, scenario.deposits, scenario.treasures
    rows = len(state.position)
    carried = torch.nn.functional.one_hot(torch.randint(p, (rows, c), generator=rng), p).double()
    carried *= (torch.rand(rows, c, 1, generator=rng) < 0.5).double()
    gone = torch.rand(rows, k, 1, generator=rng) < 0.25
    kinds = state.private[:, c * p : (c + k) * p].reshape(rows, k, p).masked_fill(gone, 0.0)
    private = torch.cat([carried.flatten(1), kinds.flatten(1), torch.zeros(rows, 2, dtype=torch.float64)], 1)
    return replace(state, landmarks=state.landmarks.masked_fill(gone, -999.0), private=private)


def joint_actions(spec: GameSpec, seed: int, rows: int) -> Tensor:
    """Random joint actions `(rows, A)`."""
    everyone, everything = torch.ones(rows, spec.n, dtype=torch.bool), torch.ones(rows, spec.act_dim, dtype=torch.bool)
    return spec.random_action(everyone, everything, torch.Generator().manual_seed(seed))
