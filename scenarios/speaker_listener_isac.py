"""Independent SAC on cooperative communication."""

from presage.common.cli import script
from presage.scenarios.speaker_listener_models import model_free
from presage.scenarios.tasks import SPEAKER_LISTENER

scenario = SPEAKER_LISTENER.scenario(
    "speaker_listener_isac",
    "independent SAC",
    "every agent for itself, on cooperative communication",
    model_free("own"),
)


if __name__ == "__main__":
    script(scenario.name)
