"""Documents of options: from a file, a URI or the text itself, and named profiles."""

from __future__ import annotations

from pathlib import Path

import pytest

from contimg.runtime.config import PROFILES_VARIABLE, merge_documents, read_document, read_profile
from contimg.runtime.errors import UsageError

TEXT = "image:\n  tier: quicklook\n  fit-mode: beam\n"
DOCUMENT = {"image": {"tier": "quicklook", "fit_mode": "beam"}}
ENV = {PROFILES_VARIABLE: "{fast: {image: {tier: quicklook}}, empty: {}}"}


def test_text_file_and_uri_agree(tmp_path: Path) -> None:
    path = tmp_path / "options.yaml"
    path.write_text(TEXT)
    sources = [TEXT, "{image: {tier: quicklook, fit_mode: beam}}", str(path), f"file://{path}"]
    assert [read_document(source) for source in sources] == [DOCUMENT] * 4


def test_merged_mapping_may_be_overridden() -> None:
    text = "image: &i {tier: deep, size: 1}\nflag: &f {<<: *i, size: 2}\nx: {<<: [*f, *i]}\n"
    assert read_document(text)["x"] == {"tier": "deep", "size": 2}


@pytest.mark.parametrize("text", ["", "  ", "# nothing\n", "{}"])
def test_empty_document_sets_nothing(text: str) -> None:
    assert read_document(text) == {}


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("{image: [", "options: This is not YAML: "),
        ("image:\n  tier: deep\n  tier: quick\n", "line 3 gives the key 'tier' again"),
        ("image: {}\nflag: {}\nimage: {tier: deep}\n", "line 3 gives the key 'image' again"),
        ('{"image": {"tier": "deep", "tier": "quick"}}', "line 1 gives the key 'tier' again"),
        ("image: {fit-mode: a, fit_mode: b}", "image: fit_mode is given twice, with a hyphen"),
        ("image: quicklook", "A mapping of options is expected, not 'quicklook'."),
        ("- image\n- flag\n", "A mapping of stages is expected, not ['image', 'flag']."),
        ("[1]", "[1]: A mapping of stages is expected, not [1]."),
        ("no/such/file.yaml", "no/such/file.yaml: The file cannot be read: "),
        ("file:///no/such/file.yaml", "file:///no/such/file.yaml: The file cannot be read: "),
    ],
)
def test_other_sources_are_refused(source: str, problem: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_document(source)
    assert problem in str(caught.value)


def test_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="cannot be read"):
        read_document(str(tmp_path / "a"))


def test_profile_is_a_document() -> None:
    assert read_profile("fast", ENV) == {"image": {"tier": "quicklook"}}
    assert read_profile("empty", ENV) == read_profile("", {}) == {}


@pytest.mark.parametrize(
    ("env", "names"),
    [(ENV, "fast, empty"), ({}, "none"), ({PROFILES_VARIABLE: "{}"}, "none")],
)
def test_unknown_profile_lists_known_ones(env: dict[str, str], names: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_profile("slow", env)
    problem = f"There is no profile of this name; defined are: {names}."
    assert f"profile slow: {problem}" in str(caught.value)


def test_profiles_that_are_no_mapping_are_refused() -> None:
    with pytest.raises(UsageError, match=r"\$CONTIMG_PROFILES: A mapping of names"):
        read_profile("fast", {PROFILES_VARIABLE: "[1]"})


def test_profile_that_is_no_document_is_refused() -> None:
    with pytest.raises(UsageError, match="profile fast: image: A mapping of options"):
        read_profile("fast", {PROFILES_VARIABLE: "{fast: {image: 3}}"})


def test_later_documents_replace_single_options() -> None:
    first = {"image": {"tier": "deep", "size": 1}, "flag": {"a": 1}}
    merged = merge_documents([first, {"image": {"tier": "quick"}}, {}])
    assert merged == {"image": {"tier": "quick", "size": 1}, "flag": {"a": 1}}
    assert first["image"]["tier"] == "deep"
