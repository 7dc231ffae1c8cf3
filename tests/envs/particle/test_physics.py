from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mpe2._mpe_utils import core
from mpe2._mpe_utils.simple_env import SimpleEnv
from torch import Tensor

from presage.common.game import GameError
from presage.envs.particle import Body, Scenario, World, WorldState, game_spec
from presage.envs.particle.parity import joint_actions
from presage.envs.particle.physics import Differences, Physics, Renaming, Term
from presage.envs.particle.rules import ParticleRules
from presage.envs.particle.scenario import Before

EXACT = torch.float64


def placed(position: list[list[float]], landmarks: list[list[float]] | None = None) -> WorldState:
    """One game with silent agents at rest at `position`."""
    where = torch.tensor([position], dtype=EXACT)
    return WorldState(
        position=where,
        velocity=torch.zeros_like(where),
        landmarks=torch.tensor([landmarks or []], dtype=EXACT).reshape(1, -1, 2),
        message=torch.zeros(1, 0, 0),
        private=torch.zeros(1, 0),
    )


def advance(world: World, start: WorldState, push: list[list[float]], steps: int = 1) -> list[WorldState]:
    """The states after each of `steps` steps under one constant push per agent."""
    physics = Physics(world, device="cpu", dtype=EXACT)
    state = world.pack(start, device="cpu", dtype=EXACT)
    both_axes = torch.tensor(push, dtype=EXACT).T[:, :, None]
    states = []
    for _ in range(steps):
        state = physics.step(state, both_axes, state[:0])
        states.append(world.unpack(state))
    return states


def test_three_pushes_from_rest() -> None:
    states = advance(World(agents=(Body(name="a"),)), placed([[0.0, 0.0]]), [[1.0, 0.0]], steps=3)
    assert [s.velocity[0, 0, 0].item() for s in states] == pytest.approx([0.5, 0.875, 1.15625], abs=1e-15)
    # A step moves by the velocity before the push: the third velocity has moved nothing yet.
    assert [s.position[0, 0, 0].item() for s in states] == pytest.approx([0.0, 0.05, 0.1375], abs=1e-15)
    assert all(s.position[0, 0, 1] == 0 for s in states)


@pytest.mark.parametrize("distance", [0.05, 0.1999, 0.2, 0.2004, 0.21])
def test_contact_force_of_two_agents(distance: float) -> None:
    pair = World(agents=(Body(name="a", size=0.15), Body(name="b", size=0.05)))
    after = advance(pair, placed([[0.0, 0.0], [0.0, distance]]), [[0.0, 0.0], [0.0, 0.0]])[0]
    depth = 1e-3 * math.log1p(math.exp((0.2 - distance) / 1e-3))
    assert after.velocity[0, 1].tolist() == pytest.approx([0.0, 100.0 * depth * 0.1], abs=1e-14)
    assert after.velocity[0, 0].tolist() == pytest.approx([0.0, -100.0 * depth * 0.1], abs=1e-14)


def test_only_movable_colliding_bodies_are_pushed_apart() -> None:
    world = World(
        agents=(
            Body(name="free"),
            Body(name="fixed", movable=False),
            Body(name="ghost", collides=False),
        ),
        landmarks=(Body(name="rock", movable=False, size=0.2), Body(name="mark", movable=False, collides=False)),
    )
    start = placed([[0.0, 0.0], [0.05, 0.0], [0.01, 0.0]], [[0.0, -0.1], [0.0, 0.01]])
    after = advance(world, start, [[0.0, 0.0], [1.0, 1.0], [0.0, 0.0]])[0]
    from_fixed, from_rock = 100.0 * (0.1 - 0.05) * 0.1, 100.0 * (0.25 - 0.1) * 0.1
    assert after.velocity[0, 0].tolist() == pytest.approx([-from_fixed, from_rock], abs=1e-12)
    assert after.velocity[0, 1:].abs().max() == 0
    assert torch.equal(after.landmarks, start.landmarks)


def test_speed_limit_keeps_the_direction() -> None:
    world = World(agents=(Body(name="slow", max_speed=0.6), Body(name="fast", collides=False)))
    after = advance(world, placed([[0.0, 0.0], [5.0, 0.0]]), [[0.6, 0.8], [0.6, 0.8]], steps=4)[-1]
    assert after.velocity[0, 0].tolist() == pytest.approx([0.36, 0.48], abs=1e-14)
    assert after.velocity[0, 1].norm().item() == pytest.approx(0.5 * (1 - 0.75**4) / 0.25, abs=1e-14)


