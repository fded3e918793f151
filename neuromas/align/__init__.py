"""Alignments of systems: maps into shared components, sides of a comparison, and pairs drawn between them."""
