"""Any PyTorch module: what is recorded, in which order, streamed or not; resuming against our own systems; what is refused."""

from __future__ import annotations

import copy
import hashlib
import os
import signal
import tracemalloc
import weakref
from collections import namedtuple
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import Tensor, nn

from neuromas import dims
from neuromas.align.prepare import make_sides
from neuromas.causal.model import PAD, get_task
from neuromas.errors import InvalidDocument, InvalidInput, NeuromasError, NotFound, ReadOnly
from neuromas.fit.fitters import DAS, MAS
from neuromas.measures.comparison import compare
from neuromas.recordings.recording import Recording
from neuromas.recordings.store.store import RecordingStore
from neuromas.systems import capture as capturing
from neuromas.systems.capture import capture
from neuromas.systems.inputs import hash_inputs
from neuromas.systems.system import Packed
from neuromas.systems.torch_module import TorchSystem
from neuromas.systems.training import load_system


class ConvNet(nn.Module):
    """What a network of torchvision looks like: a stem and stages with batch normalisation, a pool, a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        self.stages = nn.ModuleList([nn.Conv2d(4, 6, 3, stride=2), nn.Conv2d(6, 5, 3)])
        self.act = nn.ReLU()
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for stage in self.stages:
            x = self.act(stage(x))
        return self.head(self.dropout(x.mean(dim=(2, 3))))


class Tagger(nn.Module):
    """Embedding → GRU → head over steps; seldom used parts aside."""

    def __init__(self, n_tokens: int = 9, width: int = 5) -> None:
        super().__init__()
        self.embedding = nn.Embedding(n_tokens, width)
        self.cell = nn.GRU(width, width, batch_first=True)
        self.head = nn.Linear(width, n_tokens)
        self.unused = nn.Linear(2, 2)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.cell(self.embedding(tokens))[0])


def images(n: int = 10, seed: int = 0) -> Tensor:
    return torch.randn(n, 3, 9, 8, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def conv() -> ConvNet:
    torch.manual_seed(0)
    return ConvNet()


@pytest.fixture
def tagger() -> Tagger:
    torch.manual_seed(0)
    return Tagger()


def by_hand(net: ConvNet, x: Tensor) -> Tensor:
    """Output of the first stage, in evaluation mode, written out."""
    stem = net.stem
    x = torch.nn.functional.conv2d(x, stem[0].weight, stem[0].bias, padding=1)
    x = (x - stem[1].running_mean[:, None, None]) / torch.sqrt(stem[1].running_var[:, None, None] + stem[1].eps)
    x = torch.relu(x * stem[1].weight[:, None, None] + stem[1].bias[:, None, None])
    return torch.nn.functional.conv2d(x, net.stages[0].weight, net.stages[0].bias, stride=2)


# ------------------------------------------------------------------------------------------------------- what is recorded


@pytest.mark.parametrize("pool", ["mean", "flatten"])
def test_a_convolution_is_recorded_as_it_runs_by_hand(conv, pool):
    x = images()
    with torch.no_grad():
        maps = by_hand(conv, x)
    expected = maps.mean(dim=(2, 3)) if pool == "mean" else maps.flatten(1)
    system = TorchSystem(conv, "stages.0", pool=pool, name="net")
    recording = capture(system, x.split(4), {"digit": np.arange(10), "side": np.array(["l", "r"] * 5)})
    np.testing.assert_allclose(recording.latents(), expected.numpy(), atol=1e-5)
    assert recording.values(["digit"]).ravel().tolist() == list(range(10))
    assert recording.trial.tolist() == list(range(10))
    assert set(recording.step) == {0}
    manifest = recording.manifest
    assert (manifest.system, manifest.layer, manifest.access, manifest.task) == ("net", "stages.0", "read", "")
    assert manifest.variable("side").meanings == ("l", "r")
    assert system.n_units == expected.shape[1]


def test_the_module_is_left_as_it_was(conv):
    conv.train()
    conv.stem[2].eval()  # a mixture must come back as a mixture
    conv.head.requires_grad_(False)
    modes = [part.training for part in conv.modules()]
    before = {key: value.clone() for key, value in conv.state_dict().items()}
    wanting = [parameter.requires_grad for parameter in conv.parameters()]
    system = TorchSystem(conv, "dropout")
    first = capture(system, images(), {"digit": np.arange(10)}).latents()
    np.testing.assert_array_equal(first, capture(system, images(), {"digit": np.arange(10)}).latents())  # no dropout
    with pytest.raises(InvalidInput):
        capture(system, torch.zeros(2, 1, 9, 8), {"digit": [0, 1]})
    assert [part.training for part in conv.modules()] == modes
    assert [parameter.requires_grad for parameter in conv.parameters()] == wanting
    assert all(torch.equal(value, before[key]) for key, value in conv.state_dict().items())
    assert not any(part._forward_hooks for part in conv.modules())


def test_steps_lengths_and_tokens(tagger):
    tokens = torch.randint(0, 9, (7, 6), generator=torch.Generator().manual_seed(1))
    lengths = np.array([6, 3, 1, 6, 2, 5, 4])
    count = np.arange(42).reshape(7, 6)
    told = {
        "count": count,
        "side": list("lrlrlrl"),
        "lengths": lengths,
        "token": tokens,
        "step": 10 + np.arange(42).reshape(7, 6) % 6,
    }
    recording = capture(
        TorchSystem(tagger, "cell"), tokens, told, batch_size=3, vocabulary=list("abcdefghi"), description="d"
    )
    with torch.no_grad():
        states = tagger.cell(tagger.embedding(tokens))[0].numpy()
    n = 0
    for trial in range(7):
        for step in range(lengths[trial]):
            assert (recording.trial[n], recording.step[n]) == (trial, 10 + step)
            np.testing.assert_allclose(recording.latents()[n], states[trial, step], atol=1e-6)
            assert recording.values(["count"])[n, 0] == count[trial, step]
            assert recording.dataset["token"].values[n] == tokens[trial, step]
            n += 1
    assert n == recording.n_samples
    assert recording.manifest.description == "d"


def test_pairs_bring_their_own_variables(tagger):
    data = torch.utils.data.TensorDataset(torch.arange(40).reshape(10, 4) % 9, torch.arange(10))
    loader = torch.utils.data.DataLoader(data, batch_size=4)
    pairs = ((x, {"number": y, "trial": 100 + y, "eligible": x > 2}) for x, y in loader)
    recording = capture(TorchSystem(tagger, "embedding"), pairs)
    assert recording.values(["number"]).ravel().tolist() == np.repeat(np.arange(10), 4).tolist()
    assert recording.trial.tolist() == np.repeat(100 + np.arange(10), 4).tolist()
    assert recording.eligible.tolist() == (data.tensors[0] > 2).flatten().tolist()
    expected = tagger.embedding(data.tensors[0]).detach().flatten(0, 1).numpy()
    np.testing.assert_array_equal(recording.latents(), expected)


@dataclass
class Out:
    flag: int
    second: Tensor
    third: Tensor


Named = namedtuple("Named", ["second", "third"])


class Giving(nn.Module):
    """Gives twice and three times its input, packed in one way or another."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how

    def forward(self, x: Tensor) -> object:
        second, third = 2 * x, 3 * x
        return {
            "tuple": (None, second, third),
            "list": [second, third],
            "dict": {"flag": 1, "second": second, "third": third},
            "dataclass": Out(1, second, third),
            "named": Named(second, third),
        }[self.how]