class Bare(Scenario):
    """A scenario that shows every agent its own position and pays nothing."""

    name = "bare"
    world = World(agents=(Body(name="a"),))

    def __init__(self, world: World) -> None:
        self.world = world

    def observed(self) -> tuple[tuple[Term, ...], ...]:
        return tuple(tuple(self.world.position_terms(i)) for i in range(len(self.world.agents)))

    def interchangeable(self) -> list[Renaming]:
        return []

    def draw(self, copies: int, rng: torch.Generator) -> WorldState:
        raise NotImplementedError

    def rewards(self, state: Tensor) -> Tensor:
        raise NotImplementedError

    def reconstruct(self, obs: Tensor, before: Before | None = None) -> WorldState:
        raise NotImplementedError


class Mpe2World:
    """An mpe2 environment around any bodies, without a game."""

    def __init__(self, world: World, state: WorldState, *, continuous: bool) -> None:
        self.core = core.World()
        self.core.dim_c = world.words
        for i, body in enumerate(world.agents):
            agent = core.Agent()
            agent.silent, agent.accel, agent.max_speed = body.silent, body.accel, body.max_speed
            agent.state.c = np.zeros(world.words)
            self.core.agents.append(self._entity(agent, body, state.position[0, i], state.velocity[0, i]))
        for k, body in enumerate(world.landmarks):
            place = state.landmarks[0, k]
            self.core.landmarks.append(self._entity(core.Landmark(), body, place, torch.zeros_like(place)))
        self.env: Any = SimpleEnv(self, self.core, max_cycles=100, continuous_actions=continuous)
        self.env.reset()

    def _entity(self, entity: Any, body: Body, position: Tensor, velocity: Tensor) -> Any:
        entity.name, entity.size, entity.collide, entity.movable = body.name, body.size, body.collides, body.movable
        entity.state.p_pos, entity.state.p_vel = position.numpy().copy(), velocity.numpy().copy()
        return entity

    def reset_world(self, world: Any, rng: Any) -> None:
        """Asked by mpe2; the state is already there."""

    def observation(self, agent: Any, world: Any) -> Any:
        return agent.state.p_pos

    def reward(self, agent: Any, world: Any) -> float:
        return 0.0

    def step(self, actions: list[Any]) -> WorldState:
        self.env.current_actions = actions
        self.env._execute_world_step()

        def stacked(parts: list[Any]) -> Tensor:
            return torch.tensor(np.array(parts))[None]

        agents = self.core.agents
        return WorldState(
            position=stacked([agent.state.p_pos for agent in agents]),
            velocity=stacked([agent.state.p_vel for agent in agents]),
            landmarks=stacked([landmark.state.p_pos for landmark in self.core.landmarks]),
            message=stacked([agent.state.c for agent in agents if not agent.silent]),
            private=torch.zeros(1, 0),
        )


@st.composite
def worlds(draw: st.DrawFn, *, continuous: bool) -> World:
    """Up to four different agents and three landmarks; at least one agent moves and pushes."""
    words = draw(st.integers(1, 4))
    sizes = st.floats(0.02, 0.3)
    agents = []
    for i in range(draw(st.integers(1, 4))):
        movable = draw(st.booleans()) or i == 0
        silent = draw(st.booleans()) and (movable or not continuous)  # mpe2 has no empty Box for those who do nothing
        accel, max_speed = draw(st.sampled_from([3.0, 4.0, 5.0])), draw(st.sampled_from([None, 0.5, 1.3]))
        body = Body(name=f"agent_{i}", size=draw(sizes), collides=draw(st.booleans()), movable=movable, silent=silent)
        agents.append(replace(body, accel=accel, max_speed=max_speed))
    landmarks = [
        Body(name=f"landmark_{k}", size=draw(sizes), collides=draw(st.booleans()), movable=False)
        for k in range(draw(st.integers(0, 3)))
    ]
    return World(agents=tuple(agents), landmarks=tuple(landmarks), words=words)


