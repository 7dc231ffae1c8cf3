"""MADDPG with inferred policies on cooperative communication."""

from presage.common.cli import script
from presage.scenarios.maddpg_models import maddpg
from presage.scenarios.speaker_listener_models import WARMUP
from presage.scenarios.tasks import SPEAKER_LISTENER

scenario = SPEAKER_LISTENER.scenario(
    "speaker_listener_maddpg_inferred",
    "MADDPG, inferred policies",
    "deterministic policies with joint critics that infer the others' policies, on cooperative communication",
    maddpg("inferred", warmup=WARMUP),
)


if __name__ == "__main__":
    script(scenario.name)