class Taking(nn.Module):
    def __init__(self, how: str) -> None:
        super().__init__()
        self.part = Giving(how)

    def forward(self, x: Tensor) -> object:
        return self.part(x)


@pytest.mark.parametrize(
    ("how", "output", "factor"),
    [
        ("tuple", None, 2),
        ("tuple", 2, 3),
        ("list", None, 2),
        ("list", -1, 3),
        ("dict", None, 2),
        ("dict", "third", 3),
        ("dataclass", None, 2),
        ("dataclass", "third", 3),
        ("named", "third", 3),
        ("tuple", lambda output: output[1] + output[2], 5),
    ],
)
def test_which_part_of_an_output_counts(how, output, factor):
    x = torch.randn(4, 3)
    recording = capture(TorchSystem(Taking(how), "part", output=output), x, {"n": range(4)})
    np.testing.assert_allclose(recording.latents(), factor * x.numpy(), rtol=1e-6)


def test_arguments_of_any_form():
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last = nn.Identity()

        def forward(self, x: Tensor, y: Tensor, *, scale: float = 1.0) -> Tensor:
            return self.last(scale * (x - y))

    system = TorchSystem(Two(), "last")
    x, y = np.random.default_rng(0).normal(size=(2, 5, 3)).astype(np.float32)
    as_tuple = capture(system, [(x, torch.from_numpy(y))], {"n": range(5)})
    as_mapping = capture(system, {"x": x, "y": y, "scale": 2.0}, {"n": range(5)}, batch_size=2)
    np.testing.assert_allclose(as_tuple.latents(), x - y, rtol=1e-6)
    np.testing.assert_allclose(as_mapping.latents(), 2 * (x - y), rtol=1e-6)
    np.testing.assert_array_equal(as_tuple.dataset["input_hash"], as_mapping.dataset["input_hash"])


def test_low_precision_and_half():
    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh()).to(torch.bfloat16)
    x = torch.randn(6, 3, dtype=torch.bfloat16)
    with torch.no_grad():
        expected = net(x).float().numpy()
    recording = capture(TorchSystem(net, "1", name="n"), x, {"n": range(6)})
    np.testing.assert_array_equal(recording.latents(), expected)
    half = capture(TorchSystem(net, "1", name="n"), x, {"n": range(6)}, dtype="float16")
    assert half.activity.dtype == np.float16
    assert len({*hash_inputs(x).tolist()}) == 6  # bfloat16 is hashed, too


# ---------------------------------------------------------------------------------------------------------- Hugging Face


@pytest.fixture(scope="module")
def bert():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    return transformers.BertModel(transformers.BertConfig(vocab_size=30, **shape)).eval()


@pytest.fixture(scope="module")
def llama():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    vocabulary = len(get_task("multi-object").vocabulary)
    made = transformers.LlamaForCausalLM(transformers.LlamaConfig(vocab_size=vocabulary + 3, **shape)).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.dim() > 1:
                parameter.mul_(8)
    return made


def padded(sentences: list[list[int]]) -> dict[str, Tensor]:
    longest = max(map(len, sentences))
    ids = torch.tensor([one + [0] * (longest - len(one)) for one in sentences])
    mask = torch.tensor([[1] * len(one) + [0] * (longest - len(one)) for one in sentences])
    return {"input_ids": ids, "attention_mask": mask}


