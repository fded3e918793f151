"""Recordings: stored, labelled activity of one system in one task, and the sets they are kept in."""
