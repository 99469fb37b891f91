"""What a model does not see is known from validation patients, as certainly as their number allows, and is not looked at afterwards."""

import pytest
from scipy.stats import binom

from client.data.labeler import Labeler
from client.drafting.agreement import expected_errors
from client.drafting.confidence import GRAVE, Threshold, is_wrong
from client.drafting.track_record import Named, TrackRecord, named
from client.reporting.clinical import errors_of
from client.reporting.reading import Reading
from client.reporting.reading import reading as read
from rainhill.errors import DataError

LABELER = Labeler()
THRESHOLD = Threshold.calibrated([0.0, 1.0], [True, False], coverage=0.5)


def reading(text: str) -> Reading:
    return read(LABELER, text)


def test_findings_are_counted_where_the_reference_has_them() -> None:
    drafts = ["Left effusion.", "Lungs clear. Right pneumothorax.", "Possible effusion.", "Lungs clear.", "No effusion."]
    references = ["Effusion. Pacemaker.", "Pacemaker. No pneumothorax.", "Right effusion.", "Possible effusion.", "Lungs clear."]
    found = named(list(map(reading, drafts)), list(map(reading, references)))
    # What may be there counts as there; a side is another matter, and a false pneumothorax no matter at all.
    assert found == {"pleural_effusion": Named(there=3, named=2), "support_devices": Named(there=2, named=0)}
    assert named([], []) == {}
    with pytest.raises(DataError, match="1 drafts of 2 references"):
        named([reading("Effusion.")], [reading("Effusion.")] * 2)


@pytest.mark.parametrize(
    ("of", "blind"),
    [
        ((4, 0), False),
        ((5, 0), True),
        ((7, 1), False),
        ((8, 1), True),
        ((30, 9), True),
        ((30, 11), False),
        ((200, 90), False),
        ((3, 3), False),
    ],
)
def test_a_model_is_called_blind_where_hardly_any_chance_would_do_it(of: tuple[int, int], blind: bool) -> None:
    one = Named(there=of[0], named=of[1])
    assert one.is_blind is blind
    # Of a model that names half, as few as that or fewer.
    assert bool(binom.cdf(one.named, one.there, 0.5) < 0.05) is blind


def test_what_it_does_not_see_is_no_error_and_all_else_is() -> None:
    record = TrackRecord(threshold=THRESHOLD, named={"support_devices": Named(there=9, named=0), "edema": Named(there=9, named=8)})
    assert record.blind == {"support_devices"}
    draft, only, more = (reading(text) for text in ("Left effusion.", "Left effusion. Pacemaker.", "Right effusion. Pacemaker."))
    assert is_wrong(draft, only, kinds=GRAVE) and not is_wrong(draft, only, kinds=GRAVE, but=record.blind)
    assert is_wrong(draft, more, kinds=GRAVE, but=record.blind)
    assert errors_of(only, draft).total == 1 and errors_of(only, draft, but=record.blind).total == 0
    assert expected_errors(draft, [only, more], but=record.blind) == 1 / 2 < expected_errors(draft, [only, more])
    with pytest.raises(DataError, match="pacemaker: no such finding"):
        errors_of(only, draft, but=("edema", "pacemaker"))
    # A draft that says nothing says nothing of the rest either.
    assert is_wrong(reading("asdf"), reading("Lungs clear."), kinds=GRAVE, but=record.blind)
