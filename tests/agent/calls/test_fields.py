"""The field reader: what it accepts, and that a refusal names the field by its path and shows the value."""

from __future__ import annotations

from typing import Any, Callable

import pytest

from edgeq_agent.calls.fields import Fields
from edgeq_agent.errors import AgentError

SHA = "a" * 64


@pytest.mark.parametrize(
    ("body", "read", "value"),
    [
        ({"a": "x"}, lambda fields: fields.text("a"), "x"),
        ({}, lambda fields: fields.text("a", "x"), "x"),
        ({"model": "kws.2"}, lambda fields: fields.model_name(), "kws.2"),
        ({"a": SHA}, lambda fields: fields.sha256("a"), SHA),
        ({"a": 3}, lambda fields: fields.integer("a", 0, 3), 3),
        ({"a": None}, lambda fields: fields.integer("a", 1, 3, default=0), 0),
        ({"a": 3}, lambda fields: fields.seconds("a", 1.0), 3.0),
        ({}, lambda fields: fields.timeout_s(), 120.0),
        ({"a": 0}, lambda fields: fields.number("a", 1.0), 0.0),
        ({"a": True}, lambda fields: fields.flag("a"), True),
        ({}, lambda fields: fields.flag("a"), False),
        ({"a": "x"}, lambda fields: fields.one_of("a", ("x", "y")), "x"),
        ({}, lambda fields: fields.one_of("a", ("x", "y"), "y"), "y"),
        ({"a": ["k", "l", "k"]}, lambda fields: fields.model_names("a"), ["k", "l"]),
        ({}, lambda fields: fields.model_names("a"), []),
        ({"a": {"x": 1, "y": 2}}, lambda fields: fields.map_of("a", Fields.size_bytes), {"x": 1, "y": 2}),
        ({"a": {"b": 7}}, lambda fields: fields.object("a").integer("b", 0, 9), 7),
        ({"a": None}, lambda fields: fields.optional_object("a").integer("b", 0, 9, default=1), 1),
    ],
)
def test_a_reader_returns_the_checked_value(body: Any, read: Callable[[Fields], Any], value: object) -> None:
    result = read(Fields(body))
    assert result == value
    assert type(result) is type(value)


@pytest.mark.parametrize(
    ("body", "read", "path"),
    [
        ({}, lambda fields: fields.text("a"), "a"),
        ({"a": ""}, lambda fields: fields.text("a"), "a"),
        ({"a": None}, lambda fields: fields.text("a", "x"), "a"),
        ({"model": "../x"}, lambda fields: fields.model_name(), "model"),
        ({"model": "kws\n"}, lambda fields: fields.model_name(), "model"),
        ({"a": SHA.upper()}, lambda fields: fields.sha256("a"), "a"),
        ({"a": "manifest.json"}, lambda fields: fields.file_name("a"), "a"),
        ({"a": "b/c"}, lambda fields: fields.file_name("a"), "a"),
        ({"a": True}, lambda fields: fields.integer("a", 0, 3), "a"),
        ({"a": 1.0}, lambda fields: fields.integer("a", 0, 3), "a"),
        ({"a": 4}, lambda fields: fields.integer("a", 0, 3), "a"),
        ({"a": 0}, lambda fields: fields.integer("a", 1, 3, default=0), "a"),
        ({"a": 0}, lambda fields: fields.seconds("a", 1.0), "a"),
        ({"a": -1}, lambda fields: fields.number("a", 1.0), "a"),
        ({"a": 10**400}, lambda fields: fields.number("a", 1.0), "a"),
        ({"a": None}, lambda fields: fields.flag("a"), "a"),
        ({"a": 1}, lambda fields: fields.flag("a"), "a"),
        ({"a": "z"}, lambda fields: fields.one_of("a", ("x", "y")), "a"),
        ({"a": []}, lambda fields: fields.object("a"), "a"),
        ({"a": {"b": {"c": 1}}}, lambda fields: fields.object("a").object("b").text("c"), "a.b.c"),
        ({"a": {}}, lambda fields: fields.list_of("a", Fields.text), "a"),
        ({"a": []}, lambda fields: fields.list_of("a", Fields.text, low=1), "a"),
        ({"a": ["x", "y"]}, lambda fields: fields.list_of("a", Fields.text, high=1), "a"),
        ({"a": {"b": ["x", 1]}}, lambda fields: fields.object("a").list_of("b", Fields.text), "a.b"),
        ({"a": {SHA: "1"}}, lambda fields: fields.sizes("a"), "a." + SHA),
        ({"a": {"../x": 1}}, lambda fields: fields.sizes("a"), "a"),
    ],
)
def test_a_refusal_names_the_field_by_its_path(body: Any, read: Callable[[Fields], Any], path: str) -> None:
    with pytest.raises(AgentError) as caught:
        read(Fields(body))
    assert (caught.value.code, caught.value.subject) == ("EQ512", path)
    assert caught.value.expected


def test_a_refusal_shows_the_value_and_shortens_a_long_one() -> None:
    with pytest.raises(AgentError) as caught:
        Fields({"a": 7}).text("a")
    assert caught.value.got == "7"
    with pytest.raises(AgentError) as caught:
        Fields({"a": "x" * 1000}).sha256("a")
    assert caught.value.got is not None
    assert len(caught.value.got) == 120


@pytest.mark.parametrize("body", [None, [], "text", 1])
def test_a_document_that_is_not_an_object_is_refused(body: object) -> None:
    with pytest.raises(AgentError) as caught:
        Fields(body)
    assert (caught.value.code, caught.value.subject) == ("EQ512", "request")


def test_presence_and_null_are_different_questions() -> None:
    fields = Fields({"a": None})
    assert "a" in fields
    assert not fields.has("a")
    assert "b" not in fields
