from typing import Any

import gymnasium
import pytest
import torch
from mpe2 import simple_spread_v3

from presage.common.configuration import ConfigError
from presage.common.game import GameError
from presage.common.parts import Parts, build
from presage.common.scenario import GameConfig
from presage.common.streams import streams
from tests.common.tiny_runs import MBPO, MPE, PARTICLE, scenario


@pytest.mark.parametrize(("episodes", "copies"), [(1, 1), (32, 32), (64, 64), (65, 13), (67, 1), (320, 64)])
def test_evaluation_copies_share_the_episodes_equally(episodes: int, copies: int) -> None:
    assert Parts.of(scenario()).evaluation_game(PARTICLE, episodes).copies == copies


@pytest.mark.parametrize(
    ("environment", "shared"),
    [
        (simple_spread_v3.parallel_env, False),
        (lambda: gymnasium.make("Pendulum-v1"), False),
        (simple_spread_v3.parallel_env(), True),
        (simple_spread_v3.env(), True),
        (gymnasium.make("Pendulum-v1"), True),
    ],
    ids=["function", "lambda", "parallel", "turns", "gymnasium"],
)
def test_an_environment_object_is_known_to_be_shared(environment: Any, shared: bool) -> None:
    parts = Parts.of(scenario(game=GameConfig()), environment)
    assert parts.shared == shared
    assert parts.evaluation_game(GameConfig(), 4).copies == (1 if shared else 4)


def test_names_are_looked_up_before_anything_is_made() -> None:
    with pytest.raises(ConfigError, match="no reference is called 'gredy_spread'; did you mean 'greedy_spread'"):
        Parts.of(scenario(reference="gredy_spread"))
    with pytest.raises(ConfigError, match="environment that has no name"):
        Parts.of(scenario(game=GameConfig()))


def test_a_method_that_does_not_suit_says_so() -> None:
    spec = Parts.of(scenario(game=MPE)).training_game(MPE).spec
    device = torch.device("cpu")
    with pytest.raises(GameError, match="takes one agent with box actions"):
        build(scenario(MBPO), spec, streams(0), device)
    with pytest.raises(ConfigError, match="no kernel is called 'sprad'"):
        build(scenario(kernel="sprad"), spec, streams(0), device)
