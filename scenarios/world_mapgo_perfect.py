"""MapGo in its 2D world, looking ahead in the world itself."""

from presage.common.cli import script
from presage.scenarios.goal_models import world_mapgo
from presage.scenarios.tasks import WORLD

scenario = WORLD.scenario(
    "world_mapgo_perfect",
    "MapGo, perfect model",
    "MapGo that looks ahead in the true world instead of a learned one",
    world_mapgo(model="true"),
)


if __name__ == "__main__":
    script(scenario.name)
