"""Options are fields: what a document declares is what the shell offers, and what is typed comes back as the document's keys."""

from __future__ import annotations

import io
import json
from typing import Annotated, Literal

import pytest
from pydantic import Field, create_model
from typer.testing import CliRunner

from neuromas.cli import reference, verbs
from neuromas.cli.options import options_of, read_words
from neuromas.cli.verbs import Verb, in_shell_words, keywords_as_options
from neuromas.errors import InvalidDocument, InvalidInput
from neuromas.schema import export
from neuromas.schema.actions import FitsRequest, IntoFolder, QueryRequest, requests_by_verb
from neuromas.schema.document import Document, Shell, merged
from neuromas.schema.fit import FitConfig


def fit_words(*words: str) -> dict:
    """The request document that a ``fit`` command spells."""
    made = verbs.verb_of("fit")
    command = verbs.load("fit")
    with command.make_context("fit", list(words), resilient_parsing=False) as context:
        return read_words(made.documents, context.params, others=made.others).document()


# --------------------------------------------------------------------------------------------- a field is an option


@pytest.fixture
def with_a_new_field(monkeypatch: pytest.MonkeyPatch) -> str:
    """`FitConfig` with one more field, and nothing else changed; the field's name."""
    new = (float, Field(default=0.5, ge=0, le=1, description="How much of the latents is noise. Only a test sets it."))
    config = create_model("FitConfig", __base__=FitConfig, noise_share=new)
    request = create_model("FitsRequest", __base__=FitsRequest, config=(config, ...))
    fit = verbs.verb_of("fit")
    monkeypatch.setattr("neuromas.cli.alignment.fit_", Verb(fit.run, (request, IntoFolder), fit.others, fit.table))
    monkeypatch.setattr(export, "FitConfig", config)
    return "noise_share"


def test_a_new_field_is_an_option_with_help_a_schema_and_a_place_in_the_reference(with_a_new_field: str) -> None:
    output = " ".join(CliRunner().invoke(verbs.app, ["fit", "--help"]).output.split())
    assert "--noise-share NUMBER How much of the latents is noise." in output
    assert "[≥ 0, ≤ 1; default: 0.5]" in output
    schema = json.loads(export.json_schemas()["fit_config.schema.json"])
    assert schema["properties"][with_a_new_field]["maximum"] == 1
    row = "| `--noise-share` | `NUMBER` | How much of the latents is noise. Only a test sets it. [≥ 0, ≤ 1; default: 0.5] |"
    assert row in reference.reference()
    assert fit_words("das", "--noise-share", "0.25")["config"] == {"method": "das", "noise_share": "0.25"}
    assert fit_words("das", "-o", "noise-share=0.25")["config"] == {"method": "das", "noise_share": 0.25}


def test_without_it_nothing_of_this_is_there() -> None:
    assert "noise" not in CliRunner().invoke(verbs.app, ["fit", "--help"]).output
    assert "noise_share" not in export.json_schemas()["fit_config.schema.json"]


def test_the_reference_is_current() -> None:
    page = export.__file__.replace("neuromas/schema/export.py", "docs/reference.md")
    with open(page, encoding="utf-8") as file:  # noqa: PTH123
        assert file.read() == reference.reference(), "run python -m neuromas.cli.reference docs/reference.md"


@pytest.mark.parametrize("name", verbs.VERBS)
def test_no_two_options_of_a_verb_are_spelled_alike(name: str) -> None:
    made = verbs.verb_of(name)
    options = [option for document in made.documents for option in options_of(document)]
    spelled = [option.name for option in options if not option.shell.positional]
    assert len(set(spelled)) == len(spelled)
    for option in options:
        assert option.field.description, f"{'.'.join(option.path)} has no docstring"


def test_every_action_has_a_request_whose_fields_its_verb_offers() -> None:
    for name, document in requests_by_verb().items():
        assert document in verbs.verb_of(name).documents, name


# ------------------------------------------------------------------------------------------------- words into values


@pytest.mark.parametrize(
    ("words", "config"),
    [
        (["--rank", "8"], {"subspaces": {"full": 8}}),
        (["--rank", "phase=4,count=12"], {"subspaces": {"phase": 4, "count": 12}}),
        (["--rank", "phase=4", "--rank", "count=12"], {"subspaces": {"phase": 4, "count": 12}}),
        (["--variables", "phase,count"], {"variables": ["phase", "count"]}),
        (["--variables", "phase", "--variables", "count"], {"variables": ["phase", "count"]}),
        (["--direction", '["a", "b"]'], {"direction": ["a", "b"]}),
        (["--no-learn-scale"], {"learn_scale": False}),
        (["--values", "count=1,2,3"], {"values": {"count": ["1", "2", "3"]}}),
        (["--roles", '{"n": {"a": "count"}}'], {"roles": {"n": {"a": "count"}}}),
        (["-o", "roles={}", "-o", "cl-terms=l2"], {"roles": {}, "cl_terms": "l2"}),
        (["--fractions", "train=0.5,test=0.2"], {"fractions": {"train": 0.5, "test": 0.2}}),
    ],
)
def test_words_become_keys(words: list[str], config: dict) -> None:
    assert fit_words("mas", *words)["config"] == {"method": "mas", **config}


