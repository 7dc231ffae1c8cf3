"""A prey among predators who are drawn from a pool, as a game of its own."""

from __future__ import annotations

from typing import Any

from presage.common.game import GameError
from presage.envs.particle.game import ParticleGame
from presage.envs.particle.hunted import Hunted
from presage.envs.particle.hunters import Hunters, Packs
from presage.envs.particle.rules import game_spec
from presage.marl.opponents.against import Against, Draw, Hidden
from presage.marl.opponents.pools import Opponent, Pool

PREY, EPISODE_LIMIT = "agent_0", 50
TRIPLES = (
    ("farthest", "still", "prey"), ("nearest", "ahead", "still"), ("other", "prey", "farthest"),
    ("still", "still", "together"), ("ahead", "prey", "farthest"), ("together", "other", "ahead"),
    ("together", "farthest", "nearest"), ("other", "together", "other"), ("still", "other", "ahead"),
    ("prey", "ahead", "nearest"),
)  # fmt: skip
"""the rules of ten sets of predators, after the pattern of LIAM's authors, who had six trained policies among theirs"""


def pool(scenario: Hunted, episode_limit: int = EPISODE_LIMIT) -> Pool:
    """The ten."""
    spec = game_spec(scenario, episode_limit=episode_limit)
    opponents = [Opponent(name=" ".join(rules), actor=Hunters(scenario, rules)) for rules in TRIPLES]
    return Pool(spec, opponents, together=Packs(scenario, TRIPLES))


def labels(scenario: Hunted) -> Hidden:
    """Columns that tell of the predators."""
    return Hidden.of(game_spec(scenario), PREY, len(TRIPLES))


def hunted(
    copies: int, workers: int = 0, *, draw: Draw = "uniform", sight: float = Hunted.sight,
    outside: float = Hunted.outside, episode_limit: int = EPISODE_LIMIT, **options: Any,
) -> Against:  # fmt: skip
    """The prey's game; see `presage.envs.registry.make`.

    Args:
        draw: as of `presage.marl.opponents.against.Against`. sight, outside, episode_limit, options: of `Hunted` and
            `presage.envs.particle.ParticleGame`.

    Raises:
        GameError: workers are asked for.
    """
    if workers:
        raise GameError(f"pool/hunted plays all copies at once as tensors; workers={workers} must be 0")
    scenario = Hunted(sight=sight, outside=outside)
    game = ParticleGame(scenario, copies, episode_limit=episode_limit, **options)
    return Against(game, PREY, pool(scenario, episode_limit), draw=draw)
