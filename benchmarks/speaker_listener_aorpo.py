"""Env steps on cooperative communication: AORPO, MASAC, independent SAC, and AORPO with a perfect model."""

from __future__ import annotations

from benchmarks.sample_efficiency import command, study

STUDY = study("speaker_listener_aorpo", "speaker_listener", steps=2_000, baseline_steps=3_000, evaluate_every=100)

if __name__ == "__main__":
    command(STUDY)
