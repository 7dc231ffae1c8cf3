"""Model the team mates in a single file in CleanRL's style: REINFORCE with one network for all, on eight copies."""

import numpy as np
import torch
from mpe2 import simple_spread_v3
from torch.distributions import Categorical

from presage.marl.opponents.fitting import fit
from presage.marl.opponents.record import Record

torch.manual_seed(0)
copies, steps, envs = 8, 25, [simple_spread_v3.parallel_env() for _ in range(8)]
names = envs[0].possible_agents
network = torch.nn.Sequential(torch.nn.Linear(18, 64), torch.nn.Tanh(), torch.nn.Linear(64, 5))
optimiser = torch.optim.Adam(network.parameters(), lr=1e-2)
record = Record.of(envs[0])

for iteration in range(30):
    obs, rewards = torch.zeros(copies, steps, len(names), 18), torch.zeros(copies, steps, len(names))
    actions = torch.zeros(copies, steps, len(names), dtype=torch.int64)
    shown = [env.reset(seed=copies * iteration + k)[0] for k, env in enumerate(envs)]
    for t in range(steps):
        obs[:, t] = torch.from_numpy(np.array([[own[name] for name in names] for own in shown]))
        with torch.no_grad():
            actions[:, t] = Categorical(logits=network(obs[:, t])).sample()
        for k, env in enumerate(envs):
            shown[k], paid, *_ = env.step(dict(zip(names, actions[k, t].tolist(), strict=True)))
            rewards[k, t] = torch.tensor([paid[name] for name in names])
    returns = rewards.flip(1).cumsum(1).flip(1)
    advantages = (returns - returns.mean((0, 2), keepdim=True)) / returns.std()
    optimiser.zero_grad()
    (-(Categorical(logits=network(obs)).log_prob(actions) * advantages).mean()).backward()
    optimiser.step()
    seen, done = ({name: part[:, :, i].flatten(0, 1) for i, name in enumerate(names)} for part in (obs, actions))
    record.extend(seen, done, [steps] * copies)  # whole episodes, one behind the other

fitted = fit(record, ego="agent_0")
print(fitted.assessment)
