"""Model the team mates whose episodes a tianshou Collector collects, in its hook."""

from mpe2 import simple_spread_v3
from tianshou.algorithm.modelfree.dqn import DiscreteQLearningPolicy
from tianshou.data import Collector, VectorReplayBuffer
from tianshou.env import DummyVectorEnv, PettingZooEnv
from tianshou.utils.net.common import Net

from presage.marl.opponents.fitting import fit
from presage.marl.opponents.record import Record

record = Record.of(simple_spread_v3.parallel_env())


def to_record(episode):
    """One episode of one copy, a row to a turn: at every env step the agents answer one after another."""
    turns = {name: episode.obs.agent_id == name for name in record.spec.names}
    seen = {name: episode.obs.obs[own] for name, own in turns.items()}
    record.extend(seen, {name: episode.act[own] for name, own in turns.items()}, [len(episode) // len(turns)])


envs = DummyVectorEnv([lambda: PettingZooEnv(simple_spread_v3.env()) for _ in range(4)])
space = simple_spread_v3.env().action_space("agent_0")
network = Net(state_shape=(18,), action_shape=5, hidden_sizes=(64,))
policy = DiscreteQLearningPolicy(model=network, action_space=space, eps_inference=0.2)
collector = Collector(policy, envs, VectorReplayBuffer(10_000, 4), on_episode_done_hook=to_record)
collector.reset(gym_reset_kwargs={"seed": 0})
collector.collect(n_episode=100)

fitted = fit(record, ego="agent_0")
print(fitted.assessment)