SENTENCES = [[5, 6, 7], [8, 9], [1, 2, 3, 4, 5], [4], [7, 7, 7, 1], [2, 9, 4]]


def test_a_hugging_face_model_by_the_same_call(bert):
    batches = [padded(SENTENCES[:2]), padded(SENTENCES[2:4]), padded(SENTENCES[4:])]  # of 3, 5 and 4 steps
    place = np.tile(np.arange(5), (6, 1))
    recording = capture(
        TorchSystem(bert, "encoder.layer.0"), batches, {"place": place, "first": [s[0] for s in SENTENCES]}
    )
    expected = []
    for sentence in SENTENCES:  # each alone, without padding
        with torch.no_grad():
            expected.append(bert(torch.tensor([sentence]), output_hidden_states=True).hidden_states[1][0].numpy())
    np.testing.assert_allclose(recording.latents(), np.concatenate(expected), atol=1e-5)
    np.testing.assert_array_equal(recording.values(["place"])[:, 0], recording.step)
    pooled = capture(TorchSystem(bert, "pooler", name="pooled"), batches, {"first": [s[0] for s in SENTENCES]})
    assert pooled.n_samples == 6
    assert {*pooled.dataset["input_hash"].values} == {*recording.dataset["input_hash"].values}


def test_a_trials_hash_does_not_depend_on_its_padding(bert):
    system = TorchSystem(bert, "embeddings")
    n = {"n": range(6), "place": np.tile(np.arange(5), (6, 1))}
    together, apart = capture(system, padded(SENTENCES), n), capture(system, [padded([one]) for one in SENTENCES], n)
    np.testing.assert_array_equal(together.dataset["input_hash"], apart.dataset["input_hash"])
    turned = {key: value.flip(1) for key, value in padded([one[::-1] for one in SENTENCES]).items()}  # on the left
    left = capture(system, turned, n)
    np.testing.assert_array_equal(together.dataset["input_hash"], left.dataset["input_hash"])
    np.testing.assert_array_equal(together.step, left.step)
    for one in (together, apart):
        np.testing.assert_array_equal(one.values(["place"])[:, 0], one.step)
    np.testing.assert_array_equal(
        left.values(["place"])[:, 0], np.concatenate([np.arange(5)[-len(s) :] for s in SENTENCES])
    )
    with pytest.raises(
        InvalidInput, match=r"'place': expected shape \(2,\) or \(2, 3\), got \(2, 5\)"
    ):  # which 3 of 5?
        capture(system, [{key: value[:2, 2:] for key, value in turned.items()}], {"place": np.zeros((2, 5))})
    np.testing.assert_array_equal(
        hash_inputs(padded(SENTENCES)), hash_inputs(padded(SENTENCES)["input_ids"], [len(one) for one in SENTENCES])
    )


# --------------------------------------------------------------------------------------------------- identity and order


def test_the_hash_is_a_sha256_of_type_shape_and_bytes(tagger):
    tokens = torch.arange(12).reshape(3, 4) % 9
    expected = [
        hashlib.sha256(b"torch.int64(4,)" + row.tobytes()).hexdigest()[:16] for row in tokens.numpy().astype("<i8")
    ]
    assert hash_inputs(tokens).tolist() == expected
    recording = capture(TorchSystem(tagger, "cell"), tokens, {"n": range(3)})
    stored = recording.dataset["input_hash"].values
    assert stored.dtype == np.uint64
    assert [f"{one:016x}" for one in stored] == np.repeat(expected, 4).tolist()
    others = [tokens.int(), tokens.reshape(3, 2, 2), tokens + 1]
    assert not {*expected} & {one for other in others for one in hash_inputs(other)}


def test_inputs_in_another_order_are_refused(tagger):
    tokens = torch.randint(0, 9, (8, 4), generator=torch.Generator().manual_seed(2))
    system, n = TorchSystem(tagger, "cell"), {"n": range(8)}
    hashes, first = hash_inputs(tokens), capture(system, tokens, n)
    swapped = tokens[[0, 1, 2, 3, 4, 6, 5, 7]]
    for known in (hashes, first, first.dataset["input_hash"].values[::4]):
        assert capture(system, tokens, n, expected=known, batch_size=3).n_samples == 32
        with pytest.raises(InvalidInput, match=rf"batch 1 .*trial 5 .*{hashes[6]}, expected {hashes[5]}") as caught:
            capture(system, swapped, n, expected=known, batch_size=3)
        assert caught.value.kind == "inputs_mismatch"
    with pytest.raises(InvalidInput, match="trial 5"):  # kept beside the labels
        capture(system, swapped, n | {"input_hash": hashes})
    with pytest.raises(InvalidInput, match="no such trial"):
        capture(system, tokens, n | {"trial": np.arange(8) + 100}, expected=first)
    for kind, known in (("sample_mismatch", hashes[:-1]), ("invalid_inputs", ["?"] * 8)):
        with pytest.raises(InvalidInput) as caught:
            capture(system, tokens, n, expected=known)
        assert caught.value.kind == kind
    with pytest.raises(InvalidInput, match=r"8 trials.* of 7") as caught:
        capture(system, tokens[:7], {"n": range(7)}, expected=first)
    assert caught.value.kind == "sample_mismatch"
    with pytest.raises(InvalidInput, match="no hashes"):
        capture(system, tokens, n, expected=Recording.from_arrays(np.zeros((8, 1)), n, name="x"))


