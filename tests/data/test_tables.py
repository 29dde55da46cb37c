"""Tables: delimiters, decimal marks, headers, gaps, and what is left out."""

import pytest
from fusegen.data import open_text, read_series
from fusegen.data.files.tables import read_table

pytest.importorskip("pandas")


def table(tmp_path, content, encoding="utf-8", suffix=".csv"):
    path = tmp_path / f"x{suffix}"
    path.write_bytes(content.encode(encoding))
    return path


READ = {
    "plain": ("1,2\n3,4\n5,6\n", ("0", "1"), [[1, 2], [3, 4], [5, 6]]),
    "names": ("a,b\n1,2\n3,4\n", ("a", "b"), [[1, 2], [3, 4]]),
    "quoted names": ('"a","b"\n"1","2"\n', ("a", "b"), [[1, 2]]),
    "a title line": ("# of 2020\na,b\n1,2\n", ("a", "b"), [[1, 2]]),
    "blank lines": ("a,b\n\n1,2\n\n3,4\n", ("a", "b"), [[1, 2], [3, 4]]),
    "Windows": ("a,b\r\n1,2\r\n3,4\r\n", ("a", "b"), [[1, 2], [3, 4]]),
    "Macintosh": ("a,b\r1,2\r3,4\r", ("a", "b"), [[1, 2], [3, 4]]),
    "a byte order mark": ("\ufeffa,b\n1,2\n", ("a", "b"), [[1, 2]]),
    "spaces behind commas": ("a, b\n1, 2\n3, 4\n", ("a", "b"), [[1, 2], [3, 4]]),
    "one column": ("1\n2\n3\n", ("0",), [[1], [2], [3]]),
    "one named column": ("a\n2\n3\n", ("a",), [[2], [3]]),
    "exponents": ("1e5,2E-3\n-1.5e+3,.5\n", ("0", "1"), [[1e5, 2e-3], [-1500, 0.5]]),
    "semicolons": ("a;b\n1.5;2\n3;4\n", ("a", "b"), [[1.5, 2], [3, 4]]),
    "a decimal comma": ("0,5;0,25\n", ("0", "1"), [[0.5, 0.25]]),
    "decimal commas, named": ("a;b\n1,5;2,5\n1,25;3\n", ("a", "b"), [[1.5, 2.5], [1.25, 3]]),
    "decimal commas by tabs": ("1,5\t2,5\n3,5\t4,5\n", ("0", "1"), [[1.5, 2.5], [3.5, 4.5]]),
    "tabs": ("a\tb\n1\t2\n", ("a", "b"), [[1, 2]]),
    "bars": ("1|2\n3|4\n", ("0", "1"), [[1, 2], [3, 4]]),
    "a space": ("1 2\n3 4\n", ("0", "1"), [[1, 2], [3, 4]]),
    "columns set with spaces": ("  1   2.5\n 30    4\n", ("0", "1"), [[1, 2.5], [30, 4]]),
    "a delimiter in quotes": ('"a;x";b\n"1,5";2\n', ("a;x", "b"), [[1.5, 2]]),
    "years above amounts": ("month,2019,2020\njan,5,7\nfeb,6,8\n", ("2019", "2020"), [[5, 7], [6, 8]]),
    "a year": ("country,2019\nFR,12\nDE,15\n", ("2019",), [[12], [15]]),
    "years alone": ("2019,2020\n5.5,6.1\n5.2,6\n", ("2019", "2020"), [[5.5, 6.1], [5.2, 6]]),
    "wavelengths": ("leaf,400,410,420\na,.1,.2,.3\n", ("400", "410", "420"), [[0.1, 0.2, 0.3]]),
    "pandas' index": (
        ",0,1,2\n0,1.5,2.5,3.5\n1,4,5,6\n",
        ("0", "1", "2"),  # its row numbers are no feature
        [[1.5, 2.5, 3.5], [4, 5, 6]],
    ),
    "a word above numbers": ("t,0\n5,0.5\n6,0.7\n", ("t", "0"), [[5, 0.5], [6, 0.7]]),
    "small first values": ("1,2\n1.5,2.5\n", ("0", "1"), [[1, 2], [1.5, 2.5]]),
    "a first row of values like the others": ("jan,5,7\nfeb,6,8\n", ("1", "2"), [[5, 7], [6, 8]]),
    "values near 2000": ("2019,2020\n2100,2300\n", ("0", "1"), [[2019, 2020], [2100, 2300]]),
    "the same value twice": ("2019,2019\n5,7\n", ("0", "1"), [[2019, 2019], [5, 7]]),
}


