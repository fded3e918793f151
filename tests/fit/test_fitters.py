"""Which directions carry which loss, what is run, and what comes out."""

from __future__ import annotations

import gc
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.linalg import orthogonal_procrustes

from neuromas import weights
from neuromas.align.prepare import make_sides
from neuromas.errors import InvalidDocument, InvalidInput, NotFound, ReadOnly
from neuromas.fit import start
from neuromas.fit.fitters import CLMAS, DAS, FITTERS, MAS, Fitter, LatentStitch, Stitch
from neuromas.fit.terms import terms_of
from neuromas.recordings.recording import Recording
from neuromas.systems import training
from neuromas.systems.capture import capture
from neuromas.systems.recurrent import GRU
from neuromas.systems.system import System
from neuromas.systems.training import SHIPPED, load_system


def carried(fitter: Fitter, sides) -> dict[str, str]:
    """Direction → b (behaviour), c (counterfactual latents) or both."""
    return {term.direction.name: "b" * term.behaviour + "c" * term.cl for term in terms_of(fitter.config, sides)}


class TestTable:
    @pytest.fixture
    def sides(self, cast, toys):
        made = make_sides([cast.net, cast.other, cast.brain], model=toys.model, n_trials=60)
        return {side.name: side for side in made}

    def of(self, sides, fitter, *names):
        return carried(fitter, [sides[name] for name in names])

    def test_das(self, sides):
        assert self.of(sides, DAS(2), "net") == {"net->net": "b"}

    def test_mas(self, sides):
        assert self.of(sides, MAS(2), "net", "other") == dict.fromkeys(
            ["net->net", "other->net", "net->other", "other->other"], "b"
        )

    def test_clmas(self, sides):
        assert self.of(sides, CLMAS(2), "net", "brain") == {
            "net->net": "b",
            "brain->net": "b",
            "net->brain": "c",
            "brain->brain": "c",
        }

    def test_clmas_of_three(self, sides):
        found = self.of(sides, CLMAS(2), "net", "other", "brain")
        assert len(found) == 9
        assert all(losses == ("c" if name.endswith("->brain") else "b") for name, losses in found.items())

    def test_clmas_with_cl_everywhere(self, sides):
        assert self.of(sides, CLMAS(2, cl_directions="all"), "net", "brain") == {
            "net->net": "bc",
            "brain->net": "bc",
            "net->brain": "c",
            "brain->brain": "c",
        }

    def test_stitch_goes_into_what_runs(self, sides):
        assert self.of(sides, Stitch(), "net", "brain") == {"brain->net": "b"}
        assert self.of(sides, Stitch(), "brain", "net") == {"brain->net": "b"}
        assert self.of(sides, Stitch(), "net", "other") == {"net->other": "b"}
        assert self.of(sides, Stitch(direction=("other", "net")), "net", "other") == {"other->net": "b"}

    def test_latent_stitch_goes_into_what_is_read(self, sides):
        assert self.of(sides, LatentStitch(), "net", "brain") == {"net->brain": "c"}
        assert self.of(sides, LatentStitch(), "brain", "net") == {"net->brain": "c"}
        assert self.of(sides, LatentStitch(direction=("brain", "net")), "net", "brain") == {"brain->net": "c"}

    @pytest.mark.parametrize(
        ("fitter", "names"),
        [(DAS(2), ["brain"]), (MAS(2), ["net", "brain"]), (Stitch(direction=("net", "brain")), ["net", "brain"])],
    )
    def test_what_can_only_be_read_is_not_run(self, sides, fitter, names):
        with pytest.raises(ReadOnly, match="'brain'"):
            self.of(sides, fitter, *names)

    @pytest.mark.parametrize(
        ("fitter", "names"),
        [
            (DAS(2), ["net", "other"]),
            (MAS(2), ["net"]),
            (CLMAS(2), ["net"]),
            (CLMAS(2), ["brain"]),
            (Stitch(), ["net"]),
            (Stitch(), ["net", "other", "brain"]),
            (LatentStitch(), ["net"]),
        ],
    )
    def test_wrong_systems(self, sides, fitter, names):
        with pytest.raises(InvalidInput, match=r"net|brain") as caught:
            self.of(sides, fitter, *names)
        assert caught.value.kind == "wrong_systems"

    def test_a_direction_of_nobody(self, sides):
        with pytest.raises(InvalidInput, match=r"'nobody'.*net, other"):
            self.of(sides, Stitch(direction=("nobody", "net")), "net", "other")


