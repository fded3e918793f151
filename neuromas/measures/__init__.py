"""Measures: how alike two systems' activity is, told without an intervention."""