def test_rows_of_other_inputs_are_not_compared(tagger, bert):
    tokens = torch.randint(0, 9, (30, 4), generator=torch.Generator().manual_seed(3))
    n = {"n": np.arange(30)}
    x = capture(TorchSystem(tagger, "cell"), tokens, n)
    y = capture(TorchSystem(bert, "encoder.layer.1"), {"input_ids": tokens}, n)
    assert compare(x, y).matched_by == ("trial", "step", "input_hash")
    order = np.arange(30)
    order[[10, 20]] = 20, 10
    other = capture(TorchSystem(bert, "encoder.layer.1"), {"input_ids": tokens[order]}, {"n": np.arange(30)})
    with pytest.raises(InvalidInput, match=r"of 30 trials with equal numbers 2 .*first trial 10") as caught:
        compare(x, other)
    assert caught.value.kind == "different_trials"


# ------------------------------------------------------------------------------------------------------------ streaming


def test_into_a_store_is_what_is_held_in_memory(tagger, tmp_path):
    tokens = torch.randint(0, 9, (20, 4), generator=torch.Generator().manual_seed(4))
    variables = {
        "side": np.array(list("lrx") * 6 + list("ll")),
        "weight": np.linspace(0, 1, 20),
        "lengths": [4, 2] * 10,
    }
    system, store = TorchSystem(tagger, "cell", name="net"), RecordingStore(tmp_path)
    held = capture(system, tokens, variables, batch_size=3)
    stored = capture(system, tokens.split(3), variables, into=store, set="runs")
    assert (stored.name, stored.in_memory, store.verify()) == ("runs/net", False, [])
    assert stored.manifest.variable("side").meanings == (
        "l",
        "r",
        "x",
    )  # the first batch alone has them all, the last not
    np.testing.assert_array_equal(stored.latents(), held.latents())
    for name in ("trial", "step", "side", "weight", "input_hash"):
        np.testing.assert_array_equal(stored.dataset[name], held.dataset[name])
        assert stored.dataset[name].dtype == held.dataset[name].dtype
    again = capture(system, tokens.split(3), variables, into=tmp_path, set="runs")  # the same content is no conflict
    assert again.manifest.content_sha256 == stored.manifest.content_sha256
    grouped = capture(system, tokens.split(3), variables, name="g", into=store, set="runs", group_by=["side"])
    assert grouped.groups.counts == (24, 18, 18)


def test_our_own_systems_stream_too(toys, tmp_path):
    system = toys.make("a", 13, seed=1)
    held = capture(system, 25, model=toys.model, batch_size=7)
    stored = capture(system, 25, model=toys.model, batch_size=7, into=RecordingStore(tmp_path), set="own")
    np.testing.assert_array_equal(stored.latents(), held.latents())
    np.testing.assert_array_equal(stored.values(), held.values())
    np.testing.assert_array_equal(stored.dataset["token"], held.dataset["token"])


def test_batches_are_taken_one_at_a_time_and_let_go(tmp_path):
    """Memory does not grow with the number of batches, and no batch is taken before the last one was written."""
    module, alive, reported, held = nn.Sequential(nn.Linear(4, 2000)), [], [0], []
    size = 50 * 2000 * 4  # bytes of activity per batch

    def batches():
        for number in range(30):
            assert reported[-1] == 50 * number
            assert sum(one() is not None for one in alive) <= 1
            held.append(tracemalloc.get_traced_memory()[0])
            x = torch.full((50, 4), float(number))
            alive.append(weakref.ref(x))
            yield x

    tracemalloc.start()
    try:
        given = {"n": np.repeat(np.arange(30), 50)}
        recording = capture(
            TorchSystem(module, "0"),
            batches(),
            given,
            into=RecordingStore(tmp_path),
            set="big",
            progress=lambda done, total: reported.append(done),
        )
    finally:
        tracemalloc.stop()
    assert len(held) == 30
    assert held[-1] - held[3] < size  # 26 batches later
    assert reported[-1] == recording.n_samples == 1500


def test_interrupted_the_store_is_as_it_was(tagger, tmp_path):
    store, system = RecordingStore(tmp_path), TorchSystem(tagger, "cell", name="net")
    tokens, n = torch.arange(36).reshape(9, 4) % 9, {"n": range(9)}

    def broken(how):
        yield tokens[:3]
        yield tokens[3:6]
        how()

    def press():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        capture(system, broken(press), n, into=store, set="runs")
    child = os.fork()
    if not child:
        capture(system, broken(lambda: os.kill(os.getpid(), signal.SIGKILL)), n, into=store, set="runs")
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    with pytest.raises(InvalidInput, match=r"9 trials.*inputs of 6"):  # too few inputs: known at the end only
        capture(system, tokens[:6].split(3), n, into=store, set="runs")
    assert list(store.list()) == []
    assert capture(system, tokens.split(3), n, into=store, set="runs").n_samples == 36
    assert [entry.name for entry in store.list()] == ["runs/net"]
    assert store.verify() == []
    assert not [path for path in (tmp_path / ".neuromas").rglob("*") if "spool" in path.parts]