class TestWhoIsRun:
    @pytest.mark.parametrize("method", FITTERS)
    def test_only_targets_of_behaviour(self, cast, toys, method):
        net, other = toys.make("net"), toys.make("other", 13, seed=4)
        systems = {"das": [net], "clmas": [net, cast.noisy], "latent-stitch": [net, cast.noisy]}
        cast.fit(method, systems.get(method, [net, other]))
        runs = {"das": (True, False), "mas": (True, True), "clmas": (True, False), "stitch": (False, True)}
        assert (net.n_resumed > 0, other.n_resumed > 0) == runs.get(method, (False, False))
        assert net.n_recorded == 1  # recorded once, before the fit

    def test_the_read_only_systems_weights_are_not_even_loadable(self, tmp_path, monkeypatch):
        """CLMAS between shipped networks, one of them a recording: its files are gone, nothing may open or run it."""
        # what other tests left alive is none of this fit's; held, so that no later object takes its identity
        earlier = [one for one in gc.get_objects() if isinstance(one, System)]
        folder = tmp_path / "gru-1"
        shutil.copytree(SHIPPED / "multi-object" / "gru-1", folder)
        brain = capture(load_system(folder), 60, name="gru-1", access="read", seed=3)
        for path in folder.iterdir():
            path.write_bytes(b"unreadable")
        net = load_system("multi-object/gru-0")
        opened: list[str] = []
        watching = True

        def audit(event, arguments):
            if watching and event == "open" and "gru-1" in str(arguments[0]):
                opened.append(str(arguments[0]))

        def refuse(*_, **__):
            raise AssertionError("weights were loaded during the fit")

        sys.addaudithook(audit)
        for name in ("load_system", "read_safetensors"):
            monkeypatch.setattr(training, name, refuse)
        monkeypatch.setattr(weights, "load_safetensors", refuse)
        ran = []

        def only_net(name):
            run = getattr(GRU, name)

            def watched(self, *arguments, **options):
                assert self is net
                ran.append(name)
                return run(self, *arguments, **options)

            return watched

        for name in ("resume", "token_losses", "latents"):
            monkeypatch.setattr(GRU, name, only_net(name))
        monkeypatch.setattr(GRU, "__init__", refuse)
        try:
            fitter = CLMAS(4, n_trials=60, batch_size=32, n_train_pairs=100, n_validation_pairs=50, max_iterations=4)
            result = fitter.fit([net, brain], out=tmp_path / "fit")
        finally:
            watching = False
        assert opened == []
        assert set(ran) == {"resume", "token_losses", "latents"}
        assert set(result.report.history[-1].cl) == {"gru-0->gru-1", "gru-1->gru-1"}
        assert result.sides[1].system is None
        known = {id(one) for one in earlier}
        living = [one for one in gc.get_objects() if isinstance(one, System) and one.config.name == "gru-1"]
        assert [one for one in living if id(one) not in known] == []

    def test_nothing_a_recording_reaches_can_run(self, cast):
        sides = cast.fit("clmas", max_iterations=1).sides
        seen, queue = set(), [sides[1]]
        while queue:
            one = queue.pop()
            if id(one) in seen or isinstance(one, (str, bytes, np.ndarray, torch.Tensor, type)):
                continue
            seen.add(id(one))
            assert not isinstance(one, System)
            if type(one).__module__.startswith("neuromas"):
                queue.extend(vars(one).values())
            elif isinstance(one, (list, tuple)):
                queue.extend(one)
            elif isinstance(one, dict):
                queue.extend(one.values())


