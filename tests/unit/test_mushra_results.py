"""Ratings of MUSHRA tests: every form of the CSV, screening, statistics."""

import csv
import json
import math
import xml.etree.ElementTree as ElementTree
from dataclasses import asdict

import numpy as np
import pytest
from scipy import stats

from speechbrain_flowmac.evaluation.mushra import (
    Item,
    Key,
    Stimulus,
    read_key,
)
from speechbrain_flowmac.evaluation.mushra_csv import (
    Rating,
    RatingsError,
    read_ratings,
    read_rows,
)
from speechbrain_flowmac.evaluation.mushra_results import (
    analyse,
    compare,
    holm,
    markdown,
    post_screening,
    signed_rank,
    summarise,
    write_analysis,
)
from speechbrain_flowmac.evaluation.results import ReportError

A, HIDDEN = Stimulus("a"), Stimulus("reference")
KEY = Key(
    test_id="codecs",
    systems={"reference": "Hidden reference", "a": "Codec A"},
    items={
        "training": Item({"C1": A}),
        "item-01": Item({"reference": HIDDEN, "C1": A}),
        "item-02": Item({"reference": HIDDEN, "C2": A}),
    },
)

# Two listeners, one item, as write.php has written it since 2022
MODERN = "\n".join(
    [
        "session_test_id,email,age,session_uuid,trial_id,rating_stimulus,"
        "rating_score,rating_time,rating_comment",
        "codecs,ann@b.org,30,u1,item-01,reference,100,9000,",
        "codecs,ann@b.org,30,u1,item-01,C1,40,9000,",
        'codecs,bob@b.org,40,u2,item-01,C1,60,8000,"well,',
        '""nice"""',
        "codecs,bob@b.org,40,u2,item-01,reference,95,8000,",
        "",
    ]
)
FOUND = [
    ("ann@b.org", "reference", 100.0),
    ("ann@b.org", "C1", 40.0),
    ("bob@b.org", "C1", 60.0),
    ("bob@b.org", "reference", 95.0),
]


def read(tmp_path, *texts, key=None, column=None):
    """Ratings of files with these contents."""
    paths = []
    for number, text in enumerate(texts):
        paths.append(tmp_path / f"{number}.csv")
        data = text if isinstance(text, bytes) else text.encode("utf-8")
        paths[-1].write_bytes(data)
    return read_ratings(paths, key, column)


def without(text, *names):
    """Drops columns of a CSV."""
    rows = list(csv.DictReader(text.splitlines(keepends=True)))
    kept = [name for name in rows[0] if name not in names]
    lines = [kept, *[[row[name] for name in kept] for row in rows]]
    return "".join(
        ",".join('"' + x.replace('"', '""') + '"' for x in line) + "\n"
        for line in lines
    )


# Forms of the CSV


def semicolons(text):
    rows = csv.reader(text.splitlines(keepends=True))
    return "".join(";".join(f'"{x}"' for x in row) + "\n" for row in rows)


FORMS = {
    "webmushra": MODERN,
    "byte order mark": "\ufeff" + MODERN,
    "utf-16": MODERN.encode("utf-16"),
    "crlf": MODERN.replace("\n", "\r\n"),
    "cr": MODERN.replace("\n", "\r"),
    "empty lines": "\n" + MODERN.replace("\ncodecs", "\n\n , ,\ncodecs"),
    "no last newline": MODERN.rstrip("\n"),
    "spaces": MODERN.replace(",item", " , item"),
    "upper case": MODERN.replace("rating_score", "Rating_Score"),
    "tabs": without(MODERN, "rating_comment").replace(",", "\t"),
    "2015 to 2022": without(MODERN, "session_uuid"),
    "no times": without(MODERN, "rating_time", "rating_comment", "age"),
    "least": without(
        MODERN,
        "session_test_id",
        "age",
        "session_uuid",
        "rating_time",
        "rating_comment",
    ),
    "prefixed": MODERN.replace("email", "participant_email"),
    "pasted together": MODERN + "\ufeff" + MODERN,
    "pymushra": without(MODERN, "rating_comment", "rating_time")
    .replace("session_test_id", "wm_testId")
    .replace("email", "questionaire_email")
    .replace("session_uuid", "questionaire_uuid")
    .replace("trial_id", "wm_id")
    .replace("rating_", "responses_")
    .replace('","', '";"'),
}


