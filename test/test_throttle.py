"""What happens again and again is said now and then."""

from __future__ import annotations

from dsg_ros.throttle import Traces


def test_a_traceback_is_said_once_for_each_place_that_raises() -> None:
    said: list[tuple[str, str]] = []
    trouble = Traces(lambda level, text: said.append((level, text)))
    for number in range(1000):
        try:
            raise ValueError(f"number {number}") if number % 2 else KeyError(number)
        except (ValueError, KeyError) as error:
            trouble(error)
    for _ in range(3):
        try:
            raise ValueError("elsewhere")
        except ValueError as error:
            trouble(error)
    assert [level for level, _ in said] == ["error"] * 3
    assert ["KeyError: 0" in said[0][1], "number 1" in said[1][1], "elsewhere" in said[2][1]] == [True] * 3
    assert all("Traceback" in text for _, text in said)
