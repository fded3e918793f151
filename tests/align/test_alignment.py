"""Alignments: subspaces, trainable maps, files."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from neuromas.align.alignment import (
    Alignment,
    TrainableMap,
    closed_form_maps,
    component_mask,
    lay_out,
    random_maps,
)
from neuromas.align.interchange import LinearMap
from neuromas.align.rotation import ROTATIONS, orthonormalise, random_columns
from neuromas.errors import Corrupt, InvalidInput, NotFound


def made(kind="orthogonal", ranks=None, widths=(6, 8), seed=0) -> Alignment:
    subspaces = lay_out(ranks or {"phase": 2, "count": 3})
    maps = random_maps(widths, subspaces, kind, "gram-schmidt", seed)
    with torch.no_grad():
        for one in maps:
            if one.mixing is not None:
                one.mixing += 0.2 * torch.randn(one.mixing.shape, generator=torch.Generator().manual_seed(seed))
            else:
                one.log_scale.fill_(0.5)
        frozen = {f"s{i}": one().detach() for i, one in enumerate(maps)}
    return Alignment(frozen, subspaces, kind)


@given(st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 5), min_size=1))
def test_blocks_are_disjoint_and_leave_no_gap(ranks):
    blocks = lay_out(ranks)
    total = sum(ranks.values())
    masks = torch.stack([component_mask(total, block) for block in blocks])
    assert masks.sum(dim=0).tolist() == [1] * total
    assert masks.sum(dim=1).tolist() == list(ranks.values())


def test_joined_variables():
    (block,) = lay_out({"phase+count": 4})
    assert block.variables == ("phase", "count")


def test_rank_zero():
    with pytest.raises(InvalidInput, match="'count' has rank 0"):
        lay_out({"phase": 1, "count": 0})


@pytest.mark.parametrize("rotation", ROTATIONS)
@pytest.mark.parametrize("kind", ["orthogonal", "linear"])
@settings(max_examples=10)
@given(seed=st.integers(0, 1000))
def test_a_map_and_its_way_back_stay_inverse_while_training(rotation, kind, seed):
    subspaces = lay_out({"phase": 2, "count": 3})
    (one,) = random_maps([7], subspaces, kind, rotation, seed)
    optimiser = torch.optim.Adam(one.parameters(), lr=0.02)
    goal = torch.randn(7, 5, generator=torch.Generator().manual_seed(seed))
    for _ in range(5):
        optimiser.zero_grad()
        now = one()
        ((now.back * goal).sum() + (now.forward.T * goal).sum()).backward()
        optimiser.step()
    now = one()
    torch.testing.assert_close(now.forward @ now.back, torch.eye(5), rtol=0, atol=1e-4)
    assert (one.mixing is not None) == (kind == "linear")
    if kind == "linear":  # the blocks of A do not mix
        mixing = now.forward @ one.rotation()
        torch.testing.assert_close(mixing[:2, 2:], torch.zeros(2, 3), rtol=0, atol=1e-5)
        torch.testing.assert_close(mixing[2:, :2], torch.zeros(3, 2), rtol=0, atol=1e-5)
    else:
        scale = now.forward.norm(dim=1)  # R = λQ: one number, positive
        torch.testing.assert_close(scale, scale[:1].expand(5), rtol=1e-4, atol=0)


def test_a_scale_that_is_not_learned_stays():
    one = TrainableMap(random_columns(4, 2, torch.Generator().manual_seed(0)), learn_scale=False)
    assert not one.log_scale.requires_grad
    assert TrainableMap(random_columns(4, 2, torch.Generator().manual_seed(0)), scale=3.0)().forward.norm(
        dim=1
    ).tolist() == pytest.approx([3, 3])


def test_random_maps_refuse_a_rank_above_a_width():
    with pytest.raises(InvalidInput, match=r"rank 5.*4 units") as caught:
        random_maps([6, 4], lay_out({"full": 5}), "orthogonal", "cayley", 0)
    assert caught.value.kind == "invalid_rank"


@pytest.mark.parametrize("kind", ["orthogonal", "linear"])
def test_one_subspace_leaves_the_other_alone(kind):
    alignment = made(kind)
    generator = torch.Generator().manual_seed(1)
    source, target = torch.randn(5, 6, generator=generator), torch.randn(5, 8, generator=generator)
    found = alignment.interchange(target, source, target_system="s1", source_system="s0", subspace="count")
    there, here = alignment.map_of("s1"), alignment.map_of("s0")
    torch.testing.assert_close(there.components(found)[:, :2], there.components(target)[:, :2], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(there.components(found)[:, 2:], here.components(source)[:, 2:], rtol=1e-4, atol=1e-5)
    both = alignment.interchange(target, source, target_system="s1", source_system="s0")
    torch.testing.assert_close(there.components(both), here.components(source), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["orthogonal", "linear"])
@pytest.mark.parametrize("replace", [False, True])
def test_what_was_saved_is_loaded(tmp_path, kind, replace):
    alignment = made(kind)
    alignment = Alignment(alignment.maps, alignment.subspaces, kind, replace)
    alignment.save(tmp_path / "a.safetensors")
    again = Alignment.load(tmp_path / "a.safetensors")
    assert (again.kind, again.replace, again.subspaces) == (kind, replace, alignment.subspaces)
    assert list(again.maps) == ["s0", "s1"]
    for name, one in alignment.maps.items():
        for part in ("forward", "back", "offset"):
            assert torch.equal(getattr(again.maps[name], part), getattr(one, part))


def test_equal_alignments_are_equal_files():
    """... in every byte, every time: results name their alignment by its hash."""
    assert len({made().sha256() for _ in range(30)}) == 1
    assert made().sha256() != made(seed=1).sha256()


def test_names_that_do_not_exist(tmp_path):
    alignment = made()
    with pytest.raises(NotFound, match="s0, s1"):
        alignment.map_of("s2")
    with pytest.raises(NotFound, match="phase, count"):
        alignment.subspace("full")
    with pytest.raises(NotFound):
        Alignment.load(tmp_path / "none.safetensors")


@pytest.mark.parametrize(
    "damage", [lambda data: b"", lambda data: data[:-3], lambda data: data[:40], lambda data: b"zip" + data]
)
def test_damaged_files(tmp_path, damage):
    path = tmp_path / "a.safetensors"
    path.write_bytes(damage(made().to_bytes()))
    with pytest.raises(Corrupt, match=r"a\.safetensors"):
        Alignment.load(path)


@pytest.mark.parametrize("part", ["forward", "back", "offset"])
def test_a_map_of_another_shape(tmp_path, part):
    alignment = made()
    one = alignment.maps["s1"]
    parts = {name: getattr(one, name) for name in ("forward", "back", "offset")}
    parts[part] = parts[part][1:]
    alignment.maps["s1"] = LinearMap(**parts)
    alignment.save(tmp_path / "a.safetensors")
    with pytest.raises(Corrupt, match="'s1'") as caught:
        Alignment.load(tmp_path / "a.safetensors")
    assert caught.value.kind == "not_an_alignment"


@pytest.mark.parametrize(
    "metadata",
    [
        None,
        {"kind": "orthogonal"},
        {"alignment": "{"},
        {"alignment": json.dumps([])},
        {"alignment": json.dumps({"kind": "linear", "replace": False, "systems": ["s0"], "subspaces": []})},
    ],
)
def test_safetensors_files_that_are_no_alignment(tmp_path, metadata):
    save_file({"x": torch.zeros(2)}, tmp_path / "a.safetensors", metadata)
    with pytest.raises(Corrupt) as caught:
        Alignment.load(tmp_path / "a.safetensors")
    assert caught.value.kind == "not_an_alignment"


@pytest.mark.parametrize("ranks", [{"full": 2, "count": 2}, {"count+count": 2}, {"count": 1, "phase+count": 2}])
def test_a_variable_belongs_to_one_subspace(ranks):
    with pytest.raises(InvalidInput, match="disjoint"):
        lay_out(ranks)


def test_the_closed_form_over_two_subspaces_fits_one_scale():
    generator = torch.Generator().manual_seed(3)
    turn = orthonormalise(torch.randn(9, 9, generator=generator))
    first, second = torch.randn(7, 9, generator=generator), torch.randn(5, 9, generator=generator)
    blocks = lay_out({"phase": 2, "count": 3})
    # the second system is the first one, turned and three times as large
    means = [[first, 3 * first @ turn], [second, 3 * second @ turn]]
    maps = [one() for one in closed_form_maps(means, blocks, "orthogonal", "gram-schmidt")]
    there, here = maps[1].components(3 * first @ turn), maps[0].components(first)
    torch.testing.assert_close(there, here, atol=1e-4, rtol=1e-4)
    assert maps[1].forward.norm(dim=1)[0].item() == pytest.approx(1 / 3, rel=1e-4)
