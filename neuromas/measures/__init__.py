"""Measures: the similarity of two systems' activity, without any intervention."""
