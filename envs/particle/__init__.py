"""Particle games as batched tensor code: all of mpe2's, exact to mpe2 step by step, and some that it does not have."""

if not __name__.startswith("presage."):
    raise ImportError(
        f"write `import presage.envs.particle`; the bare name {__name__!r} would load a second copy of it"
    )

from presage.envs.particle.adversary import Adversary
from presage.envs.particle.collect_treasure import CollectTreasure
from presage.envs.particle.crypto import Crypto
from presage.envs.particle.formation import Formation
from presage.envs.particle.game import ParticleGame
from presage.envs.particle.goal_navigation import GoalNavigation
from presage.envs.particle.greedy import GreedySpeakerListener, GreedySpread
from presage.envs.particle.kernel import TrueKernel
from presage.envs.particle.line import Line
from presage.envs.particle.parallel_env import ParticleParallelEnv
from presage.envs.particle.physics import Body, World, WorldState
from presage.envs.particle.push import Push
from presage.envs.particle.reference import Reference
from presage.envs.particle.rules import game_spec
from presage.envs.particle.scenario import Scenario
from presage.envs.particle.scheduling import Scheduling
from presage.envs.particle.simple import Simple
from presage.envs.particle.speaker_listener import SpeakerListener
from presage.envs.particle.spread import Spread
from presage.envs.particle.tag import Tag
from presage.envs.particle.world_comm import WorldComm

SCENARIOS: dict[str, type[Scenario]] = {
    "adversary": Adversary,
    "collect_treasure": CollectTreasure,
    "crypto": Crypto,
    "formation": Formation,
    "goal_navigation": GoalNavigation,
    "line": Line,
    "push": Push,
    "reference": Reference,
    "scheduling": Scheduling,
    "simple": Simple,
    "speaker_listener": SpeakerListener,
    "spread": Spread,
    "tag": Tag,
    "world_comm": WorldComm,
}
"""every particle game by its name behind `particle/`"""

__all__ = [
    "SCENARIOS",
    "Adversary",
    "Body",
    "CollectTreasure",
    "Crypto",
    "Formation",
    "GoalNavigation",
    "GreedySpeakerListener",
    "GreedySpread",
    "Line",
    "ParticleGame",
    "ParticleParallelEnv",
    "Push",
    "Reference",
    "Scenario",
    "Scheduling",
    "Simple",
    "SpeakerListener",
    "Spread",
    "Tag",
    "TrueKernel",
    "World",
    "WorldComm",
    "WorldState",
    "game_spec",
]
