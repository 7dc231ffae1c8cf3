"""Imagining in FetchPush itself: MuJoCo, in the state that an episode's own actions have led to.

The 25 numbers of an observation leave the arm's joints open: where hand and block are seen at the same places and
speeds, the hand may be tilted differently, and pushes differently. But an episode begins with the arm where it always
begins, and from there the same actions lead to the same joints again, while the block is put where it was seen after
each of them. So the game has to declare `frames` that reach back to an episode's first observation, 51. Every episode
is played again once; its states are kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gymnasium
import mujoco
import numpy as np
import torch
from gymnasium_robotics.utils.rotations import euler2quat, mat2euler
from torch import Tensor

from presage.common.game import Carry, GameError, GameSpec, GoalRule, Outcome, View, Window
from presage.envs.actions import ActionReader

STATE = int(mujoco.mjtState.mjSTATE_PHYSICS | mujoco.mjtState.mjSTATE_WARMSTART)
"""what of MuJoCo's state the next step depends on: positions, velocities, and where its solver starts from. The body
that draws the hand is put anew in each step, and there are neither actuators nor forces from outside"""
REACH = np.float32(0.05)
"""metres that the hand is drawn by an action of 1"""
DOWN = np.array([1.0, 0.0, 1.0, 0.0])
"""the quaternion, unnormalised, that it is turned towards meanwhile"""
BLOCK, TURN, SPEED, SPIN, HAND_SPEED = (slice(at, at + 3) for at in (3, 11, 14, 17, 20))
"""of an observation: the block's place, rotation and speeds, and the hand's, from which the block's is measured"""
PLACE = slice(3, 5)
"""of an observation: where on the table the block is, all that differs between the starts of episodes"""
SAME = [0, 1, 2, 5, *range(8, 25)]
"""of an observation: what therefore is the same in all of them"""


@dataclass
class Played:
    """An episode as far as it has been played again."""

    path: np.ndarray
    """(T, A + O): what was done, in the environment's terms, and what was seen then"""
    states: list[np.ndarray]
    """T + 1 of `(S,)`: before each of them, and after the last"""


