"""Model the opponents that a learner of Stable-Baselines3 meets, in its callback."""

import gymnasium
import numpy as np
from mpe2 import simple_tag_v3
from stable_baselines3 import DQN
from stable_baselines3.common.callbacks import BaseCallback

from presage.marl.opponents.fitting import fit
from presage.marl.opponents.record import Record


class Prey(gymnasium.Env):
    """The seat of the prey; the predators go where they see it, or anywhere one time in five."""

    def __init__(self):
        self.game, self.rng = simple_tag_v3.parallel_env(), np.random.default_rng(0)
        self.observation_space = self.game.observation_space("agent_0")
        self.action_space = self.game.action_space("agent_0")

    def reset(self, *, seed=None, options=None):
        self.seen, _ = self.game.reset(seed=seed)
        return self.seen["agent_0"], {}

    def step(self, action):
        actions = {name: self.chase(self.seen[name]) for name in self.game.agents} | {"agent_0": int(action)}
        before, (self.seen, paid, ends, cuts, _) = self.seen, self.game.step(actions)
        return (
            self.seen["agent_0"],
            paid["agent_0"],
            ends["agent_0"],
            cuts["agent_0"],
            {"seen": before, "done": actions},
        )

    def chase(self, seen):
        x, y = seen[12:14]  # the way to the prey, in what a predator sees
        wish = 1 + (x > 0) if abs(x) > abs(y) else 3 + (y > 0)
        return int(wish if self.rng.random() > 0.2 else self.rng.integers(5))


class ToRecord(BaseCallback):
    """Takes note of every env step; of several copies each needs a record of its own."""

    def _on_step(self):
        info, over = self.locals["infos"][0], self.locals["dones"][0]
        record.add(info["seen"], info["done"], over=bool(over))
        return True


record = Record.of(simple_tag_v3.parallel_env())
DQN("MlpPolicy", Prey(), learning_starts=500, seed=0).learn(2_500, callback=ToRecord())

fitted = fit(record, ego="agent_0")
print(fitted.assessment)
