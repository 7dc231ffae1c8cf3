"""Pictures of particle games: bodies as discs, obstacles dark, words as rows of shaded cells."""

from __future__ import annotations

from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from presage.envs.particle.physics import Body, World, WorldState

SIZE = 420
"""pixels of a side"""
HALF = 1.25
"""what is seen at least: [-HALF, HALF]^2"""
OUTSIDE = 50.0
"""bodies beyond are not there, and not drawn"""
CELL = 14
"""pixels of a word's cell"""
TEAMS = ((214, 69, 65), (58, 112, 196), (52, 152, 90), (148, 94, 176), (196, 142, 46), (60, 160, 168))
"""of agents, by the stem of their names in order"""
LANDMARK, OBSTACLE = (176, 182, 190), (96, 100, 108)


def draw(world: World, state: WorldState, row: int) -> NDArray[np.uint8]:
    """One row of `state`; `(SIZE, SIZE, 3)` uint8, x to the right and y upwards."""
    places = np.concatenate([part[row].double().cpu().numpy() for part in (state.landmarks, state.position)])
    bodies: list[Body] = [*world.landmarks, *world.agents]
    there = np.abs(places).max(1) < OUTSIDE
    half = max(HALF, float(np.abs(places[there]).max(initial=0.0)) + 0.2)
    picture = np.full((SIZE, SIZE, 3), 255.0)
    axis = (np.arange(SIZE) + 0.5) / SIZE * 2.0 * half - half
    pixel = 2.0 * half / SIZE
    for body, (x, y), seen, colour in zip(bodies, places, there, _colours(world), strict=True):
        if not seen:
            continue
        distance = np.hypot(axis[None, :] - x, -axis[:, None] - y)
        for radius, shade in ((body.size + pixel, 0.6), (body.size, 1.0)):  # a rim, then the disc
            cover = np.clip((radius - distance) / pixel + 0.5, 0.0, 1.0)[:, :, None]
            picture += cover * (np.asarray(colour) * shade - picture)
    words = state.message[row].double().cpu().numpy()
    for line, word in enumerate(words):
        for place, value in enumerate(word):
            top, left = SIZE - (len(words) - line) * CELL, CELL * place
            picture[top : top + CELL - 2, left + 2 : left + CELL] = 230.0 * (1.0 - np.clip(value, 0.0, 1.0))
    return picture.round().astype(np.uint8)


def _colours(world: World) -> list[tuple[int, int, int]]:
    """Of landmarks, then of agents."""
    found = [OBSTACLE if body.collides else LANDMARK for body in world.landmarks]
    teams = groupby(world.agents, lambda body: body.name.rpartition("_")[0])
    for team, (_, bodies) in enumerate(teams):
        found += [TEAMS[team % len(TEAMS)] for _ in bodies]
    return found