class FetchPushKernel:
    """A kernel that steps MuJoCo as FetchPush does, row after row.

    A step is the environment's to the last bit, at half its time; where a branch starts, the block is known in float32
    alone. Five steps on, hand and block are within a hundredth of a millimetre of the game's, but where a block that
    stood on its edge has fallen to the other side (`tests/envs/test_fetch_push_kernel.py`).

    The carry is MuJoCo's state `(B, S)` in float64; rewards and ends are those of the goals that are pursued. What is
    remembered of episodes saves time and changes no number.

    Args:
        spec: the game's.
        env: a FetchPush without its wrappers (`env.unwrapped`).
        rule: what its goals are worth.
        device: where the imagined rows live.
        remembered: episodes whose states are kept, the latest ones to be met; >= 1. Each takes 40 kB.

    Raises:
        GameError: the game's windows do not reach back to the start of an episode.
    """

    checkpoint_skip = ("_model", "_data", "_episodes")
    """MuJoCo's own, which every row puts in another state, and what can be played again"""

    def __init__(
        self, spec: GameSpec, env: gymnasium.Env[Any, Any], rule: GoalRule, *, device: torch.device | str = "cpu",
        remembered: int = 10_000,
    ) -> None:  # fmt: skip
        if spec.episode_limit is None or spec.frames <= spec.episode_limit:
            needed = "an episode_limit" if spec.episode_limit is None else f"frames={spec.episode_limit + 1}"
            raise GameError(
                f"{spec.name!r} has frames={spec.frames} and episode_limit={spec.episode_limit}: its windows do not "
                f"reach back to the start of every episode, from where it is imagined; give the game {needed}"
            )
        self.spec, self.rule, self.device, self.remembered = spec, rule, torch.device(device), remembered
        raw: Any = env
        self._model, self._data, self._substeps, self._per_step = raw.model, raw.data, raw.n_substeps, raw.dt
        self._start = raw.initial_time, raw.initial_qpos.copy(), raw.initial_qvel.copy()
        self._actions = ActionReader(spec)
        self._size = mujoco.mj_stateSize(self._model, STATE)
        self._hand = self._model.body("robot0:gripper_link").id
        self._sites = [self._model.site(name).id for name in ("robot0:grip", "object0")]
        fingers = [self._model.joint(f"robot0:{side}_gripper_finger_joint") for side in "rl"]
        self._fingers = [int(joint.qposadr[0]) for joint in fingers], [int(joint.dofadr[0]) for joint in fingers]
        block = self._model.joint("object0:joint")
        self._place, self._free = int(block.qposadr[0]), int(block.dofadr[0])
        self._episodes: dict[bytes, Played] = {}
        self._begin(self._start[1][self._place :][:2])
        self._first = self._seen(self._shown()[None])[0]

    def init(self, window: Window, ego: Tensor, rng: torch.Generator) -> Carry:
        """The states `(B, S)` at the windows' ends.

        Raises:
            GameError: a window does not reach back to the start of its episode.
        """
        rows, length, width = window.act.shape
        seen, valid = window.obs.cpu().numpy(), window.valid.cpu().numpy()
        acts = self._read(window.act.reshape(rows * length, width)).reshape(rows, length, width)
        path = np.concatenate([acts[:, :-1], seen[:, 1:]], axis=2)
        start = (length - valid.sum(1)).tolist()
        return torch.from_numpy(np.stack([self._state(seen[row, at], path[row, at:]) for row, at in enumerate(start)]))

    def step(self, carry: Carry, view: View, act: Tensor, rng: torch.Generator) -> tuple[Carry, Outcome]:
        """One step of all branches under `act (B, A)`; of the view, the desired goals alone are read."""
        before, shown = carry.numpy(), []
        after = np.empty_like(before)
        for row, action in enumerate(self._read(act)):
            self._put(before[row])
            self._move(action)
            mujoco.mj_getState(self._model, self._data, after[row], STATE)
            shown.append(self._shown())
        obs = torch.as_tensor(self._seen(np.stack(shown)), dtype=view.obs.dtype, device=self.device)
        arrived = View.of(self.spec, obs, desired=view.desired)
        reward, over = (told(arrived.achieved, view.desired) for told in (self.rule.reward, self.rule.terminated))
        return torch.from_numpy(after), Outcome(after=arrived, reward=reward, terminated=over)

    def _read(self, act: Tensor) -> np.ndarray:
        """Joint actions `(B, A)` in the environment's terms, float32."""
        return np.stack([action for (action,) in self._actions.read(act.cpu().numpy())])

    # ------------------------------------------------------------------ playing an episode again

    def _state(self, first: np.ndarray, path: np.ndarray) -> np.ndarray:
        """The state `(S,)` at the end of `path (T, A + O)` from the first observation `(O,)` of an episode."""
        key = first[PLACE].tobytes()
        played = self._episodes.pop(key, None)
        shared = 0 if played is None else min(len(played.path), len(path))
        if played is None or not np.array_equal(played.path[:shared], path[:shared]):
            if not np.allclose(first[SAME], self._first[SAME], atol=1e-5):
                raise GameError(
                    f"no episode of {self.spec.name!r} starts with {first.tolist()}; it can only be imagined from "
                    "windows that reach back to the start: keep whole episodes in the replay (replay_capacity)"
                )
            self._begin(first[PLACE])
            played, shared = Played(path=path[:0].copy(), states=[self._get()]), 0
        if shared < len(path):
            self._put(played.states[shared])
            for step in path[shared:]:
                self._move(step[: self.spec.act_dim])
                self._lay_block(step[self.spec.act_dim :])
                played.states.append(self._get())
            played.path = path.copy()
        self._episodes[key] = played  # as the latest one
        if len(self._episodes) > self.remembered:
            del self._episodes[next(iter(self._episodes))]
        return played.states[len(path)]

    def _begin(self, block: np.ndarray) -> None:
        """The start of an episode whose block lies at `block (2,)`, made as the environment makes it."""
        mujoco.mj_resetData(self._model, self._data)
        self._data.time, self._data.qpos[:], self._data.qvel[:] = self._start
        self._data.qpos[self._place :][:2] = block
        mujoco.mj_forward(self._model, self._data)

    def _lay_block(self, seen: np.ndarray) -> None:
        """Put the block where it is in an observation `(O,)`, with its speeds."""
        seen, data = seen.astype(np.float64), self._data
        turn = euler2quat(seen[TURN])
        data.qpos[self._place :] = np.concatenate([seen[BLOCK], turn])
        spin = np.empty(3)
        mujoco.mju_rotVecQuat(spin, seen[SPIN] / self._per_step, turn * [1.0, -1.0, -1.0, -1.0])  # in its own frame
        data.qvel[self._free :] = np.concatenate([(seen[SPEED] + seen[HAND_SPEED]) / self._per_step, spin])

    # --------------------------------------------------------------------------- one env step

    def _move(self, action: np.ndarray) -> None:
        """One env step under `action (A,)`, whose last number, for the fingers, does nothing: they are kept shut."""
        data = self._data
        data.mocap_pos[0] = data.xpos[self._hand] + action[:3].astype(np.float32) * REACH
        data.mocap_quat[0] = data.xquat[self._hand] + DOWN
        mujoco.mj_step(self._model, data, self._substeps)
        data.qpos[self._fingers[0]] = 0.0
        mujoco.mj_forward(self._model, data)

    def _put(self, state: np.ndarray) -> None:
        mujoco.mj_setState(self._model, self._data, state, STATE)
        mujoco.mj_kinematics(self._model, self._data)  # a step asks where the hand is; what else it needs it finds out

    def _get(self) -> np.ndarray:
        state = np.empty(self._size)
        mujoco.mj_getState(self._model, self._data, state, STATE)
        return state

    # ----------------------------------------------------------------------------- what is seen

    def _shown(self) -> np.ndarray:
        """All that observations are made of: `(31,)`."""
        data, speeds = self._data, np.empty((2, 6))
        for speed, site in zip(speeds, self._sites, strict=True):
            mujoco.mj_objectVelocity(self._model, data, mujoco.mjtObj.mjOBJ_SITE, site, speed, 0)
        return np.concatenate([
            data.site_xpos[self._sites].ravel(), data.qpos[self._fingers[0]], data.site_xmat[self._sites[1]],
            speeds.ravel(), data.qvel[self._fingers[1]],
        ])  # fmt: skip

    def _seen(self, shown: np.ndarray) -> np.ndarray:
        """Observations `(B, O)`; speeds are per env step, the block's relative to the hand's."""
        hand, block, fingers, turn, *speeds = np.split(shown, [3, 6, 8, 17, 20, 23, 26, 29], axis=1)
        _, hand_speed, spin, block_speed, finger_speeds = (speed * self._per_step for speed in speeds)
        return np.concatenate([
            hand, block, block - hand, fingers, mat2euler(turn.reshape(-1, 3, 3)), block_speed - hand_speed, spin,
            hand_speed, finger_speeds,
        ], axis=1)  # fmt: skip
