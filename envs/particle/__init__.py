"""Particle games of mpe2 as batched tensor code, exact to mpe2 step by step."""

if not __name__.startswith("presage."):
    raise ImportError(
        f"write `import presage.envs.particle`; the bare name {__name__!r} would load a second copy of it"
    )

from presage.envs.particle.game import ParticleGame
from presage.envs.particle.greedy import GreedySpeakerListener, GreedySpread
from presage.envs.particle.kernel import TrueKernel
from presage.envs.particle.physics import Body, World, WorldState
from presage.envs.particle.simulator import Scenario, game_spec
from presage.envs.particle.speaker_listener import SpeakerListener
from presage.envs.particle.spread import Spread

__all__ = [
    "Body",
    "GreedySpeakerListener",
    "GreedySpread",
    "ParticleGame",
    "Scenario",
    "SpeakerListener",
    "Spread",
    "TrueKernel",
    "World",
    "WorldState",
    "game_spec",
]
