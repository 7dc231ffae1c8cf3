"""PR2-AC on the max of two quadratics."""

from presage.common.cli import script
from presage.scenarios.tasks import TWO_QUADRATICS
from presage.scenarios.toy_models import pr2

scenario = TWO_QUADRATICS.scenario(
    "two_quadratics_pr2",
    "PR2-AC",
    "reactions to one's own action, reasoned out recursively, on the max of two quadratics",
    pr2(),
)


if __name__ == "__main__":
    script(scenario.name)