@pytest.mark.parametrize("text", FORMS.values(), ids=FORMS)
def test_forms_of_the_file(tmp_path, text):
    ratings = read(tmp_path, text)
    assert ratings == [
        Rating(who, "item-01", system, score) for who, system, score in FOUND
    ]


def test_semicolons_and_decimal_commas(tmp_path):
    text = semicolons(without(MODERN, "rating_comment"))
    ratings = read(tmp_path, text.replace('"40"', '"40,5"'))
    scores = {(x.listener, x.system): x.score for x in ratings}
    assert scores["ann@b.org", "C1"] == 40.5
    assert scores["bob@b.org", "C1"] == 60.0


def test_columns_in_another_order_after_a_second_header(tmp_path):
    text = MODERN + (
        "\ufeffrating_score,trial_id,email,rating_stimulus\n70,item-01,Cid,C1\n"
    )
    assert read(tmp_path, text)[-1] == Rating("cid", "item-01", "C1", 70.0)


def test_other_kinds_of_trials_are_left_out(tmp_path):
    text = (
        "wm_type,wm_id,responses_stimulus,responses_score\n"
        "mushra,i,C1,10\nbs1116,j,C1,5\n"
    )
    assert [rating.item for rating in read(tmp_path, text)] == ["i"]


def test_characters_that_python_takes_for_line_ends(tmp_path):
    text = "trial_id,rating_stimulus,rating_score,name\ni\u2028j,C1,10,x\x0by\n"
    (rating,) = read(tmp_path, text)
    assert rating == Rating("x\x0by", "i\u2028j", "C1", 10.0)


# Listeners and sessions


HEADER = "session_test_id,name,trial_id,rating_stimulus,rating_score\n"


def test_sessions_of_a_listener_are_averaged(tmp_path):
    text = HEADER + "t,Ann,i,C1,40\nt,Bob,i,C1,10\nt,ann ,i,C1,60\n"
    assert read(tmp_path, text) == [
        Rating("ann", "i", "C1", 50.0),
        Rating("bob", "i", "C1", 10.0),
    ]
    # also of another file
    text = HEADER + "t,Ann,i,C1,40\n"
    other = HEADER + "t,Ann,i,C1,50\nt,Ann,j,C1,7\n"
    assert read(tmp_path, text, other) == [
        Rating("ann", "i", "C1", 45.0),
        Rating("ann", "j", "C1", 7.0),
    ]


def test_without_answers_sessions_are_listeners(tmp_path):
    header = "trial_id,rating_stimulus,rating_score\n"
    session = "i,C1,40\ni,C2,50\nj,C1,60\n"
    ratings = read(
        tmp_path, header + session + "j,C1,1\ni,C1,2\n", header + session
    )
    who = [rating.listener for rating in ratings]
    assert len(ratings) == 8 and len(set(who)) == 3
    assert who == [who[0]] * 3 + [who[3]] * 2 + [who[5]] * 3
    # the same with names that were left empty
    text = HEADER + "t,,i,C1,1\nt,,i,C1,2\nt,Ann,i,C1,3\nt,,j,C1,4\n"
    ratings = read(tmp_path, text)
    assert len({rating.listener for rating in ratings}) == 4


def test_sessions_with_identifiers_may_be_interleaved(tmp_path):
    header = "session_uuid,trial_id,rating_stimulus,rating_score\n"
    text = header + "u,i,C1,1\nv,i,C1,2\nu,j,C1,3\nv,j,C1,4\n"
    ratings = read(tmp_path, text)
    who = [rating.listener for rating in ratings]
    assert who[0] == who[2] != who[1] == who[3]