@pytest.mark.parametrize("continuous", [False, True])
@settings(max_examples=25)
@given(data=st.data(), seed=st.integers(0, 2**31 - 1))
def test_any_bodies_move_and_speak_as_in_mpe2(continuous: bool, data: st.DataObject, seed: int) -> None:
    world = data.draw(worlds(continuous=continuous))
    rng = torch.Generator().manual_seed(seed)
    n, k = len(world.agents), len(world.landmarks)
    movable = torch.tensor([body.movable for body in world.agents])[:, None]
    state = WorldState(
        position=torch.randn(1, n, 2, generator=rng, dtype=EXACT) * 0.2,
        velocity=torch.randn(1, n, 2, generator=rng, dtype=EXACT) * movable,
        landmarks=torch.randn(1, k, 2, generator=rng, dtype=EXACT) * 0.3,
        message=torch.zeros(1, len(world.speakers), world.words, dtype=EXACT),
        private=torch.zeros(1, 0),
    )
    bare = Bare(world)
    spec = game_spec(bare, continuous=continuous)
    rules = ParticleRules(bare, dtype=EXACT, continuous=continuous)
    reference = Mpe2World(world, state, continuous=continuous)
    assert [agent.shape or (agent.width,) for agent in spec.agents] == [
        space.shape or (space.n,) for space in reference.env.action_spaces.values()
    ]
    ours = rules.pack(state)
    for act in joint_actions(spec, seed, 3):
        chosen = spec.to_env(act.numpy())
        expected = reference.step([chosen[name] for name in spec.names])
        ours = rules.move(ours, act[None], None)
        found = world.unpack(ours)
        for part in ("position", "velocity", "message"):
            value, wanted = getattr(found, part), getattr(expected, part)
            torch.testing.assert_close(value, wanted.reshape(value.shape).to(EXACT), rtol=0, atol=1e-12, msg=part)


def test_state_survives_packing() -> None:
    world = World(
        agents=(Body(name="a"), Body(name="b", silent=False), Body(name="c", silent=False)),
        landmarks=(Body(name="k", movable=False),),
        words=4,
        private=5,
    )
    numbers = iter(torch.split(torch.arange(2 * 27, dtype=EXACT), [12, 12, 4, 16, 10]))
    shapes = {"position": (3, 2), "velocity": (3, 2), "landmarks": (1, 2), "message": (2, 4), "private": (5,)}
    parts = {part: next(numbers).reshape(2, *shape) for part, shape in shapes.items()}
    flat = world.pack(WorldState(**parts), device="cpu", dtype=EXACT)
    assert flat.shape == (28, 2)
    assert flat[-1].abs().sum() == 0
    again = world.unpack(flat)
    assert all(torch.equal(getattr(again, part), value) for part, value in parts.items())


def test_terms_name_the_rows_they_say() -> None:
    world = World(
        agents=(Body(name="a"), Body(name="b", silent=False)),
        landmarks=(Body(name="k", movable=False), Body(name="l", movable=False)),
        words=2,
        private=1,
    )
    state = WorldState(
        position=torch.tensor([[[1.0, 2.0], [3.0, 5.0]]]),
        velocity=torch.tensor([[[7.0, 11.0], [13.0, 17.0]]]),
        landmarks=torch.tensor([[[19.0, 23.0], [29.0, 31.0]]]),
        message=torch.tensor([[[37.0, 41.0]]]),
        private=torch.tensor([[43.0]]),
    )
    terms = [
        *world.position_terms(1), *world.position_terms(3, 0), *world.velocity_terms(0), *world.message_terms(0),
        *world.message_terms(1), *world.private_terms(),
    ]  # fmt: skip
    seen = Differences(terms, device="cpu")(world.pack(state, device="cpu", dtype=torch.float32))
    assert seen[:, 0].tolist() == [3, 5, 29 - 1, 31 - 2, 7, 11, 0, 0, 37, 41, 43]


def test_worlds_that_make_no_sense_are_refused() -> None:
    with pytest.raises(GameError, match="boulder"):
        World(agents=(Body(name="a"),), landmarks=(Body(name="boulder"),))
    with pytest.raises(GameError, match="orator is not silent"):
        World(agents=(Body(name="orator", silent=False),))


def test_state_of_another_world_is_refused() -> None:
    world = World(agents=(Body(name="a"), Body(name="b")))
    with pytest.raises(GameError, match=r"position has shape \(1, 1, 2\); this world needs \(1, 2, 2\)"):
        world.pack(placed([[0.0, 0.0]]), device="cpu", dtype=EXACT)
