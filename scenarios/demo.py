"""A small run of AORPO on cooperative navigation: what `presage demo` trains."""

from presage.common.cli import script
from presage.common.dyna import DynaConfig
from presage.marl.aorpo import AORPOConfig
from presage.scenarios.tasks import SPREAD

scenario = SPREAD.scenario(
    "demo",
    "AORPO",
    "AORPO on cooperative navigation, small enough for a few minutes on two cores",
    AORPOConfig(loop=DynaConfig(updates_per_step=0.25)),
    steps=8_000,
    evaluate_every=1_000,
    checkpoint_every=2_000,
)


if __name__ == "__main__":
    script(scenario.name)
