"""Selection follows dbt's grammar; whatever matches nothing is an error."""

from __future__ import annotations

import pytest

from dpone.errors import ConfigError
from dpone.manifest.load import StreamConfig
from dpone.manifest.select import LastRun, select

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


LAST = {"public.orders": False, "public.order_items": True, "sales.orders": False, "gone": False}


def chosen(*selectors: str, exclude: tuple[str, ...] = (), last: dict[str, bool] = LAST) -> list[str]:
    """The names that are selected after such a last run."""
    return [stream.name for stream in select(STREAMS, selectors, exclude, lambda: LastRun("run 1", last))]


def test_results_of_the_last_run() -> None:
    """What did not succeed, what did; a stream that was not in that run has no result."""
    assert ["public.orders", "sales.orders"] == chosen("result:error")
    assert ["public.order_items"] == chosen("result:success")


def test_results_combine_with_everything_else() -> None:
    """A comma is 'and', a blank 'or'; --exclude takes results too."""
    assert ["public.orders"] == chosen("result:error,tag:finance")
    assert ["public.orders", "public.order_items", "sales.orders"] == chosen("result:error", "order_items")
    assert ["sales.orders"] == chosen("result:error", exclude=("public.orders",))
    assert ["public.order_items"] == chosen("tag:finance", exclude=("result:error",))


@pytest.mark.parametrize(
    ("last", "selector", "code", "words"),
    [
        ({"public.orders": True}, "result:error", "DP121", "every stream of run 1 succeeded"),
        ({"public.orders": False}, "result:success", "DP121", "no stream of run 1 succeeded"),
        ({"gone": False}, "result:error", "DP121", "the manifest no longer has gone of run 1"),
        (LAST, "result:eror", "DP120", "unknown result"),
        (LAST, "result:error,order_items", "DP120", "no stream matches all of"),
    ],
)
def test_results_that_select_nothing(last: dict[str, bool], selector: str, code: str, words: str) -> None:
    """Each is an error of its own, so that nobody takes it for a run that had nothing to do."""
    with pytest.raises(ConfigError, match=words) as raised:
        chosen(selector, last=last)
    assert code == raised.value.code
    assert raised.value.remedy


def test_results_without_a_record() -> None:
    """Where no run is known there is nothing to select by; a selector that is not about results does not ask."""
    with pytest.raises(ConfigError) as raised:
        select(STREAMS, ["result:error"])
    assert "DP122" == raised.value.code
    assert ["public.orders"] == [stream.name for stream in select(STREAMS, ["public.orders"])]


def test_a_misspelt_method_gets_a_suggestion() -> None:
    """`results:` is not the name of a stream."""
    with pytest.raises(ConfigError) as raised:
        chosen("results:error")
    assert "did you mean 'result:error'?" == raised.value.remedy
