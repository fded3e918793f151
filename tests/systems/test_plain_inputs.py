"""Unusual arrays, types and options of a capture end in a recording or in a sentence."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from neuromas import CLMAS, DAS, TorchSystem, capture, load_system
from neuromas.errors import InvalidInput, NeuromasError
from neuromas.fit.fitters import fit_together
from neuromas.measures.cka import cka
from neuromas.systems.inputs import hash_inputs, numpy_of

X = torch.arange(32.0).reshape(8, 4) / 32
LABELS = {"d": np.arange(8) % 2}
QUICK = {"n_trials": 60, "n_train_pairs": 30, "n_validation_pairs": 10, "batch_size": 8, "max_iterations": 1}


def system(dtype=torch.float32):
    torch.manual_seed(0)
    return TorchSystem(nn.Sequential(nn.Linear(4, 3), nn.ReLU()).to(dtype), "0", name="n")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_modules_of_any_precision(dtype):
    recording = capture(system(dtype), X.to(dtype), LABELS, dtype="float64")
    with torch.no_grad():
        expected = system(dtype).module[0](X.to(dtype)).double()
    np.testing.assert_array_equal(recording.activity.values, expected.numpy())


@pytest.mark.parametrize(
    "values", [torch.arange(8).bfloat16(), torch.arange(8.0, requires_grad=True), torch.arange(8.0).to_sparse()]
)
def test_labels_of_any_tensor(values):
    recording = capture(system(), X.clone().requires_grad_(), {"d": values})
    assert recording.values(["d"]).ravel().tolist() == list(range(8))


def test_tensors_as_arrays():
    assert numpy_of(torch.tensor([1.5], dtype=torch.float8_e4m3fn)).tolist() == [1.5]
    assert numpy_of(torch.tensor([1, 2])).dtype == np.int64
    assert numpy_of(torch.tensor([1.0 + 2j]).conj()).tolist() == [1 - 2j]


def test_measures_take_tensors():
    x = torch.randn(20, 4, generator=torch.Generator().manual_seed(0))
    expected = cka(x.bfloat16().float().numpy(), x.bfloat16().float().numpy())
    assert cka(x.bfloat16(), x.bfloat16().requires_grad_()) == pytest.approx(expected)


@pytest.mark.parametrize("dtype", [torch.float16, np.float16, np.dtype("f2"), "float16"])
def test_a_dtype_by_any_name(dtype):
    assert capture(system(), X, LABELS, dtype=dtype).activity.dtype == np.float16


@pytest.mark.parametrize(
    "options",
    [
        {"batch_size": 0},
        {"batch_size": -1},
        {"batch_size": 2.5},
        {"batch_size": None},
        {"dtype": "bfloat16"},
        {"dtype": "int8"},
        {"dtype": "x"},
        {"dtype": None},
        {"dtype": torch.bfloat16},
        {"seed": -1, "trials": 5},
        {"trials": True},
        {"trials": 5.5},
        {"trials": None},
        {"variables": [1, 2]},
        {"trials": X.to_sparse()},
    ],
)
def test_options_that_cannot_be(options):
    trials, variables = options.pop("trials", X), options.pop("variables", LABELS)
    made = load_system("multi-object/gru-0") if isinstance(trials, int) else system()
    with pytest.raises(InvalidInput):
        capture(made, trials, None if isinstance(trials, int) else variables, **options)


@pytest.mark.parametrize("tap", [None, 0, ""])
def test_taps_that_are_no_names(tap):
    with pytest.raises(NeuromasError, match="has no layer"):
        TorchSystem(nn.Sequential(nn.Linear(4, 3)), tap, name="n")


@pytest.mark.parametrize("thing", [nn.Linear(2, 2), "multi-object/gru-0", None])
def test_only_systems_are_captured(thing):
    with pytest.raises(InvalidInput, match="expected a System"):
        capture(thing, 5)


def test_a_fit_takes_a_list():
    gru = load_system("multi-object/gru-0")
    recording = capture(gru, 20)
    for wrong in (gru, recording, "multi-object/gru-0", None, 3, {"a": gru}, ["multi-object/gru-0"], [nn.Linear(2, 2)]):
        with pytest.raises(InvalidInput) as caught:
            CLMAS(4, **QUICK).fit(wrong)
        assert caught.value.kind == "wrong_systems"
    with pytest.raises(InvalidInput, match="put it in brackets"):
        CLMAS(4, **QUICK).fit(gru)
    with pytest.raises(InvalidInput, match="at least 2 systems"):
        CLMAS(4, **QUICK).fit([gru])
    with pytest.raises(InvalidInput, match="expected fitters"):
        fit_together([DAS], [gru])


def test_a_fit_takes_any_iterable():
    result = DAS(4, **QUICK).fit(each for each in [load_system("multi-object/gru-0")])
    assert result.report.ran == ("gru-0",)
    for options in ({"n_pairs": 0}, {"part": "x"}, {"oracles": load_system("multi-object/gru-1")}, {"seed": -1}):
        with pytest.raises(InvalidInput):
            result.evaluate(**options)


class TestLeftPadding:
    LEFT = torch.tensor([[1] * 5, [0, 0, 1, 1, 1]])
    TOKENS = torch.tensor([[1, 2, 3, 4, 5], [0, 0, 6, 7, 8]])

    @staticmethod
    def model(name, **shape):
        transformers = pytest.importorskip("transformers")
        torch.manual_seed(0)
        none = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
        config = getattr(transformers, f"{name}Config")(vocab_size=20, **shape, **none)
        return transformers.AutoModelForCausalLM.from_config(config).eval()

    @pytest.fixture
    def gpt2(self):
        return self.model("GPT2", n_embd=16, n_layer=2, n_head=2, n_positions=64)

    def capture(self, module, tap, tokens, mask, **more):
        inputs = {"input_ids": tokens, "attention_mask": mask, **more}
        return capture(TorchSystem(module, tap, name="g"), [inputs], {"w": np.arange(2)})

    def test_shifted_positions_are_warned_of(self, gpt2):
        with pytest.warns(UserWarning, match=r"padded on the left.*position_ids") as warned:
            self.capture(gpt2, "transformer.h.0", self.TOKENS, self.LEFT)
        assert len(warned) == 1

    def test_positions_make_left_as_right(self, gpt2, recwarn):
        positions = torch.tensor([[0, 1, 2, 3, 4], [0, 0, 0, 1, 2]])
        left = self.capture(gpt2, "transformer.h.0", self.TOKENS, self.LEFT, position_ids=positions)
        right = self.capture(
            gpt2, "transformer.h.0", torch.tensor([[1, 2, 3, 4, 5], [6, 7, 8, 0, 0]]), self.LEFT.flip(1)
        )
        np.testing.assert_allclose(left.latents(), right.latents(), atol=1e-5)
        assert not [warning for warning in recwarn if "padded" in str(warning.message)]

    def test_where_positions_do_not_count_nothing_is_said(self, gpt2, recwarn):
        shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
        rotary = self.model("Llama", num_key_value_heads=2, **shape)
        self.capture(rotary, "model.layers.0", self.TOKENS, self.LEFT)
        self.capture(gpt2, "transformer.wte", self.TOKENS, self.LEFT)
        assert not [warning for warning in recwarn if "padded" in str(warning.message)]

    def test_a_module_around_the_model(self, gpt2):
        class Around(nn.Module):
            def __init__(self):
                super().__init__()
                self.model = gpt2

            def forward(self, input_ids, attention_mask):
                return self.model(input_ids=input_ids, attention_mask=attention_mask)

        with pytest.warns(UserWarning, match="padded on the left"):
            self.capture(Around(), "model.transformer.h.0", self.TOKENS, self.LEFT)


def test_hashes_of_any_lengths():
    tokens = torch.tensor([[5, 6, 7], [5, 6, 0]])
    assert (hash_inputs(tokens, torch.tensor([3, 2])) == hash_inputs(tokens, [3, 2])).all()
