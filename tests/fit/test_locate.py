"""Where is a variable? Planted layers, steps and ranks are found, and chance is not."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from neuromas.errors import InvalidInput, NotFound
from neuromas.fit.locate import Search, _corrected, _edges, locate
from neuromas.report.locate import draw
from neuromas.schema.fit import FitConfig
from neuromas.schema.locate import Location

QUICK = {"n_trials": 200, "n_train_pairs": 300, "n_validation_pairs": 60, "batch_size": 64, "validate_every": 50}


@pytest.fixture(scope="module")
def layered(toys):
    """A system with the state in one layer, and in another one a latent that holds nothing and that nothing reads."""

    class Layered(toys.Exact):
        chosen = "state"

        @property
        def layer(self):
            return self.chosen

        @property
        def layers(self):
            return ("noise", "state")

        def at(self, layer):
            super().at(layer)
            other = Layered(self.name, self.columns, self.scale)
            other.chosen = layer
            return other

        def context(self, tokens):
            return None if self.chosen == "state" else States(super().latents(tokens))

        def latents(self, tokens):
            states = super().latents(tokens)
            if self.chosen == "state":
                return states
            return torch.randn(states.shape, generator=torch.Generator().manual_seed(int(tokens.clamp(min=0).sum())))

        def resume(self, latents, continuation, context=None):
            return super().resume(latents if self.chosen == "state" else context, continuation)

    class States:
        def __init__(self, states):
            self.states = states

        def at(self, trials, steps):
            return self.states[torch.from_numpy(trials), torch.from_numpy(steps)]

    return Layered("net", toys.columns(12, 3))


def search(**changed):
    config = FitConfig(method="das", subspaces={"full": 1}, max_iterations=60, learning_rate=0.05, **QUICK)
    usual = {"layers": ("noise", "state"), "variables": ("full",), "ranks": (1, 4, 8), "n_bins": 2, "n_fits": 2}
    return Search(**({**usual, "config": config, "n_pairs": 200, "seed": 0} | changed))


@pytest.fixture(scope="module")
def found(layered, toys):
    return locate([layered], search(), model=toys.model)


class TestPlanted:
    def test_the_layer_and_the_rank_are_found(self, found):
        table = found.to_dataframe()
        best = found.summary().set_index("layer")
        assert best.loc["state", "rank"] == 8
        assert best.loc["state", "iia"] > 0.95
        assert best.loc["noise", "iia"] == pytest.approx(best.loc["noise", "none"])
        low = table[(table["layer"] == "state") & (table["rank"] == 1)]
        assert low["iia"].max() < 0.9

    def test_only_what_was_planted_passes_the_correction(self, found):
        table = found.to_dataframe()
        assert (table[(table["layer"] == "state") & (table["rank"] == 8)]["p"] < 0.05).all()
        assert (table[table["layer"] == "noise"]["p"] > 0.5).all()

    def test_fits_go_where_a_probe_reads_the_variable(self, found):
        table = found.to_dataframe()
        assert (table[table["layer"] == "noise"]["by"] == "closed-form").all()
        assert table[table["layer"] == "noise"]["probe"].max() < 0.4
        assert table[table["layer"] == "state"]["probe"].min() > 0.99

    def test_it_is_a_document_with_a_figure(self, found):
        assert Location.parse(found.to_json(), "here") == found
        assert draw(found).startswith(b"\x89PNG")

    def test_ranges_of_steps_cover_all_pairs(self, found):
        table = found.to_dataframe()
        for _, group in table.groupby(["layer", "rank"]):
            assert group["n"].sum() == 200
            assert (group["first_step"].iloc[1:].to_numpy() > group["last_step"].iloc[:-1].to_numpy()).all()


def test_without_fits_every_cell_has_the_closed_form(layered, toys):
    location = locate([layered], search(layers=("state",), n_fits=0), model=toys.model)
    assert location.n_fits == 0
    assert set(location.to_dataframe()["by"]) == {"closed-form"}


def test_a_pair_has_both_directions(toys):
    pair = [toys.make("one"), toys.make("two", 13, seed=4)]
    config = search().config.model_copy(update={"method": "mas", "max_iterations": 0})
    location = locate(pair, search(layers=("state",), config=config, n_fits=0), model=toys.model)
    table = location.to_dataframe()
    assert set(zip(table["source"], table["target"], strict=True)) == {("one", "two"), ("two", "one")}


class TestCorrection:
    def test_maps_without_effect_have_a_significant_cell_in_one_of_twenty(self):
        generator = np.random.default_rng(0)
        trials = np.repeat(np.arange(40), 5)
        rejected = []
        for number in range(200):
            # 30 cells that share their trials and half of their noise
            common = generator.normal(size=40)[trials]
            gains = [(trials, common + generator.normal(size=200)) for _ in range(30)]
            rejected.append(_corrected(gains, number).min() < 0.05)
        assert 0.01 <= np.mean(rejected) <= 0.09

    def test_an_effect_in_one_cell_is_seen_there_alone(self):
        generator = np.random.default_rng(1)
        trials = np.repeat(np.arange(40), 5)
        gains = [(trials, generator.normal(size=200) + (number == 7)) for number in range(30)]
        p = _corrected(gains, 0)
        assert p[7] < 0.01
        assert np.delete(p, 7).min() > 0.05

    def test_nothing_gained_anywhere(self):
        assert _corrected([(np.arange(5), np.zeros(5))], 0).tolist() == [1.0]


def test_ranges_of_steps():
    assert _edges(np.arange(100) % 10, 2) == [(0, 3), (4, 9)] or _edges(np.arange(100) % 10, 2) == [(0, 4), (5, 9)]
    assert _edges(np.full(5, 3), 4) == [(3, 3)]


def test_what_does_not_exist_is_refused(layered, toys):
    with pytest.raises(InvalidInput, match="1 or 2 systems, got 3"):
        locate([layered] * 3, search(), model=toys.model)
    with pytest.raises(NotFound, match="no layer 'nowhere'"):
        locate([layered], search(layers=("nowhere",)), model=toys.model)
    with pytest.raises(NotFound, match="no variable 'colour'"):
        locate([layered], search(variables=("colour",)), model=toys.model)
