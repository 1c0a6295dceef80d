"""Selection follows dbt's grammar; whatever matches nothing is an error."""

from __future__ import annotations

import pytest

from dpone.errors import ConfigError
from dpone.manifest.load import StreamConfig
from dpone.manifest.select import select

STREAMS = (
    StreamConfig("public.orders", tags=("finance", "big")),
    StreamConfig("public.order_items", tags=("finance",)),
    StreamConfig("sales.orders", tags=("big",)),
    StreamConfig("public.Order Details"),
    StreamConfig("public.events_*", is_glob=True),
)


@pytest.mark.parametrize(
    ("selectors", "exclude", "names"),
    [
        ([], [], ["public.orders", "public.order_items", "sales.orders", "public.Order Details", "public.events_*"]),
        (["public.orders"], [], ["public.orders"]),
        (["orders"], [], ["public.orders", "sales.orders"]),
        (["sales.orders public.orders"], [], ["public.orders", "sales.orders"]),
        (["public.order*"], [], ["public.orders", "public.order_items"]),
        (["order_*"], [], ["public.order_items"]),
        (["tag:finance"], [], ["public.orders", "public.order_items"]),
        (["tag:fin*"], [], ["public.orders", "public.order_items"]),
        (["tag:finance,tag:big"], [], ["public.orders"]),
        (["tag:big", "order_items"], [], ["public.orders", "public.order_items", "sales.orders"]),
        (["tag:finance"], ["tag:big"], ["public.order_items"]),
        (["public.Order Details"], [], ["public.Order Details"]),
        (["public.events_*"], [], ["public.events_*"]),
        ([""], ["public.*"], ["sales.orders"]),
    ],
)
def test_names_globs_tags_unions_and_intersections(selectors: list[str], exclude: list[str], names: list[str]) -> None:
    """The chosen streams come in their own order."""
    assert names == [stream.name for stream in select(STREAMS, selectors, exclude)]


@pytest.mark.parametrize(
    ("selectors", "exclude", "remedy"),
    [
        (["ordrs"], [], "did you mean 'orders'?"),
        (["public.orders ordrs"], [], "did you mean 'orders'?"),
        (["tag:finnance"], [], "did you mean 'tag:finance'?"),
        (["tags:finance"], [], "did you mean 'tag:finance'?"),
        (["tag:zzz"], [], "there are: big, finance"),
        (["tag:finance,sales.orders"], [], "a comma means 'and'"),
        ([], ["ordrs"], "did you mean 'orders'?"),
        (["orders"], ["orders"], "exclude less"),
        (
            ["zzz"],
            [],
            "there are: public.Order Details, public.events_*, public.order_items, public.orders, sales.orders",
        ),
    ],
)
def test_what_matches_nothing_is_an_error_with_close_matches(
    selectors: list[str], exclude: list[str], remedy: str
) -> None:
    """So is a part of a union, and an exclusion: a slip must not move less, or more, than was meant."""
    with pytest.raises(ConfigError) as caught:
        select(STREAMS, selectors, exclude)
    assert ("DP120", remedy) == (caught.value.code, caught.value.remedy)
