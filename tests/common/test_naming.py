"""Heads that agents share and orders that do not matter: predictions change with the names as the game does."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from presage.common.dynamics import DynamicsEnsemble, EnsembleConfig
from presage.common.fit import EnsembleFitter, FitConfig
from presage.common.game import GameSpec, Symmetry, Window
from presage.common.multistep import MultistepEnsemble
from presage.common.naming import Naming
from presage.common.propagation import EnsembleKernel, Propagation
from presage.common.symmetry import Renamings
from tests.common.systems import box_game, transitions
from tests.common.toy import box_agent, discrete_agent, generator, random_rows

SMALL = EnsembleConfig(members=3, elites=2, hidden=(8,), outcome_hidden=(8,))
OPTIONS: list[dict[str, Any]] = [
    {"shared_heads": True}, {"canonical_order": True}, {"shared_heads": True, "canonical_order": True}
]  # fmt: skip
TWINS = GameSpec(
    name="twins", obs_dim=6, goal_dim=3, acting_varies=True, legal_varies=True, terminates=True,
    symmetries=(Symmetry(obs=(2, 3, 0, 1, 4, 5), act=(2, 3, 0, 1, 4, 5, 6), agents=(1, 0, 2), goal=(1, 0, 2)),),
    agents=(
        replace(discrete_agent("a", (0, 1), 2), goal=(0,)), replace(discrete_agent("b", (2, 3), 2), goal=(1,)),
        replace(discrete_agent("c", (4,), 3), goal=(2,)),
    ),
)  # fmt: skip
"""two agents that are alike, one that is not, a number that nobody sees, goals apart, and every flag"""


def ring(n: int) -> GameSpec:
    """Agents with two numbers and a push each, all alike."""
    orders = [order for order in permutations(range(n)) if order != tuple(range(n))]
    return GameSpec(
        name="ring", obs_dim=2 * n, agents=tuple(box_agent(f"a{i}", (2 * i, 2 * i + 1), 1) for i in range(n)),
        symmetries=tuple(Symmetry(tuple(2 * i + k for i in o for k in (0, 1)), o, o) for o in orders),
    )  # fmt: skip


def pulled(obs: Tensor, act: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Everybody is drawn, not linearly, to the mean of all, and is paid for being near it."""
    parts = obs.view(len(obs), -1, 2)
    middle = parts.mean(1, keepdim=True)
    after = parts + 0.3 * torch.tanh(middle - parts)
    after = after + 0.2 * torch.stack([act, act * parts[..., 0]], 2)
    return after.flatten(1), -(after - after.mean(1, keepdim=True)).square().sum(2)


def warped(ensemble: DynamicsEnsemble) -> DynamicsEnsemble:
    """With weights and statistics that nothing cancels in."""
    rng = generator(5)
    for network in ensemble.networks:
        for parameter in network.parameters():
            parameter.data += 0.3 * torch.randn(parameter.shape, generator=rng)
        for statistic in (network.input_mean, network.target_mean):  # the same for all members
            statistic.add_(0.3 * torch.randn(statistic.shape[1:], generator=rng))
    return ensemble


@pytest.mark.parametrize("options", OPTIONS[1:])
@pytest.mark.parametrize("reward_input", ["transition", "joint"])
@pytest.mark.parametrize("frames", [1, 2])
def test_predictions_are_renamed_with_what_is_read(options: dict[str, Any], reward_input: Any, frames: int) -> None:
    for spec in (replace(TWINS, frames=frames), replace(ring(3), frames=frames)):
        rng = generator(1)
        rows = random_rows(spec, 7, rng)
        obs, act = (
            torch.randn(7, frames, spec.obs_dim, generator=rng),
            torch.randn(7, frames, spec.act_dim, generator=rng),
        )
        window = Window(obs=obs, act=act, valid=torch.ones(7, frames, dtype=torch.bool), now=rows.view)
        ensemble = warped(DynamicsEnsemble(spec, replace(SMALL, reward_input=reward_input, **options), generator(0)))
        table = Renamings(spec)
        plain = ensemble.predict(rows.view, rows.act, window)
        for p in range(table.count):
            chosen = torch.full((7,), p)
            renamed, seen = table.rows(rows, chosen), table.window(window, chosen)
            found = ensemble.predict(renamed.view, renamed.act, seen)
            goals = [] if spec.achieved or not spec.goal_dim else [table.goal[p] + spec.obs_dim]
            state = torch.cat([table.obs[p], *goals])
            torch.testing.assert_close(found.mean, plain.mean[..., state])
            torch.testing.assert_close(found.std, plain.std[..., state])
            torch.testing.assert_close(found.reward_mean, plain.reward_mean[..., table.agents[p]])
            torch.testing.assert_close(
                ensemble.disagreement(renamed.view, renamed.act, seen),
                ensemble.disagreement(rows.view, rows.act, window),
            )