def test_a_session_that_was_sent_twice_counts_once(tmp_path):
    (tmp_path / "twice").mkdir()
    once = read(tmp_path, MODERN)
    assert read(tmp_path / "twice", MODERN, MODERN) == once
    changed = MODERN.replace("C1,40", "C1,41")
    with pytest.raises(
        RatingsError,
        match="1.csv line 3: 'C1' of 'item-01' was rated 40 before",
    ):
        read(tmp_path, MODERN, changed)


def test_the_column_of_listeners_can_be_chosen(tmp_path):
    ratings = read(tmp_path, MODERN, column="AGE")
    assert {rating.listener for rating in ratings} == {"30", "40"}
    with pytest.raises(RatingsError, match="line 2: .* no column 'shoe size'"):
        read(tmp_path, MODERN, column="shoe size")


def test_the_best_column_says_who_listened(tmp_path):
    header = "code,email,listener,trial_id,rating_stimulus,rating_score\n"
    text = header + "1,e,l,i,C1,10\n2,f,,i,C1,10\n3,,,i,C1,10\n"
    who = [rating.listener for rating in read(tmp_path, text)]
    assert who == ["l", "f", "3"]


# The key


def test_key_maps_stimuli_to_systems(tmp_path):
    text = HEADER + (
        "codecs,Ann,item-01,C1,40\ncodecs,Ann,item-02,C2,20\n"
        "codecs,Ann,item-02,reference,99\ncodecs,Ann,training,C1,1\n"
    )
    assert read(tmp_path, text, key=KEY) == [
        Rating("ann", "item-01", "a", 40.0),
        Rating("ann", "item-02", "a", 20.0),
        Rating("ann", "item-02", "reference", 99.0),
    ]


def test_without_a_key_webmushras_names_hold(tmp_path):
    text = HEADER + "t,n,i,anchor35,1\nt,n,i,anchor70,2\nt,n,Training,C1,3\n"
    assert [(x.system, x.score) for x in read(tmp_path, text)] == [
        ("lowpass:3.5", 1.0),
        ("lowpass:7", 2.0),
    ]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("other,n,item-01,C1,5", "the test is 'other', the key is of 'codecs'"),
        ("codecs,n,item-09,C1,5", "the key has no item 'item-09'"),
        ("codecs,n,item-01,C9,5", "no stimulus 'C9' of 'item-01'"),
    ],
)
def test_ratings_that_do_not_fit_the_key(tmp_path, row, message):
    text = HEADER + "codecs,n,item-01,reference,100\n\n" + row + "\n"
    with pytest.raises(RatingsError, match=f"0.csv line 4: .*{message}"):
        read(tmp_path, text, key=KEY)


def test_reading_keys(tmp_path):
    path = tmp_path / "key.json"
    path.write_text(json.dumps(asdict(KEY)), encoding="utf-8")
    assert read_key(path) == KEY


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"test_id": 1}, "it.test_id: expected text, found 1"),
        ({"systems": []}, r"it.systems: expected a mapping, found \[\]"),
        ({"systems": {"a": None}}, r"it.systems\['a'\]: expected text"),
        ({"items": {"i": []}}, r"it.items\['i'\]: expected a mapping"),
        ({"items": {"i": {}}}, r"it.items\['i'\]: 'stimuli' is missing"),
        (
            {"items": {"i": {"stimuli": {"C1": "a"}}}},
            r"it.items\['i'\].stimuli\['C1'\]: expected a mapping",
        ),
        (
            {"items": {"i": {"stimuli": {"C1": {"system": ["a"]}}}}},
            r"it.items\['i'\].stimuli\['C1'\].system: expected text",
        ),
    ],
)
def test_keys_of_another_shape(tmp_path, change, message):
    path = tmp_path / "key.json"
    path.write_text(json.dumps(asdict(KEY) | change), encoding="utf-8")
    with pytest.raises(
        ReportError, match=f"key.json is no key of flowmac mushra: {message}"
    ):
        read_key(path)


