"""A length of time in the manifest: a whole number with a unit."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from dpone.manifest.models import Duration

ADAPTER: TypeAdapter[timedelta] = TypeAdapter(Duration)
PATTERN = ADAPTER.json_schema()["pattern"]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0s", 0), ("1s", 1), ("30s", 30), ("10m", 600), ("1h", 3600), ("2d", 172_800), ("999999s", 999_999)],
)
def test_a_number_and_a_unit(text: str, seconds: int) -> None:
    """Seconds, minutes, hours and days."""
    assert timedelta(seconds=seconds) == ADAPTER.validate_python(text)


@pytest.mark.parametrize(
    "value", [10, 1.5, None, True, "", "10", "s", "00s", "-1s", "1.5h", "1h30m", "1 h", "1H", "1w"]
)
def test_anything_else_is_refused_with_the_form(value: Any) -> None:
    """A bare number too: nobody can tell whether it means seconds or minutes."""
    with pytest.raises(ValidationError, match="a whole number and a unit"):
        ADAPTER.validate_python(value)


@given(st.text(alphabet="0123456789smhd٣ \n", max_size=8))
def test_the_schema_for_editors_agrees(text: str) -> None:
    """The JSON Schema's pattern takes a text exactly when the model does."""
    try:
        ADAPTER.validate_python(text)
        valid = True
    except ValidationError:
        valid = False
    assert valid == (re.search(PATTERN.replace("$", r"\Z"), text) is not None)
