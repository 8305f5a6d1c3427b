"""Measurements that take turns."""

from helpers.console import load_script


def test_each_has_its_turn_in_every_round_and_the_warm_up_is_left_out() -> None:
    take_turns = load_script("turns").take_turns
    order: list[str] = []

    def a() -> int:
        order.append("a")
        return len(order)

    def b() -> int:
        order.append("b")
        return len(order)

    assert take_turns({"a": a, "b": b}, rounds=2, warm_up=1) == {"a": [3, 5], "b": [4, 6]}
    assert order == ["a", "b"] * 3
