"""Figures and pages from results; nothing here computes a result."""