@pytest.mark.parametrize("text", [b"{", b"[]", b"{}", b"\xff", b"[" * 100000])
def test_files_that_are_no_keys(tmp_path, text):
    path = tmp_path / "key.json"
    path.write_bytes(text)
    with pytest.raises(ReportError, match="key.json is no key of flowmac"):
        read_key(path)


# Errors


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "0.csv is empty"),
        ("\ufeff \n\n", "0.csv is empty"),
        ("a,b,c\n1,2,3\n", "first line does not name the columns trial_id, "),
        (HEADER, "no ratings in .*0.csv"),
        (HEADER + "t,n,training,C1,3\n", "no ratings in"),
        (HEADER + "t,n,i,C1,5\nt,n,i,C2\n", "line 3: 4 cells, but 5 columns"),
        (HEADER + "t,n,i,C1,5,6\n", "line 2: 6 cells, but 5 columns"),
        (HEADER + "t,n,i,C1,good\n", "line 2: .* 0..100, found 'good'"),
        (HEADER + "t,n,i,C1,\n", "line 2: the score .* found ''"),
        (HEADER + "t,n,i,C1,101\n", "line 2: the score .* found '101'"),
        (HEADER + "t,n,i,C1,-1\n", "line 2: the score .* found '-1'"),
        (HEADER + "t,n,i,C1,nan\n", "line 2: the score .* found 'nan'"),
        (HEADER + "\n\nt,n,,C1,5\n", "line 4: trial_id or rating_stimulus"),
        (HEADER + "t,n,i,,5\n", "line 2: trial_id or rating_stimulus is empty"),
        (b"trial_id\n\nR\xf6ntgen", "0.csv line 3: not UTF-8 text"),
        (b"\xff\xfea", "0.csv line 1: not UTF-8 text"),
        ("a" * 200_000 + "\n", "0.csv line 1: field larger than"),
        (HEADER + "a" * 200_000, "0.csv line 2: field larger than"),
    ],
)
def test_files_that_do_not_fit(tmp_path, text, message):
    with pytest.raises(RatingsError, match=message):
        read(tmp_path, text)


def test_lines_are_counted_as_an_editor_does(tmp_path):
    """A cell may span lines."""
    path = tmp_path / "a.csv"
    path.write_text(MODERN, encoding="utf-8")
    lines = [where.rpartition(" ")[2] for where, _ in read_rows(path)]
    assert lines == ["2", "3", "4", "6"]


# Post-screening


def listener(name, reference, mid=50, items=10, wrong=0, fooled=0):
    """Rates the reference `reference` in the first `wrong` of the items, and
    the anchor of 7 kHz 95 in the last `fooled`."""
    for number in range(items):
        item = f"i{number}"
        yield Rating(
            name, item, "reference", reference if number < wrong else 100
        )
        last = number >= items - fooled
        yield Rating(name, item, "lowpass:7", 95 if last else mid)
        yield Rating(name, item, "a", 60.0)


def test_two_of_ten_references_below_90_exclude():
    ratings = [
        *listener("often", 80, wrong=2),
        *listener("once", 80, wrong=1),
        *listener("at the limit", 90, wrong=10),
        *listener("just below", 89, wrong=2),
    ]
    assert post_screening(ratings) == {
        "often": "hidden reference below 90 for 2 of 10 items",
        "just below": "hidden reference below 90 for 2 of 10 items",
    }


@pytest.mark.parametrize(("wrong", "excluded"), [(3, False), (4, True)])
def test_exactly_15_percent_stay(wrong, excluded):
    ratings = [*listener("x", 0, items=20, wrong=wrong)]
    assert bool(post_screening(ratings)) is excluded


def test_anchors_above_90_exclude():
    ratings = [*listener("loose", 100, mid=90)]
    for number in range(5):
        ratings += listener(f"n{number}", 100)
    ratings += listener("twice", 100, fooled=2)
    ratings += listener("both", 50, wrong=5, fooled=9)
    # 2 of 8 listeners are 25 %, not more
    assert post_screening(ratings) == {
        "both": "hidden reference below 90 for 5 of 10 items, "
        "anchor of 7 kHz above 90 for 9 of 10 items",
        "twice": "anchor of 7 kHz above 90 for 2 of 10 items",
    }
    # with 3 of 9, the last item says nothing about listeners
    ratings += listener("once", 100, fooled=1)
    assert post_screening(ratings) == {
        "both": "hidden reference below 90 for 5 of 10 items, "
        "anchor of 7 kHz above 90 for 8 of 9 items",
    }


