"""Fits in one call: what is divided how, that a known truth is found, and that folders give back what they got."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from presage.common import checkpoint
from presage.common.checkpoint import CheckpointError
from presage.common.configuration import ConfigError
from presage.common.game import GameError, GameSpec, View
from presage.common.streams import streams
from presage.marl.opponents import fitting
from presage.marl.opponents.assessment import Truth, assess
from presage.marl.opponents.behaviour_cloning import BehaviourCloning, BehaviourCloningConfig
from presage.marl.opponents.fitting import FAMILIES, Config, Family, Fitted, fit, load
from presage.marl.opponents.frequencies import FrequenciesConfig
from presage.marl.opponents.history_cloning import HistoryCloning, HistoryCloningConfig
from presage.marl.opponents.liam_model import LIAMModel, LIAMModelConfig
from presage.marl.opponents.liam_networks import EncodingConfig
from presage.marl.opponents.moments import Moments
from presage.marl.opponents.policies import Stated, linear
from presage.marl.opponents.record import Record
from tests.common.toy import box_agent, discrete_agent, generator
from tests.marl.sample_games import motley, random_rows

PAIR = GameSpec(
    name="pair", obs_dim=4, agents=(discrete_agent("me", (0, 1), 3), box_agent("dial", (2, 3), 1))
)  # fmt: skip
SHOWN = GameSpec(
    name="shown", obs_dim=4, agents=(discrete_agent("me", (0, 1, 2, 3), 3), box_agent("dial", (2, 3), 1))
)  # fmt: skip
"""the same, and the ego sees what the other sees"""
LONE = GameSpec(name="lone", obs_dim=2, agents=(discrete_agent("me", (0, 1), 3),))
SMALL: dict[Family, Config] = {
    "behaviour_cloning": BehaviourCloningConfig(hidden=(8,), window=1_000, passes=2, members=2, components=2),
    "history_cloning": HistoryCloningConfig(hidden=(8,), memory=6, length=3, updates=4, evaluate_every=2, batch_size=8),
    "liam": LIAMModelConfig(
        encoding=EncodingConfig(embedding=3, memory=6, hidden=(8,)), length=3, updates=4, evaluate_every=2, batch_size=8
    ),
    "frequencies": FrequenciesConfig(resolution=0.5, prior=0.5),
}


def played(actor: Stated, episodes: int, length: int, seed: int = 0, names: str = "") -> Record:
    """Episodes in which everything observed is drawn anew at every step."""
    rng, spec = generator(seed), actor.spec
    view = View.of(spec, torch.randn(episodes * length, spec.obs_dim, generator=rng))
    record = Record(spec)
    moments = Moments(view=view, act=actor.step(None, view, rng)[1])
    who = [names[k % len(names)] if names else "" for k in range(episodes)]
    record.extend_moments(moments, [length] * episodes, who=who)
    return record


def motley_record(seed: int = 0) -> Record:
    """A game of every kind of agent, in which some do not act and some choices are illegal."""
    record = Record(motley())
    record.extend_moments(Moments.of(random_rows(record.spec, 60, seed)), [6] * 10)
    return record


def small(family: Family, seed: int = 0) -> Fitted:
    return fit(motley_record(), SMALL[family], ego=1, held=0.3, seed=seed)


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_played_is_found(family: Family) -> None:
    actor = linear(SHOWN if family == "liam" else PAIR, generator(1), scale=2.0)
    record = played(actor, 60, 10)
    sees: dict[str, Any] = {"history_cloning": {"sees": "opponent", "updates": 250}, "frequencies": {"sees": "nothing"}}
    config: Any = replace(FAMILIES[family], **sees.get(family, {}))
    found = fit(record, config, ego="me", truth=actor.predicted).assessment.qualities
    blind = fit(record, FrequenciesConfig(sees="nothing"), ego="me", truth=actor.predicted).assessment.qualities
    assert [(quality.ego, quality.agent) for quality in found] == [("me", "dial")]
    assert found[0].floor == blind[0].floor, "both are judged by the same moments"
    if family == "frequencies":
        assert found == blind
    else:
        assert found[0].divergence is not None
        assert blind[0].divergence is not None
        assert found[0].divergence < 0.2 * blind[0].divergence


@pytest.mark.parametrize("family", FAMILIES)
def test_whole_episodes_are_judged_watched_and_fitted_to(family: Family, monkeypatch: pytest.MonkeyPatch) -> None:
    record, judged = motley_record(), list[torch.Tensor]()

    def spy(model: Any, record: Record, index: torch.Tensor, *, truth: Truth | None, seed: int) -> Any:
        judged.append(index)
        return assess(model, record, index, truth=truth, seed=seed)

    monkeypatch.setattr("presage.marl.opponents.fitting.assess", spy)
    found = fit(record, SMALL[family], ego=1, held=0.3)
    watched = 0 if family == "frequencies" else 6
    assert dict(found.moments) == {"fitted": 42 - watched, "watched": watched, "judged": 18}
    assert len(judged[0]) == 18
    assert sorted(record.step[judged[0]].tolist()) == sorted([*range(6)] * 3), "whole episodes"


@pytest.mark.parametrize("family", ["behaviour_cloning", "frequencies"])
def test_moments_that_a_window_leaves_out_are_not_counted(family: Family) -> None:
    config: Any = SMALL[family]
    found = fit(motley_record(), replace(config, window=20), ego=1, held=0.3)
    assert found.moments["fitted"] + found.moments["watched"] == 20


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_judged_is_not_fitted_to(family: Family) -> None:
    """Actions of judged episodes may be anything: the model stays the same, and is judged otherwise."""
    record = motley_record()
    first = fit(record, SMALL[family], ego=1, held=0.3)
    judged = record.split(0.3, streams(0)("judged"))[1]
    moments = record.moments()
    act = moments.act.clone()
    act[judged] = record.spec.random_action(moments.view.acting[judged], moments.view.legal[judged], generator(5))
    changed = Record(record.spec)
    changed.extend_moments(Moments(view=moments.view, act=act), [6] * 10)
    second = fit(changed, SMALL[family], ego=1, held=0.3)
    assert_equal_models(first.model, second.model)
    assert first.assessment.qualities != second.assessment.qualities


@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "liam"])
def test_a_lone_agent_is_judged_from_outside(family: Family) -> None:
    actor = linear(LONE, generator(1))
    found = fit(played(actor, 10, 3), SMALL[family], truth=actor.predicted).assessment.qualities
    assert [(quality.ego, quality.agent, quality.moments) for quality in found] == [("me", "me", 6)]


def test_a_lone_agent_has_nobody_to_model_from_inside() -> None:
    record = played(linear(LONE, generator(1)), 10, 3)
    with pytest.raises(GameError, match="'lone' has one agent; a model of the others needs a game of two or more"):
        fit(record, SMALL["liam"])


def test_opponents_that_were_never_met_are_judged_by() -> None:
    record = played(linear(PAIR, generator(1)), 20, 5, names="abcd")
    found = fit(record, FrequenciesConfig(), held=0.25, by="who")
    assert found.moments["judged"] == 25
    with pytest.raises(GameError, match="a split by who needs at least two of them"):
        fit(played(linear(PAIR, generator(1)), 20, 5, names="a"), FrequenciesConfig(), by="who")


def assert_equal_models(one: Any, two: Any) -> None:
    window = motley_record(seed=3).window(torch.arange(40), 4)
    ours, theirs = one.expected(window), two.expected(window)
    for a, b in zip(ours.parts, theirs.parts, strict=True):
        assert torch.equal(a.parameters, b.parameters)
        assert torch.equal(a.log_weights, b.log_weights)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_same_seed_gives_the_same_model(family: Family) -> None:
    one, two = small(family), small(family)
    assert_equal_models(one.model, two.model)
    assert one.assessment.qualities == two.assessment.qualities
    if family != "frequencies":
        with pytest.raises(AssertionError):
            assert_equal_models(one.model, small(family, seed=1).model)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_folder_gives_back_what_it_was_given(family: Family, tmp_path: Path) -> None:
    found = small(family)
    found.save(tmp_path / "kept", {"data": "here"})
    assert {path.name for path in (tmp_path / "kept").iterdir()} == {
        "model.json", "weights", "opponents.json", "opponents.png",
    }  # fmt: skip
    again = load(tmp_path / "kept")
    assert again.config == found.model.config
    assert again.ego == found.model.ego == (1,)
    assert again.spec == found.model.spec
    assert_equal_models(again, found.model)
    told = json.loads((tmp_path / "kept" / "opponents.json").read_text())
    assert told == json.loads(json.dumps(found.assessment.to_plain()))
    about = fitting.about(tmp_path / "kept")
    assert about["family"] == family
    assert about["about"] == {"data": "here"}
    assert about["moments"] == dict(found.moments)


@pytest.mark.parametrize("family", ["behaviour_cloning", "history_cloning", "liam"])
def test_a_loaded_model_goes_on_as_the_saved_one_would(family: Family, tmp_path: Path) -> None:
    found = small(family)
    found.save(tmp_path / "kept")
    again, record = load(tmp_path / "kept"), motley_record()
    for model in (found.model, again):
        if isinstance(model, BehaviourCloning):
            model.fit(record.moments(), generator(7))
        elif isinstance(model, HistoryCloning | LIAMModel):
            model.fit(record, generator(7))
    assert_equal_models(found.model, again)


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    found = small("frequencies")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "empty").mkdir()
    for name in ("full", "file"):
        with pytest.raises(CheckpointError, match="is not an empty folder; choose another with --out"):
            found.save(tmp_path / name)
    found.save(tmp_path / "empty")
    with pytest.raises(CheckpointError, match="holds a model already"):
        found.save(tmp_path / "empty")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "file", "full"]


def test_a_save_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = small("frequencies")

    def fail(*_: Any) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(type(found.assessment), "save", fail)
    with pytest.raises(OSError, match="the disk is full"):
        found.save(tmp_path / "kept")
    assert list(tmp_path.iterdir()) == []


def edited(folder: Path, **changed: Any) -> None:
    path = folder / "model.json"
    plain = json.loads(path.read_text()) | changed
    path.write_text(json.dumps({name: value for name, value in plain.items() if value is not None}))


@pytest.mark.parametrize(
    ("changed", "error", "sentence"),
    [
        ({"family": "behavior_cloning"}, ConfigError, "did you mean 'behaviour_cloning'"),
        ({"config": {"hiden": [8]}}, ConfigError, r"config\.hiden is no setting of BehaviourCloningConfig"),
        ({"config": {"hidden": [9]}}, CheckpointError, "build the learner as the saved one was built"),
        ({"ego": "nobody"}, CheckpointError, "has no agent 'nobody'"),
        ({"format": 2}, CheckpointError, "is in format 2, this presage reads format 1"),
        ({"config": None}, CheckpointError, r"lacks \['config'\]"),
    ],
)
def test_a_folder_that_was_changed_is_refused(
    changed: Any, error: type[Exception], sentence: str, tmp_path: Path
) -> None:
    small("behaviour_cloning").save(tmp_path / "kept")
    edited(tmp_path / "kept", **changed)
    with pytest.raises(error, match=sentence):
        load(tmp_path / "kept")


def test_damage_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"holds no opponent model \(model.json\)"):
        load(tmp_path)
    small("frequencies").save(tmp_path / "kept")
    weights = tmp_path / "kept" / "weights" / "tensors.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(bytes(content))
    with pytest.raises(CheckpointError, match=r"is damaged at tensors\.safetensors"):
        load(tmp_path / "kept")
    (tmp_path / "kept" / "model.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"model.json is damaged"):
        load(tmp_path / "kept")
    checkpoint.save(tmp_path / "run", {}, kind="run", version=1)
    with pytest.raises(CheckpointError, match="holds no opponent model"):
        load(tmp_path / "run")


def test_every_default_is_of_its_family() -> None:
    assert [fitting.family_of(config) for config in FAMILIES.values()] == list(FAMILIES)
    defaults = {field: getattr(BehaviourCloningConfig(), field) for field in ("hidden", "learning_rate", "members")}
    assert defaults == {field: getattr(FAMILIES["behaviour_cloning"], field) for field in defaults}