class TestPlanted:
    """Where the answer is known, a fit finds it."""

    @pytest.mark.parametrize("kind", ["orthogonal", "linear"])
    def test_the_closed_form_start_undoes_the_planted_rotation(self, cast, toys, kind):
        result = cast.fit("clmas", [cast.net, cast.brain], toys.n_ever, map=kind, init="closed-form", max_iterations=0)
        held = toys.model.possible(np.array([[p, c] for p in (0, 1) for c in range(toys.most + 1)]))
        net, brain = (cast.net.columns * cast.net.scale).T[held], (cast.live.columns * cast.live.scale).T[held]
        there, here = result.alignment.map_of("brain"), result.alignment.map_of("net")
        into_brain = there.offset + here.components(net) @ there.back.T
        into_net = here.offset + there.components(brain) @ here.back.T
        tolerance = 2e-5 if kind == "orthogonal" else 5e-3  # the linear map's whitening has a ridge
        torch.testing.assert_close(into_brain, brain, rtol=0, atol=tolerance)
        torch.testing.assert_close(into_net, net, rtol=0, atol=tolerance)

    @pytest.mark.parametrize("method", ["das", "mas"])
    def test_from_a_random_start(self, cast, toys, method):
        result = cast.fit(
            method, rank=toys.n_ever, learning_rate=0.03, max_iterations=300, validate_every=50, batch_size=64
        )
        assert min(result.report.history[-1].iia.values()) == 1.0

    def test_latent_stitch_in_closed_form_is_scipys_procrustes(self, cast, toys):
        brain = capture(toys.make("brain", 12, seed=8), 60, model=toys.model, seed=5)
        noisy = cast.rewritten(brain, noise=0.3)
        seen = {}
        solved = start.procrustes_axes

        def watch(source, target, rank):
            seen.update(source=source.numpy(), target=target.numpy(), rank=rank)
            return solved(source, target, rank)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(start, "procrustes_axes", watch)
            result = cast.fit("latent-stitch", [cast.net, noisy], None, solver="closed-form")
        assert result.report.status == "closed_form"
        assert seen["rank"] == 12
        expected, _ = orthogonal_procrustes(seen["source"], seen["target"])
        there, here = result.alignment.map_of("brain"), result.alignment.map_of("net")
        found = (there.back @ here.forward).numpy().T
        # states that never occur leave directions undetermined: compare where there is data
        np.testing.assert_allclose(seen["source"] @ found, seen["source"] @ expected, atol=1e-4)
        assert result.alignment.replace
        assert len(seen["source"]) == result.report.misses[0].n_pairs - result.report.misses[0].n_missed

    def test_latent_stitch_by_gradient_reaches_the_closed_form(self, cast, toys):
        brain = capture(toys.make("brain", 12, seed=8), 60, model=toys.model, seed=5)
        options = {"cl_terms": "l2", "batch_size": 160}
        exact = cast.fit("latent-stitch", [cast.net, brain], None, solver="closed-form", **options)
        found = cast.fit(
            "latent-stitch", [cast.net, brain], None, max_iterations=300, learning_rate=0.05, patience=99, **options
        )
        assert exact.report.history[-1].loss == pytest.approx(0, abs=1e-6)
        assert found.report.history[-1].loss < 1e-3
        torch.testing.assert_close(found.alignment.map_of("net").forward.norm(dim=1), torch.ones(12), rtol=0, atol=1e-4)

    def test_stitches_replace_and_others_do_not(self, cast):
        for method in FITTERS:
            result = cast.fit(method, rank=None if "stitch" in method else 4, max_iterations=1)
            assert result.alignment.replace == ("stitch" in method)
            assert result.alignment.rank == (12 if "stitch" in method else 4)

    def test_three_systems_have_one_map_each(self, cast, toys):
        result = cast.fit(
            "clmas", [cast.net, cast.other, cast.brain], toys.n_ever, init="closed-form", max_iterations=2
        )
        assert list(result.alignment.maps) == ["net", "other", "brain"]
        assert [one.n_units for one in result.alignment.maps.values()] == [12, 13, 14]
        assert min(result.report.history[-1].iia.values()) == 1.0
        assert set(result.report.history[-1].iia) == {
            f"{source}->{target}" for source in ("net", "other", "brain") for target in ("net", "other")
        }

    @pytest.mark.parametrize("kind", ["orthogonal", "linear"])
    def test_several_subspaces(self, cast, kind):
        result = cast.fit("clmas", rank={"phase": 2, "count": 4}, map=kind, init="closed-form", max_iterations=10)
        assert [(s.name, s.start, s.rank) for s in result.alignment.subspaces] == [("phase", 0, 2), ("count", 2, 4)]
        assert sum(miss.resampled for miss in result.report.misses) > 0  # phase and count do not combine freely
        for one in result.alignment.maps.values():
            torch.testing.assert_close(
                one.forward @ one.back, torch.eye(6), rtol=0, atol=5e-3
            )  # whitened: gains of 1e3