def test_anchors_that_fool_many_say_nothing_about_listeners():
    """Three of four find the anchor of every item excellent."""
    ratings = [*listener("ears", 100)]
    for number in range(3):
        ratings += listener(f"n{number}", 100, fooled=10)
    assert post_screening(ratings) == {}


def test_no_reference_no_screening():
    ratings = [Rating("x", "i", "a", 10.0), Rating("x", "i", "b", 99.0)]
    assert post_screening(ratings) == {}


# Statistics


def test_intervals_are_those_of_scipy():
    scores = np.random.default_rng(0).uniform(0, 100, 23)
    found = summarise(scores)
    low, high = stats.t.interval(
        0.95, 22, loc=scores.mean(), scale=stats.sem(scores)
    )
    assert found.mean == pytest.approx(scores.mean())
    assert (found.low, found.high) == pytest.approx((low, high))
    assert found.median == np.median(scores)
    assert (found.lower, found.upper) == pytest.approx(
        np.quantile(scores, [0.25, 0.75])
    )
    assert found.count == 23


def test_intervals_in_closed_form():
    # one degree of freedom: t is tan(0.475 pi)
    found = summarise([40, 60])
    assert found.high - 50 == pytest.approx(10 * math.tan(0.475 * math.pi))
    assert math.isnan(summarise([40]).low)
    assert summarise([40]).mean == summarise([40]).median == 40
    assert summarise([7, 7, 7])[:3] == (7, 7, 7)


def test_intervals_hold_the_mean_in_95_percent():
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(1000):
        found = summarise(rng.normal(50, 10, 8))
        hits += found.low <= 50 <= found.high
    assert 930 < hits < 970


def test_signed_rank_in_closed_form():
    # n differences of one sign: 2 of 2^n orders are as extreme
    for count in (3, 6, 10):
        differences = np.arange(1, count + 1)
        assert signed_rank(differences) == pytest.approx(2.0 ** (1 - count))
        assert signed_rank(-differences) == signed_rank(differences)
    assert signed_rank([0.0, 0.0]) == 1.0
    assert signed_rank([1e-15, -1e-15, 0.0]) == 1.0
    assert signed_rank([5.0]) == 1.0
    differences = np.random.default_rng(0).normal(0.3, 1, 80)
    expected = stats.wilcoxon(differences).pvalue
    assert signed_rank([*differences, 0.0, 0.0]) == pytest.approx(expected)


def test_holm_in_numbers():
    # multiplied by 4, 3, 2, 1, never falling
    assert holm([0.04, 0.01, 0.03, 0.005]) == pytest.approx(
        [0.06, 0.03, 0.06, 0.02]
    )
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


def test_pairs_are_of_what_both_were_rated_for():
    scores = {
        "a": {("l", "i"): 80.0, ("l", "j"): 70.0, ("m", "i"): 60.0},
        "b": {("l", "i"): 50.0, ("l", "j"): 60.0, ("n", "i"): 0.0},
        "c": {("o", "i"): 50.0},
    }
    (pair,) = compare(scores, ["a", "b", "c"])
    assert pair[:4] == ("a", "b", 20.0, 2)
    assert pair.p == pair.corrected == 0.5


@pytest.fixture
def analysis():
    """Four listeners, one of whom guesses; b is better than a by 10."""
    ratings = []
    for person in range(4):
        for number in range(6):
            # the last does not know the reference
            top = 100 if person < 3 else 20
            base = 40 + 3 * number + person
            item = f"i{number}"
            for system, score in {
                "reference": top,
                "lowpass:7": 50,
                "lowpass:3.5": 20,
                "a": base,
                "b": base + 10,
            }.items():
                ratings.append(Rating(f"p{person}", item, system, float(score)))
    labels = {"a": "Codec A|1", "b": "Codec $B$"}
    return analyse(ratings, Key("test", labels, {}))


