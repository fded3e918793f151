"""The counting task in words, for language models (paper 3.2, A.5)."""

from __future__ import annotations

from neuromas.causal.counting import Counting, phase_and_count
from neuromas.causal.model import register_task

PROMPT = """\
User: For each trial, I am going to say "nut" some number of times and then I want you to respond by saying "seed" the \
exact same number of times that I said "nut" in that trial. Please say "stop" at the end of your response to indicate \
that you are finished. Do not say or think anything else.
Example: User: nut : seed stop
Example: User: nut nut : seed seed stop
Begin Trial: User:"""
"""The text that a language model reads before each trial (paper A.5); the begin token B stands for it."""


@register_task
class InContext(Counting):
    """The in-context task: ``B nut nut : seed seed stop``, as many times "seed" as "nut" was said.

    B stands for the whole `PROMPT`, with which a language model does the task without being trained on it. Quantities go up to
    12, the largest at which the language model of the paper succeeded. Takes the options of `Counting`.

    Examples
    --------
    >>> task = InContext()
    >>> trials = task.sample(1, seed=1)
    >>> " ".join(task.vocabulary[token] for token in trials.tokens[0][:8])
    'B nut nut nut nut nut nut :'
    >>> int(task.quantities.max())
    12
    """

    name = "in-context"
    vocabulary = ("B", "nut", ":", "seed", "stop")
    begin, trigger, response, end = 0, 2, 3, 4
    demos = (1,)
    most = 12
    variables = phase_and_count(most)
