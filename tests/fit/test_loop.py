"""The loop: resumable to the last bit, stopped early, checkpoints chosen by validation."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import torch

from neuromas.align.alignment import Alignment
from neuromas.errors import Corrupt, InvalidDocument, InvalidInput, NotFound
from neuromas.fit import loop
from neuromas.fit.fitters import FITTERS
from neuromas.fit.folder import ALIGNMENT, CHECKPOINT, HISTORY, RESULT
from neuromas.fit.loop import Interrupted
from neuromas.fit.result import FitResult
from neuromas.schema.fit import FitReport

SCHEMAS = Path(__file__).parents[2] / "schemas"


class Stop(Exception):
    pass


def stop_at(iteration, how="raise"):
    def progress(now):
        if now.iteration == iteration:
            if how == "raise":
                raise Stop
            os.kill(os.getpid(), signal.SIGINT)

    return progress


def numbers(result: FitResult) -> tuple:
    """Everything that must be equal to the last bit."""
    report = result.report
    return (
        [look.model_dump() for look in report.history],
        report.best_iteration,
        report.iterations,
        report.status,
        report.identity,
        result.alignment.sha256(),
    )


class TestResume:
    @pytest.mark.parametrize("method", FITTERS)
    @pytest.mark.parametrize("how", ["raise", "interrupt"])
    def test_an_interrupted_fit_gives_the_numbers_of_an_uninterrupted_one(self, cast, tmp_path, method, how):
        whole = cast.fit(method)
        for stop in (3, 5, 8):
            with pytest.raises(Stop if how == "raise" else Interrupted):
                cast.fit(method, out=tmp_path, progress=stop_at(stop, how))
            assert not (tmp_path / RESULT).exists()
        assert numbers(cast.fit(method, out=tmp_path)) == numbers(whole)
        assert not (tmp_path / CHECKPOINT).exists()

    @pytest.mark.parametrize(
        "options",
        [
            {"cl_draw": "fixed"},
            {"schedule": "cosine"},
            {"map": "linear", "init": "closed-form"},
            {"rotation": "householder"},
            {"rank": {"phase": 2, "count": 2}},
            {"select": "iia"},
            {"learn_scale": False},
            {"batch_size": 1000},
        ],
        ids=str,
    )
    def test_whatever_the_options(self, cast, tmp_path, options):
        with pytest.raises(Interrupted):
            cast.fit("clmas", out=tmp_path, progress=stop_at(7, "interrupt"), **options)
        assert numbers(cast.fit("clmas", out=tmp_path, **options)) == numbers(cast.fit("clmas", **options))

    def test_an_interrupt_loses_no_iteration(self, cast, tmp_path):
        with pytest.raises(Interrupted):
            cast.fit("clmas", out=tmp_path, progress=stop_at(8, "interrupt"))
        seen = []
        cast.fit("clmas", out=tmp_path, progress=lambda now: seen.append(now.iteration))
        assert seen == [9, 10, 11, 12]

    def test_the_handler_of_ctrl_c_is_given_back(self, cast):
        before = signal.getsignal(signal.SIGINT)
        cast.fit("das", max_iterations=1)
        assert signal.getsignal(signal.SIGINT) is before

    def test_a_finished_fit_is_returned_as_it_is(self, cast, tmp_path, monkeypatch):
        first = cast.fit("clmas", out=tmp_path)
        files = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
        assert set(files) == {RESULT, ALIGNMENT, HISTORY}
        monkeypatch.setattr(loop, "step_together", lambda *_: pytest.fail("fitted again"))
        again = cast.fit("clmas", out=tmp_path)
        assert again.report == first.report
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == files

    @pytest.mark.parametrize("finished", [True, False])
    def test_another_configuration_in_the_same_folder_is_refused(self, cast, tmp_path, finished):
        if finished:
            cast.fit("clmas", out=tmp_path)
        else:
            with pytest.raises(Stop):
                cast.fit("clmas", out=tmp_path, progress=stop_at(5))
        files = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
        for options in ({"seed": 1}, {"epsilon": 0.5}, {"rank": 3}):
            with pytest.raises(InvalidInput) as caught:
                cast.fit("clmas", out=tmp_path, **options)
            assert caught.value.kind == "occupied"
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == files

    def test_another_recording_of_the_same_name_is_refused(self, cast, tmp_path):
        cast.fit("clmas", out=tmp_path)
        with pytest.raises(InvalidInput) as caught:
            cast.fit("clmas", [cast.net, cast.rewritten(cast.noisy, noise=0.01)], out=tmp_path)
        assert caught.value.kind == "occupied"

    def test_a_damaged_checkpoint_is_named(self, cast, tmp_path):
        with pytest.raises(Stop):
            cast.fit("clmas", out=tmp_path, progress=stop_at(5))
        (tmp_path / CHECKPOINT).write_bytes((tmp_path / CHECKPOINT).read_bytes()[:-9])
        with pytest.raises(Corrupt, match=CHECKPOINT):
            cast.fit("clmas", out=tmp_path)

    def test_equal_seeds_equal_fits_other_seeds_others(self, cast):
        assert numbers(cast.fit("clmas")) == numbers(cast.fit("clmas"))
        assert cast.fit("clmas").alignment.sha256() != cast.fit("clmas", seed=1).alignment.sha256()


class TestChoice:
    def test_validation_chooses_the_checkpoint(self, cast):
        """A learning rate that is far too large: the best look is not the last."""
        options = {"learning_rate": 1.5, "validate_every": 1, "patience": 99, "init": "closed-form", "rank": 8}
        result = cast.fit("clmas", **options)
        seen = [look.loss for look in result.report.history]
        best = result.report.best_iteration
        assert best == result.report.history[int(np.argmin(seen))].iteration
        assert best < 12
        upto = cast.fit("clmas", **{**options, "max_iterations": best})
        assert upto.alignment.sha256() == result.alignment.sha256()

    def test_iia_chooses_where_it_is_asked_to(self, cast):
        options = {"learning_rate": 0.3, "validate_every": 1, "patience": 99, "rank": 8, "select": "iia"}
        result = cast.fit("clmas", **options)
        worst = [min(look.iia.values()) for look in result.report.history]
        assert result.report.best_iteration == result.report.history[int(np.argmax(worst))].iteration

    def test_an_oracle_never_chooses(self, cast):
        """IIA is seen, and can choose, only where the fit may run the target."""
        for look in cast.fit("clmas", select="iia").report.history:
            assert set(look.iia) == {"net->net", "brain->net"}
        for look in cast.fit("latent-stitch", select="iia").report.history:
            assert look.iia == {}

    def test_a_fit_that_gains_nothing_stops(self, cast):
        report = cast.fit("clmas", learning_rate=1e-12, max_iterations=500, validate_every=2, patience=3).report
        assert (report.status, report.iterations) == ("converged", 6)

    def test_patience_survives_an_interruption(self, cast, tmp_path):
        options = {"learning_rate": 1e-12, "max_iterations": 500, "validate_every": 2, "patience": 4}
        with pytest.raises(Interrupted):
            cast.fit("clmas", out=tmp_path, progress=stop_at(5, "interrupt"), **options)
        assert numbers(cast.fit("clmas", out=tmp_path, **options)) == numbers(cast.fit("clmas", **options))

    def test_a_fit_that_gains_goes_on_to_the_limit(self, cast):
        report = cast.fit("clmas", learning_rate=0.01, validate_every=4, patience=1, rank=8).report
        assert (report.status, report.iterations) == ("max_iterations", 12)
        assert [look.iteration for look in report.history] == [0, 4, 8, 12]

    def test_the_last_iteration_is_always_looked_at(self, cast):
        assert [look.iteration for look in cast.fit("das").report.history] == [0, 5, 10, 12]

    def test_validation_pairs_are_held_out(self, cast, monkeypatch):
        used = []
        make = loop.make_batch

        def watch(term, pairs, *arguments, **named):
            made = make(term, pairs, *arguments, **named)
            used.append((pairs.part, pairs.direction, pairs.source, pairs.target))
            return made

        monkeypatch.setattr(loop, "make_batch", watch)
        cast.fit("clmas")
        for part, direction, source, target in used:
            for side, rows in ((direction.source, source), (direction.target, target)):
                assert set(rows) <= set(side.candidates[part].samples)
        assert {part for part, *_ in used} == {"train", "validation"}

    def test_a_loss_that_is_not_finite_is_an_error(self, cast):
        with pytest.raises(InvalidInput) as caught:
            cast.fit("clmas", learning_rate=1e30, map="linear", max_iterations=30)
        assert caught.value.kind == "diverged"


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_learning_rates(cast, monkeypatch, schedule):
    """Adam's first steps are as long as the learning rate, whatever the gradient: read it off the optimiser."""
    rates = []
    step = torch.optim.Adam.step

    def watch(self, *arguments):
        rates.append(self.param_groups[0]["lr"])
        return step(self, *arguments)

    monkeypatch.setattr(torch.optim.Adam, "step", watch)
    cast.fit("das", schedule=schedule, learning_rate=0.01, max_iterations=8)
    expected = 0.005 * (1 + np.cos(np.pi * np.arange(8) / 8)) if schedule == "cosine" else np.full(8, 0.01)
    np.testing.assert_allclose(rates, expected)


