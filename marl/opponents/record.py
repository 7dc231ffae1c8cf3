"""What was seen and done, episode by episode: the data that opponent models are fitted to and judged by.

Data come from a loop of one's own (`Record.add`), from arrays (`Record.extend`), from a game and an actor
(`Record.play`), and from files; `presage.marl.opponents.sources` reads runs and Minari's datasets.

Shape suffixes: M moments, E episodes, T time, N agents, O observation, A action.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pettingzoo import AECEnv
from torch import Tensor

from presage.common.evaluate import play
from presage.common.game import Actor, Game, GameError, GameSpec, View, Window
from presage.envs.lane import Declaration, Moment
from presage.envs.observations import Reader, joint_spec
from presage.marl.opponents.moments import Moments

UNKNOWN = ""
"""the name of whoever played, where that was not told"""


class Record:
    """Moments in the order in which they were played, episode after episode, in memory."""

    def __init__(self, spec: GameSpec, readers: Sequence[Reader] | None = None) -> None:
        """
        Args:
            spec: the game. readers: of what each agent is shown; needed by `add` alone, see `of`.
        """
        self.spec, self._readers = spec, readers
        self.names: list[str] = [UNKNOWN]
        """who ever played the others; `who` counts in it"""
        self._parts: list[dict[str, Tensor]] = []
        self._episodes = 0
        self._open = 0
        """moments of the episode that `add` has begun"""

    @classmethod
    def of(cls, env: Any, **declared: Any) -> Record:
        """An empty record of a PettingZoo or Gymnasium environment.

        Args:
            declared: fields of `presage.envs.lane.Declaration`.

        Raises:
            GameError: for spaces that are not supported.
        """
        turns = isinstance(env, AECEnv)
        if hasattr(env, "possible_agents"):
            agents = [(name, env.observation_space(name), env.action_space(name)) for name in env.possible_agents]
        else:
            agents = [("agent", env.observation_space, env.action_space)]
        spec, readers = joint_spec(Declaration(**declared), type(env).__name__, agents, turns=turns)
        return cls(spec, readers)

    # ----------------------------------------------------------------- what comes in

    def add(
        self, observations: Mapping[str, Any], actions: Mapping[str, Any], *, over: bool = False, who: str = UNKNOWN
    ) -> None:
        """One env step of a loop of one's own.

        Args:
            observations: by agent name, as they were *before* the step; a Gymnasium environment's agent is "agent".
            actions: by agent name; whoever is missing did not act.
            over: whether the step ended the episode.
            who: played the others, if that is known: models never see it.

        Raises:
            GameError: an observation or action that does not fit its space, or a record that was not made by `of`.
        """
        spec = self.spec
        if self._readers is None:
            raise GameError("this record has no spaces to read observations by; make it with Record.of(env)")
        moment = Moment.blank(spec, 1)
        for name, observation in observations.items():
            reader = self._readers[spec.index(name)]
            reader.read(observation, moment, 0)
            if name in actions:
                moment.acting[0, spec.index(name)] = True
                reader.read_mask(observation, None, moment, 0)
        blind = actions.keys() - observations.keys()
        if blind:
            raise GameError(f"agents {sorted(blind)} acted without an observation; give those of the same env step")
        self._append(
            {
                "obs": torch.from_numpy(moment.obs), "act": torch.from_numpy(spec.from_env(actions))[None],
                "acting": torch.from_numpy(moment.acting), "legal": torch.from_numpy(moment.legal),
                "desired": torch.from_numpy(moment.desired),
            },
            torch.tensor([self._open]), self._number(who),
        )  # fmt: skip
        self._open = 0 if over else self._open + 1
        self._episodes += over

    def extend(
        self, observations: Mapping[str, Any], actions: Mapping[str, Any], lengths: Sequence[int], *,
        who: Sequence[str] | str = UNKNOWN, acting: Mapping[str, Any] | None = None,
        legal: Mapping[str, Any] | None = None,
    ) -> None:  # fmt: skip
        """Whole episodes as arrays.

        Args:
            observations: by agent name `(M, O_i)`, flat, episode after episode.
            actions: by agent name, in the environment's own terms, `(M, ...)`.
            lengths: (E) of the episodes; they sum to M. who: for every episode, or for all.
            acting: by agent name `(M,)` bool: where an agent acts; its action is not read elsewhere. Everywhere where
                left out. legal: by agent name `(M, a)` bool: entries of its one-hot action; all where left out.

        Raises:
            GameError: arrays that do not fit the game or each other.
        """
        spec, size = self.spec, sum(lengths)
        obs, act = torch.zeros(size, spec.obs_dim), torch.zeros(size, spec.act_dim)
        acts, allowed = torch.zeros(size, spec.n, dtype=torch.bool), torch.ones(size, spec.act_dim, dtype=torch.bool)
        for what, flags, varies in (("acting", acting, spec.acting_varies), ("legal", legal, spec.legal_varies)):
            if flags and not varies:
                raise GameError(
                    f"{what} of {sorted(flags)} was given, but {spec.name!r} declares {what}_varies=False; make the "
                    f"record with Record.of(env, {what}_varies=True)"
                )
        if observations.keys() != actions.keys():
            raise GameError(f"observations of {sorted(observations)}, but actions of {sorted(actions)}; give both")
        for name in observations:
            i = spec.index(name)
            numbers = np.asarray(observations[name], dtype=np.float32)
            wanted = (size, len(spec.agents[i].obs))
            if numbers.shape != wanted or len(actions[name]) != size:
                raise GameError(
                    f"agent {name!r}: observations of shape {numbers.shape} and {len(actions[name])} actions; "
                    f"lengths={list(lengths)} ask for {wanted} and {size}"
                )
            obs[:, list(spec.agents[i].obs)] = torch.from_numpy(numbers)
            acts[:, i] = self._flags("acting", acting, name, (size,))
            allowed[:, spec.act[i]] = self._flags("legal", legal, name, (size, spec.agents[i].width))
            rows = acts[:, i].nonzero().squeeze(1)
            slices = [spec.agents[i].from_env(actions[name][row]) for row in rows.tolist()]
            if slices:
                act[rows, spec.act[i]] = torch.from_numpy(np.stack(slices))
            own = act[:, spec.act[i]]
            wrong = ~(own.abs() <= 1 + 1e-6) | (own != 0) & ~allowed[:, spec.act[i]]
            if bool(wrong.any()):
                row = int(wrong.any(1).nonzero()[0])
                did, space = np.asarray(actions[name][row]).tolist(), spec.agents[i].space
                raise GameError(f"agent {name!r} did {did} in moment {row}, which is illegal then, or outside {space}")
        view = View.of(spec, obs, acting=acts, legal=allowed)
        self.extend_moments(Moments(view=view, act=act), lengths, who=who)

    def _flags(self, what: str, given: Mapping[str, Any] | None, name: str, shape: tuple[int, ...]) -> Tensor:
        """An agent's flags of that shape, all true where none are given."""
        if given is None or name not in given:
            return torch.ones(shape, dtype=torch.bool)
        flags = np.asarray(given[name])
        if flags.shape != shape or flags.dtype != np.bool_:
            raise GameError(f"{what} of agent {name!r} must be bool of shape {shape}, got {flags.dtype} {flags.shape}")
        return torch.from_numpy(flags.copy())

    def extend_moments(self, moments: Moments, lengths: Sequence[int], *, who: Sequence[str] | str = UNKNOWN) -> None:
        """Whole episodes of joint rows.

        Raises:
            GameError: lengths that do not sum to as many moments, an episode that `add` began and did not end, or
                actions that are none of the game's.
        """
        if sum(lengths) != len(moments) or min(lengths, default=1) < 1:
            raise GameError(f"lengths={list(lengths)} must be >= 1 and sum to the {len(moments)} moments")
        names = [who] * len(lengths) if isinstance(who, str) else list(who)
        if len(names) != len(lengths):
            raise GameError(f"{len(names)} names for {len(lengths)} episodes; give one each, or one for all")
        if self._open:
            raise GameError(f"an episode of {self._open} moments is open; end it with add(..., over=True) first")
        self.spec.check_action(moments.act, moments.view.acting)
        view, start = moments.view, 0
        for length, name in zip(lengths, names, strict=True):
            part = slice(start, start + length)
            self._append(
                {"obs": view.obs[part], "act": moments.act[part], "acting": view.acting[part],
                 "legal": view.legal[part], "desired": view.desired[part]},
                torch.arange(length), self._number(name),
            )  # fmt: skip
            self._episodes += 1
            start += length

    def play(
        self, game: Game, actor: Actor, episodes: int, seed: int, *, rng: torch.Generator | None = None,
        who: str = UNKNOWN,
    ) -> None:  # fmt: skip
        """Episodes of a game under an actor, as many from every copy.

        Args:
            episodes: E, a multiple of the game's copies. seed: of the game. rng: of sampled actions; None: greedy ones.

        Raises:
            GameError: another game, or copies that cannot share the episodes evenly.
        """
        if game.spec != self.spec or episodes % game.copies:
            raise GameError(
                f"{game.copies} copies of {game.spec.name!r} cannot give {episodes} episodes to a record of "
                f"{self.spec.name!r}; take the same game, and a multiple of its copies"
            )
        each, steps, ends = episodes // game.copies, list[Moments](), list[np.ndarray[Any, np.dtype[np.bool_]]]()
        for rows, over in play(game, actor, seed, rng):
            steps.append(Moments.of(rows.to("cpu")))
            ends.append(over)
            if min(np.sum(ends, 0)) >= each:
                break
        view = View(**{f.name: torch.cat([getattr(m.view, f.name) for m in steps]) for f in fields(View)})
        played = Moments(view=view, act=torch.cat([moments.act for moments in steps]))
        for copy in range(game.copies):
            lengths = np.diff(np.flatnonzero(np.stack(ends)[:, copy])[:each], prepend=-1).tolist()
            own = torch.arange(sum(lengths)) * game.copies + copy
            self.extend_moments(played[own], lengths, who=who)

    def _append(self, part: dict[str, Tensor], step: Tensor, who: int) -> None:
        size = len(step)
        part |= {
            "step": step, "episode": torch.full((size,), self._episodes), "who": torch.full((size,), who),
        }  # fmt: skip
        self._parts.append(part)

    def _number(self, who: str) -> int:
        if who not in self.names:
            self.names.append(who)
        return self.names.index(who)

    # ----------------------------------------------------------------- what is asked of it

    def __len__(self) -> int:
        return sum(len(part["step"]) for part in self._parts)

    def _columns(self) -> dict[str, Tensor]:
        """Every column in one piece."""
        if not self._parts:
            raise GameError("nothing has been recorded yet; add, extend or play first")
        if len(self._parts) > 1:
            self._parts = [{name: torch.cat([part[name] for part in self._parts]) for name in self._parts[0]}]
        return self._parts[0]

    @property
    def episode(self) -> Tensor:
        """(M,) int64: the number of each moment's episode."""
        return self._columns()["episode"]

    @property
    def step(self) -> Tensor:
        """(M,) int64: moments of its episode before each one."""
        return self._columns()["step"]

    @property
    def who(self) -> Tensor:
        """(M,) int64: who played the others, as a place in `names`; for splits and for judging alone."""
        return self._columns()["who"]

    def moments(self, index: Tensor | slice = slice(None)) -> Moments:
        """The moments at `index`, all in order by default."""
        columns = self._columns()
        given = {name: columns[name][index] for name in ("acting", "legal", "desired")}
        return Moments(view=View.of(self.spec, columns["obs"][index], **given), act=columns["act"][index])

    def window(self, index: Tensor, length: int) -> Window:
        """The last `length` views up to the moments at `index (B,)`, never across the start of an episode, as
        `presage.common.replay.Replay.window` has them.
        """
        if length < 1:
            raise GameError(f"a window shows at least one view, got length={length}")
        columns = self._columns()
        back = torch.arange(length - 1, -1, -1)
        known = columns["step"][index][:, None]
        at = index[:, None] - torch.minimum(back, known)
        valid = back <= known
        chosen = valid.clone()
        chosen[:, -1] = False
        return Window(
            obs=columns["obs"][at], act=columns["act"][at] * chosen[..., None], valid=valid,
            now=self.moments(index).view,
        )  # fmt: skip

    def split(
        self, share: float, rng: torch.Generator, by: Literal["episode", "who"] = "episode", *,
        index: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """Moments to fit to and moments to judge by, `(M_1,)` and `(M_2,)`, in order: no episode, or nobody who played,
        is among both.

        Args:
            share: of the episodes, or of those who played, that go to the second; in (0, 1).
            index: the moments to share out, in order; all of them when None.

        Raises:
            GameError: fewer than two of them.
        """
        if not 0 < share < 1:
            raise ValueError(f"share={share} must lie in (0, 1)")
        index = torch.arange(len(self)) if index is None else index
        label = self._columns()[by][index]
        kinds = torch.tensor(sorted(set(label.tolist())))
        if len(kinds) < 2:
            raise GameError(f"a split by {by} needs at least two of them, got {len(kinds)}; record more, or split rows")
        second = max(1, min(len(kinds) - 1, round(share * len(kinds))))
        chosen = kinds[torch.randperm(len(kinds), generator=rng)[:second]]
        apart = torch.isin(label, chosen)
        return index[~apart], index[apart]

    # ----------------------------------------------------------------- files

    def save(self, path: Path | str) -> None:
        """Write a NumPy archive, whole or not at all."""
        path = Path(path)
        about = json.dumps({"spec": self.spec.to_json(), "names": self.names})
        draft = path.with_name(f".{path.name}.partial.npz")
        columns: dict[str, Any] = {name: column.numpy() for name, column in self._columns().items()}
        np.savez_compressed(draft, about=about, **columns)
        draft.replace(path)

    @classmethod
    def load(cls, path: Path | str) -> Record:
        """The record that `save` wrote.

        Raises:
            GameError: the file is none.
        """
        with np.load(path, allow_pickle=False) as archive:
            if "about" not in archive.files:
                raise GameError(f"{path} holds {sorted(archive.files)}, which Record.save did not write")
            about = json.loads(str(archive["about"]))
            columns = {name: torch.from_numpy(archive[name]) for name in archive.files if name != "about"}
        found = cls(GameSpec.from_json(about["spec"]))
        found.names, found._parts = list(about["names"]), [columns]
        found._episodes = int(columns["episode"].amax()) + 1
        return found