@pytest.mark.parametrize("spec", [TWINS, ring(3)])
def test_a_shared_head_says_of_every_agent_what_it_would_say_in_the_firsts_place(spec: GameSpec) -> None:
    rows, table = random_rows(spec, 7, generator(1)), Renamings(spec)
    ensemble = warped(DynamicsEnsemble(spec, replace(SMALL, shared_heads=True, reward_input="joint"), generator(0)))
    plain = ensemble.predict(rows.view, rows.act)
    for i in range(2 if spec is TWINS else 3):
        p = int((table.place[:, i] == 0).int().argmax())
        renamed = table.rows(rows, torch.full((7,), p))
        found = ensemble.predict(renamed.view, renamed.act)
        torch.testing.assert_close(found.mean[..., spec.obs[0]], plain.mean[..., spec.obs[i]])
        torch.testing.assert_close(found.reward_mean[..., 0], plain.reward_mean[..., i])


def test_without_them_they_are_not() -> None:
    spec = ring(3)
    rows, table = random_rows(spec, 7, generator(1)), Renamings(spec)
    ensemble = warped(DynamicsEnsemble(spec, SMALL, generator(0)))
    renamed = table.rows(rows, torch.ones(7, dtype=torch.long))
    found, plain = (ensemble.predict(each.view, each.act).mean for each in (renamed, rows))
    assert (found - plain[..., table.obs[1]]).abs().max() > 0.01


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("reward_input", ["transition", "joint"])
@pytest.mark.parametrize("propagation", ["fresh", "fixed", "mean", "mixture"])
def test_imagined_rows_are_the_members_predictions(
    options: dict[str, Any], reward_input: Any, propagation: Propagation
) -> None:
    config = replace(SMALL, members=2, elites=2, noise="none", reward_input=reward_input, **options)
    ensemble = warped(DynamicsEnsemble(TWINS, config, generator(0)))
    rows = random_rows(TWINS, 9, generator(2))
    kernel = EnsembleKernel(ensemble, propagation)
    window = Window(
        obs=rows.obs[:, None], act=rows.act[:, None], valid=torch.ones(9, 1, dtype=torch.bool), now=rows.view
    )
    carry = kernel.init(window, torch.full((9,), -1), generator(3))
    _, outcome = kernel.step(carry, rows.view, rows.act, generator(4))
    said = ensemble.predict(rows.view, rows.act)
    state = torch.cat([outcome.after.obs, outcome.after.achieved], 1)
    if propagation == "mixture":
        return  # drawn; that it runs is enough here
    if propagation == "mean":
        torch.testing.assert_close(state, said.mean.mean(0))
        return
    apart = (state - said.mean).abs().amax(2)
    assert apart.amin(0).max() < 1e-5, "every row is one member's, all its heads"
    torch.testing.assert_close(
        outcome.reward, said.reward_mean.gather(0, apart.argmin(0)[None, :, None].expand(1, 9, 3))[0]
    )


@pytest.mark.parametrize("options", OPTIONS)
def test_heads_are_fitted_on_every_agents_rows(options: dict[str, Any]) -> None:
    """Held-out errors fall below those of heads that each learn for themselves."""
    spec = ring(3)
    rows, fresh = transitions(spec, 150, pulled, seed=0), transitions(spec, 2_000, pulled, seed=1)

    def error(config: EnsembleConfig) -> float:
        ensemble = DynamicsEnsemble(spec, config, generator(0))
        fit = FitConfig(max_updates=1_000, renamings=0, holdout_stretch=1)
        EnsembleFitter(ensemble, fit, generator(1)).fit(rows, generator(2))
        found = ensemble.predict(fresh.view, fresh.act)
        return float((found.mean.mean(0) - fresh.next_obs).square().mean().sqrt())

    config = replace(SMALL, hidden=(32, 32), outcome_hidden=(32,))
    assert error(replace(config, **options)) < 0.85 * error(config)


