"""Published error bounds of model-based RL as functions, for ranking choices such as branch lengths.

Every function takes floats or arrays, broadcasts them, and returns a float for floats or else a float64 array; an input
outside the theorem's conditions raises ValueError naming its value. The numbers are vacuous for real tasks, mostly far
above any attainable return: they say which of two choices is the safer one, and never predict a return.

Shape suffixes: J opponents, always the last axis. Theorem numbers are those of Luo et al. 2022, "A Survey on
Model-based Reinforcement Learning" (arXiv 2206.09328), with its slips corrected where a docstring says so.
TV stands for the total-variation distance, KL and JS for the divergences in nats.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array: TypeAlias = NDArray[np.float64]
Value: TypeAlias = float | Array
Interval: TypeAlias = Literal["both", "left", "right", "neither"]


def _checked(
    name: str, value: ArrayLike, low: float = 0.0, high: float = np.inf, closed: Interval = "left", whole: bool = False
) -> Array:
    """`value` as float64 with every entry finite and in the interval, ends included as `closed` says."""
    array = np.asarray(value, dtype=np.float64)
    above = array >= low if closed in ("both", "left") else array > low
    below = array <= high if closed in ("both", "right") else array < high
    fine = above & below  # false for NaN, and for infinity too, which no interval here includes
    if whole:
        fine &= array == np.floor(array)
    if not fine.all():
        kind = "an integer" if whole else "a finite number"
        left, right = "[" if closed in ("both", "left") else "(", "]" if closed in ("both", "right") else ")"
        raise ValueError(f"{name}={array[~fine].flat[0]:g} must be {kind} in {left}{low:g}, {high:g}{right}")
    return array


def _discount(gamma: ArrayLike) -> Array:
    return _checked("gamma", gamma, 0.0, 1.0)


def _variation(name: str, value: ArrayLike) -> Array:
    return _checked(name, value, 0.0, 1.0, "both")


def _one_of(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name}={value!r} must be one of {', '.join(choices)}")


def _value(result: Array) -> Value:
    """A float where every input was one."""
    return float(result) if np.ndim(result) == 0 else result


def simulation_lemma(eps_m: ArrayLike, eps_r: ArrayLike, gamma: ArrayLike, r_span: ArrayLike) -> Value:
    """Largest value gap of any policy at any state between the world and its model; ranks choices only.

    `gamma eps_m r_span / (2 (1-gamma)^2) + eps_r / (1-gamma)`: Theorem 1, Kearns & Singh 2002. The survey writes the
    largest reward for the span, which fails for rewards of both signs.

    Args:
        eps_m: largest L1 distance between next-state distributions over (state, action), in [0, 2].
        eps_r: largest reward error. gamma: in [0, 1). r_span: largest minus smallest reward.
    """
    model, reward = _checked("eps_m", eps_m, 0.0, 2.0, "both"), _checked("eps_r", eps_r)
    g, span = _discount(gamma), _checked("r_span", r_span)
    return _value(g * model * span / (2 * (1 - g) ** 2) + reward / (1 - g))


def simulation_lemma_kl(eps_m: ArrayLike, eps_pi: ArrayLike, gamma: ArrayLike, r_max: ArrayLike) -> Value:
    """Value gap from the start distribution for a model fitted by likelihood; ranks choices only.

    `sqrt(2) r_max gamma sqrt(eps_m) / (1-gamma)^2 + 2 sqrt(2) r_max sqrt(eps_pi) / (1-gamma)^2`: Theorem 2,
    Xu et al. 2020.

    Args:
        eps_m: expected KL of the true from the learned transition under the data policy's occupancy.
        eps_pi: largest KL over states of the policy from the data policy. gamma: in [0, 1). r_max: bound on |reward|.
    """
    model, shift = _checked("eps_m", eps_m), _checked("eps_pi", eps_pi)
    g, r = _discount(gamma), _checked("r_max", r_max)
    return _value(np.sqrt(2) * r / (1 - g) ** 2 * (g * np.sqrt(model) + 2 * np.sqrt(shift)))


def simulation_lemma_js(eps_js: ArrayLike, eps_pi: ArrayLike, gamma: ArrayLike, r_max: ArrayLike) -> Value:
    """Value gap from the start distribution for a model that matches occupancies; ranks choices only.

    `2 sqrt(2) r_max sqrt(eps_js) / (1-gamma) + 2 sqrt(2) r_max sqrt(eps_pi) / (1-gamma)^2`: Theorem 5,
    Xu et al. 2020. Linear in the effective horizon where likelihood (`simulation_lemma_kl`) is quadratic.

    Args:
        eps_js: JS divergence between true and model occupancies of (s, a, s') under the data policy, in [0, ln 2].
        eps_pi: largest KL over states of the policy from the data policy. gamma: in [0, 1). r_max: bound on |reward|.
    """
    model, shift = _checked("eps_js", eps_js, 0.0, np.log(2), "both"), _checked("eps_pi", eps_pi)
    g, r = _discount(gamma), _checked("r_max", r_max)
    return _value(2 * np.sqrt(2) * r / (1 - g) * (np.sqrt(model) + np.sqrt(shift) / (1 - g)))


def lipschitz_n_step(eps_w: ArrayLike, k_true: ArrayLike, k_model: ArrayLike, n: ArrayLike) -> Value:
    """Wasserstein error after `n` steps of a fixed action sequence under Lipschitz models; ranks choices only.

    `eps_w sum_{i=0}^{n-1} K^i` with `K = min(k_true, k_model)`: Theorem 3, Asadi et al. 2018. The survey starts the
    sum at 1, which would leave no error after one step.

    Args:
        eps_w: largest one-step Wasserstein error. k_true, k_model: Lipschitz constants of the two maps. n: >= 1.
    """
    error, steps = _checked("eps_w", eps_w), _checked("n", n, 1.0, whole=True)
    k = np.minimum(_checked("k_true", k_true), _checked("k_model", k_model))
    with np.errstate(divide="ignore", invalid="ignore"):  # K = 0 and K = 1, whose limits are right or put in below
        log_k = np.log1p(k - 1)
        total = np.expm1(steps * log_k) / np.expm1(log_k)  # the differences K^n - 1 and K - 1 cancel near K = 1
    return _value(error * np.where(k == 1, steps, total))


def lipschitz_value_gap(
    k_reward: ArrayLike, eps_w: ArrayLike, k_true: ArrayLike, k_model: ArrayLike, gamma: ArrayLike
) -> Value:
    """Value gap of a world with one action and a state reward under Lipschitz models; ranks choices only.

    `gamma k_reward eps_w / ((1-gamma)(1 - gamma K))` with `K = min(k_true, k_model)`: Theorem 4, Asadi et al. 2018.

    Args:
        k_reward: Lipschitz constant of the reward. eps_w: largest one-step Wasserstein error.
        k_true, k_model: Lipschitz constants of the two maps, with `gamma K < 1`. gamma: in [0, 1).
    """
    reward, error, g = _checked("k_reward", k_reward), _checked("eps_w", eps_w), _discount(gamma)
    k = np.minimum(_checked("k_true", k_true), _checked("k_model", k_model))
    growth = _checked("gamma * min(k_true, k_model)", g * k, 0.0, 1.0)
    return _value(g * reward * error / ((1 - g) * (1 - growth)))


def value_expansion_mse(
    c1: ArrayLike, c2: ArrayLike, eps: ArrayLike, gamma: ArrayLike, horizon: ArrayLike, mse_tail: ArrayLike
) -> Value:
    """Mean squared error of an `horizon`-step value expansion; ranks choices only.

    `c1^2 eps^2 + (1 + c2 eps) gamma^(2 horizon) mse_tail`: Theorem 6, Feinberg et al. 2018, Theorem 3.1. The survey
    drops the square and states the condition `mse_tail >= eps^2` as ">= 2".

    Args:
        c1, c2: constants made of the Lipschitz constants of reward and value.
        eps: root of the largest mean squared state error over the steps. gamma: in [0, 1). horizon: steps, >= 0.
        mse_tail: the critic's own mean squared error at the states reached after `horizon` steps, >= eps^2.
    """
    first, second, error = _checked("c1", c1), _checked("c2", c2), _checked("eps", eps)
    g, steps, tail = _discount(gamma), _checked("horizon", horizon, whole=True), _checked("mse_tail", mse_tail)
    if (tail < error**2 * (1 - 1e-12)).any():
        raise ValueError(f"mse_tail={tail} must be at least eps**2={error**2}: the critic's error includes the state's")
    return _value(first**2 * error**2 + (1 + second * error) * g ** (2 * steps) * tail)


def branched_gap(k: ArrayLike, eps_pi: ArrayLike, eps_m: ArrayLike, gamma: ArrayLike, r_max: ArrayLike = 1.0) -> Value:
    """Return gap of `k`-step branches from real states, one agent; ranks choices only.

    `2 r_max / (1-gamma) (gamma^k eps_pi / (1-gamma) + k eps_m)`: Theorem 7, Janner et al. 2019, Theorem 4.3 (MBPO),
    with its two policy terms collapsed.

    Args:
        k: branch length in steps, >= 0. eps_pi: largest TV over states of the policy from the data policy.
        eps_m: TV error of the model under the current policy. gamma: in [0, 1). r_max: bound on |reward|.
    """
    return bidirectional_gap(0.0, _checked("k", k, whole=True), eps_pi, eps_m, gamma, r_max)


def best_branch_length(
    eps_pi: ArrayLike, eps_m: ArrayLike, gamma: ArrayLike, longest: ArrayLike | None = None
) -> int | NDArray[np.int64]:
    """The smallest `k` that minimises `branched_gap` (up to rounding), a convex function of k; ranks choices only.

    It is one of the two integers around `ln(eps_pi ln(1/gamma) / ((1-gamma) eps_m)) / ln(1/gamma)`, or 0.

    Args:
        eps_pi, eps_m, gamma: as in `branched_gap`; `r_max` only scales the gap.
        longest: the longest length to consider. Needed where `eps_m` is 0, since an exact model has no best length.
    """
    shift, model, g = np.broadcast_arrays(_variation("eps_pi", eps_pi), _variation("eps_m", eps_m), _discount(gamma))
    limit = np.inf if longest is None else _checked("longest", longest, whole=True)
    with np.errstate(divide="ignore", invalid="ignore"):  # zeros of eps_pi, eps_m and gamma; their limits are wanted
        rate = -np.log(g)
        stationary = np.log(shift * rate / ((1 - g) * model)) / rate
    centre = np.minimum(np.nan_to_num(stationary, nan=0.0, posinf=np.inf).clip(0.0), limit)
    if np.isinf(centre).any():
        raise ValueError("eps_m=0 with eps_pi>0 has no best branch length, longer is always better; give `longest`")
    low = np.floor(centre)
    high = np.minimum(low + 1, limit)
    gap_low, gap_high = (g**k * shift / (1 - g) + k * model for k in (low, high))
    best = np.where(gap_high < gap_low * (1 - 1e-12), high, low).astype(np.int64)
    return int(best) if best.ndim == 0 else best


def bidirectional_gap(
    k_back: ArrayLike, k_fwd: ArrayLike, eps_pi: ArrayLike, eps_m: ArrayLike, gamma: ArrayLike, r_max: ArrayLike = 1.0
) -> Value:
    """Return gap of branches that run backwards and forwards from a real state; ranks choices only.

    `2 r_max / (1-gamma) (gamma^(k_back+k_fwd) eps_pi / (1-gamma) + max(k_back, k_fwd) eps_m)`: Lai et al. 2020
    (BMPO). With `k_back = 0` it is `branched_gap`.

    Args:
        k_back, k_fwd: steps of the two arms, >= 0.
        eps_pi, eps_m, gamma, r_max: as in `branched_gap`; `eps_m` bounds both models.
    """
    back, forward = _checked("k_back", k_back, whole=True), _checked("k_fwd", k_fwd, whole=True)
    shift, model = _variation("eps_pi", eps_pi), _variation("eps_m", eps_m)
    g, r = _discount(gamma), _checked("r_max", r_max)
    arms = np.maximum(back, forward)
    return _value(2 * r / (1 - g) * (g ** (back + forward) * shift / (1 - g) + arms * model))


def _per_opponent(**terms: Array) -> None:
    """Raise unless all `terms` have the same last axis, one entry per opponent."""
    shapes = {name: term.shape for name, term in terms.items()}
    if len({shape[-1:] for shape in shapes.values()}) > 1 or () in shapes.values():
        listed = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise ValueError(f"the last axes must hold one entry per opponent, () for none; got the shapes {listed}")


def opponent_full_horizon_gap(
    *,
    eps_m: ArrayLike,
    eps_pi: ArrayLike,
    eps_pi_opponents: ArrayLike,
    eps_opponents: ArrayLike,
    gamma: ArrayLike,
    r_max: ArrayLike = 1.0,
    measured_against: Literal["data", "current"] = "data",
) -> Value:
    """One ego's return gap when dynamics and opponents are modelled throughout; ranks choices only.

    `2 r_max (gamma (eps_m + S) / (1-gamma)^2 + S / (1-gamma))` with
    `S = 2 eps_pi + sum_j eps_pi_opponents[j] + sum_j eps_opponents[j]`: our reading of the first bound of Zhang et al.
    2021 (AORPO, arXiv 2105.03363), derived here since its constants could not be checked. Without opponents it is
    MBPO's `2 gamma r_max (eps_m + 2 eps_pi) / (1-gamma)^2 + 4 r_max eps_pi / (1-gamma)`.

    Args:
        eps_m: TV error of the dynamics model. eps_pi: largest TV of the ego's policy from its data policy.
        eps_pi_opponents: `(..., J)` the same of every opponent. eps_opponents: `(..., J)` TV errors of their models.
        gamma: in [0, 1). r_max: bound on |reward|.
        measured_against: whether `eps_opponents` is the distance to the policies that produced the data or to the
            current ones; the latter adds every opponent's shift once more.
    """
    model, shift = _variation("eps_m", eps_m), _variation("eps_pi", eps_pi)
    shifts, errors = _variation("eps_pi_opponents", eps_pi_opponents), _variation("eps_opponents", eps_opponents)
    _per_opponent(eps_pi_opponents=shifts, eps_opponents=errors)
    g, r = _discount(gamma), _checked("r_max", r_max)
    _one_of("measured_against", measured_against, ("data", "current"))
    times = 1 if measured_against == "data" else 2
    joint = 2 * shift + times * shifts.sum(-1) + errors.sum(-1)
    return _value(2 * r * (g * (model + joint) / (1 - g) ** 2 + joint / (1 - g)))


def opponent_branched_gap(
    *,
    k: ArrayLike,
    model_steps: ArrayLike,
    eps_m: ArrayLike,
    eps_pi: ArrayLike,
    eps_pi_opponents: ArrayLike,
    eps_opponents: ArrayLike,
    gamma: ArrayLike,
    r_max: ArrayLike = 1.0,
    bookkeeping: Literal["tight", "mbpo"] = "tight",
) -> Value:
    """One ego's return gap of `k`-step branches in which opponent j is modelled for `model_steps[j]` actions.

    `2 r_max (gamma^(k+1) E / (1-gamma)^2 + (k eps_m + sum_j model_steps[j] eps_opponents[j]) / (1-gamma))` with
    `E = eps_pi + sum_j eps_pi_opponents[j]`: our reading of the second bound of Zhang et al. 2021 (AORPO,
    arXiv 2105.03363), derived here since its constants could not be checked; ranks choices only. "mbpo" adds the term
    `gamma^k E / (1-gamma)` that MBPO's looser accounting keeps; without opponents it is then `branched_gap`.

    Args:
        k: branch length in steps, >= 0.
        model_steps: `(..., J)` action indices after the branch, from 0, at which the model answers for the opponent;
            the real one answers at the others. 0 (always ask) to k + 1 (never ask).
        eps_m: TV error of the dynamics model under the current policies.
        eps_pi: largest TV of the ego's policy from its data policy. eps_pi_opponents: `(..., J)` the same of opponents.
        eps_opponents: `(..., J)` TV errors of the opponent models against the current opponents.
        gamma: in [0, 1). r_max: bound on |reward|.
    """
    steps, lengths = _checked("k", k, whole=True), _checked("model_steps", model_steps, whole=True)
    shifts, errors = _variation("eps_pi_opponents", eps_pi_opponents), _variation("eps_opponents", eps_opponents)
    _per_opponent(model_steps=lengths, eps_pi_opponents=shifts, eps_opponents=errors)
    if (lengths > steps[..., None] + 1).any():
        raise ValueError(
            f"model_steps={lengths} must not exceed k + 1, the action indices of a branch of k={steps} steps"
        )
    model, g, r = _variation("eps_m", eps_m), _discount(gamma), _checked("r_max", r_max)
    shift = _variation("eps_pi", eps_pi) + shifts.sum(-1)
    _one_of("bookkeeping", bookkeeping, ("tight", "mbpo"))
    drift = g ** (steps + 1) * shift / (1 - g) ** 2
    if bookkeeping == "mbpo":
        drift = drift + g**steps * shift / (1 - g)
    return _value(2 * r * (drift + (steps * model + (lengths * errors).sum(-1)) / (1 - g)))


def rmax_samples(states: ArrayLike, actions: ArrayLike, eps: ArrayLike, delta: ArrayLike, gamma: ArrayLike) -> Value:
    """Order of the episodes that R-max needs, up to constants; ranks choices only.

    `states^2 actions / (eps^3 (1-gamma)^2) ln(1/delta)`: the rate of Jiang 2020 for Brafman & Tennenholtz 2002 (R-max).

    Args:
        states, actions: sizes of the two sets, >= 1. eps: wanted accuracy, > 0.
        delta: probability of failure, in (0, 1]. gamma: in [0, 1).
    """
    s, a = _checked("states", states, 1.0, whole=True), _checked("actions", actions, 1.0, whole=True)
    accuracy, failure = _checked("eps", eps, closed="neither"), _checked("delta", delta, 0.0, 1.0, "right")
    return _value(s**2 * a / (accuracy**3 * (1 - _discount(gamma)) ** 2) * np.log(1 / failure))


def tesseract_gain(actions: ArrayLike, agents: ArrayLike) -> Value:
    """Factor of samples saved by completing a low-rank joint-action tensor, up to constants; ranks choices only.

    `actions^(agents/2)`: Mahajan et al. 2021 (Tesseract).

    Args:
        actions: actions of each agent, >= 1. agents: how many, >= 1.
    """
    a, n = _checked("actions", actions, 1.0, whole=True), _checked("agents", agents, 1.0, whole=True)
    return _value(a ** (n / 2))


def mpe_samples(
    states: ArrayLike,
    joint_actions: ArrayLike,
    gamma: ArrayLike,
    alpha: ArrayLike,
    form: Literal["survey", "hoeffding", "bernstein"] = "hoeffding",
) -> Value:
    """Order of the samples, over all pairs, for an `alpha`-equilibrium of a general-sum Markov game.

    `states joint_actions / ((1-gamma)^p alpha^2)`, up to constants and logarithms, for a Markov-perfect equilibrium:
    Subramanian et al. 2021. p is 2 as the survey quotes it, 4 and 1 by the Hoeffding and the Bernstein argument of the
    published abstract (whose last can hold for normalised returns only); ranks choices only.

    Args:
        states, joint_actions: sizes of the two sets, >= 1; 1 and 1 for the count per pair.
        gamma: in [0, 1). alpha: wanted accuracy, > 0. form: which statement.
    """
    s = _checked("states", states, 1.0, whole=True)
    a = _checked("joint_actions", joint_actions, 1.0, whole=True)
    powers = {"survey": 2, "hoeffding": 4, "bernstein": 1}
    _one_of("form", form, tuple(powers))
    return _value(s * a / ((1 - _discount(gamma)) ** powers[form] * _checked("alpha", alpha, closed="neither") ** 2))
