"""Names, values and types of what is asked of a pipeline."""

from __future__ import annotations

import pytest

from contimg.runtime.errors import UsageError
from contimg_workflows.argo import Parameter
from contimg_workflows.arguments import named, settled, typed

KNOWN = ["store", "group", "image-tier", "image-max_rms_jy", "flag-strategy"]


@pytest.mark.parametrize(
    ("text", "pair"),
    [
        ("image.tier=quicklook", ("image-tier", "quicklook")),
        ("image-tier=quicklook", ("image-tier", "quicklook")),
        ("image.max-rms-jy=1", ("image-max_rms_jy", "1")),
        ("group=20260125t222605", ("group", "20260125t222605")),
        ("flag.strategy=a=b", ("flag-strategy", "a=b")),
        ("flag.strategy=", ("flag-strategy", "")),
    ],
)
def test_a_setting_names_a_parameter(text: str, pair: tuple[str, str]) -> None:
    assert list(named([text], KNOWN).items()) == [pair]


def test_the_last_of_equal_settings_counts() -> None:
    assert named(["image.tier=a", "image.tier=b"], KNOWN) == {"image-tier": "b"}


@pytest.mark.parametrize(
    ("text", "near"),
    [
        ("image.teir=quicklook", "image.tier, image.max_rms_jy"),
        ("image.tier", "image.tier, image.max_rms_jy"),
        ("grup=1", "store, group"),
        ("", "store, group"),
    ],
)
def test_what_may_have_been_meant_is_said(text: str, near: str) -> None:
    with pytest.raises(UsageError) as error:
        named([text], KNOWN)
    assert f"--set {text}: expected STAGE.OPTION=VALUE, found {near}. contimg-STAGE --help" in str(
        error.value
    )


PARAMETERS = (
    Parameter(name="store", description="Root URI."),
    Parameter(
        name="image-tier", value="standard", enum=("quicklook", "standard"), description="How deep."
    ),
)


def test_defaults_stand_where_nothing_is_given() -> None:
    assert settled("x", PARAMETERS, {"store": "s"}) == {"store": "s", "image-tier": "standard"}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "x: expected a value of store, found none. Root URI."),
        ({"store": "s", "tier": "1"}, "x: expected one of store, image-tier, found tier."),
        (
            {"store": "s", "image-tier": "best"},
            "x: image-tier: expected one of quicklook, standard, found best. How deep.",
        ),
    ],
)
def test_arguments_that_do_not_fit_are_refused(given: dict[str, str], words: str) -> None:
    with pytest.raises(UsageError) as error:
        settled("x", PARAMETERS, given)
    assert str(error.value).startswith(words)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        (
            "convert-max_zeros",
            "many",
            "x: convert-max_zeros: expected a valid number, found 'many'. Refuse a group",
        ),
        ("convert-max_zeros", "0", "expected greater than 0, found '0'"),
        ("convert-max_zeros", "2", "expected less than or equal to 1, found '2'"),
    ],
)
def test_values_are_of_their_options_types(name: str, value: str, words: str) -> None:
    with pytest.raises(UsageError) as error:
        typed("x", {name: value})
    assert words in str(error.value)


def test_values_that_stages_take_pass() -> None:
    typed(
        "x",
        {
            "convert-max_zeros": "0.5",
            "image-tier": "quicklook",
            "group": "20260125t222605",
            "nothing-here": "?",
        },
    )