def test_analysis_leaves_excluded_listeners_out(analysis):
    assert list(analysis.excluded) == ["p3"]
    assert list(analysis.systems) == [
        "reference",
        "b",
        "lowpass:7",
        "a",
        "lowpass:3.5",
    ]
    assert {found.count for found in analysis.systems.values()} == {18}
    scores = [
        40 + 3 * number + person for number in range(6) for person in (0, 1, 2)
    ]
    assert analysis.systems["a"] == summarise(scores)
    assert analysis.items["i2", "a"] == summarise([46, 47, 48])
    assert len(analysis.items) == 30
    (pair,) = analysis.pairs
    assert pair[:4] == ("b", "a", 10.0, 18)
    assert pair.corrected == pair.p < 0.001


def test_markdown_shows_it_all(analysis):
    text = markdown(analysis)
    assert "Listeners: 3 of 4 after post-screening" in text
    assert "Items: 6." in text
    assert "| Hidden reference | 100.0 | 100.0 to 100.0 | 100.0 |" in text
    assert (
        "| Codec A\\|1 | 48.5 | 45.8 to 51.2 | 48.5 | 44.2 to 52.8 | 18 |"
        in (text)
    )
    assert (
        r"| Codec \$B\$ | Codec A\|1 | 10.0 | < 0.001 | < 0.001 | 18 |" in text
    )
    assert "- p3: hidden reference below 90 for 6 of 6 items" in text
    for line in text.splitlines():
        if line.startswith("|"):
            assert line.replace("\\|", "").count("|") == 7


def test_a_single_rating_has_no_interval(tmp_path):
    analysis = analyse([Rating("x", "i", "a", 50.0)])
    assert "| a | 50.0 | – | 50.0 | 50.0 to 50.0 | 1 |" in markdown(analysis)
    assert "Wilcoxon" not in markdown(analysis)
    write_analysis(analysis, tmp_path)
    (row,) = csv.DictReader((tmp_path / "systems.csv").open())
    assert (row["mean"], row["low"], row["high"]) == ("50.0", "", "")


def test_tables_hold_the_same(analysis, tmp_path):
    write_analysis(analysis, tmp_path)
    tables = {
        path.stem: list(csv.DictReader(path.open(encoding="utf-8")))
        for path in tmp_path.glob("*.csv")
    }
    assert {name: len(rows) for name, rows in tables.items()} == {
        "systems": 5,
        "items": 30,
        "pairs": 1,
        "ratings": 120,
    }
    row = tables["systems"][3]
    assert (row["system"], row["label"], row["count"]) == (
        "a",
        "Codec A|1",
        "18",
    )
    assert float(row["low"]) == pytest.approx(
        analysis.systems["a"].low, abs=1e-3
    )
    assert [x["excluded"] != "" for x in tables["ratings"]] == [
        x.listener == "p3" for x in analysis.ratings
    ]
    assert (tmp_path / "mushra.md").read_text("utf-8") == markdown(analysis)


def test_plot_has_a_box_for_each_system(analysis, tmp_path):
    write_analysis(analysis, tmp_path)
    first = (tmp_path / "mushra.svg").read_bytes()
    root = ElementTree.fromstring(first)
    assert root.tag.endswith("svg")
    texts = [
        "".join(x.itertext()).strip()
        for x in root.iter()
        if x.tag.endswith("text")
    ]
    for label in ("Hidden reference", "Codec A|1", "Codec $B$", "MUSHRA score"):
        assert label in texts
    write_analysis(analysis, tmp_path)
    assert (tmp_path / "mushra.svg").read_bytes() == first


def test_nobody_left():
    ratings = [*listener("x", 10, wrong=10)]
    with pytest.raises(
        RatingsError, match="excludes all listeners: x: hidden reference below"
    ):
        analyse(ratings)
