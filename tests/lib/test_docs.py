"""The contract's page says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from contimg.runtime.errors import MEANING

PAGE = (Path(__file__).parents[2] / "docs" / "contract.md").read_text()


@pytest.mark.parametrize("code", MEANING)
def test_every_exit_code_is_in_the_page(code: int) -> None:
    meaning, retry = MEANING[code]
    row = next(line for line in PAGE.splitlines() if line.startswith(f"| {int(code)} |"))
    assert meaning in row
    assert re.search(
        rf"\| {retry.limit} × after {retry.backoff_s:.0f} s" if retry.limit else r"\| never \|", row
    )


def test_the_page_lists_no_other_code() -> None:
    listed = {int(number) for number in re.findall(r"^\| (-?\d+) \|", PAGE, re.MULTILINE)}
    assert listed == set(map(int, MEANING))