@pytest.mark.parametrize(("content", "names", "values"), READ.values(), ids=READ)
def test_what_is_read(tmp_path, content, names, values):
    found = read_table(table(tmp_path, content))
    assert found.names == names
    assert found.values.tolist() == values


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "cp1252"])
def test_encodings(tmp_path, encoding):
    found = read_table(table(tmp_path, "Größe,b\n1,2\n", encoding))
    assert found.names == ("Größe", "b") and found.values.tolist() == [[1, 2]]
    assert any("Windows-1252" in note for note in found.notes) == (encoding == "cp1252")


@pytest.mark.parametrize(
    ("options", "names", "values"),
    [
        ({"header": False}, ("1", "2"), [[2019, 2020], [5, 7]]),
        ({"header": True}, ("2019", "2020"), [[5, 7]]),
        ({"delimiter": "comma"}, ("2019", "2020"), [[5, 7]]),
    ],
)
def test_a_header_may_be_said(tmp_path, options, names, values):
    found = read_table(table(tmp_path, "month,2019,2020\njan,5,7\n"), **options)
    assert (found.names, found.values.tolist()) == (names, values)


def test_a_delimiter_and_a_decimal_mark_may_be_said(tmp_path):
    path = table(tmp_path, "1,5\n2,5\n")
    assert read_table(path).values.tolist() == [[1, 5], [2, 5]]
    assert read_table(path, delimiter=";", decimal=",").values.tolist() == [[1.5], [2.5]]
    assert read_table(table(tmp_path, "1:2\n3:4\n"), delimiter=":").values.tolist() == [[1, 2], [3, 4]]
    assert read_table(table(tmp_path, "1\t2\n"), delimiter="tab").values.tolist() == [[1, 2]]


@pytest.mark.parametrize("gap", ["", "NaN", "nan", "NA", "N/A", "-", "?", "null", "None", "#N/A", " "])
@pytest.mark.parametrize("row", [1, 2])
@pytest.mark.parametrize("column", ["price", "return"])
def test_a_gap_is_an_error_in_every_row_and_column(tmp_path, gap, row, column):
    cells = [["5", "0.1"], ["2", "0.2"]]
    cells[row - 1][["price", "return"].index(column)] = gap
    content = "price,return\n" + "".join(",".join(line) + "\n" for line in cells)
    said = rf"column '{column}', row {row} of values: expected a finite number, got '{gap.strip()}' \(a gap\)"
    with pytest.raises(ValueError, match=said.replace("?", r"\?")):
        read_table(table(tmp_path, content))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("a,b\n1,2\n,3\n", "; fill in what is missing, or drop the row of 2"),
        ("a,b\n1,\n,\n5,6\n", "; fill in what is missing, or drop the 2 rows that lack something of 3"),
    ],
)
def test_a_gap_says_what_to_do_and_how_many_rows_there_are(tmp_path, content, said):
    with pytest.raises(ValueError) as caught:
        read_table(table(tmp_path, content))
    assert str(caught.value).endswith(said)


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        ("2020-01-02", "column 'b' holds no numbers: '2020-01-02' and the like"),
        ('"1,000"', "column 'b' holds no numbers: '1,000' and the like"),
        ("12:30", "column 'b' holds no numbers: '12:30' and the like"),
        ("5 %", "column 'b' holds no numbers: '5 %' and the like"),
        ("NA", "column 'b' holds nothing but gaps"),
        ("", "column 'b' holds nothing but gaps"),
    ],
)
def test_a_column_left_out_is_said(tmp_path, cell, said):
    found = read_table(table(tmp_path, f"a,b\n1,{cell}\n2,{cell}\n"))
    assert found.names == ("a",)
    assert len(found.left_out) == 1 and found.left_out[0].endswith(said)
    series = read_series(table(tmp_path, f"a,b\n1,{cell}\n2,{cell}\n"), 2)
    assert series.features == ("a",) and series.skipped == found.left_out


