"""Measurements of presage and of its peers, side by side; run from a checkout, never installed."""
