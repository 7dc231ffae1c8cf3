import pytest
import torch

from presage.common.devices import DeviceError, GameOnDevice, choose_device
from presage.common.game import GameError, View
from presage.common.parts import Parts
from presage.common.scenario import GameConfig
from tests.common.tiny_runs import PARTICLE, scenario


def test_cuda_is_taken_where_it_is() -> None:
    there = torch.cuda.is_available()
    assert choose_device("cpu").type == "cpu"
    assert choose_device("auto").type == ("cuda" if there else "cpu")
    if not there:
        with pytest.raises(DeviceError, match="torch sees no CUDA device"):
            choose_device("cuda")


def test_rows_arrive_on_the_device() -> None:
    inner = Parts.of(scenario()).training_game(PARTICLE)
    meta = torch.device("meta")  # a device without numbers, so that whatever is left behind shows
    game = GameOnDevice(inner, meta)
    view = game.reset(0)
    everybody, everything = torch.ones(4, 2, dtype=torch.bool), torch.ones(4, inner.spec.act_dim, dtype=torch.bool)
    rows, after = game.step(inner.spec.random_action(everybody, everything, torch.Generator().manual_seed(0)))
    parts = [view.obs, view.legal, rows.obs, rows.reward, rows.step, rows.ego, after.obs, after.desired]
    assert {part.device for part in parts} == {meta}
    assert game.restore(game.state()).obs.device == meta


def test_rows_that_are_there_already_are_not_copied() -> None:
    inner = Parts.of(scenario()).training_game(PARTICLE)
    held: list[View] = []
    reset = inner.reset
    inner.reset = lambda seed: held.append(reset(seed)) or held[0]  # type: ignore[method-assign,func-returns-value] # a spy
    assert GameOnDevice(inner, torch.device("cpu")).reset(0) is held[0]


def test_a_game_draws_itself_or_says_that_it_does_not() -> None:
    drawing = GameConfig(name="mpe/simple_spread_v3", options={"render_mode": "rgb_array"})
    game = GameOnDevice(Parts.of(scenario(game=drawing)).training_game(drawing), torch.device("cpu"))
    game.reset(0)
    assert game.render(0).shape[2] == 3
    mute = GameConfig(name="toy/bit_flip")
    with pytest.raises(GameError, match="'bit_flip' does not draw itself"):
        GameOnDevice(Parts.of(scenario(game=mute)).training_game(mute), torch.device("cpu")).render(0)
