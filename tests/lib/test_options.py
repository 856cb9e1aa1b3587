"""Any options model becomes a command line."""

from __future__ import annotations

from typing import Literal

import pytest
from pydantic import Field

from contimg.records.groups import GroupURI
from contimg.runtime.options import (
    ArtifactURI,
    ArtifactURIs,
    Lines,
    ObjectURI,
    Options,
    Words,
    choices,
    flag,
    input_mark,
    parse,
)

Captured = pytest.CaptureFixture[str]


class Example(Options):
    name: str
    """Who."""
    size: int = Field(default=3, gt=0)
    """How many,
    on two lines."""
    mode: Literal["a", "b"] | None = None
    """One of two."""
    ms: ArtifactURI | None = None
    record: ObjectURI = ""
    group: GroupURI = ""
    images: ArtifactURIs = ()
    words: Words = ("x",)
    lines: Lines = ()
    deep: bool = False
    from_: str = "here"


def read(*words: str) -> Example:
    return parse(Example, ["--name", "n", *words], "example", "1")


def test_options_have_defaults_and_are_frozen() -> None:
    assert read() == Example(name="n")
    with pytest.raises(ValueError, match="frozen"):
        read().size = 9  # type: ignore[misc]


@pytest.mark.parametrize(
    ("words", "field", "value"),
    [
        (["--size", "7"], "size", 7),
        (["--mode", "b"], "mode", "b"),
        (["--mode", ""], "mode", None),
        (["--mode="], "mode", None),
        (["--words", "a, b"], "words", ("a", "b")),
        (["--words", "a", "--words", "b,c"], "words", ("a", "b", "c")),
        (["--words", ""], "words", ("x",)),
        (["--lines", "a, b\nc", "--lines", "d"], "lines", ("a, b", "c", "d")),
        (["--images", "s/1,s/2"], "images", ("s/1", "s/2")),
        (["--deep"], "deep", True),
        (["--deep", "false"], "deep", False),
        (["--deep=true"], "deep", True),
        (["--from", "there"], "from_", "there"),
    ],
)
def test_words_are_parsed(words: list[str], field: str, value: object) -> None:
    assert getattr(read(*words), field) == value


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--size", "0"], "--size: Input should be greater than 0, found '0'"),
        (["--size", "two"], "found 'two'"),
        (["--mode", "c"], "--mode: Input should be 'a' or 'b', found 'c'"),
        (["--nam", "x"], "unrecognized arguments: --nam"),
        (["stray"], "unrecognized arguments: stray"),
        (["--name", ""], "--name is required"),
    ],
)
def test_wrong_words_exit_with_2(words: list[str], said: str, capsys: Captured) -> None:
    with pytest.raises(SystemExit) as ended:
        read(*words)
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def test_required_option_is_asked_for(capsys: Captured) -> None:
    with pytest.raises(SystemExit):
        parse(Example, [], "example", "1")
    assert "--name is required" in capsys.readouterr().err


def test_help_has_descriptions_and_defaults(capsys: Captured) -> None:
    with pytest.raises(SystemExit):
        read("--help")
    shown = " ".join(capsys.readouterr().out.split())
    assert "--size SIZE How many, on two lines. Default: 3. --mode a|b One of two. --ms" in shown


def test_field_has_flag_and_choices() -> None:
    assert flag("fit_mode") == "--fit-mode"
    assert choices(Example.model_fields["mode"]) == ["a", "b"]
    assert choices(Example.model_fields["size"]) is None


def test_inputs_are_known_by_their_type() -> None:
    marks = {name: input_mark(field) for name, field in Example.model_fields.items()}
    found = {name: mark.kind for name, mark in marks.items() if mark}
    known = {"ms": "artifact", "record": "object", "group": "group", "images": "artifact"}
    assert found == known
