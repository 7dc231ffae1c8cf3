"""AORPO on predator and prey."""

from presage.common.cli import script
from presage.scenarios.particle_models import aorpo
from presage.scenarios.tasks import TAG

scenario = TAG.scenario(
    "tag_aorpo",
    "AORPO",
    "learned dynamics and opponent models among opponents indeed: predators and prey",
    aorpo(distances=False),
)


if __name__ == "__main__":
    script(scenario.name)
