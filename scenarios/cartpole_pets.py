"""PETS on the cart-pole that has to be swung up; what it pays is given, as in the paper."""

from dataclasses import replace

from presage.common.cli import script
from presage.scenarios.pets_models import pets
from presage.scenarios.tasks import CARTPOLE

scenario = CARTPOLE.scenario(
    "cartpole_pets",
    "PETS",
    "planning in a learned model, on the cart-pole swing-up",
    replace(pets(horizon=10, warmup_steps=100, fit_every=100), rewards="given"),
    steps=2_000,
    evaluate_every=500,
    evaluation_episodes=32,
)


if __name__ == "__main__":
    script(scenario.name)