def test_systems_may_hold_commas_and_varied_settings_are_json() -> None:
    document = fit_words(
        "mas", "--system", "a,b", "--system", "c", "--vary", 'subspaces=[{"full": 2}, null]', "--vary", "seed=0,1"
    )
    assert document["systems"] == ["a,b", "c"]
    assert document["vary"] == {"subspaces": [{"full": 2}, None], "seed": [0, 1]}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--epsilon", "1", "-o", "epsilon=2"], "--epsilon and -o epsilon"),
        (["--rank", "2", "-o", 'subspaces={"full": 2}'], "--rank and -o subspaces"),
        (["-o", "seed"], "expected NAME=VALUE"),
        (["--tolerances", "x=1", "--tolerances", "x=2"], "'x' is given twice"),
        (["--roles", "[1]"], "no such file"),
    ],
)
def test_words_that_contradict_each_other(words: list[str], message: str) -> None:
    with pytest.raises((InvalidInput, LookupError), match=message):
        fit_words("das", *words)


def test_a_file_of_a_request_is_read_from_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO('{"config": {"method": "das", "seed": 3}, "systems": ["a"]}'))
    document = fit_words("--seed", "4", "--config", "-")
    assert document == {"config": {"method": "das", "seed": "4"}, "systems": ["a"]}


def test_merging_goes_into_objects_and_replaces_all_else() -> None:
    base = {"config": {"seed": 0, "subspaces": {"full": 2}}, "systems": ["a"]}
    assert merged(base, {"config": {"subspaces": {"count": 1}}, "systems": ["b"]}) == {
        "config": {"seed": 0, "subspaces": {"full": 2, "count": 1}},
        "systems": ["b"],
    }
    assert base["config"] == {"seed": 0, "subspaces": {"full": 2}}


# ----------------------------------------------------------------------------------------------- problems in shell words


def test_every_problem_is_told_with_the_option_as_typed_and_the_key_as_in_json() -> None:
    output = CliRunner().invoke(
        verbs.app,
        ["fit", "clmas", "--learning-rate", "x", "--batch-size", "0", "-o", "epsilom=1", "--rank", "a=b", "--out", "f"],
    )
    assert output.exit_code == 2
    assert output.output.splitlines() == [
        "error: fit: 4 problems",
        "  - --rank (config.subspaces.a): expected a whole number, got 'b'",
        "  - --batch-size (config.batch_size): expected a number above 0, got '0'",
        "  - --learning-rate (config.learning_rate): expected a number, got 'x'",
        "  - config.epsilom: no such field; did you mean 'epsilon'?",
    ]


def test_a_misspelt_verb_and_a_misspelt_option_get_the_nearest() -> None:
    assert "no verb 'evaluat'; did you mean 'evaluate'?" in CliRunner().invoke(verbs.app, ["evaluat", "f"]).output
    output = CliRunner().invoke(verbs.app, ["fit", "das", "--learning-rat", "1"]).output
    assert "No such option: --learning-rat" in output
    assert "--learning-rate" in output


def test_places_that_no_option_stands_for_stay_as_they_are() -> None:
    assert in_shell_words("document: no text", {"seed": "--seed"}) == "document: no text"


def test_keywords_become_options_but_examples_stay() -> None:
    fields = {"mapping": "--mapping", "want": "--want"}
    assert (
        keywords_as_options("map them with mapping=, as in want=3", fields) == "map them with --mapping, as in want=3"
    )


def test_an_old_form_is_refused_with_the_new_one() -> None:
    with pytest.raises(InvalidInput, match=r"neuromas compare … --json > r\.json"):
        verbs.check_old_forms(["compare", "a/b", "c/d", "--json", "r.json"])
    verbs.check_old_forms(["compare", "a/b", "c/d", "--json"])
    verbs.check_old_forms(["show", "--json", "a/b"])


# ----------------------------------------------------------------------------------------------------------- documents


class Small(Document):
    """A document with every kind of field."""

    name: Annotated[str, Shell(positional=True, metavar="NAME")]
    """A name."""
    kind: Literal["a", "b"] = "a"
    """A choice."""
    sizes: tuple[int, ...] = ()
    """Several numbers."""


def test_metavars_follow_from_types() -> None:
    assert [option.metavar for option in options_of(Small)] == ["NAME", "a|b", "A,B,…"]
    assert [option.name for option in options_of(Small)] == ["NAME", "--kind", "--sizes"]


def test_a_nearest_field_is_offered_in_nested_documents_too() -> None:
    with pytest.raises(InvalidDocument, match=r"config\.learning_rat: no such field; did you mean 'learning_rate'\?"):
        FitsRequest.parse({"config": {"method": "das", "learning_rat": 1}}, "test")
    with pytest.raises(InvalidDocument, match="recordin: no such field; did you mean 'recording'"):
        QueryRequest.parse({"recordin": "a/b"}, "test")
