import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.data.importers._sections import joined, sections, unwrapped

PLAIN = """                                 FINAL REPORT
 EXAMINATION:  CHEST (PA AND LAT)

 INDICATION:  ___ year old woman with cough  // eval for
 infection

 TECHNIQUE:  Chest PA and lateral

 COMPARISON:  ___

 FINDINGS:

 The lungs are clear.  There is no
 pleural effusion.

 The heart is not enlarged.

 IMPRESSION:

 1.  No acute process.
 2.  Small hiatal
 hernia.
"""


def test_a_report_of_the_usual_form_is_taken_apart():
    found = sections(PLAIN)
    assert found.indication == "___ year old woman with cough // eval for infection"
    assert (found.technique, found.comparison) == ("CHEST (PA AND LAT)\nChest PA and lateral", "___")
    assert found.findings == "The lungs are clear. There is no pleural effusion.\n\nThe heart is not enlarged."
    assert found.impression == "1. No acute process.\n2. Small hiatal hernia."
    assert found.report == f"FINDINGS: {found.findings}\nIMPRESSION: {found.impression}"
    assert not (found.wet_read or found.addendum or found.body or found.other)


def test_a_report_without_a_heading_is_its_body():
    found = sections("Portable film.\nThe lungs are clear.\n")
    assert found.body == found.report == "Portable film. The lungs are clear."
    assert found.findings == found.indication == ""


def test_headings_in_lower_case_count_at_the_beginning_of_a_line_and_of_a_sentence():
    found = sections("indication: cough\nFindings: clear lungs. Impression: normal.")
    assert (found.indication, found.findings, found.impression) == ("cough", "clear lungs.", "normal.")


def test_a_heading_on_a_line_of_its_own_needs_no_colon_in_capitals():
    found = sections("FINDINGS\nClear.\n\nIMPRESSION\nNormal.")
    assert (found.findings, found.impression) == ("Clear.", "Normal.")
    assert sections("Clear.\nfindings\nare few.").body == "Clear. findings are few."


def test_a_wet_read_is_no_part_of_the_report():
    found = sections(
        "WET READ: ___ ___ ___ 9:07 PM\n  Small effusion.  IMPRESSION: wet.\n"
        " ______________________________________________________________________________\n"
        "                                 FINAL REPORT\n FINDINGS:  No effusion.\n"
    )
    assert found.wet_read == "Small effusion. IMPRESSION: wet."
    assert found.report == "FINDINGS: No effusion."
    assert sections("WET READ VERSION #1 ___ ___ ___ 8:40 PM\n Clear.\n").report == ""


def test_an_addendum_before_or_after_the_report_stays_apart():
    report = " INDICATION:  Fall.\n FINDINGS:  No fracture.\n IMPRESSION:  Normal.\n"
    before = sections(
        f"                  FINAL ADDENDUM\n IMPRESSION:  There is one.\n ______________________\n           FINAL REPORT\n{report}"
    )
    after = sections(f"         FINAL REPORT\n{report}\n ADDENDUM:  The side was confirmed.\n FINDINGS: as before\n")
    begun = sections(f" ADDENDUM:  Telephoned.\n\n{report}")
    for found in (before, after, begun):
        assert found.report == "FINDINGS: No fracture.\nIMPRESSION: Normal."
        assert found.addendum
    assert before.addendum == "IMPRESSION: There is one."
    assert begun.indication == "Fall."


@pytest.mark.parametrize(
    "heading",
    ["FRONTAL AND LATERAL VIEWS OF THE CHEST:", "AP CHEST, 5:15 A.M., ___:", "PORTABLE AP CHEST RADIOGRAPH:", "CHEST, SINGLE VIEW:"],
)
def test_a_heading_that_names_the_film_stands_for_findings(heading):
    found = sections(f"COMPARISON: None.\n\n {heading}  Clear lungs.\n\n IMPRESSION:  Normal.")
    assert (found.comparison, found.findings, found.impression) == ("None.", "Clear lungs.", "Normal.")


def test_headings_within_the_findings_stay_in_them():
    found = sections("FINDINGS:\n LUNGS: Clear.\n CHEST WALL: Intact.\n IMPRESSION: Normal.\n NOTIFICATION:  Dr. ___ was called.\n")
    assert found.findings == "LUNGS: Clear. CHEST WALL: Intact."
    assert (found.impression, found.other) == ("Normal.", "Dr. ___ was called.")


