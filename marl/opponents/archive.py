"""Records from NumPy archives (.npz) of one's own.

An archive holds M moments of E episodes, episode after episode. NAME is an agent's; agents come in the order in which
their observations do:

    lengths               (E,) moments of each episode: whole numbers >= 1 that sum to M
    observations/NAME     (M, ...) numbers, as they were before anybody acted
    actions/NAME          (M,) whole numbers for one choice, (M, h) for h choices at once, (M, a) numbers for a box
    choices/NAME          of whole numbers: how many there are to choose from, () or (h,); actions lie in 0..choices-1
    low/NAME, high/NAME   of numbers: (a,) bounds of the box
    acting/NAME           (M,) bool: where the agent acts; left out: in every moment
    legal/NAME            (M, choices side by side) bool; left out: everything is
    who                   (E,) text: who played the others; left out: nobody knows
    name                  () text: the game's; left out: "archive"

    numpy.savez("mine.npz", **{"lengths": lengths, "observations/red": seen, "actions/red": done, "choices/red": 5})

Nothing in a file is executed: arrays of Python objects are refused.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces

from presage.common.game import GameError
from presage.common.plugins import advice
from presage.envs.lane import Declaration
from presage.envs.observations import joint_spec
from presage.marl.opponents.record import UNKNOWN, Record

OF_EPISODES = ("lengths", "who", "name")
OF_AGENTS = ("observations", "actions", "choices", "low", "high", "acting", "legal")
"""what an archive can hold, for all and for every agent"""

Array = np.ndarray[Any, np.dtype[Any]]


def from_file(path: Path | str) -> Record:
    """What `Record.save` wrote, or an archive of one's own.

    Raises:
        GameError: the file is neither, or is damaged, or its arrays do not fit each other.
    """
    if not zipfile.is_zipfile(path):
        raise GameError(f"{path} is no NumPy archive; write one with Record.save, or with numpy.savez")
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = None if "about" in archive.files else {name: archive[name] for name in archive.files}
        return Record.load(path) if arrays is None else from_arrays(arrays)
    except GameError as error:
        raise GameError(f"{path}: {error}") from error
    except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise GameError(
            f"{path} cannot be read ({error}); write it again, as arrays of numbers, bool or text"
        ) from error


def from_arrays(arrays: Mapping[str, Any]) -> Record:
    """The episodes in arrays of the names above.

    Raises:
        GameError: an array is missing, is none of these, or does not fit the others.
    """
    given = {key: np.asarray(value) for key, value in arrays.items()}
    names = [key.removeprefix("observations/") for key in given if key.startswith("observations/")]
    known = [*OF_EPISODES, *(f"{what}/{name}" for name in names for what in OF_AGENTS)]
    strange = [key for key in given if key not in known]
    if not names or "lengths" not in given:
        raise GameError(
            f"{sorted(given)} are no episodes; give lengths, and of every agent observations/NAME and actions/NAME"
        )
    if strange:
        raise GameError(f"no array is called {strange[0]!r}; {advice(strange[0], known)}")
    lengths = _whole("lengths", given["lengths"]).reshape(-1).tolist()
    seen = {name: _observations(given, name) for name in names}
    if min(lengths, default=0) < 1 or {len(own) for own in seen.values()} != {sum(lengths)}:
        counts = {name: len(own) for name, own in seen.items()}
        raise GameError(f"lengths must be >= 1 and sum to the moments {counts}; they sum to {sum(lengths)}")
    acting, legal = (
        {name: given[f"{what}/{name}"] for name in names if f"{what}/{name}" in given} for what in ("acting", "legal")
    )
    declared = Declaration(
        name=str(given.get("name", "archive")), acting_varies=bool(acting), legal_varies=bool(legal)
    )  # fmt: skip
    agents = [
        (name, spaces.Box(-np.inf, np.inf, own.shape[1:]), _space(given, name)) for name, own in seen.items()
    ]  # fmt: skip
    record = Record(joint_spec(declared, declared.name, agents, turns=False)[0])
    who = list(map(str, given["who"].reshape(-1))) if "who" in given else UNKNOWN
    done = {name: given[f"actions/{name}"] for name in names}
    record.extend(seen, done, lengths, who=who, acting=acting, legal=legal)
    return record


def _observations(given: Mapping[str, Array], name: str) -> Array:
    """What an agent observed, `(M, O)` float32."""
    numbers = given[f"observations/{name}"]
    if numbers.dtype.kind not in "buif" or not numbers.ndim or not np.isfinite(numbers).all():
        raise GameError(
            f"observations/{name} of {numbers.dtype} and shape {numbers.shape} must be finite numbers (M, ...)"
        )
    return numbers.reshape(len(numbers), -1).astype(np.float32)


def _space(given: Mapping[str, Array], name: str) -> spaces.Space[Any]:
    """What an agent can do, with which its actions agree in kind and shape."""
    if f"actions/{name}" not in given:
        raise GameError(f"actions/{name} is missing; give what {name!r} did, or leave its observations out too")
    actions, own = given[f"actions/{name}"], [what for what in ("choices", "low", "high") if f"{what}/{name}" in given]
    if own == ["choices"]:
        counts = _whole(f"choices/{name}", given[f"choices/{name}"])
        _whole(f"actions/{name}", actions)
        if counts.ndim > 1 or actions.shape[1:] != counts.shape or counts.min(initial=1) < 1:
            raise GameError(
                f"choices/{name}={counts.tolist()} must be one number >= 1 for actions (M,), or h of them for (M, h); "
                f"actions/{name} is of shape {actions.shape}"
            )
        return spaces.MultiDiscrete(counts) if counts.ndim else spaces.Discrete(int(counts))
    if own != ["low", "high"]:
        raise GameError(
            f"agent {name!r} has {own or 'nothing'} to say what it can do; give choices/{name} for whole numbers, or "
            f"both low/{name} and high/{name} for a box"
        )
    low, high = (given[f"{what}/{name}"].astype(np.float32) for what in ("low", "high"))
    if actions.ndim != 2 or not actions.shape[1:] == low.shape == high.shape or not (low < high).all():
        raise GameError(
            f"actions/{name} of shape {actions.shape} must be (M, a), with low < high of shape (a,), got low/{name}="
            f"{low.tolist()} and high/{name}={high.tolist()}"
        )
    return spaces.Box(low, high)


def _whole(name: str, numbers: Array) -> Array:
    """`numbers`, which have to be whole."""
    if numbers.dtype.kind not in "bui":
        raise GameError(f"{name} is of {numbers.dtype}; it must hold whole numbers: {name}.astype(int)")
    return numbers.astype(np.int64)
