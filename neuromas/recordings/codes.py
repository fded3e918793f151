"""Equal meanings have equal codes in all systems of a comparison, however many there are and whatever they call a variable."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from neuromas.recordings.relabel import mapping_entry
from neuromas.schema.recording import VariableSpec


def roles_of(name: str, task: str, roles: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """Shared name of a variable → its name in the system `name` that does `task`."""
    return {role: variable.get(name, variable.get(task, role)) for role, variable in roles.items()}


class CommonCodes:
    """Codes that all systems of a comparison use for the meanings of a variable.

    The first system that declares a meaning gives it its code. Systems that run come first, because their codes cannot change.
    """

    def __init__(self) -> None:
        self._specs: dict[str, VariableSpec] = {}
        self._numbers: dict[str, VariableSpec] = {}

    def learn(self, variables: Iterable[VariableSpec], roles: Mapping[str, str]) -> None:
        """Keep the codes of these variables, which follow `like` already.

        Parameters
        ----------
        variables : iterable of VariableSpec
            As one system has them.
        roles : mapping of str to str
            As `roles_of` gives them for this system.
        """
        for spec in variables:
            for name in _shared_names(spec.name, roles):
                self._specs[name] = _joined(self._specs.get(name, spec), spec)

    def learn_numbers(
        self, variables: Iterable[VariableSpec], mapping: Mapping[str, Any], roles: Mapping[str, str]
    ) -> None:
        """Remember which variables hold numbers in a recording, before it is relabelled by `mapping`."""
        entries = {canonical: mapping_entry(canonical, entry) for canonical, entry in mapping.items()}
        canonical_of = {here: canonical for canonical, (here, _) in entries.items()}
        for spec in variables:
            canonical = canonical_of.get(spec.name, spec.name)
            if spec.meanings is None and not entries.get(canonical, ("", {}))[1]:
                for name in _shared_names(canonical, roles):
                    self._numbers.setdefault(name, spec)

    def like(
        self, names: Iterable[str], roles: Mapping[str, str], own: Sequence[VariableSpec] = ()
    ) -> list[VariableSpec]:
        """Declarations that a recording's variables should follow.

        Parameters
        ----------
        names : iterable of str
            Variables of the recording.
        roles : mapping of str to str
        own : sequence of VariableSpec
            Variables of the recording's causal model, whose codes come first.
        """
        specs = {spec.name: spec for spec in own}
        for name in [*dict.fromkeys([*names, *specs])]:
            for shared in _shared_names(name, roles)[::-1]:
                known = self._specs.get(shared) or self._numbers.get(shared)
                if known is not None:
                    specs[name] = _joined(specs.get(name, known), known).model_copy(update={"name": name})
        return list(specs.values())


def _shared_names(variable: str, roles: Mapping[str, str]) -> list[str]:
    """The names under which a system's variable meets those of other systems: its own, then its roles."""
    return [variable, *(role for role, own in roles.items() if own == variable and role != variable)]


def _joined(first: VariableSpec, other: VariableSpec) -> VariableSpec:
    """The first declaration, with the meanings that only the other one has, where their codes are free."""
    if first.meanings is None or first.values is None or other.meanings is None or other.values is None:
        return first
    more = [
        (code, text)
        for code, text in zip(other.values, other.meanings, strict=True)
        if text not in first.meanings and code not in first.values
    ]
    if not more:
        return first
    return first.model_copy(
        update={
            "values": (*first.values, *(code for code, _ in more)),
            "meanings": (*first.meanings, *(text for _, text in more)),
        }
    )