class TestMissesAndGaps:
    def test_values_never_recorded_are_counted_and_named(self, cast):
        values = cast.noisy.values(["phase", "count"])
        gone = (values[:, 0] == 0) & (values[:, 1] == 3)
        holed = cast.rewritten(cast.noisy, keep=~gone)
        report = cast.fit("clmas", [cast.net, holed]).report
        by_direction = {(miss.direction, miss.part): miss for miss in report.misses}
        miss = by_direction["net->brain", "train"]
        assert miss.n_missed > 0
        assert miss.values == {"phase=demo, count=3": miss.n_missed}
        assert by_direction["brain->brain", "train"].n_missed == 0
        assert by_direction["net->net", "train"].n_missed == 0
        assert all(np.isfinite(list(look.cl.values())).all() for look in report.history)

    def test_no_counterfactual_latent_at_all(self, cast):
        values = cast.noisy.values(["phase", "count"])
        only = {"keep": values[:, 0] == 1}
        live = [cast.net, cast.rewritten(cast.noisy, **only)]
        assert cast.fit("clmas", live, max_iterations=1).report.misses  # some are there
        shifted = Recording.from_arrays(
            cast.noisy.latents(),
            {"phase": values[:, 0].astype(int), "count": values[:, 1].astype(int) + 100},
            name="brain",
            trial=cast.noisy.trial,
            eligible=cast.noisy.eligible,
        )
        with pytest.raises(InvalidInput, match="mapping=") as caught:
            cast.fit("latent-stitch", [cast.net, shifted])
        assert caught.value.kind == "no_shared_value"

    def test_units_that_were_not_recorded(self, cast):
        activity = cast.noisy.latents()
        activity[cast.noisy.trial % 3 == 0, 2] = np.nan
        holed = cast.rewritten(cast.noisy, activity=activity, missing=True)
        n_eligible = int(cast.noisy.eligible.sum())
        n_gone = int((cast.noisy.eligible & (cast.noisy.trial % 3 == 0)).sum())
        report = cast.fit("clmas", [cast.net, holed]).report
        assert (report.inputs[1].n_samples, report.inputs[1].n_incomplete) == (n_eligible - n_gone, n_gone)
        chosen = [name for name in holed.unit_names if name != "u2"]
        report = cast.fit("clmas", [cast.net, holed], units={"brain": chosen}).report
        assert (report.inputs[1].n_samples, report.inputs[1].n_incomplete) == (n_eligible, 0)
        assert report.inputs[1].units == tuple(chosen)
        assert report.inputs[1].n_units == 13

    def test_names_and_values_of_a_foreign_recording(self, cast):
        values = cast.noisy.values(["phase", "count"])
        foreign = Recording.from_arrays(
            cast.noisy.latents(),
            {"epoch": np.where(values[:, 0] == 0, "stimulus on", "going"), "n_left": values[:, 1].astype(int)},
            name="brain",
            trial=cast.noisy.trial,
            step=cast.noisy.step,
            eligible=cast.noisy.eligible,
        )
        mapping = {
            "brain": {
                "phase": {"name": "epoch", "values": {"demo": "stimulus on", "response": "going"}},
                "count": "n_left",
            }
        }
        mapped = cast.fit("clmas", [cast.net, foreign], mapping=mapping)
        plain = cast.fit("clmas")
        assert [look.loss for look in mapped.report.history] == [look.loss for look in plain.report.history]
        assert mapped.report.inputs[1].mapping == mapping["brain"]
        assert mapped.alignment.sha256() == plain.alignment.sha256()


