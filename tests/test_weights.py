"""States of optimisers in safetensors files."""

from __future__ import annotations

import torch

from neuromas.weights import adam_tensors, read_safetensors, restore_adam, safetensors_bytes


def trained(n: int, module: torch.nn.Linear, optimiser: torch.optim.Adam) -> torch.Tensor:
    for number in range(n):
        optimiser.zero_grad()
        module(torch.full((2, 3), 1.0 + number)).square().sum().backward()
        optimiser.step()
    return module.weight.detach().clone()


def made() -> tuple[torch.nn.Linear, torch.optim.Adam]:
    torch.manual_seed(0)
    module = torch.nn.Linear(3, 2)
    # another layout in memory, which the moments must share
    module.weight = torch.nn.Parameter(module.weight.detach().T.contiguous().T)
    return module, torch.optim.Adam(module.parameters(), lr=0.1)


def test_adam_continues_to_the_last_bit(tmp_path):
    module, optimiser = made()
    trained(3, module, optimiser)
    path = tmp_path / "state.safetensors"
    path.write_bytes(safetensors_bytes(adam_tensors(module, optimiser, "."), {"a": "b"}))
    tensors, metadata = read_safetensors(path)
    assert set(tensors) == {
        f"adam.{moment}.{name}" for moment in ("step", "exp_avg", "exp_avg_sq") for name in ("weight", "bias")
    }
    assert metadata == {"a": "b"}
    again, fresh = made()
    again.load_state_dict(module.state_dict())
    restore_adam(again, fresh, tensors, ".")
    assert fresh.state[again.weight]["exp_avg"].stride() == again.weight.stride()
    assert torch.equal(trained(2, again, fresh), trained(2, module, optimiser))


def test_before_the_first_update_there_is_no_state():
    module, optimiser = made()
    assert adam_tensors(module, optimiser) == {}
    restore_adam(module, optimiser, {})
    assert not optimiser.state
