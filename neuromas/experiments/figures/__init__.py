"""The paper's figures by name; look-up, the command line and the tests go through `FIGURES`."""

from neuromas.experiments.figure import PaperFigure
from neuromas.experiments.figures import fig_2a, fig_2c, fig_2d, fig_3a, fig_3b, fig_6, language_model, n_systems

FIGURES: dict[str, PaperFigure] = {
    figure.name: figure
    for figure in (
        *fig_2a.FIGURES,
        fig_2c.FIGURE,
        fig_2d.FIGURE,
        fig_3a.FIGURE,
        fig_3b.FIGURE,
        fig_6.FIGURE_5,
        fig_6.FIGURE,
        language_model.FIGURE,
        n_systems.FIGURE,
    )
}
