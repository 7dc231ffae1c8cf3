"""Env steps on cooperative communication: AORPO, MASAC, independent SAC, and AORPO with a perfect model."""

from __future__ import annotations

from benchmarks.sample_efficiency import command, study

STUDY = study("speaker_listener_aorpo", "speaker_listener", steps=20_000, baseline_steps=40_000, sweep_updates=20_000)

if __name__ == "__main__":
    command(STUDY)