@pytest.mark.parametrize("heading", ["FINDINGS AND IMPRESSION", "Findings/Impression", "FINDINGS / IMPRESSION"])
def test_findings_and_impression_in_one_are_findings(heading):
    assert sections(f"{heading}: Clear.").report == "FINDINGS: Clear."


@pytest.mark.parametrize("heading", ["HISTORY", "REASON FOR EXAM", "Reason for  examination", "CLINICAL INFORMATION", "Clinical history"])
def test_what_was_asked_has_many_headings(heading):
    assert sections(f"{heading}: Chest pain.\nIMPRESSION: Normal.").indication == "Chest pain."


def test_a_german_report_is_taken_apart():
    found = sections(
        "Klinische Angaben: V.a. Pneumonie, Sturz, Rippenfraktur?\nRechtfertigende Indikation: Ausschluss Infiltrat\n"
        "Technik: p.a. im Stehen\nVoraufnahmen: keine\nBefund: Unauffällig.\nBeurteilung: Kein Infiltrat.\nNachtrag: Telefonisch."
    )
    assert found.indication == "V.a. Pneumonie, Sturz, Rippenfraktur?\nAusschluss Infiltrat"
    assert (found.technique, found.comparison, found.addendum) == ("p.a. im Stehen", "keine", "Telefonisch.")
    assert found.report == "FINDINGS: Unauffällig.\nIMPRESSION: Kein Infiltrat."


@pytest.mark.parametrize(
    "heading",
    ["Fragestellung", "KLINISCHE FRAGESTELLUNG", "Klinik", "Anamnese", "Indikation", "Klinik / Fragestellung", "Klinische  Angaben"],
)
def test_what_was_asked_has_many_german_headings(heading):
    found = sections(f"{heading}: Pneumothorax?\n\nBefund: Kein Pneumothorax.")
    assert (found.indication, found.report) == ("Pneumothorax?", "FINDINGS: Kein Pneumothorax.")


@pytest.mark.parametrize("heading", ["Beurteilung", "ZUSAMMENFASSUNG", "Zusammenfassende Beurteilung"])
def test_a_german_heading_names_the_film_or_concludes(heading):
    found = sections(f"Röntgen-Thorax p.a. vom 3.5.2024: Freie Lungen. {heading}: Normal.")
    assert (found.findings, found.impression) == ("Freie Lungen.", "Normal.")
    assert sections("BEFUND\nFreie Lungen.\nBEURTEILUNG\nNormal.").report == "FINDINGS: Freie Lungen.\nIMPRESSION: Normal."
    assert sections("Befund unverändert, kein Vergleich: nichts.").body == "Befund unverändert, kein Vergleich: nichts."


def test_windows_line_ends_are_line_ends():
    assert sections("FINDINGS:\r\nClear\r\nlungs.\r\nIMPRESSION: Normal.\r\n").report == "FINDINGS: Clear lungs.\nIMPRESSION: Normal."


def test_a_section_that_comes_twice_is_kept_whole():
    assert sections("FINDINGS: One.\nIMPRESSION: Two.\nFINDINGS: Three.").findings == "One.\nThree."


@given(st.text(max_size=300))
def test_any_text_is_taken_apart_and_no_word_of_it_is_made_up(text):
    found = sections(text)
    for piece in (found.findings, found.impression, found.indication, found.body, found.addendum, found.wet_read):
        assert all(word in text for word in piece.split())


@given(st.text(alphabet=st.characters(codec="ascii", categories=["Ll"]), min_size=1, max_size=20), st.text(alphabet="abc ", max_size=20))
def test_a_joined_report_comes_apart_again(findings, impression):
    found = sections(joined(findings, impression.strip()))
    assert (found.findings, found.impression) == (findings, " ".join(impression.split()))


def test_lines_are_joined_and_items_are_not():
    assert unwrapped("One\n  two\n- three\n  four\n\n\nfive") == "One two\n- three four\n\nfive"


def test_a_line_that_begins_a_statement_is_not_joined_to_the_one_before():
    assert unwrapped("No effusion\nLeft pneumothorax\nand a fracture") == "No effusion\nLeft pneumothorax and a fracture"
    assert unwrapped("Kein\nErguss\nKardiomegalie") == "Kein Erguss\nKardiomegalie"
    assert unwrapped("LUNGS: no mass\nPLEURA: effusion\n\n\nHEART:\n\tnormal") == "LUNGS: no mass\nPLEURA: effusion\n\nHEART: normal"