def test_a_word_among_numbers_is_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"column 'vol', row 2 of values: .* got '1,000'"):
        read_table(table(tmp_path, 'vol\n900\n"1,000"\n'))


@pytest.mark.parametrize(
    ("content", "note"),
    [
        ("0,5;0,25\n", "a comma is the decimal mark"),
        ("1|2\n", "columns are parted by '|'"),
        ("month,2019\njan,5\n", "the first row holds names, '2019' among them"),
    ],
)
def test_what_is_not_plain_is_said(tmp_path, content, note):
    path = table(tmp_path, content)
    assert note in read_table(path).notes and note in read_series(path, 1).notes
    assert read_table(table(tmp_path, "a,b\n1,2\n")).notes == ()


BAD = {
    "a short row": ("a,b\n1,2\n3\n", {}, "expected 2 columns, got 1 in row 3"),
    "a long row": ("a,b\n1,2\n3,4,5\n", {}, "expected 2 columns, got 3 in row 3"),
    "infinity": ("a,b\n1,inf\n2,3\n", {}, "column 'b', row 1 of values: .* got 'inf'"),
    "an open quote": ('a,b\n"1,2\n3,4\n', {}, "expected 2 columns, got 1 in row 2"),
    "NUL": ("a,b\n1,\0\n", {}, "NUL"),
    "delimiter": ("1,2\n", {"delimiter": "ab"}, "delimiter: expected one character"),
    "decimal": ("1,2\n", {"decimal": ";"}, "decimal: expected '.' or ','"),
    "both": ("1,2\n", {"decimal": ",", "delimiter": ","}, "at once"),
}


@pytest.mark.parametrize(("content", "options", "message"), BAD.values(), ids=BAD)
def test_bad_tables_are_named(tmp_path, content, options, message):
    with pytest.raises(ValueError, match=message):
        read_table(table(tmp_path, content), **options)


def test_options_of_tables_are_for_tables(tmp_path):
    import numpy as np

    np.save(tmp_path / "x.npy", np.zeros(9))
    with pytest.raises(
        ValueError, match=r"header: expected a table \(.csv, .tsv, .*\) to read with it, got .*x.npy"
    ):
        read_series(tmp_path / "x.npy", 3, header=True)


# ---- text in a column ---------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
def test_a_text_by_its_column(tmp_path, suffix):
    mark = {".csv": ",", ".tsv": "\t"}[suffix]
    content = f'id{mark}review\n1{mark}"good, ""really""\n# so"\n2{mark}\n3{mark}bad\n'
    path = table(tmp_path, content, suffix=suffix)
    text = open_text(str(path), column="review")
    assert bytes(text.tokens.numpy()).decode() == 'good, "really"\n# so\n\nbad'
    with pytest.raises(ValueError, match=r"is a table: --column says which .*, of id, review;"):
        open_text(str(path))
    with pytest.raises(ValueError, match=r"no column 'text': id, review"):
        open_text(str(path), column="text")


@pytest.mark.parametrize("source", ["pydocs", "unicode", "a.txt"])
@pytest.mark.parametrize("option", ["column", "split"])
def test_no_option_is_ignored(tmp_path, source, option):
    if source.endswith(".txt"):
        source = str(table(tmp_path, "words", suffix=".txt"))
    with pytest.raises(ValueError, match=rf"^{option}: expected .* got {source}"):
        open_text(source, **{option: "validation"})
