"""PETS on the cart-pole that has to be swung up."""

from presage.common.cli import script
from presage.scenarios.pets_models import pets
from presage.scenarios.tasks import CARTPOLE

scenario = CARTPOLE.scenario(
    "cartpole_pets",
    "PETS",
    "planning in a learned model, on the cart-pole swing-up",
    pets(horizon=10, warmup_steps=100, fit_every=100),
    steps=2_000,
    evaluate_every=500,
    evaluation_episodes=32,
)


if __name__ == "__main__":
    script(scenario.name)
