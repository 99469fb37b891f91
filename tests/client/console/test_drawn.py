"""What a plot is made of, by hand."""

from client.console.drawn import BOTTOM, LEFT, RIGHT, TOP, curve, steps
from client.privacy.course import Point, _places


def test_a_curve_goes_from_nothing_to_what_was_spent_last() -> None:
    points = [Point(charges=number, run=run, time="", epsilon=epsilon) for number, run, epsilon in ((1, "a", 1.0), (2, "b", 2.0))]
    drawn = curve(points, 4.0)
    # The field is a tenth higher than the budget: 2 of 4.4 is 100.9 of its 222.
    assert drawn.line == f"{LEFT},{BOTTOM} 377.0,205.5 {RIGHT},155.1"
    assert drawn.budget == round(BOTTOM - (BOTTOM - TOP) / 1.1, 1)
    assert [(band.name, band.start, band.end, band.tinted) for band in drawn.bands] == [
        ("a", 46.0, 377.0, True),
        ("b", 377.0, 708.0, False),
    ]
    assert [tick.words for tick in drawn.down] == ["0", "1", "2", "3", "4"]


def test_people_count_in_ones_twos_and_fives() -> None:
    assert steps(8.8) == [0, 2, 4, 6, 8]
    assert steps(0.44) == [0, 0.1, 0.2, 0.3, 0.4]
    assert steps(130) == [0, 50, 100]


def test_what_was_worked_out_of_a_long_ledger_stays_worked_out() -> None:
    before, after = _places(["a"] * 1000), _places(["a"] * 1001)
    assert len(before) <= 50 and set(before[:-1]) <= set(after)
    assert _places(["a", "a", "b"]) == [0, 1, 2] and _places([]) == []
