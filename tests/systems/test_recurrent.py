"""GRU and LSTM written out by hand against torch.nn.GRU, torch.nn.LSTM and autograd."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neuromas.causal.model import PAD
from neuromas.schema.system import SystemConfig
from neuromas.systems.recurrent import LSTMNetwork, Recurrent, RecurrentNetwork, _ByLibrary, _full_precision
from neuromas.systems.system import Packed
from neuromas.systems.training import SYSTEMS

KINDS = [name for name, system in SYSTEMS.items() if issubclass(system, Recurrent)]
pytestmark = pytest.mark.parametrize("kind", KINDS)


def make(kind: str, n_units: int = 6, seed: int = 0, double: bool = True) -> tuple[Recurrent, RecurrentNetwork]:
    config = SystemConfig(
        kind=kind, name="tiny", task="multi-object", vocabulary=tuple("BDTRE"), n_units=n_units, n_hidden=7
    )
    torch.manual_seed(seed)
    network = SYSTEMS[kind].network(config)
    with torch.no_grad():  # larger weights than the default: saturated gates are where slips would show
        for parameter in network.parameters():
            parameter.mul_(2)
    system = SYSTEMS[kind](config, network.state_dict())
    if double:
        system._network.double()
        system._prepare()
        network.double()
    return system, network.eval()


def as_torch(network: RecurrentNetwork, latent: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, ...]:
    """One latent (n_units,) in the form that the cell takes and gives."""
    if isinstance(network, LSTMNetwork):
        return tuple(half[None, None].contiguous() for half in latent.chunk(2))
    return latent[None, None]


def from_torch(state: torch.Tensor | tuple[torch.Tensor, ...]) -> torch.Tensor:
    return torch.cat(state, dim=-1)[0, 0] if isinstance(state, tuple) else state[0, 0]


def ragged(rng: np.random.Generator, n: int = 6, longest: int = 7):
    lengths = rng.integers(1, longest + 1, n)
    tokens = rng.integers(0, 5, (n, lengths.max()))
    tokens[np.arange(tokens.shape[1]) >= lengths[:, None]] = PAD
    return tokens, lengths


def literally(network: RecurrentNetwork, latents: torch.Tensor, tokens: np.ndarray, lengths: np.ndarray):
    """Logits of each sequence by itself, through torch's own cell: list of (length, n_tokens)."""
    found = []
    for latent, row, length in zip(latents, tokens, lengths, strict=True):
        inputs = torch.from_numpy(row[: length - 1].copy())
        states = latent[None, : network.cell.hidden_size]
        if len(inputs):
            after, _ = network.cell(network.embedding(inputs)[None], as_torch(network, latent))
            states = torch.cat([states, after[0]])
        found.append(network.readout(states))
    return found


@settings(max_examples=40)
@given(seed=st.integers(0, 10_000))
def test_resumed_logits_and_gradients_are_those_of_torch(kind, seed):
    rng = np.random.default_rng(seed)
    system, network = make(kind, seed=seed % 7)
    tokens, lengths = ragged(rng)
    packed = Packed.from_sequences(tokens, lengths, np.zeros(tokens.shape, bool))
    start = torch.from_numpy(rng.normal(size=(6, 6)))
    ours, theirs = start.clone().requires_grad_(), start.clone().requires_grad_()
    logits = system.resume(ours, packed)
    expected = literally(network, theirs, tokens, lengths)
    position = [0] * 6
    weights = torch.from_numpy(rng.normal(size=tuple(logits.shape)))
    total = torch.zeros((), dtype=torch.float64)
    for live, row in enumerate(packed.rows.tolist()):
        wanted = expected[row][position[row]]
        torch.testing.assert_close(logits[live], wanted, rtol=1e-10, atol=1e-10)
        total = total + (weights[live] * wanted).sum()
        position[row] += 1
    assert position == lengths.tolist()  # live steps only, each once
    (logits * weights).sum().backward()
    total.backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("lengths", [[1], [1, 1, 1], [4, 1, 4], [5, 3, 2, 1]])
def test_gradcheck(kind, lengths):
    system, _ = make(kind)
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, 5, (len(lengths), max(lengths)))
    packed = Packed.from_sequences(tokens, np.array(lengths), np.zeros(tokens.shape, bool))
    latents = torch.from_numpy(rng.normal(size=(len(lengths), 6))).requires_grad_()
    assert torch.autograd.gradcheck(lambda h: system.resume(h, packed), (latents,))
    assert torch.autograd.gradcheck(lambda h: system.token_losses(h, packed), (latents,))