def test_progress(tagger, capsys, monkeypatch):
    system, tokens = TorchSystem(tagger, "cell"), torch.zeros(5, 2, dtype=torch.int64)
    seen = []
    capture(system, tokens, {"n": range(5)}, batch_size=2, progress=lambda *now: seen.append(now))
    capture(system, ((x, {"n": [0] * len(x)}) for x in tokens.split(4)), progress=lambda *now: seen.append(now))
    assert seen == [(2, 5), (4, 5), (5, 5), (4, None), (5, None)]
    capture(system, tokens, {"n": range(5)})
    assert capsys.readouterr().err == ""  # no terminal: silent
    shown = Console(force_terminal=True, record=True, width=80)
    monkeypatch.setattr(capturing, "Console", lambda **options: shown)
    capture(system, tokens, {"n": range(5)}, name="bar")
    assert "bar" in (text := shown.export_text())
    assert "5/5 trials" in text


# ---------------------------------------------------------------------------------------------------------- what is refused


class Odd(nn.Module):
    """Has taps of every unusable kind."""

    def __init__(self) -> None:
        super().__init__()
        self.twice, self.never, self.cut, self.whole = nn.Identity(), nn.Identity(), nn.Identity(), nn.Identity()
        self.first, self.deep, self.as_is, self.text = nn.Identity(), nn.Identity(), nn.Identity(), Text()

    def forward(self, x: Tensor) -> Tensor:
        self.twice(self.twice(x))
        self.cut(x[1:])
        self.whole(x > 0)
        self.first(x.sum())
        self.deep(x[:, None, None] * torch.ones(1, 2, 2, 1))
        self.text(x)
        return self.as_is(x)


class Text(nn.Module):
    def forward(self, x: Tensor) -> str:
        return "no tensor"


@pytest.mark.parametrize(
    ("tap", "kind", "told"),
    [
        ("twice", "missing_output", "is run 2 times"),
        ("never", "missing_output", "is never run"),
        ("cut", "shape_mismatch", r"\(3, 3\) for 4 trials"),
        ("first", "shape_mismatch", "batch_first"),
        ("whole", "missing_output", "torch.bool"),
        ("deep", "shape_mismatch", r"\(4, 2, 2, 3\).*pool='mean'.*pool='flatten'"),
        ("text", "missing_output", "the tap gives str"),
    ],
)
def test_taps_that_give_no_latent(tap, kind, told):
    with pytest.raises(InvalidInput, match=told) as caught:
        capture(TorchSystem(Odd(), tap), torch.randn(4, 3), {"n": range(4)})
    assert caught.value.kind == kind
    assert "batch 0 of 'Odd' (trials 0 to 3)" in str(caught.value)


X, N = torch.zeros(4, 3), {"n": range(4)}


@pytest.mark.parametrize(
    ("given", "variables", "kind", "told"),
    [
        ([X], {"n": range(5)}, "sample_mismatch", "of 5 trials, inputs of 4"),
        ([X, X], {"n": range(5)}, "sample_mismatch", "of 5 trials, inputs of at least 8"),
        ([X], {"n": range(4), "m": range(5)}, "sample_mismatch", "'n' of 4, 'm' of 5"),
        ([(X, {"n": range(3)})], None, "sample_mismatch", "of 3 trials, inputs of 4"),
        ([X], None, "no_variables", "batch 0 .* pair"),
        ([], {"n": []}, "no_trials", "got none"),
        ([X, torch.zeros(4, 3, 3)], {"n": range(8)}, "not_finite", "trial 0 step 0"),
        ([X, X * np.nan], {"n": range(8)}, "not_finite", r"batch 1 .*trials 4 to 7.*trial 4 step 0"),
        ([X, X[:, :2]], {"n": range(8)}, "unit_mismatch", "batch 1 .*2 units .* had 3"),
        ([(X, X[1:])], N, "shape_mismatch", r"\(4, 3\), \(3, 3\)"),
        (["text"], N, "invalid_inputs", "got str"),
        ([{"x": object()}], N, "invalid_inputs", "'x': expected a tensor"),
        ([{"y": X}], N, "module_failed", "unexpected keyword"),
        ([X], {"n": 3}, "shape_mismatch", "3 for all"),
        ([X], {"n": [[1], [1, 2], [1], [1]]}, "invalid_array", "cannot be made an array"),
        ([(X, {"unit": range(4)})], None, "invalid_document", "'unit' is reserved"),
        ([X], {"n": np.zeros((4, 2))}, "shape_mismatch", r"\(4,\) or \(4, 1\), got \(4, 2\)"),
        ([X], N | {"lengths": [1, 2, 1, 1]}, "sample_mismatch", "0 to 1"),
        ([X], N | {"lengths": [0] * 4}, "no_samples", "every step is padding"),
        ([X], N | {"trial": np.zeros((4, 1), int)}, "invalid_trials", r"\(4, 1\)"),
        ([(X, {"n": range(4)}), (X, {"m": range(4)})], None, "variables_mismatch", "batch 1"),
    ],
)
def test_batches_and_variables_that_do_not_fit(given, variables, kind, told):
    module = Odd() if kind != "not_finite" or len(given) < 2 or given[1].ndim < 3 else Inverse()
    with pytest.raises(InvalidInput, match=told) as caught:
        capture(TorchSystem(module, "as_is"), given, variables)
    assert caught.value.kind == kind