class TestDraws:
    def drawn(self, cast, monkeypatch, **options):
        """Per pair of net→brain: the counterfactual latents it was given over the iterations."""
        seen: dict[int, list[bytes]] = {}
        make = loop.make_batch

        def watch(term, pairs, chosen, *arguments, **named):
            made = make(term, pairs, chosen, *arguments, **named)
            if pairs.part == "train" and term.direction.name == "net->brain":
                for row, latent in zip(chosen, made.cl, strict=True):
                    seen.setdefault(int(row), []).append(latent.numpy().tobytes())
            return made

        monkeypatch.setattr(loop, "make_batch", watch)
        cast.fit("clmas", patience=99, **options)
        return seen

    def test_fresh(self, cast, monkeypatch):
        seen = self.drawn(cast, monkeypatch, max_iterations=15)
        assert len(seen) == 160
        assert {len(latents) for latents in seen.values()} == {3}  # every pair once per epoch of five batches
        assert np.mean([len(set(latents)) > 1 for latents in seen.values()]) > 0.8

    def test_fixed(self, cast, monkeypatch):
        seen = self.drawn(cast, monkeypatch, max_iterations=15, cl_draw="fixed")
        assert all(len(set(latents)) == 1 for latents in seen.values())


class TestResult:
    @pytest.mark.parametrize("method", FITTERS)
    def test_round_trip_and_schema(self, cast, tmp_path, method):
        result = cast.fit(method, out=tmp_path)
        again = FitResult.load(tmp_path)
        assert again.report == result.report
        for name, one in result.alignment.maps.items():
            assert torch.equal(again.alignment.map_of(name).forward, one.forward)
            assert torch.equal(again.alignment.map_of(name).back, one.back)
        jsonschema.validate(
            json.loads((tmp_path / RESULT).read_text()), json.loads((SCHEMAS / "fit_report.schema.json").read_text())
        )
        rows = list(csv.DictReader(io.StringIO((tmp_path / HISTORY).read_text())))
        assert [float(row["loss"]) for row in rows] == [look.loss for look in result.report.history]
        assert result.report.config.method == method
        assert result.report.provenance.versions["neuromas"]

    @pytest.fixture
    def folder(self, cast, tmp_path):
        cast.fit("clmas", out=tmp_path, max_iterations=1)
        return tmp_path

    def test_nothing_there(self, tmp_path):
        with pytest.raises(NotFound, match=RESULT):
            FitResult.load(tmp_path)

    def test_another_alignment_than_the_report_names(self, folder):
        other = Alignment.load(folder / ALIGNMENT)
        first = other.map_of("net")
        first.back[0, 0] += 1
        other.save(folder / ALIGNMENT)
        with pytest.raises(Corrupt) as caught:
            FitResult.load(folder)
        assert caught.value.kind == "hash_mismatch"

    def test_no_alignment(self, folder):
        (folder / ALIGNMENT).unlink()
        with pytest.raises((NotFound, Corrupt), match=ALIGNMENT):
            FitResult.load(folder)

    def test_a_report_with_several_problems_names_all(self, folder):
        document = json.loads((folder / RESULT).read_text())
        document.update(status="splendid", iterations="many", extra=1)
        (folder / RESULT).write_text(json.dumps(document))
        with pytest.raises(InvalidDocument) as caught:
            FitResult.load(folder)
        assert len(caught.value.problems) == 3

    def test_a_report_is_read_as_it_was_written(self, folder):
        text = (folder / RESULT).read_text()
        assert FitReport.parse(text, "x").to_json() == text


def test_a_fit_has_not_converged_while_a_direction_still_falls(cast, monkeypatch):
    """The total loss is flat; one direction gets better at every validation, until the fifth."""
    from neuromas.fit import loop
    from neuromas.fit.objective import Losses

    values = iter([5.0, 4.0, 3.0, 2.0, 1.0, *[1.0] * 50])

    def validate(plan, maps):
        falling = torch.tensor(next(values))
        return Losses(torch.tensor(1.0), {"a->b": falling, "b->a": -falling}, {}, {})

    monkeypatch.setattr(loop, "validate", validate)
    result = cast.fit("mas", max_iterations=100, validate_every=1, patience=3)
    assert result.report.status == "converged"
    # validations at 0 to 4 made progress, those at 5, 6 and 7 did not
    assert result.report.iterations == 7
