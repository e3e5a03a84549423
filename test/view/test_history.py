"""Values over time for curves."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dsg_ros.view.history import History


@given(st.integers(1, 400), st.integers(3, 40))
def test_the_whole_run_stays_in_view_with_even_spacing_and_its_newest_row(rows, most):
    history = History(most)
    for i in range(rows):
        history.add(float(i), {"square": float(i * i)})
    times, squares = history.table(["square"])
    assert len(times) <= most
    assert len(times) >= min(rows, most // 2)
    assert (times[0], times[-1]) == (0.0, rows - 1.0)
    assert (squares == times**2).all()
    assert len(set(np.diff(times[:-1]))) <= 1


def test_names_come_and_time_goes_on_where_the_clock_jumps_back():
    history = History()
    history.add(5.0, {"a": 1.0})
    history.add(2.0, {"a": 2.0, "b": 3.0})
    history.add(3.0, {"b": 4.0})
    times, a, b = history.table(history.names)
    assert history.names == ("a", "b")
    assert (np.diff(times) > 0).all()
    np.testing.assert_array_equal(a, [1.0, 2.0, np.nan])
    np.testing.assert_array_equal(b, [np.nan, 3.0, 4.0])
    history.clear()
    assert (len(history), history.names) == (0, ())