CLOSED, LINEAR, NO_WEIGHT = {"solver": "closed-form"}, {"map": "linear"}, {"epsilon": 0.0}


class TestOptionsWithoutEffect:
    @pytest.mark.parametrize(
        ("method", "options", "name", "value"),
        [
            ("mas", {}, "epsilon", 0.3),
            ("mas", {}, "weighting", "convex"),
            ("das", {}, "cl_draw", "fixed"),
            ("mas", {}, "cl_matches", 3),
            ("stitch", {}, "cl_terms", "l2"),
            ("mas", {}, "cl_directions", "all"),
            ("latent-stitch", {}, "epsilon", 0.3),
            ("latent-stitch", {}, "loss_tokens", "deterministic"),
            ("latent-stitch", {}, "select", "iia"),
            ("latent-stitch", CLOSED, "learning_rate", 0.5),
            ("latent-stitch", CLOSED, "rotation", "cayley"),
            ("latent-stitch", CLOSED, "cl_draw", "fixed"),
            ("latent-stitch", CLOSED, "learn_scale", True),
            *(
                ("latent-stitch", CLOSED, name, 7)
                for name in ("batch_size", "max_iterations", "validate_every", "patience")
            ),
            ("latent-stitch", CLOSED, "tolerance", 0.5),
            ("latent-stitch", CLOSED, "schedule", "cosine"),
            ("latent-stitch", CLOSED, "init", "closed-form"),
            ("clmas", LINEAR, "learn_scale", False),
            ("clmas", NO_WEIGHT, "cl_draw", "fixed"),
            ("clmas", NO_WEIGHT, "cl_matches", 3),
            ("clmas", NO_WEIGHT, "cl_terms", "l2"),
            ("clmas", NO_WEIGHT, "weighting", "convex"),
        ],
    )
    def test_they_are_named_and_have_none(self, cast, method, options, name, value):
        plain = cast.fit(method, **options)
        found = cast.fit(method, **{**options, name: value})
        assert found.alignment.sha256() == plain.alignment.sha256()
        assert any(one.startswith("without effect") and f"{name}={value}" in one for one in found.report.warnings)
        assert not any(f"{name}={value}" in one for one in plain.report.warnings)

    @pytest.mark.parametrize(("name", "value"), [("n_trials", 70), ("only_solved", True)])
    def test_nor_have_trials_of_systems_that_are_not_there(self, cast, toys, name, value):
        recordings = [cast.brain, capture(toys.make("other", 13, seed=4), 60, model=toys.model, seed=6)]
        found = [cast.fit("latent-stitch", recordings, **more) for more in ({}, {name: value})]
        assert found[0].alignment.sha256() == found[1].alignment.sha256()
        assert any(f"{name}={value}" in one for one in found[1].report.warnings)

    @pytest.mark.parametrize(
        ("method", "name", "value"),
        [
            ("clmas", "epsilon", 0.3),
            ("clmas", "weighting", "convex"),
            ("clmas", "cl_draw", "fixed"),
            ("clmas", "cl_matches", 3),
            ("clmas", "cl_directions", "all"),
            ("latent-stitch", "cl_terms", "l2"),
            ("mas", "loss_tokens", "deterministic"),
            ("mas", "learn_scale", False),
            ("mas", "rotation", "cayley"),
            ("latent-stitch", "init", "closed-form"),
        ],
    )
    def test_those_that_have_one_are_not(self, cast, method, name, value):
        found = cast.fit(method, **{name: value})
        assert found.alignment.sha256() != cast.fit(method).alignment.sha256()
        assert found.report.warnings == ()


