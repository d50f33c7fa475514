import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from training.data.catalogue import read_catalogue
from training.data.movielens import spoken_name, title_year
from training.data.sources import CatalogueFile
from training.errors import UserError


def _read(path, text, shape, encoding="utf-8", item="id"):
    path.write_bytes(text.encode(encoding))
    return read_catalogue(CatalogueFile(str(path), shape, item))


@pytest.mark.parametrize(
    ("title", "name", "year"),
    [
        ("Toy Story (1995)", "Toy Story", 1995),
        ("Matrix, The (1999)", "The Matrix", 1999),
        ("Avventura, L' (1960)", "L'Avventura", 1960),
        ("City of Lost Children, The (Cité des enfants perdus, La) (1995)", None, 1995),
        ("Death Note (2006–2007)", "Death Note", 2006),
        ("Good, the Bad and the Ugly, The (1966)", "The Good, the Bad and the Ugly", 1966),
        ("Babylon 5", "Babylon 5", None),
        ("2001: A Space Odyssey (1968) ", "2001: A Space Odyssey", 1968),
        ("(1999)", "(1999)", 1999),
    ],
)
def test_titles_have_a_spoken_name_and_a_year(title, name, year):
    assert title_year(title) == year
    expected = name or "The City of Lost Children (Cité des enfants perdus, La)"
    assert spoken_name(title) == expected


def test_movies_csv_may_quote_titles_and_list_no_genres(tmp_path):
    text = 'movieId,title,genres\n7,"Matrix, The (1999)",Action|Sci-Fi\n9,Odd,(no genres listed)\n'
    assert _read(tmp_path / "movies.csv", text, "movies.csv").to_pylist() == [
        {
            "item_id": 7,
            "title": "Matrix, The (1999)",
            "name": "The Matrix",
            "genres": ["Action", "Sci-Fi"],
            "year": 1999,
        },
        {"item_id": 9, "title": "Odd", "name": "Odd", "genres": [], "year": None},
    ]


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_movies_dat_is_read_in_either_encoding(tmp_path, encoding):
    text = "1::Misérables, Les (1995)::Drama|Musical\n2::Mission:: Odd (1990)::War\n"
    table = _read(tmp_path / "movies.dat", text, "movies.dat", encoding)
    assert table["name"].to_pylist() == ["Les Misérables", "Mission:: Odd"]
    assert table["genres"].to_pylist() == [["Drama", "Musical"], ["War"]]


@pytest.mark.parametrize("with_genre_file", [True, False])
def test_u_item_flags_are_named_by_u_genre_or_by_their_published_order(tmp_path, with_genre_file):
    flags = ["0"] * 19
    flags[1] = flags[5] = "1"
    if with_genre_file:
        names = [f"genre {index}|{index}" for index in range(19)]
        (tmp_path / "u.genre").write_text("\n".join(names) + "\n\n")
    line = "|".join(["3", "Café (1995)", "01-Jan-1995", "", "http://x", *flags])
    table = _read(tmp_path / "u.item", line + "\n", "u.item", "latin-1")
    expected = ["genre 1", "genre 5"] if with_genre_file else ["Action", "Comedy"]
    assert table.to_pylist()[0]["genres"] == expected
    assert table.to_pylist()[0]["name"] == "Café"


def test_a_generic_catalogue_keeps_its_further_columns(tmp_path):
    text = "sku,Name,category,release_year,price\nb,Chair,Home|Wood,2020,9.5\na,Lamp,,,\n"
    table = _read(tmp_path / "items.csv", text, "columns", item="sku")
    assert table.to_pylist() == [
        {
            "item_id": "b",
            "title": "Chair",
            "name": "Chair",
            "genres": ["Home", "Wood"],
            "year": 2020,
            "price": 9.5,
        },
        {
            "item_id": "a",
            "title": "Lamp",
            "name": "Lamp",
            "genres": [],
            "year": None,
            "price": None,
        },
    ]


def test_a_parquet_catalogue_may_hold_lists_of_genres_and_no_titles(tmp_path):
    path = tmp_path / "items.parquet"
    pq.write_table(pa.table({"id": [4, 5], "genres": [["a", "b"], None]}), path)
    table = read_catalogue(CatalogueFile(str(path), "columns", "id"))
    assert table["item_id"].type == pa.int64()
    assert table["title"].to_pylist() == ["4", "5"]
    assert table["genres"].to_pylist() == [["a", "b"], []]


