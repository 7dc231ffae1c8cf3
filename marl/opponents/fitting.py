"""From a record to a judged model in one call, and models in folders of their own:

    model.json       what the model is: family, configuration, ego; what it was fitted to and judged by
    weights/         the game, and all that the model has learned: plain JSON and safetensors, with their digests
    opponents.json   how good it is on moments that it was not fitted to; opponents.png shows it

Nothing in such a folder is executed.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch

from presage.common import atomic_folder, checkpoint
from presage.common.checkpoint import CheckpointError
from presage.common.configuration import ConfigError, from_plain, to_plain
from presage.common.game import GameError, GameSpec
from presage.common.plugins import advice
from presage.common.streams import streams
from presage.marl.opponents.assessment import Assessment, Truth, assess
from presage.marl.opponents.behaviour_cloning import BehaviourCloning, BehaviourCloningConfig
from presage.marl.opponents.frequencies import Frequencies, FrequenciesConfig
from presage.marl.opponents.history_cloning import HistoryCloning, HistoryCloningConfig
from presage.marl.opponents.liam_model import LIAMModel, LIAMModelConfig
from presage.marl.opponents.record import Record

Config = BehaviourCloningConfig | HistoryCloningConfig | LIAMModelConfig | FrequenciesConfig
Model = BehaviourCloning | HistoryCloning | LIAMModel | Frequencies
Family = Literal["behaviour_cloning", "history_cloning", "liam", "frequencies"]

FAMILIES: dict[Family, Config] = {
    "behaviour_cloning": BehaviourCloningConfig(window=1_000_000_000, passes=300, patience=10),
    "history_cloning": HistoryCloningConfig(),
    "liam": LIAMModelConfig(),
    "frequencies": FrequenciesConfig(),
}
"""by name, the numbers of a fit to a whole record: of behaviour cloning more than AORPO takes while its run goes on"""

WATCHED = 0.2
"""share of the episodes to fit to by which recurrent networks are told when to stop"""

KIND, VERSION = "opponent_model", 1
MODEL_FILE, WEIGHTS = "model.json", "weights"


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """A model, and how good it is on moments that it was not fitted to."""

    model: Model
    assessment: Assessment
    moments: Mapping[str, int]
    """how many there were: "fitted" to, "watched" meanwhile so as to know when to stop, and "judged" by"""

    def save(self, folder: Path | str, about: Mapping[str, Any] | None = None) -> None:
        """Write the model and its assessment, whole or not at all.

        Args:
            folder: must not hold anything. about: plain data on where it comes from, kept in `model.json`.

        Raises:
            CheckpointError: something is there already.
        """
        plain = {
            "format": VERSION, "presage": version("presage"), "family": family_of(self.model.config),
            "ego": self.model.spec.names[self.model.ego[0]], "config": to_plain(self.model.config),
            "moments": dict(self.moments), "about": dict(about or {}),
        }  # fmt: skip
        with new_folder(folder) as writing:
            tree = {"spec": self.model.spec.to_json(), "state": self.model.state()}
            checkpoint.save(writing / WEIGHTS, tree, kind=KIND, version=VERSION)
            text = json.dumps(plain, indent=2, allow_nan=False)
            (writing / MODEL_FILE).write_text(f"{text}\n", encoding="utf-8")
            self.assessment.save(writing)


def fit(
    record: Record, config: Config | None = None, *, ego: int | str = 0, held: float = 0.2,
    by: Literal["episode", "who"] = "episode", seed: int = 0, truth: Truth | None = None,
) -> Fitted:  # fmt: skip
    """Fit one ego's model of all others, and judge it by episodes that the fit has not seen.

    The record is divided into whole episodes: those to judge by; of the rest, a share of `config.holdout`, or a fifth,
    by which networks are told when to stop; and those that are fitted to. Counts are fitted to all of the rest.

    Args:
        config: of the family to take; None: behaviour cloning as `FAMILIES` has it.
        ego: whose model. held: share of the episodes to judge by, or of those who played; in (0, 1).
        by: "who" judges by opponents that were never met. seed: of the division, the weights and the batches.
        truth: what was played, from views alone, where it is known.

    Raises:
        GameError: fewer than two episodes to judge by and to fit to, or too few moments in them; or a game of one
            agent, for LIAM, whose ego has nobody to model.
    """
    config = FAMILIES["behaviour_cloning"] if config is None else config
    stream = streams(seed)
    rest, judged = record.split(held, stream("judged"), by)
    model = _build(record.spec, config, ego, stream("weights"))
    if isinstance(config, BehaviourCloningConfig | FrequenciesConfig) and config.window is not None:
        rest = rest[-config.window :]  # all that a fit would read
    watched = rest[:0]
    if isinstance(model, Frequencies):
        model.fit(record.moments(rest))
    else:
        share = config.holdout if isinstance(config, BehaviourCloningConfig) else WATCHED
        train, watched = record.split(share, stream("watched"), index=rest)
        if isinstance(model, HistoryCloning | LIAMModel):
            model.fit(record, stream("batches"), index=train, held=watched)
        else:
            model.fit(record.moments(rest), stream("batches"), held=torch.isin(rest, watched))
    return Fitted(
        model=model, assessment=assess(model, record, judged, truth=truth, seed=seed),
        moments={"fitted": len(rest) - len(watched), "watched": len(watched), "judged": len(judged)},
    )  # fmt: skip


def load(folder: Path | str) -> Model:
    """The model that `Fitted.save` wrote, to the bit.

    Raises:
        CheckpointError: there is none, or it is damaged. ConfigError: its configuration is not one of its family.
    """
    folder = Path(folder)
    plain = about(folder)
    kind = type(FAMILIES[plain["family"]])
    tree = checkpoint.load(folder / WEIGHTS, kind=KIND, version=VERSION)
    config = from_plain(kind, plain["config"], "config")
    try:
        model = _build(GameSpec.from_json(tree["spec"]), config, plain["ego"], torch.Generator())
    except (GameError, KeyError) as error:
        raise CheckpointError(f"{folder / MODEL_FILE} does not go with {folder / WEIGHTS}: {error}") from error
    model.restore(tree["state"])
    return model


def about(folder: Path | str) -> dict[str, Any]:
    """What `model.json` in a model's folder says.

    Raises:
        CheckpointError: there is none, or it is damaged.
    """
    path = Path(folder) / MODEL_FILE
    if not path.is_file():
        raise CheckpointError(f"{folder} holds no opponent model ({MODEL_FILE}); fit one with: presage opponents fit")
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
        missing = [name for name in ("format", "family", "ego", "config", "moments", "about") if name not in plain]
    except (ValueError, TypeError) as error:
        raise CheckpointError(
            f"{path} is damaged ({error}); restore it from a backup, or fit the model again"
        ) from error
    if missing:
        raise CheckpointError(f"{path} lacks {missing}; restore it from a backup, or fit the model again")
    if plain["format"] != VERSION:
        raise CheckpointError(
            f"{path} is in format {plain['format']!r}, this presage reads format {VERSION}; load it with presage "
            f"{plain.get('presage', 'of the version that wrote it')}"
        )
    if plain["family"] not in FAMILIES:
        raise ConfigError(f"no family of models is called {plain['family']!r}; {advice(plain['family'], FAMILIES)}")
    found: dict[str, Any] = plain
    return found


def family_of(config: Config) -> Family:
    """The name of the family that a configuration is of."""
    return next(name for name, known in FAMILIES.items() if type(known) is type(config))


def require_empty(folder: Path | str) -> None:
    """Raise CheckpointError unless a model can be written to `folder`: nothing is there, or an empty folder."""
    folder = Path(folder)
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        what = "holds a model already" if (folder / MODEL_FILE).exists() else "is not an empty folder"
        raise CheckpointError(f"{folder} {what}; choose another with --out, or remove it")


@contextmanager
def new_folder(folder: Path | str) -> Iterator[Path]:
    """A hidden folder to write into, which at the end of the `with` block becomes `folder`, or is dropped on error.

    Raises:
        CheckpointError: something is at `folder` already.
    """
    require_empty(folder)
    with atomic_folder.replacing(Path(os.path.abspath(folder)), siblings=re.compile(r"(?!)")) as writing:
        yield writing


def _build(spec: GameSpec, config: Config, ego: int | str, rng: torch.Generator) -> Model:
    """A model of that family that knows nothing yet."""
    if isinstance(config, BehaviourCloningConfig):
        return BehaviourCloning(spec, config, rng, egos=(spec.index(ego),))
    if isinstance(config, HistoryCloningConfig):
        return HistoryCloning(spec, config, rng, ego=ego)
    if isinstance(config, LIAMModelConfig):
        return LIAMModel(spec, config, rng, ego=ego)
    return Frequencies(spec, config, egos=(ego,))
