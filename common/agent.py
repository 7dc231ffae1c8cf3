"""A trained run that acts: `agent = load("runs/x"); actions = agent.act(observations)`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from presage.common.devices import choose_device
from presage.common.evaluate import first_window
from presage.common.game import Actor, Carry, GameError, GameSpec, View
from presage.common.parts import build
from presage.common.run_folder import RunError, RunFolder
from presage.common.streams import streams

MASK = "action_mask"


class Agent:
    """The policies of all agents of a trained game, over the environment's own observations and actions."""

    def __init__(self, spec: GameSpec, actor: Actor, device: torch.device, env_steps: int, seed: int = 0) -> None:
        """
        Args:
            spec: the game. actor: its policies, on `device`.
            env_steps: how long they were trained. seed: of sampled actions.
        """
        self.spec, self.actor, self.device, self.env_steps = spec, actor, device, env_steps
        self._rng = torch.Generator(device=device).manual_seed(seed)
        self._carry: Carry = None
        self._rows: int | None = None

    def reset(self) -> None:
        """Forget what was seen: call it when an episode starts. Policies without memory do not need it."""
        self._rows = None

    @torch.no_grad()
    def act(self, observations: Any, *, greedy: bool = True) -> Any:
        """Actions for what every agent observes.

        Args:
            observations: by agent name, as a PettingZoo parallel environment returns them; agents that are left out
                do not act. A game of one agent takes its bare observation too. Any of them may hold several rows, the
                same number for all: then actions come in as many rows.
            greedy: the most likely actions, or samples.

        Returns:
            the environment's own actions by agent name, for those agents that were given; or the bare action.

        Raises:
            GameError: an unknown agent, or an observation that is not one of this game.
        """
        name = self.spec.names[0]
        if self.spec.n == 1 and not (isinstance(observations, Mapping) and observations.keys() <= {name}):
            return self.act({name: observations}, greedy=greedy)[name]
        view, batched = self._view(observations)
        if self._rows != len(view):
            self._carry, self._rows = self.actor.init(first_window(self.spec, view)), len(view)
        self._carry, act = self.actor.step(self._carry, view, None if greedy else self._rng)
        joint = act.cpu().numpy()
        actions = {}
        for name in observations:
            i = self.spec.index(name)
            rows = [self.spec.agents[i].to_env(row[self.spec.act[i]]) for row in joint]
            actions[name] = np.stack(rows) if batched else rows[0]
        return actions

    def _view(self, observations: Mapping[str, Any]) -> tuple[View, bool]:
        """The joint view of what is observed, and whether it came in rows."""
        if not observations:
            raise GameError(f"nobody observes anything; give observations by agent: {', '.join(self.spec.names)}")
        read = {self.spec.index(name): self._read(name, observed) for name, observed in observations.items()}
        rows = {len(columns["obs"]) for columns, _ in read.values()}
        kinds = {batched for _, batched in read.values()}
        if len(rows) > 1 or len(kinds) > 1:
            raise GameError(f"all agents must observe equally many rows, got {sorted(rows)}")
        size, spec = rows.pop(), self.spec
        joint: dict[str, np.ndarray] = {
            "obs": np.zeros((size, spec.obs_dim), dtype=np.float32),
            "desired": np.zeros((size, spec.goal_dim), dtype=np.float32),
            "legal": np.ones((size, spec.act_dim), dtype=np.bool_),
            "acting": np.zeros((size, spec.n), dtype=np.bool_),
        }
        for i, (columns, _) in read.items():
            agent = spec.agents[i]
            joint["obs"][:, list(agent.obs)] = columns["obs"]
            joint["acting"][:, i] = True
            if "desired" in columns:
                joint["desired"][:, list(agent.goal)] = columns["desired"]
            if "legal" in columns:
                joint["legal"][:, spec.act[i]] = columns["legal"]
        tensors: dict[str, Tensor] = {name: torch.from_numpy(array).to(self.device) for name, array in joint.items()}
        return View.of(spec, tensors.pop("obs"), **tensors), kinds.pop()

    def _read(self, name: str, observed: Any) -> tuple[dict[str, np.ndarray], bool]:
        """The rows of one agent's numbers, goal and action mask, and whether there were several."""
        i = self.spec.index(name)
        agent, width = self.spec.agents[i], len(self.spec.agents[i].obs)
        parts = dict(observed) if isinstance(observed, Mapping) else {"observation": observed}
        if "observation" not in parts:
            raise GameError(f"agent {name!r} observes {sorted(parts)}; give an array, or a mapping with `observation`")
        numbers, goals = np.asarray(parts["observation"], dtype=np.float32), len(agent.goal)
        apart = "achieved_goal" in parts and numbers.shape[-1:] != (width,)  # else it is among the numbers already
        appended = goals if apart and self._appends_achieved(i) else 0
        own = width - appended
        batched = numbers.ndim > 1 and (numbers.size != own or numbers.shape == (1, own))
        rows = len(numbers) if batched else 1
        if numbers.size != rows * own or not numbers.size:
            raise GameError(f"agent {name!r} observes {own} numbers, or rows of them, got shape {numbers.shape}")
        columns: dict[str, np.ndarray] = {"obs": numbers.reshape(rows, own)}
        if appended:
            achieved = np.asarray(parts["achieved_goal"], dtype=np.float32).reshape(rows, goals)
            columns["obs"] = np.concatenate([columns["obs"], achieved], axis=1)
        if goals and "desired_goal" in parts:
            columns["desired"] = np.asarray(parts["desired_goal"], dtype=np.float32).reshape(rows, goals)
        if MASK in parts:
            columns["legal"] = np.asarray(parts[MASK], dtype=np.bool_).reshape(rows, agent.width)
        return columns, batched

    def _appends_achieved(self, i: int) -> bool:
        """Whether the agent's numbers end in its achieved goal, which its environment shows apart."""
        agent = self.spec.agents[i]
        own = [self.spec.achieved[k] for k in agent.goal] if self.spec.achieved else []
        return bool(own) and own == list(agent.obs[-len(own) :])


def load(
    folder: Path | str, *, which: Literal["newest", "best"] = "newest", method: type[Any] | None = None,
    device: Literal["auto", "cpu", "cuda"] = "auto", seed: int = 0,
) -> Agent:  # fmt: skip
    """The policies of a run.

    Args:
        folder: of the run.
        which: those of its newest checkpoint, or of its best evaluation so far.
        method: the class of its method, where that is not installed under a name.
        device: where they act. seed: of sampled actions.

    Raises:
        RunError, ConfigError, CheckpointError: there is no run, or it has no intact checkpoint.
    """
    run = RunFolder(folder)
    scenario = run.scenario(method)
    tree = run.newest()
    if tree is None:
        raise RunError(f"{run.path} has no checkpoint yet; train it on with: presage resume {run.path}")
    spec = GameSpec.from_json(tree["spec"])
    place = choose_device(device)
    trainee = build(scenario, spec, streams(scenario.seed, place), place)
    trainee.policy.load_state_dict(tree["policy"] if which == "newest" else tree["best"]["policy"])
    return Agent(spec, trainee.actor, place, int(tree["env_steps"]), seed)