class Inverse(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.as_is = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.as_is(1 / x)


def test_trials_that_come_twice_and_masks_that_do_not_fit(bert, tmp_path):
    with pytest.raises(InvalidDocument, match="more than one at trial 0 step 0"):
        capture(TorchSystem(Odd(), "as_is"), X, N | {"trial": [0, 0, 1, 2]})
    with pytest.raises(InvalidInput) as caught:
        capture(TorchSystem(Odd(), "as_is"), [X, X], {"n": range(8), "trial": [*range(4)] * 2}, into=tmp_path, set="s")
    assert caught.value.kind == "invalid_trials"
    system = TorchSystem(bert, "encoder.layer.0", output=lambda output: output[:, ::2])
    with pytest.raises(InvalidInput, match=r"mask has 5 steps, .* gives 3") as caught:
        capture(system, padded(SENTENCES), {"n": range(6)})
    assert caught.value.kind == "sample_mismatch"
    lengths = [-(-len(one) // 2) for one in SENTENCES]
    assert capture(system, padded(SENTENCES), {"n": range(6), "lengths": lengths}).n_samples == sum(lengths)


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"only_solved": True}, "invalid_option"),
        ({"set": "s"}, "invalid_option"),
        ({"into": "store"}, "invalid_option"),
        ({"group_by": ["n"]}, "invalid_option"),
    ],
)
def test_options_that_do_not_go_together(options, kind):
    with pytest.raises(InvalidInput) as caught:
        capture(TorchSystem(Odd(), "as_is"), X, N, **options)
    assert caught.value.kind == kind


def test_who_takes_what(toys):
    with pytest.raises(InvalidInput, match="batches of inputs go with a TorchSystem"):
        capture(toys.make("a"), [X], N)
    with pytest.raises(InvalidInput, match="variables and expected go with batches"):
        capture(toys.make("a"), 5, N, model=toys.model)
    with pytest.raises(InvalidInput, match="made without a task") as caught:
        capture(TorchSystem(Odd(), "as_is"), 5)
    assert caught.value.kind == "no_task"
    with pytest.raises(NotFound, match=r"nearest: stages.1, stages.0"):
        TorchSystem(ConvNet(), "stages.2")
    with pytest.raises(InvalidInput, match=r"torch.nn.Module, got str"):
        TorchSystem("net", "stages.2")
    with pytest.raises(InvalidInput, match="'mean' or 'flatten', got 'max'"):
        TorchSystem(ConvNet(), "stem", pool="max")
    with pytest.raises(InvalidInput, match="finds no tensor"):
        capture(TorchSystem(Taking("tuple"), "part", output=0), X, N)
    system = TorchSystem(ConvNet(), "stem", pool="mean")
    with pytest.raises(InvalidInput, match="capture it first"):
        system.n_units  # noqa: B018
    assert capture(system.at("head"), images(3), {"n": range(3)}).n_units == 2


# --------------------------------------------------------------------------------------------------------- to be resumed


def gru_step(net, latents, tokens):
    after = net.cell(net.embedding(tokens)[:, None], latents[None].contiguous())[1]
    return net.readout(latents), after[0]


WRAPPED = {
    "gru": ("multi-object/gru-0", "hidden", "cell", gru_step),
    "gru-embedding": ("multi-object/gru-0", "embedding", "embedding", None),
    "transformer": ("multi-object/transformer-0", "layer-1", "blocks.0", None),
    "transformer-embedding": ("multi-object/transformer-0", "embedding", "embedding", None),
}


def wrapped(which: str):
    """A shipped system, and its bare network as a `TorchSystem`."""
    name, layer, tap, step = WRAPPED[which]
    network = load_system(name)._network.requires_grad_(True).train()  # as a user's may be
    native = load_system(name, layer=layer)
    return native, TorchSystem(network, tap, name=native.name, task="multi-object", step=step)


def trials(n: int = 20):
    task, generator = get_task("multi-object"), np.random.default_rng(0)
    drawn = task.sample(n, 0)
    rows = np.arange(n)
    at = np.array([generator.integers(1, length - 1) for length in drawn.lengths])
    values = drawn.values[rows, at][::-1].copy()
    return drawn, rows, at, Packed.from_continuation(task.counterfactual(values, generator))


def run(system, latents: Tensor, continuation: Packed, context) -> tuple[Tensor, Tensor]:
    """Logits, and the gradient of a random weighing of them."""
    given = latents.clone().requires_grad_(True)
    logits = system.resume(given, continuation, context)
    (logits * torch.randn(logits.shape, generator=torch.Generator().manual_seed(0)).to(logits)).sum().backward()
    return logits.detach(), given.grad