@pytest.mark.parametrize("at_a_time", [1, 14, 21, 10**6])
def test_token_losses_are_torchs_however_many_rows_are_read_out_at_a_time(kind, at_a_time, monkeypatch):
    monkeypatch.setattr("neuromas.systems.recurrent._IN_CACHE", at_a_time)  # the readout is 7 wide
    system, network = make(kind, seed=3)
    rng = np.random.default_rng(4)
    tokens, lengths = ragged(rng)
    packed = Packed.from_sequences(tokens, lengths, np.zeros(tokens.shape, bool))
    start = torch.from_numpy(rng.normal(size=(6, 6)))
    ours, theirs = start.clone().requires_grad_(), start.clone().requires_grad_()
    losses = system.token_losses(ours, packed)
    weights = torch.from_numpy(rng.normal(size=len(losses)))
    (losses * weights).sum().backward()
    logits, steps = literally(network, theirs, tokens, lengths), packed.steps
    wanted = torch.stack(
        [-logits[row].log_softmax(-1)[step, tokens[row, step]] for row, step in zip(packed.rows, steps, strict=True)]
    )
    (wanted * weights).sum().backward()
    torch.testing.assert_close(losses, wanted, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-9, atol=1e-10)
    with torch.no_grad():
        torch.testing.assert_close(system.token_losses(start, packed), losses)


def test_a_pair_without_continuation_gets_no_gradient(kind):
    system, _ = make(kind)
    tokens, lengths = np.array([[1, 2, 3], [0, 0, 0], [2, 4, 0]]), np.array([3, 0, 2])
    latents = torch.randn(3, 6, dtype=torch.float64, requires_grad=True)
    system.token_losses(latents, Packed.from_sequences(tokens, lengths, np.zeros((3, 3), bool))).sum().backward()
    alone = latents.detach()[[0, 2]].requires_grad_()
    packed = Packed.from_sequences(tokens[[0, 2]], lengths[[0, 2]], np.zeros((2, 3), bool))
    system.token_losses(alone, packed).sum().backward()
    torch.testing.assert_close(latents.grad[[0, 2]], alone.grad)
    assert not latents.grad[1].any()


@pytest.mark.parametrize("lengths", [[1], [1, 1, 1], [4, 1, 4], [5, 3, 0, 1], [0, 0]])
def test_by_torchs_cell_it_is_the_same(kind, lengths):
    """What a GPU does, here on the CPU."""
    system, _ = make(kind, seed=2)
    rng = np.random.default_rng(3)
    tokens = rng.integers(0, 5, (len(lengths), max(lengths)))
    packed = Packed.from_sequences(tokens, np.array(lengths), np.zeros(tokens.shape, bool))
    start = torch.from_numpy(rng.normal(size=(len(lengths), 6)))
    weights = torch.from_numpy(rng.normal(size=(len(packed.tokens), system._network.embedding.embedding_dim)))
    found = []
    for unroll in (system._unroll, system._unroll_by_library):
        first = start.clone().requires_grad_()
        hidden = unroll(first[packed.order], packed.tokens, packed.sizes)
        (hidden * weights).sum().backward()
        with torch.no_grad():
            torch.testing.assert_close(unroll(start[packed.order], packed.tokens, packed.sizes), hidden)
        found.append((hidden.detach(), first.grad))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("wanted", [(True, False), (False, True), (True, True)])
def test_what_is_consumed_by_torchs_cell_comes_to_the_same(kind, wanted):
    system, _ = make(kind, seed=4)
    rng, sizes, width = np.random.default_rng(5), (4, 4, 2, 1), system._network.embedding.embedding_dim
    arrays = rng.normal(size=(sum(sizes), width)), rng.normal(size=(4, 6))
    weights = torch.from_numpy(rng.normal(size=(4, 6)))
    found = []
    for consume in (system._consume, lambda *given: _ByLibrary.apply(*given[:2], system._network.cell, given[2])[1]):
        given = [torch.from_numpy(one).requires_grad_(is_) for one, is_ in zip(arrays, wanted, strict=True)]
        after = consume(*given, sizes)
        (after * weights).sum().backward()
        assert [one.grad is not None for one in given] == list(wanted)
        found.append([after.detach(), *(one.grad for one in given if one.grad is not None)])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


def test_torchs_setting_of_precision_is_left_as_it_is(kind):
    cudnn = torch.backends.cudnn
    gpu, cpu = torch.device("cuda"), torch.device("cpu")
    for before in (True, False):
        cudnn.allow_tf32 = before
        with _full_precision(cpu):
            assert cudnn.allow_tf32 == before
        with _full_precision(gpu):
            assert not cudnn.allow_tf32
        assert cudnn.allow_tf32 == before
        with contextlib.suppress(ZeroDivisionError), _full_precision(gpu):
            raise ZeroDivisionError
        assert cudnn.allow_tf32 == before
    cudnn.allow_tf32 = True


