"""Env steps on cooperative navigation: AORPO, MASAC, independent SAC, and AORPO with a perfect model."""

from __future__ import annotations

from benchmarks.sample_efficiency import command, study

NOTES = (
    "Every arm reads the lengths and directions of the vectors that the game declares and learns from rows under its "
    "36 renamings; policies act on their own observation, but for the arm `conditional`. Queries are counted until "
    "the threshold. A length is the mean number of the 10 steps of a branch in which the models of an agent answer. "
    "The model-based arms have a smaller budget of env steps than the model-free ones; the tuning seed is 100. What "
    "limited AORPO before was the learned reward (see reward_model.json); without what mended it, it is the arm "
    "`coordinates`, which counts only where figures begin with that name."
)
STUDY = study("spread_aorpo", "spread", steps=2_000, baseline_steps=8_000, evaluate_every=200, notes=NOTES)

if __name__ == "__main__":
    command(STUDY)
