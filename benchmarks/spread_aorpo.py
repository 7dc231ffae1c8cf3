"""Env steps on cooperative navigation: AORPO, MASAC, independent SAC, and AORPO with a perfect model."""

from __future__ import annotations

from benchmarks.sample_efficiency import command, study

STUDY = study("spread_aorpo", "spread", steps=3_000, baseline_steps=8_000, evaluate_every=200)

if __name__ == "__main__":
    command(STUDY)