def test_one_head_for_three_agents_has_a_third_of_the_columns() -> None:
    ensemble = DynamicsEnsemble(ring(3), replace(SMALL, shared_heads=True), generator(0))
    assert ensemble.naming is not None
    assert (ensemble.naming.heads, ensemble.state_network.columns) == (3, 2)
    assert ensemble.outcome_network is not None
    assert ensemble.outcome_network.columns == 1
    found = ensemble.regressions(random_rows(ring(3), 5, generator(0)))
    assert [part.inputs.shape[0] for part in found.values()] == [15, 15]
    assert found["state"].groups == {"obs": slice(0, 2)}


def test_who_is_alike_shares_and_nobody_else() -> None:
    ensemble = DynamicsEnsemble(TWINS, replace(SMALL, shared_heads=True), generator(0))
    assert ensemble.naming is not None
    assert ensemble.naming.heads == 2
    kept = {name: ensemble.naming.columns(name).kept.tolist() for name in ("state", "reward", "legal")}
    assert kept == {"state": [0, 1, 4, 5, 6, 8], "reward": [0, 2], "legal": [0, 1, 4, 5, 6]}
    groups = ensemble.regressions(random_rows(TWINS, 5, generator(0)))
    assert groups["state"].groups == {"obs": slice(0, 4), "achieved": slice(4, 6)}
    assert groups["outcome"].groups == {
        "reward": slice(0, 2), "terminated": slice(2, 4), "acting": slice(4, 6), "legal": slice(6, 11)
    }  # fmt: skip


@given(seed=st.integers(0, 10_000), n=st.integers(2, 4), shared=st.booleans())
def test_in_order_all_names_are_read_alike(seed: int, n: int, shared: bool) -> None:
    spec = ring(n)
    naming, table = Naming(spec, shared=shared, canonical=True), Renamings(spec)
    obs = torch.randn(1, spec.obs_dim, generator=generator(seed))
    every = obs[:, table.obs].squeeze(0)  # (P, O) under every name
    read = naming.rename(every[:, None], "obs", naming.choose(every)).squeeze(1).view(table.count, naming.heads, -1)
    own = read[..., :2]  # a head reads its own agent first; which one that is goes with the names
    assert torch.equal(
        read.sum(-1).sort(1).values.round(decimals=4),
        read[:1].sum(-1).sort(1).values.round(decimals=4).expand(table.count, -1),
    )
    for p in range(table.count):
        for r in range(naming.heads):
            match = (read[0] == read[p, r]).all(1)
            assert match.any()
            if shared:
                assert torch.equal(own[0][match][0], own[p, r])


def test_steps_taken_at_once_are_renamed_each() -> None:
    spec = ring(2)
    ensemble = MultistepEnsemble(spec, replace(SMALL, shared_heads=True, canonical_order=True), 2, generator(0))
    two = warped(ensemble.heads[1])
    rows, table = random_rows(spec, 4, generator(1)), Renamings(spec)
    acts = torch.randn(4, 4, generator=generator(2))
    swap = torch.ones(4, dtype=torch.long)
    renamed = table.view(rows.view, swap)
    found = two.predict(renamed, acts[:, [1, 0, 3, 2]]).mean
    torch.testing.assert_close(found, two.predict(rows.view, acts).mean[..., table.obs[1]])


@pytest.mark.parametrize(
    ("config", "needed"),
    [(replace(SMALL, shared_heads=True), "shared_heads=True needs GameSpec.symmetries"),
     (replace(SMALL, canonical_order=True), "canonical_order=True needs GameSpec.symmetries"),
     (replace(SMALL, known_columns=True), "known_columns=True needs GameSpec.known")],
)  # fmt: skip
def test_games_that_declare_nothing_are_refused(config: EnsembleConfig, needed: str) -> None:
    with pytest.raises(ValueError, match=f"{needed}, and 'system' declares none"):
        DynamicsEnsemble(box_game(2, 1), config, generator(0))
