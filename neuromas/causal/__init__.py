"""Causal models of tasks, and the behaviour that they expect after an interchange."""

from neuromas.causal import arithmetic as arithmetic  # registers its task
from neuromas.causal import counting as counting  # registers its tasks
from neuromas.causal import in_context as in_context  # registers its task
