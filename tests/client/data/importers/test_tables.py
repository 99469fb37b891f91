import gzip

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from client.data.importers._tables import rows
from rainhill.errors import DataError


def test_a_control_character_is_refused_where_it_stands(tmp_path):
    plain, packed, parquet = tmp_path / "a.csv", tmp_path / "a.csv.gz", tmp_path / "a.parquet"
    text = "patient,report\n1,Clear\n2,Ke\0in Pneumothorax\n"
    plain.write_text(text, encoding="utf-8")
    packed.write_bytes(gzip.compress(text.encode()))
    pq.write_table(pa.table({"patient": ["1", "2"], "report": ["Clear", "Ke\0in Pneumothorax"]}), parquet)
    for path in (plain, packed, parquet):
        with pytest.raises(DataError, match=r"a\.[a-z.]+: row 3, column 'report': control character U\+0000 at character 3: take it out"):
            list(rows(path))


def test_a_long_cell_is_read_and_one_that_does_not_end_is_refused(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(f"patient,report\n1,{'clear ' * 100_000}\n", encoding="utf-8")
    assert [len(row["report"]) for row in rows(path)] == [600_000]
    path.write_text(f"patient,report\n1,{'x' * 4_000_001}\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"a\.csv: row 2, column 'report': 4,000,001 characters, expected at most 4,000,000"):
        list(rows(path))
    path.write_text('patient,report\n1,clear\n2,"' + "x" * 16_000_001, encoding="utf-8")
    with pytest.raises(DataError, match=r"a\.csv: row 3: a cell of more than 16,000,000 characters: is a quotation mark not closed"):
        list(rows(path))