class TestBadInput:
    def test_a_rank_above_a_width(self, cast):
        with pytest.raises(InvalidInput, match=r"rank 13.*'net' has 12") as caught:
            cast.fit("clmas", rank=13)
        assert caught.value.kind == "invalid_rank"
        with pytest.raises(InvalidInput, match=r"rank 14"):
            cast.fit("clmas", rank={"phase": 7, "count": 7})

    def test_an_unknown_variable(self, cast):
        with pytest.raises(NotFound, match=r"'side'.*phase, count"):
            cast.fit("clmas", rank={"side": 2})
        with pytest.raises(NotFound, match="'side'"):
            cast.fit("clmas", variables=("side",))

    def test_part_of_the_variables_beside_a_target_that_runs(self, cast):
        with pytest.raises(InvalidInput, match="phase, count") as caught:
            cast.fit("clmas", variables=("count",))
        assert caught.value.kind == "variables_of_task"

    def test_too_few_trials(self, cast):
        with pytest.raises(InvalidInput, match="too few"):
            cast.fit("das", n_trials=2)

    def test_nothing_to_fit(self):
        with pytest.raises(InvalidInput):
            DAS(2).fit([])

    def test_a_configuration_with_several_problems_names_all(self):
        with pytest.raises(InvalidDocument) as caught:
            CLMAS(0, epsilon=-1, rotation="givens", no_such_option=1, map="bent")
        told = "\n".join(caught.value.problems)
        for name in ("subspaces", "epsilon", "rotation", "no_such_option", "map"):
            assert name in told

    @pytest.mark.parametrize(
        "options",
        [
            {"direction": ("a", "b")},
            {"solver": "closed-form"},
            {"weighting": "convex", "epsilon": 1.5},
            {"fractions": {"train": 0.5, "test": 0.5}},
            {"subspaces": None},
        ],
    )
    def test_options_that_do_not_go_together(self, options):
        with pytest.raises(InvalidDocument):
            CLMAS(None if "subspaces" in options else 4, **options)

    @pytest.mark.parametrize("fitter", [Stitch, LatentStitch])
    @pytest.mark.parametrize("options", [{"map": "linear"}, {"rank": {"phase": 1, "count": 1}}])
    def test_what_stitches_cannot_do(self, fitter, options):
        with pytest.raises(InvalidDocument):
            fitter(**options)

    def test_names_that_are_words_of_torch(self, toys, cast):
        """A system may be called `values`, `train` or `a.b`."""
        for name in ("values", "train", "a.b"):
            result = cast.fit("das", [toys.make(name)], max_iterations=1)
            assert list(result.alignment.maps) == [name]


@pytest.mark.parametrize("method", FITTERS)
def test_from_config_is_the_same_fitter(method):
    fitter = FITTERS[method](4, seed=3)
    again = Fitter.from_config(fitter.config)
    assert type(again) is FITTERS[method]
    assert again.config == fitter.config


@pytest.mark.gpu
@pytest.mark.parametrize("method", FITTERS)
def test_on_the_gpu(method):
    net = load_system("multi-object/gru-0")
    brain = capture(load_system("multi-object/gru-1"), 60)
    other = load_system("multi-object/gru-1")
    systems = {"das": [net], "mas": [net, other]}.get(method, [net, brain])
    fitter = FITTERS[method](4, n_trials=60, batch_size=32, n_train_pairs=100, n_validation_pairs=50, max_iterations=4)
    here, there = fitter.fit(systems), fitter.fit(systems, device="cuda")
    losses = [[look.loss for look in result.report.history] for result in (here, there)]
    np.testing.assert_allclose(*losses, rtol=0.05)  # draws differ between devices


def test_shipped_files_are_where_the_tests_think():
    assert (Path(SHIPPED) / "multi-object" / "gru-1" / "config.json").is_file()
