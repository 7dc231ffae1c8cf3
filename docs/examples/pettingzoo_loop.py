"""Model the others in a PettingZoo loop of one's own."""

import numpy as np
from mpe2 import simple_tag_v3

from presage.marl.opponents.fitting import fit
from presage.marl.opponents.record import Record

rng = np.random.default_rng(0)
env = simple_tag_v3.parallel_env()
habits = {name: rng.normal(size=(5, *env.observation_space(name).shape)) for name in env.possible_agents}
record = Record.of(env)

for episode in range(100):
    observations, _ = env.reset(seed=episode)
    while env.agents:
        wishes = {name: habits[name] @ observations[name] + rng.gumbel(size=5) for name in env.agents}
        actions = {name: int(np.argmax(wish)) for name, wish in wishes.items()}
        before, (observations, *_) = observations, env.step(actions)
        record.add(before, actions, over=not env.agents)  # what was seen before the step, and what was done

fitted = fit(record, ego="agent_0")
print(fitted.assessment)