@pytest.mark.skipif(not hasattr(torch.backends.cudnn, "rnn"), reason="this torch has one setting of precision")
def test_so_is_that_of_its_later_interface(kind):
    rnn = torch.backends.cudnn.rnn
    default = rnn.fp32_precision
    try:
        for before in ("ieee", "tf32"):
            rnn.fp32_precision = before
            torch.backends.cudnn.conv.fp32_precision = "ieee"
            system, _ = make(kind)
            system.latents(torch.zeros(2, 3, dtype=torch.int64))
            with _full_precision(torch.device("cuda")):
                assert rnn.fp32_precision in ("ieee", "none")
            assert rnn.fp32_precision == before
    finally:
        torch.backends.cudnn.conv.fp32_precision = rnn.fp32_precision = default


def test_recorded_latents_are_torchs_and_padding_does_not_matter(kind):
    system, network = make(kind, double=False)
    rng = np.random.default_rng(1)
    tokens, lengths = ragged(rng, n=8)
    latents = system.latents(torch.from_numpy(tokens))
    assert latents.shape == (*tokens.shape, 6)
    for row, length in enumerate(lengths):
        for step in range(length):
            with torch.no_grad():
                _, state = network.cell(network.embedding(torch.from_numpy(tokens[row, : step + 1]))[None])
            torch.testing.assert_close(latents[row, step], from_torch(state))


def test_resuming_from_a_recorded_latent_is_as_if_nothing_had_happened(kind):
    """Float32, the real width: the continuation of the recorded latent equals the network's own logits."""
    system, network = make(kind, n_units=64, double=False)
    rng = np.random.default_rng(2)
    tokens = torch.from_numpy(rng.integers(0, 5, (4, 12)))
    with torch.no_grad():
        whole = network(tokens)  # (4, 12, 5): logits for the token after each
    for cut in range(11):
        rest = tokens[:, cut + 1 :].numpy()
        packed = Packed.from_sequences(rest, np.full(4, rest.shape[1]), np.zeros(rest.shape, bool))
        logits = system.resume(system.latents(tokens)[:, cut], packed)
        expected = torch.cat([whole[:, step] for step in range(cut, 11)])[: len(logits)]
        got = torch.empty_like(expected)
        n = 0
        for step in range(11 - cut):
            got[4 * step + packed.rows[n : n + 4]] = logits[n : n + 4]
            n += 4
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


def test_only_the_latent_gets_a_gradient(kind):
    system, _ = make(kind, double=False)
    tokens = np.array([[1, 2, 3]])
    packed = Packed.from_sequences(tokens, np.array([3]), np.zeros((1, 3), bool))
    latents = torch.randn(1, 6, requires_grad=True)
    system.resume(latents, packed).sum().backward()
    assert latents.grad is not None
    assert all(value.grad is None and not value.requires_grad for value in system._network.parameters())


def test_no_trials_have_no_latents(kind):
    system, _ = make(kind, double=False)
    assert system.latents(torch.zeros(0, 4, dtype=torch.int64)).shape == (0, 4, 6)


def test_resume_leaves_its_input_alone(kind):
    system, _ = make(kind, double=False)
    tokens = np.array([[1, 2, 3], [2, 3, PAD]])
    packed = Packed.from_sequences(tokens, np.array([3, 2]), np.zeros((2, 3), bool))
    latents = torch.randn(2, 6)
    before = latents.clone()
    with torch.no_grad():
        one, again = system.resume(latents, packed), system.resume(latents, packed)
    torch.testing.assert_close(latents, before, rtol=0, atol=0)
    torch.testing.assert_close(one, again, rtol=0, atol=0)


def test_dropout_is_off(kind):
    system, _ = make(kind, double=False)
    assert not system._network.training


@pytest.mark.gpu
def test_the_gpu_gives_the_same(kind):
    system, _ = make(kind, n_units=64, double=False)
    rng = np.random.default_rng(0)
    tokens, lengths = ragged(rng)
    fixed = np.zeros(tokens.shape, bool)
    latents = torch.from_numpy(rng.normal(size=(6, 64)).astype(np.float32))
    found = {}
    for device in ("cpu", "cuda"):
        system = system.to(device)
        packed = Packed.from_sequences(tokens, lengths, fixed, device)
        start = latents.to(device, copy=True).requires_grad_()
        losses = system.token_losses(start, packed)
        losses.sum().backward()
        found[device] = [one.detach().cpu() for one in (system.resume(start, packed), losses, start.grad)]
        found[device].append(system.latents(torch.from_numpy(tokens)).cpu()[torch.from_numpy(tokens >= 0)])
    for here, there in zip(*found.values(), strict=True):
        torch.testing.assert_close(there, here, rtol=1e-4, atol=1e-5)
