"""Twins: models of a system that can only be read, learnt from its recording alone."""
