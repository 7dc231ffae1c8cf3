"""SAC on the pendulum."""

from presage.common.cli import script
from presage.common.dyna import DynaConfig
from presage.common.mbpo import MBPOConfig
from presage.scenarios.tasks import PENDULUM

scenario = PENDULUM.scenario(
    "pendulum_sac",
    "SAC",
    "soft actor-critic on real rows alone, on the pendulum",
    MBPOConfig(loop=DynaConfig(real_share=1.0, updates_per_step=1.0, warmup_steps=500)),
)


if __name__ == "__main__":
    script(scenario.name)
