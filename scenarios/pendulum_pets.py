"""PETS on the pendulum."""

from presage.common.cli import script
from presage.scenarios.pets_models import pets
from presage.scenarios.tasks import PENDULUM

scenario = PENDULUM.scenario(
    "pendulum_pets",
    "PETS",
    "planning in a learned model, on the pendulum",
    pets(),
    steps=2_000,
    evaluate_every=400,
    evaluation_episodes=32,
)


if __name__ == "__main__":
    script(scenario.name)
