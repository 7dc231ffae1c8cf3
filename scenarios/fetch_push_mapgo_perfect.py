"""MapGo on pushing, looking ahead in the true dynamics: the limit for every learned model.

Its numbers are those of MapGo on pushing. It imagines seven steps per env step, four of them for foresight: at half a
millisecond each they take more time than all else.
"""

from dataclasses import replace

from presage.common.cli import script
from presage.scenarios.goal_models import fetch_push_mapgo
from presage.scenarios.tasks import FETCH_PUSH

scenario = FETCH_PUSH.scenario(
    "fetch_push_mapgo_perfect",
    "MapGo, perfect model",
    "MapGo that looks ahead in the true dynamics instead of learned ones, on pushing a block",
    replace(fetch_push_mapgo(), model="true"),
    game=replace(FETCH_PUSH.game, options={"frames": 51}),
    kernel="fetch_push",
)


if __name__ == "__main__":
    script(scenario.name)