@pytest.mark.parametrize(
    ("text", "shape", "message"),
    [
        ("movieId,name,genres\n1,a,b\n", "movies.csv", "no column 'title'"),
        ("movieId,title,genres\n1,a,b\nx,c,d\n", "movies.csv", "row 3, column 'movieId': 'x'"),
        ("movieId,title,genres\n1,a,b\n1,c,d\n", "movies.csv", "item 1 is described more than"),
        ("movieId,title,genres\n1,a,b\n,c,d\n", "movies.csv", "item 2 has no id"),
        ("movieId,title,genres\n1,a\n", "movies.csv", "cannot be read"),
        ("1::a::b\n2::c\n", "movies.dat", "row 2 has 2 fields where 3"),
        ("1|a|b\n", "u.item", "row 1 has 3 fields where 24"),
        ("key,title\n1,a\n", "columns", "no column 'id'"),
        ("id,year\n1,2000\n2,MM\n", "columns", "row 3, column 'year': 'MM' is not a whole"),
    ],
)
def test_a_faulty_catalogue_is_one_clear_line(tmp_path, text, shape, message):
    with pytest.raises(UserError, match=message) as error:
        _read(tmp_path / "items", text, shape)
    assert "\n" not in str(error.value)


def test_tags_and_the_genome_beside_movies_csv_become_columns(tmp_path):
    text = "movieId,title,genres\n7,Seven (1995),War\n9,Nine (2009),\n8,Eight (2008),\n"
    (tmp_path / "tags.csv").write_text(
        "userId,movieId,tag,timestamp\n1,7,Dark,5\n2,7,slow,5\n3,7,dark ,6\n1,99,gone,5\n"
    )
    (tmp_path / "genome-scores.csv").write_text(
        "movieId,tagId,relevance\n9,1,0.25\n9,2,0.5\n7,1,1.0\n7,2,0\n"
    )
    table = _read(tmp_path / "movies.csv", text, "movies.csv")
    assert table["tags"].to_pylist() == [["dark", "slow"], [], []]
    assert table["genome"].to_pylist() == [[1.0, 0.0], [0.25, 0.5], None]


def test_a_text_catalogue_may_hold_vectors_and_lists(tmp_path):
    text = 'id,image,moods,size\n1,"[0.5, 1]",calm;dark,3\n2,,,\n'
    (tmp_path / "items.csv").write_text(text)
    file = CatalogueFile(str(tmp_path / "items.csv"), "columns", "id", lists=(("moods", ";"),))
    rows = read_catalogue(file).to_pylist()
    assert [row["image"] for row in rows] == [[0.5, 1.0], None]
    assert [row["moods"] for row in rows] == [["calm", "dark"], []]
    assert [row["size"] for row in rows] == [3.0, None]


def test_named_fields_take_the_place_of_the_usual_names(tmp_path):
    (tmp_path / "items.csv").write_text("id,heading,styles,made\n1,Chair,wood|old,1920\n")
    fields = (("title", "heading"), ("genres", "styles"), ("year", "made"))
    row = read_catalogue(CatalogueFile(str(tmp_path / "items.csv"), "columns", "id", fields))
    assert row.to_pylist() == [
        {
            "item_id": 1,
            "title": "Chair",
            "name": "Chair",
            "genres": ["wood", "old"],
            "year": 1920,
        }
    ]


@pytest.mark.parametrize(
    ("text", "column", "values"),
    [
        ("i,year\n1,1999.0\n2,\n", "year", [1999, None]),
        (
            'i,moods\n1,"[""calm"", ""wild""]"\n2,"[""wild""]"\n',
            "moods",
            [["calm", "wild"], ["wild"]],
        ),
        ("i,genres\n1,War|Drama\n2,\n", "genres", [["War", "Drama"], []]),
    ],
)
def test_values_are_read_as_people_write_them(tmp_path, text, column, values):
    (tmp_path / "items.csv").write_text(text)
    table = read_catalogue(CatalogueFile(str(tmp_path / "items.csv"), "columns", "i"))
    assert table[column].to_pylist() == values


def test_a_number_that_is_no_year_is_named(tmp_path):
    (tmp_path / "items.csv").write_text("i,year\n1,1999\n2,99999999999\n")
    with pytest.raises(UserError, match="row 3, column 'year': 99999999999 is no year"):
        read_catalogue(CatalogueFile(str(tmp_path / "items.csv"), "columns", "i"))


def test_categories_may_be_numbers(tmp_path):
    pq.write_table(pa.table({"i": [1, 2], "genres": [7, None]}), tmp_path / "items.parquet")
    table = read_catalogue(CatalogueFile(str(tmp_path / "items.parquet"), "columns", "i"))
    assert table["genres"].to_pylist() == [["7"], []]
