"""Causal models of tasks, and what an interchange should lead to under them."""

from neuromas.causal import arithmetic as arithmetic  # registers its task
from neuromas.causal import counting as counting  # registers its tasks
from neuromas.causal import in_context as in_context  # registers its task
