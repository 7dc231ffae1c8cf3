"""AORPO on predator and prey."""

from presage.common.cli import script
from presage.marl.aorpo import AORPOConfig
from presage.scenarios.tasks import TAG

scenario = TAG.scenario(
    "tag_aorpo",
    "AORPO",
    "learned dynamics and opponent models among opponents indeed: predators and prey",
    AORPOConfig(),
)


if __name__ == "__main__":
    script(scenario.name)
