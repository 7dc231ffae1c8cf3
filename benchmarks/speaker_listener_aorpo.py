"""Env steps on cooperative communication: AORPO, MASAC, independent SAC, and AORPO with a perfect model."""

from __future__ import annotations

from benchmarks.sample_efficiency import command, study

NOTES = (
    "Every arm is swept over the ratios at a warm-up of 60 env steps and then over warm-ups of 20, 40 and 100 at its "
    "ratio: with the 500 of the other particle games MASAC's run to the threshold would be mostly random. Policies act "
    "on their own observation, but for the arm `conditional`. Queries are counted until the threshold. A length is the "
    "mean number of the 10 steps of a branch in which the models of an agent answer: all of them, since the paper's "
    "rule measures an opponent against the best known one, and here each agent has one alone; so nobody is ever asked. "
    "The tuning seed is 100. The arm `coordinates` is AORPO before its learned rewards were mended, as in spread_aorpo."
)
STUDY = study(
    "speaker_listener_aorpo", "speaker_listener", steps=600, baseline_steps=800, evaluate_every=20,
    warmups=(60, 20, 40, 100), notes=NOTES,
)  # fmt: skip

if __name__ == "__main__":
    command(STUDY)