@pytest.mark.parametrize("which", WRAPPED)
def test_resuming_a_wrapped_network_is_resuming_the_system(which):
    native, ours = wrapped(which)
    drawn, rows, at, continuation = trials()
    tokens = torch.from_numpy(drawn.tokens)
    real = tokens != PAD
    torch.testing.assert_close(ours.latents(tokens)[real], native.latents(tokens)[real], rtol=0, atol=1e-5)
    latents = native.latents(tokens)[rows, at][torch.randperm(20, generator=torch.Generator().manual_seed(1))]
    contexts = [one.context(tokens) for one in (native, ours)]
    held = [None if context is None else context.at(rows, at) for context in contexts]
    (logits, gradient), (own_logits, own_gradient) = (
        run(one, latents, continuation, context) for one, context in zip((native, ours), held, strict=True)
    )
    torch.testing.assert_close(own_logits, logits, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(own_gradient, gradient, rtol=1e-5, atol=1e-5)
    assert gradient.abs().max() > 0.1
    assert all(parameter.grad is None and parameter.requires_grad for parameter in ours.module.parameters())
    np.testing.assert_array_equal(ours.solved(drawn), native.solved(drawn))
    assert ours.stepwise == native.stepwise
    if native.stepwise:
        whole, lengths = native.latents(tokens).clamp(-2, 2), torch.from_numpy(at) + 1
        stepped = [one.resume_steps(whole, lengths, tokens, continuation) for one in (native, ours)]
        torch.testing.assert_close(stepped[1], stepped[0], rtol=1e-5, atol=1e-5)
    else:
        with pytest.raises(InvalidInput, match="follows from the one before"):
            ours.resume_steps(latents[:, None], torch.ones(20, dtype=torch.int64), tokens, continuation)


@pytest.mark.gpu
@pytest.mark.parametrize("which", ["gru", "gru-embedding", "transformer"])
def test_resuming_on_a_gpu_is_that_on_the_cpu(which):
    """cuDNN does not go back through a recurrent layer that does not train."""
    ours = wrapped(which)[1]
    drawn, rows, at, continuation = trials()
    tokens, found = torch.from_numpy(drawn.tokens), []
    latents = ours.latents(tokens)[rows, at].flip(0)
    for device in ("cpu", "cuda"):
        context = ours.to(device).context(tokens)
        packed = Packed(
            **{
                key: value.to(device) if isinstance(value, Tensor) else value
                for key, value in vars(continuation).items()
            }
        )
        found.append(run(ours, latents.to(device), packed, None if context is None else context.at(rows, at)))
    for on_cpu, on_gpu in zip(*found, strict=True):
        torch.testing.assert_close(on_gpu.cpu(), on_cpu, rtol=1e-3, atol=1e-3)


SHORT = {"n_trials": 60, "batch_size": 24, "n_train_pairs": 80, "n_validation_pairs": 30, "max_iterations": 4}


@pytest.mark.parametrize("which", ["gru", "transformer"])
def test_a_fit_is_that_of_the_system(which):
    native, ours = wrapped(which)
    before = {key: value.clone() for key, value in ours.module.state_dict().items()}
    own = DAS(4, validate_every=2, **SHORT).fit([ours])
    expected = DAS(4, validate_every=2, **SHORT).fit([native])
    assert [one.iteration for one in own.report.history] == [one.iteration for one in expected.report.history]
    for one, other in zip(own.report.history, expected.report.history, strict=True):
        assert one.loss == pytest.approx(other.loss, abs=1e-4)
    assert own.report.history[0].loss != own.report.history[-1].loss
    assert all(torch.equal(value, before[key]) for key, value in ours.module.state_dict().items())


def test_two_modules_take_part_in_one_fit():
    result = MAS(4, validate_every=2, **SHORT).fit([wrapped("gru")[1], wrapped("transformer")[1]])
    assert result.report.ran == ("gru-0", "transformer-0")
    assert [given.layer for given in result.report.inputs] == ["cell", "blocks.0"]


def test_a_task_of_ones_own(toys):
    torch.manual_seed(0)
    system = TorchSystem(Tagger(6), "embedding", task=toys.model)
    assert (system.config.task, system.config.vocabulary) == ("toy", toys.Toy.vocabulary)
    result = MAS(2, allow_unsolved=True, **SHORT).fit([system, toys.make("other")], model=toys.model)
    assert result.report.ran == ("Tagger", "other")


def test_a_hugging_face_model_is_resumed_by_putting_the_latent_in_place(llama):
    """Each pair by itself: the whole sequence, one position of the block's output replaced."""
    system = TorchSystem(llama, "model.layers.0", task="multi-object", name="llama")
    drawn, rows, at, continuation = trials(6)
    tokens = torch.from_numpy(drawn.tokens)
    latents = system.latents(tokens)[rows, at].flip(0)
    found = system.resume(latents, continuation, system.context(tokens).at(rows, at))
    following = continuation.padded()
    for pair in rows:
        rest = following[pair][following[pair] != PAD]
        sequence = torch.cat([tokens[pair, : at[pair] + 1], rest])[None]

        def put(module, args, output, pair=pair):
            changed = output.clone()
            changed[0, at[pair]] = latents[pair]
            return changed

        handle = llama.model.layers[0].register_forward_hook(put)
        with torch.no_grad():
            expected = llama(sequence).logits[0, at[pair] : at[pair] + len(rest)]
        handle.remove()
        torch.testing.assert_close(found[continuation.rows == pair], expected, rtol=1e-4, atol=1e-4)


class Ahead(nn.Module):
    """Every step sees all steps."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(9, 5), nn.Linear(5, 9)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens)
        return self.head(x + x.mean(dim=1, keepdim=True))


def test_modules_that_cannot_be_resumed(tagger):
    toy = {"task": "multi-object"}
    task = get_task("multi-object")
    for make, kind in (
        (lambda: TorchSystem(tagger, "cell", **toy), "not_resumable"),
        (lambda: TorchSystem(tagger, "head", **toy), "not_resumable"),
        (lambda: TorchSystem(Ahead(), "embedding", **toy), "not_resumable"),
        (lambda: TorchSystem(tagger, "cell", task="x", vocabulary="abcdefghijkl"), "missing_output"),
        (lambda: TorchSystem(Tagger(3), "cell", **toy), "module_failed"),
        (lambda: TorchSystem(tagger, "cell", name="no name", **toy), "invalid_document"),
        (lambda: TorchSystem(tagger, "unused", **toy), "missing_output"),
        (lambda: TorchSystem(tagger, "embedding", output=lambda output: output, **toy), "invalid_option"),
        (lambda: TorchSystem(tagger, "embedding", pool="mean", **toy), "invalid_option"),
        (lambda: TorchSystem(tagger, "embedding", vocabulary="abc"), "no_task"),
        (lambda: TorchSystem(tagger, "embedding", task="unheard-of"), "unknown_task"),
        (lambda: TorchSystem(nn.Sequential(nn.Embedding(9, 5)), "0", **toy), "missing_output"),
        (lambda: TorchSystem(tagger, "cell", step=lambda m, h, t: (m.head(h), h), **toy), "not_resumable"),
        (lambda: TorchSystem(tagger, "cell", step=lambda m, h, t: (h, h), **toy), "not_resumable"),
    ):
        with pytest.raises((InvalidInput, NotFound)) as caught:
            make()
        assert caught.value.kind == kind, caught.value
    right = TorchSystem(
        tagger, "cell", step=lambda m, h, t: (m.head(h), m.cell(m.embedding(t)[:, None], h[None])[1][0]), **toy
    )
    low = copy.deepcopy(tagger).to(torch.bfloat16)
    also = TorchSystem(low, "cell", step=right._step, task=task)
    found = also.resume(torch.zeros(5, 5), trials(5)[3])  # recorded latents are float32
    assert found.dtype == torch.float32
    assert (right.config.task, right.config.vocabulary, right.n_units) == (task.name, task.vocabulary, 5)
    with pytest.raises(InvalidInput, match=r"context\(tokens\)") as caught:
        wrapped("transformer")[1].resume(torch.zeros(1, 128), trials(1)[3])
    assert caught.value.kind == "no_context"


def test_a_module_without_a_task_is_only_read(tagger):
    system = TorchSystem(tagger, "cell")
    for attempt in (lambda: make_sides([system]), lambda: DAS(2).fit([system])):
        with pytest.raises(InvalidInput, match=r"'Tagger' has no task.*task=.*recording") as caught:
            attempt()
        assert caught.value.kind == "no_task"
    with pytest.raises(ReadOnly, match="not resumed"):
        system.resume(torch.zeros(1, 5), trials(1)[3])
    assert issubclass(ReadOnly, NeuromasError)
    native = load_system("multi-object/gru-0")  # its recording takes part
    drawn = get_task("multi-object").sample(60, 0)
    values = {name: drawn.values[..., column] for column, name in enumerate(("phase", "count"))}
    read = capture(
        TorchSystem(native._network, "cell", name="brain"),
        torch.from_numpy(drawn.tokens),
        {**values, "lengths": drawn.lengths, "eligible": drawn.eligible, "token": drawn.tokens},
        vocabulary=get_task("multi-object").vocabulary,
        variable_specs=get_task("multi-object").variables,
    )
    own = capture(native, drawn)
    np.testing.assert_array_equal(read.latents(), own.latents())
    assert make_sides([native, read], n_trials=60)[1].access == "read"
    assert dims.INPUT_HASH not in own.dataset.coords


# ------------------------------------------------------------------------------------------------------------- what it was


def test_an_output_changed_in_place_later_is_recorded_as_it_was():
    torch.manual_seed(0)
    first = nn.Linear(3, 5)
    module = nn.Sequential(first, nn.ReLU(inplace=True), nn.Linear(5, 2))
    inputs = torch.randn(20, 3)
    recorded = capture(TorchSystem(module, "0", name="net"), inputs, {"n": np.arange(20)}).latents()
    assert recorded.min() < 0
    np.testing.assert_allclose(recorded, first(inputs).detach().numpy(), rtol=1e-6)


def test_a_module_that_fails_in_its_own_way_is_one_error():
    class Broken(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 3)

        def forward(self, x):
            return {}["missing"]

    with pytest.raises(InvalidInput, match=r"system 'net' cannot be run on inputs \(4, 3\) torch.float32: 'missing'"):
        capture(TorchSystem(Broken(), "layer", name="net"), torch.ones(4, 3), {"n": [1, 2, 3, 4]})


def test_weights_tell_one_module_from_another():
    def made(seed):
        torch.manual_seed(seed)
        return TorchSystem(nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)), "0", name="net")

    assert made(0).weights_sha256() == made(0).weights_sha256() != made(1).weights_sha256()
    source = capture(made(0), torch.ones(2, 3), {"n": [1, 2]}).manifest.provenance.source
    assert made(0).weights_sha256() in source


def test_context_as_wide_as_there_are_steps_is_no_padding():
    tokens, present = torch.tensor([[1, 2, 3], [4, 5, 0]]), [3, 2]
    context = torch.randn(2, 3)
    other = context.clone()
    other[1, 2] += 1  # not a step: a third feature
    assert hash_inputs((tokens, context), present)[1] != hash_inputs((tokens, other), present)[1]
    padded = tokens.clone()
    padded[1, 2] = 9
    assert (hash_inputs(tokens, present) == hash_inputs(padded, present)).all()
