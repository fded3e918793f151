"""The paper's figures by name; look-up, the command line and the tests go through `FIGURES`."""

from neuromas.experiments.figure import PaperFigure
from neuromas.experiments.figures import fig_2d

FIGURES: dict[str, PaperFigure] = {figure.name: figure for figure in (fig_2d.FIGURE,)}
