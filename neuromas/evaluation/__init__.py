"""Scores of an alignment on held-out pairs, and stimulation plans made with it."""
