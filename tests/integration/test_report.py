"""The report: what is in the page, and what it does in a browser.

The tests in a browser need Chromium or Chrome, of the path in CHROME_PATH, on
PATH, or installed by Playwright; without one they are skipped.
"""

import base64
import copy
import hashlib
import json
import os
import shutil
import time
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import soundfile
from evaluation_results import SAMPLE_RATE, SYSTEMS, make_results
from playwright.sync_api import sync_playwright

from speechbrain_flowmac.evaluation import report
from speechbrain_flowmac.evaluation.report import write_report
from speechbrain_flowmac.evaluation.results import ReportError, Unreadable

NASTY = '</script><img src=x onerror="window.harmed=1">&amp;\'.wav'
# The reference is the first that the page has
ORDER = [len(SYSTEMS) - 1, *range(len(SYSTEMS) - 1)]
LABELS = [SYSTEMS[i][1] for i in ORDER]


SECONDS = 8  # of the tones: a busy machine is slow to click


def tone_of(system):
    """Frequency in Hz that stands for a system."""
    return 500 * (1 + system)


def tone(system, file):
    """A tone that tells which system is heard."""
    time = np.arange(SECONDS * SAMPLE_RATE) / SAMPLE_RATE
    return 0.3 * np.sin(2 * np.pi * tone_of(system) * time)


class Parsed(HTMLParser):
    """Elements of a page; refuses what is not nested well."""

    void = {"meta", "img", "br", "input", "link", "colgroup"}

    def __init__(self, text):
        super().__init__()
        self.open, self.elements, self.text = [], [], ""
        self.feed(text)
        self.close()
        assert not self.open, f"{self.open} are not closed"

    def handle_starttag(self, tag, attributes):
        element = {"tag": tag, "text": "", **dict(attributes)}
        assert len(attributes) == len(dict(attributes))
        self.elements.append(element)
        if tag not in self.void:
            self.open.append(element)

    def handle_endtag(self, tag):
        assert self.open and self.open.pop()["tag"] == tag, self.getpos()

    def handle_data(self, data):
        for element in self.open:
            element["text"] += data

    def all(self, tag, **attributes):
        return [
            element
            for element in self.elements
            if element["tag"] == tag
            and all(element.get(k) == v for k, v in attributes.items())
        ]

    def __contains__(self, text):
        return text in self.all("main")[0]["text"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder and its results, with two utterances; not to be changed."""
    folder = tmp_path_factory.mktemp("made")
    return folder, make_results(folder)


@pytest.fixture
def results(made):
    """Results to change, whose files are in the folder of `made`."""
    return copy.deepcopy(made[1])


@pytest.fixture
def write(made):
    """Writes the page of results; returns it parsed."""

    def call(results, **options):
        path = write_report(results, made[0], **options)
        return Parsed(path.read_text(encoding="utf-8"))

    return call


def rename(results, old, new):
    """Gives a file another name."""
    for x in results.files:
        x.name = new if x.name == old else x.name
    for x in results.results:
        x.file = new if x.file == old else x.file


def harmful(results):
    """Puts a script in every text."""
    rename(results, "a/1.wav", NASTY)
    results.command += NASTY
    results.machine.cpu = NASTY
    results.machine.versions[NASTY] = NASTY
    results.plots[0].title = NASTY
    results.metrics[0].heading = NASTY
    results.systems[0].label = NASTY
    results.systems[-1].unavailable = NASTY
    results.results[1].error = NASTY
    results.unreadable = [Unreadable(NASTY, NASTY)]
    return results


# The file


def test_path_is_returned(made):
    folder, results = made
    assert write_report(results, str(folder)) == folder / "report.html"


def test_page_needs_nothing_else(results, write):
    page = write(results)
    for element in page.elements:
        assert element["tag"] not in {"link", "iframe", "object", "base"}
        for name in ("src", "href", "srcset", "action", "poster"):
            assert element.get(name, "data:").startswith("data:")
        assert not any(name.startswith("on") for name in element)
    (style,) = page.all("style")
    assert "url(" not in style["text"] and "@import" not in style["text"]


def test_policy_lets_only_the_own_script_and_style_run(results, write):
    page = write(results)
    (policy,) = [x["content"] for x in page.all("meta") if "http-equiv" in x]
    rules = dict(x.strip().split(" ", 1) for x in policy.split(";"))
    assert rules["default-src"] == "'none'"
    (script,) = [x for x in page.all("script") if "type" not in x]
    (style,) = page.all("style")
    for name, element in (("script-src", script), ("style-src", style)):
        digest = hashlib.sha256(element["text"].encode()).digest()
        assert rules[name] == f"'sha256-{base64.b64encode(digest).decode()}'"


def test_ids_are_unique_and_images_have_descriptions(results, write):
    page = write(results)
    ids = [x["id"] for x in page.elements if "id" in x]
    assert len(ids) == len(set(ids))
    pictures = 2 * len(page.all("audio"))
    assert len(page.all("img")) == len(results.plots) + pictures
    assert all(x["alt"] for x in page.all("img"))


def test_data_is_that_of_the_results(results, write):
    results.results[0].scores["pesq"] = float("nan")
    page = write(results)
    (data,) = page.all("script", id="results")
    results.results[0].scores["pesq"] = None
    assert json.loads(data["text"]) == results.to_json()


def test_names_stay_text(results, write):
    page = write(harmful(results))
    assert len(page.all("script")) == 2
    assert {x["src"][:5] for x in page.all("img")} == {"data:"}
    data = json.loads(page.all("script", id="results")[0]["text"])
    assert data == results.to_json()
    # in the table, the section of the utterance, the command, ...
    assert page.all("main")[0]["text"].count(NASTY) >= 10


def test_name_that_is_no_unicode(results, write):
    name = os.fsdecode(b"caf\xe9.wav")
    rename(results, "a/1.wav", name)
    page = write(results)
    assert "caf?.wav" in page
    data = json.loads(page.all("script", id="results")[0]["text"])
    assert data["files"][0]["name"] == name


def test_same_results_give_the_same_page(made, results):
    pages = [write_report(results, made[0]).read_bytes() for _ in range(2)]
    assert pages[0] == pages[1]


# What is in it


def rows_of(page_text, caption):
    """Texts of the cells of a table."""
    table = page_text.split(f"<caption>{caption}</caption>")[1]
    table = table.split("</table>")[0]
    return [
        [x["text"] for x in row.elements if x["tag"] in ("th", "td")]
        for row in map(Parsed, _rows(table))
    ]


def _rows(table):
    return [f"<tr{x.split('</tr>')[0]}</tr>" for x in table.split("<tr")[1:]]


MEANS = "Means, ± half their 95 % intervals"


def test_table_of_systems(made, results):
    for entry in results.summary:
        if (entry.system, entry.metric) == ("opus:6", "pesq"):
            entry.mean, entry.low, entry.high = 1.921, 1.81, 2.03
        if (entry.system, entry.metric) == ("opus:6", "estoi"):
            entry.mean = entry.low = entry.high = None
    path = write_report(results, made[0])
    groups, headings, *rows = rows_of(path.read_text(), MEANS)
    assert groups == [
        "System",
        "kbps",
        "Intrusive: compared with the reference",
        "Reference-free",
        "Real-time factor",
    ]
    assert headings[:1] == ["PESQ-WB ↑"] and "WARP-Q ↓" in headings
    assert [row[0].removesuffix(" anchor") for row in rows[:-1]] == LABELS
    (opus,) = [row for row in rows if row[0] == "Opus 6 kbps"]
    assert opus[1:4] == ["6.00", "1.92 ±0.11", "–"]
    assert rows[0][1] == "–"
    assert rows[-1] == [
        "LC3 16 kbps",
        "not available: elc3 is not installed (package liblc3-tools)",
    ]


def test_kinds_of_metrics_stay_together(made, results):
    results.metrics = results.metrics[::2] + results.metrics[1::2]
    path = write_report(results, made[0])
    _, headings, *_ = rows_of(path.read_text(), MEANS)
    assert [x[:-2] for x in headings[4:6]] == ["DistillMOS", "DNSMOS OVRL"]


def test_scores_of_an_utterance(made, results):
    ours = [x for x in results.results if x.file == "a/1.wav"]
    by_name = {x.system: x for x in ours}
    by_name["opus:6"].delay_ms, by_name["opus:6"].gain_db = 6.5, -0.01
    by_name["opus:6"].scores.update(pesq=1.234, estoi=None)
    by_name["flowmac:8"].error = "it broke"
    by_name["flowmac:8"].audio = None
    path = write_report(results, made[0])
    _, _, *rows = rows_of(path.read_text(), "Scores of this utterance")
    (opus,) = [row for row in rows if row[0] == "Opus 6 kbps"]
    assert opus[1:4] == ["6.00", "1.23", "–"]
    assert opus[-2:] == ["6.5", "0.0"]
    assert rows[-1] == ["FlowMAC 3.0 kbps", "failed: it broke"]


def test_minus_sign(made, results):
    results.results[0].gain_db = -1.26
    path = write_report(results, made[0])
    _, _, *rows = rows_of(path.read_text(), "Scores of this utterance")
    assert "−1.3" in [row[-1] for row in rows]


def test_failures_are_listed(results, write):
    results.results[0].error = "it broke"
    results.results[1].metric_errors = {"pesq": "no speech"}
    results.unreadable = [Unreadable("b.wav", "not audio")]
    page = write(results)
    (failures,) = page.all("ul", **{"class": "failures"})
    assert "b.wav: not audio" in failures["text"]
    assert "a/1.wav with flowmac:8: it broke" in failures["text"]
    assert "pesq of a/1.wav with flowmac:4: no speech" in failures["text"]
    assert "failed on 1 of 2" in page


def test_many_failures_are_counted(results, write, monkeypatch):
    monkeypatch.setattr(report, "MAX_FAILURES", 2)
    for result in results.results[:5]:
        result.error = "it broke"
    (failures,) = write(results).all("ul", **{"class": "failures"})
    assert failures["text"].count("it broke") == 2
    assert failures["text"].endswith("3 more")


def test_tokens_and_speed(made, results):
    text = write_report(results, made[0]).read_text()
    _, _, full, half = rows_of(text, "Use of the codebooks")
    assert full[:5] == ["FlowMAC 3.0 kbps", "256", "8.00", "7.40", "7.45"]
    assert full[-1] == "93"
    assert half[7:11] == ["–"] * 4 and half[-5:] == ["97"] + ["–"] * 4
    _, _, *rows = rows_of(text, "Time and memory")
    assert rows[0] == [
        *("FlowMAC 3.0 kbps", "0.031", "0.118", "1.20", "412", "1", "30.0")
    ]


def test_plots_are_grouped(made, results, write):
    folder, _ = made
    page = write(results)
    kinds = ["Quality against bit rate", "Spread over files"]
    assert [x["text"] for x in page.all("h3")][:2] == kinds
    groups = [x for x in page.all("details") if x["text"][:8] in str(kinds)]
    assert ["open" in x for x in groups] == [True, False]
    captions = [x.heading for x in results.metrics]
    assert [x["text"] for x in page.all("figcaption")][:6] == captions
    drawing = (folder / results.plots[0].path).read_bytes()
    image = page.all("img")[0]
    assert base64.b64decode(image["src"].split(",")[1]) == drawing
    assert image["alt"] == results.plots[0].title


def test_sections_without_content_are_left_out(results, write):
    for system in results.systems:
        system.tokens = system.speed = None
    results.plots = []
    for part in results.results + results.files:
        part.audio = None
    page = write(results)
    headings = [x["text"] for x in page.all("h2")]
    assert headings == ["Systems", "Utterances", "How it was made"]
    assert "Real-time factor" not in page


def test_how_it_was_made(results, write):
    page = write(results)
    for text in (results.command, "Example CPU at 2.5 GHz", "torch 2.11.0"):
        assert text in page


# Audio


def audio_of(page):
    return [base64.b64decode(x["src"].split(",")[1]) for x in page.all("audio")]


def test_audio_is_that_of_the_files(made, results, write):
    folder, _ = made
    page = write(results)
    expected = [
        (folder / x.audio).read_bytes()
        for file in results.files
        for name in (SYSTEMS[i][0] for i in ORDER)
        for x in results.results
        if (x.file, x.system) == (file.name, name)
    ]
    assert audio_of(page) == expected
    assert [x["text"] for x in page.all("figcaption")][-6:] == LABELS


def test_listen_limits_the_utterances(made, results, write):
    (file,) = [x for x in results.files if x.name == "a/2.wav"]
    results.files = [replace(file, name=f"{i:02}.wav") for i in range(20)]
    results.results = []
    for listen, count in ((None, 8), (3, 3), (0, 0), (100, 20)):
        assert len(write(results, listen=listen).all("audio")) == count
    names = [
        x["text"]
        for x in write(results, listen=2).all("h3")
        if x["text"].endswith(".wav")
    ]
    assert names[:2] == ["05.wav", "15.wav"]
    assert "2 of 20 utterances" in write(results, listen=2)


def test_negative_listen(made, results):
    with pytest.raises(ReportError, match="0 or more, found -1"):
        write_report(results, made[0], listen=-1)


def test_size_limit(made, results, write, monkeypatch):
    folder, _ = made
    sizes = [
        sum(x.stat().st_size for x in (folder / "audio" / i).iterdir())
        for i in "01"
    ]
    monkeypatch.setattr(report, "MAX_AUDIO_BYTES", sum(sizes))
    assert len(write(results).all("audio")) == 2 * len(SYSTEMS)
    monkeypatch.setattr(report, "MAX_AUDIO_BYTES", sum(sizes) - 1)
    page = write(results)
    assert len(page.all("audio")) == len(SYSTEMS)
    assert "Too large to be here: a/2.wav." in page
    # its scores are still there
    assert [x["text"] for x in page.all("h3")][2:] == ["a/1.wav", "a/2.wav"]


def test_limit_of_utterances_without_audio(results, write, monkeypatch):
    monkeypatch.setattr(report, "MAX_TABLES", 1)
    page = write(results, listen=0)
    assert [x["text"] for x in page.all("h3")][2:] == ["a/1.wav"]
    assert "1 more are in results.csv" in page


def test_shared_rate_is_the_highest(made, results, tmp_path):
    shutil.copytree(made[0], tmp_path, dirs_exist_ok=True)
    path = tmp_path / results.results[0].audio
    soundfile.write(path, np.zeros(480), 48000)
    page = Parsed(write_report(results, tmp_path).read_text())
    assert page.all("section", id="listening")[0]["data-sample-rate"] == "48000"


# Errors


@pytest.mark.parametrize("kind", ["audio", "plot"])
@pytest.mark.parametrize(
    "path, message",
    [
        ("gone.svg", "the report names 'gone.svg', which is no file in"),
        ("../report.html", r"'\.\./report.html' leads out of the folder"),
        ("/etc/hosts", "'/etc/hosts' leads out of the folder"),
    ],
)
def test_paths_that_no_page_can_be_made_of(tmp_path, kind, path, message):
    results = make_results(tmp_path)
    if kind == "audio":
        results.results[0].audio = path
    else:
        results.plots[0].path = path
    (tmp_path / "report.html").write_text("an earlier page")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ReportError, match=message):
        write_report(results, tmp_path)
    assert (tmp_path / "report.html").read_text() == "an earlier page"
    assert sorted(tmp_path.iterdir()) == before


def test_audio_that_is_none(tmp_path):
    results = make_results(tmp_path)
    (tmp_path / "audio/0/opus-6.flac").write_bytes(b"no audio")
    with pytest.raises(ReportError, match="opus-6.flac cannot be read"):
        write_report(results, tmp_path)
    assert not (tmp_path / "report.html").exists()


# In a browser


def find_browser():
    """Path of Chromium or Chrome, None for Playwright's own, or a skip."""
    given = os.environ.get("CHROME_PATH")
    if given:
        return given
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if shutil.which(name):
            return shutil.which(name)
    return None


@pytest.fixture(scope="module")
def browser():
    """A browser without a window."""
    wanted = (
        "needs a browser: install chromium (Debian: apt install chromium) or "
        "set CHROME_PATH"
    )
    with sync_playwright() as playwright:
        path = find_browser()
        if path is None:
            path = playwright.chromium.executable_path
            if not Path(path).exists():
                pytest.skip(wanted)
        browser = playwright.chromium.launch(
            executable_path=path,
            args=[
                "--autoplay-policy=no-user-gesture-required",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-gpu",
                "--disable-sync",
                "--no-first-run",
                "--no-sandbox",
            ],
        )
        yield browser
        browser.close()


# What comes out of the players, and what was started
TAP = """
window.started = [];
window.random = Math.random;
const connect = AudioNode.prototype.connect;
AudioNode.prototype.connect = function (target, ...rest) {
  if (target === this.context.destination) {
    window.tap ??= new AnalyserNode(
      this.context, { fftSize: 2048, smoothingTimeConstant: 0 });
    connect.call(this, window.tap);
  }
  return connect.call(this, target, ...rest);
};
const start = AudioBufferSourceNode.prototype.start;
AudioBufferSourceNode.prototype.start = function (...when) {
  window.started.push(when);
  return start.apply(this, when);
};
"""

# Frequency in Hz of what sounds loudest, 0 for silence
HEARD = """() => {
  const levels = new Float32Array(window.tap.frequencyBinCount);
  window.tap.getFloatFrequencyData(levels);
  const top = levels.reduce((a, b, i) => (b > levels[a] ? i : a), 0);
  return levels[top] < -60 ? 0 : top * window.tap.context.sampleRate / 2048;
}"""


class Opened:
    """A page in the browser, with shorter words for what the tests do."""

    def __init__(self, browser, path, **options):
        self.context = browser.new_context(**options)
        self.page = self.context.new_page()
        self.player = self.page.locator("details.player").first
        self.errors, self.requests = [], []
        for event in ("console", "pageerror"):
            self.page.on(event, lambda x: self.errors.append(str(x)))
        self.page.on("request", lambda x: self.requests.append(x.url))
        self.page.add_init_script(TAP)
        self.page.goto(path.as_uri())

    def check(self):
        """There were no errors, and no requests but for the page."""
        assert not self.errors
        page, *others = self.requests
        assert page.startswith("file:")
        assert all(x.startswith(("data:", "blob:")) for x in others)

    def button(self, name):
        return self.player.locator(".transport").get_by_role(
            "button", name=name, exact=True
        )

    def press(self, key):
        self.page.keyboard.press(key)

    def position(self):
        return self.page.evaluate("players[0].position()")

    def chosen(self):
        return self.player.locator(
            ".choices button[aria-pressed=true]"
        ).inner_text()

    def wait_for(self, condition):
        end = time.monotonic() + 10
        while not condition():
            assert time.monotonic() < end, "waited for too long"
            self.page.wait_for_timeout(20)

    def wait_for_tone(self, frequency):
        self.wait_for(lambda: abs(self.page.evaluate(HEARD) - frequency) < 30)

    def load(self):
        """Scrolls to the first player, and waits until it is ready."""
        self.player.evaluate("x => x.scrollIntoView()")
        self.wait_for(lambda: self.page.evaluate("players[0].duration") > 0)

    def goes_on(self, action):
        """Does something over which the position goes on as time does."""
        begun, before = time.monotonic(), self.position()
        action()
        passed = self.position() - before
        assert 0 <= passed < time.monotonic() - begun + 0.1

    def play(self):
        self.button("Play").click()
        self.wait_for(lambda: self.position() > 0)


@pytest.fixture
def open_page(browser):
    """Opens pages; none of them may have errors or requests."""
    pages = []

    def call(path, **options):
        pages.append(Opened(browser, path, **options))
        return pages[-1]

    yield call
    for page in pages:
        page.check()
        page.context.close()


@pytest.fixture(scope="module")
def tones(tmp_path_factory):
    """A page in which every system is a tone of its own."""
    folder = tmp_path_factory.mktemp("tones")
    return write_report(make_results(folder, sound=tone), folder)


@pytest.fixture(scope="module")
def shared(browser, tones):
    """That page, open at its first player."""
    opened = Opened(browser, tones)
    opened.load()
    yield opened
    opened.context.close()


# As it was when it was opened
RESET = """() => {
  Math.random = window.random;
  const [first, second] = players;
  if (first.test) first.toggleTest();
  if (first.looping) first.loop();
  players.forEach((player) => player.pause());
  first.seek(0);
  first.choose(0);
  active = first;
  second.details.open = false;
  document.activeElement.blur();
  first.details.scrollIntoView();
  started.length = 0;
}"""


@pytest.fixture
def opened(shared):
    """The same for every test."""
    shared.page.evaluate(RESET)
    yield shared
    shared.check()


def test_plays_and_pauses(opened):
    opened.play()
    opened.wait_for_tone(tone_of(ORDER[0]))
    begun, first = time.monotonic(), opened.position()
    opened.wait_for(lambda: opened.position() > first + 0.2)
    assert opened.position() - first < time.monotonic() - begun + 0.1
    opened.button("Pause").click()
    opened.wait_for_tone(0)
    position = opened.position()
    assert 0 < position < SECONDS
    opened.page.wait_for_timeout(100)
    assert opened.position() == position
    assert opened.player.locator(".time").inner_text() == (
        f"{position:.1f} / {SECONDS:.1f} s"
    )
    # and goes on from there
    opened.play()
    assert opened.position() >= position


def test_switches_at_the_same_position(opened):
    opened.play()
    for index in (3, 0, 5):
        opened.goes_on(opened.button(f"{index + 1} {LABELS[index]}").click)
        opened.wait_for_tone(tone_of(ORDER[index]))
        assert opened.chosen().endswith(LABELS[index])
    # One source for each system, begun together and never again
    started = opened.page.evaluate("started")
    assert len(started) == len(SYSTEMS)
    assert all(x == started[0] for x in started)


def test_fade_is_short_and_complete(opened):
    opened.play()
    opened.press("2")
    opened.page.wait_for_timeout(100)
    gains = opened.page.evaluate(
        "players[0].playback.gains.map((x) => x.gain.value)"
    )
    assert gains == [0, 1, 0, 0, 0, 0]
    assert 0.005 <= opened.page.evaluate("FADE") <= 0.01


def test_ends_or_loops(opened):
    opened.play()
    opened.page.evaluate(f"players[0].seek({SECONDS - 0.2})")
    opened.wait_for(lambda: opened.button("Play").is_visible())
    assert opened.position() == 0
    opened.button("Loop").click()
    opened.play()
    opened.page.evaluate(f"players[0].seek({SECONDS - 0.2})")
    opened.wait_for(lambda: 0 < opened.position() < SECONDS - 1)
    opened.wait_for_tone(tone_of(ORDER[0]))
    # no longer looping, from wherever it is
    opened.goes_on(lambda: opened.press("l"))
    opened.page.evaluate(f"players[0].seek({SECONDS - 0.2})")
    opened.wait_for(lambda: opened.button("Play").is_visible())


def test_keys(opened):
    opened.press(" ")
    opened.wait_for_tone(tone_of(ORDER[0]))
    opened.press("3")
    opened.wait_for_tone(tone_of(ORDER[2]))
    opened.press("9")  # there are fewer
    assert opened.chosen().endswith(LABELS[2])
    opened.press(" ")
    opened.wait_for_tone(0)
    for start, key, expected in (
        (0.5, "ArrowRight", [1.5, 2.5, 3.5]),
        (SECONDS - 1.5, "ArrowRight", [SECONDS - 0.5, SECONDS, SECONDS]),
        (3, "ArrowLeft", [2, 1, 0, 0]),
    ):
        opened.page.evaluate(f"players[0].seek({start})")
        for position in expected:
            opened.press(key)
            assert opened.position() == position
    # with another key it belongs to the browser
    opened.press("Control+ArrowRight")
    assert opened.position() == 0


def test_keys_of_other_controls_stay_theirs(opened):
    opened.button(f"2 {LABELS[1]}").focus()
    opened.press(" ")
    assert opened.chosen().endswith(LABELS[1])
    assert opened.button("Play").is_visible()
    opened.page.locator(".scroll").first.focus()
    opened.press("ArrowRight")
    assert opened.position() == 0
    # a click leaves no focus: the space bar plays
    opened.button(f"4 {LABELS[3]}").click()
    opened.press(" ")
    opened.wait_for_tone(tone_of(ORDER[3]))
    opened.player.get_by_label("Position").focus()
    opened.press(" ")
    opened.wait_for_tone(0)


def test_seek_bar_and_pictures_seek(opened):
    bar = opened.player.get_by_label("Position")
    bar.fill("1.5")
    assert opened.position() == 1.5
    assert bar.get_attribute("aria-valuetext") == (
        f"1.5 of {SECONDS:.1f} seconds"
    )
    picture = opened.player.locator("img.spectrogram").nth(2)
    box = picture.bounding_box()
    picture.click(position={"x": box["width"] / 4, "y": 20})
    share = opened.position() / SECONDS
    assert share == pytest.approx(0.25, abs=0.01)
    assert opened.chosen().endswith(LABELS[2])
    heads = opened.player.locator(".view").evaluate_all(
        """(all) => all.map((view) =>
          parseFloat(getComputedStyle(view, "::after").left)
          / view.clientWidth)"""
    )
    assert heads == pytest.approx([0.25] * len(SYSTEMS), abs=0.01)


def test_one_player_at_a_time(opened):
    opened.play()
    second = opened.page.locator("details.player").nth(1)
    second.locator("summary").click()
    second.get_by_role("button", name="Play", exact=True).click()
    opened.wait_for(lambda: opened.page.evaluate("players[1].position()") > 0)
    assert opened.button("Play").is_visible()
    # keys now go to the second
    opened.press("5")
    assert opened.page.evaluate("players.map((x) => x.chosen)") == [0, 4]


def test_utterances_are_decoded_when_they_are_seen(open_page, tones):
    opened = open_page(tones)
    second = opened.page.locator("details.player").nth(1)
    bare = "players.map((x) => x.versions[0].buffer === null)"
    assert opened.page.evaluate(bare) == [True, True]
    opened.load()
    second.evaluate("x => x.scrollIntoView()")
    assert opened.page.evaluate(bare) == [False, True]
    second.locator("summary").click()
    opened.wait_for(lambda: opened.page.evaluate(bare) == [False, False])


def test_spectrograms_show_the_tones(opened):
    # height of the brightest pixel in the middle, as a share from below
    found = opened.player.locator("img.spectrogram").evaluate_all(
        """(all) => all.map((image) => {
          const { naturalWidth: width, naturalHeight: height } = image;
          const canvas = new OffscreenCanvas(width, height).getContext("2d");
          canvas.drawImage(image, 0, 0);
          const pixels = canvas.getImageData(width / 2, 0, 1, height).data;
          let best = 0;
          for (let y = 0; y < height; y++) {
            if (pixels[4 * y + 1] > pixels[4 * best + 1]) best = y;
          }
          return 1 - best / height;
        })"""
    )
    expected = [tone_of(system) / 12000 for system in ORDER]
    assert found == pytest.approx(expected, abs=0.005)


def test_blind_test_counts(opened):
    page = opened.page
    opened.play()
    opened.button("Loop").click()
    opened.press("3")
    page.evaluate("Math.random = () => 0.1")  # X is A
    opened.press("x")
    assert opened.player.locator(".choices button").all_inner_texts() == [
        *("1 A", "2 B", "3 X")
    ]
    a, b = (
        opened.player.get_by_role("combobox", name=x, exact=True) for x in "AB"
    )
    assert a.evaluate("x => x.selectedOptions[0].text") == "Reference"
    assert b.evaluate("x => x.selectedOptions[0].text") == LABELS[2]
    status = opened.player.get_by_role("status")
    for key, system in (("a", 0), ("b", 2), ("x", 0), ("2", 2), ("3", 0)):
        opened.press(key)
        opened.wait_for_tone(tone_of(ORDER[system]))
        # nothing shows what is heard
        assert opened.player.locator("figure.heard").count() == 0
    opened.button("X is A").click()
    assert status.inner_text().startswith("1 of 1 right.")
    assert opened.chosen() == "1 A"
    page.evaluate("Math.random = () => 0.9")  # from the next on, X is B
    opened.button("X is A").click()
    assert status.inner_text().startswith("2 of 2 right.")
    opened.button("X is A").click()
    assert status.inner_text() == (
        "2 of 3 right. Guessing does as well with p = 0.500."
    )
    opened.press("x")
    opened.wait_for_tone(tone_of(ORDER[2]))
    # nor did anything begin again, which might be heard
    assert len(page.evaluate("started")) == len(SYSTEMS)
    # another pair starts anew, and one of equals cannot be told apart
    b.select_option(label=LABELS[4])
    assert status.inner_text() == "No answer yet."
    b.select_option(label="Reference")
    assert opened.button("X is A").is_disabled()
    assert status.inner_text() == "Choose two different systems."
    opened.page.locator("h1").click()
    opened.player.locator(".time").click()
    opened.press("Escape")
    assert opened.chosen().endswith(LABELS[2])
    opened.wait_for_tone(tone_of(ORDER[2]))


def test_chance_is_that_of_the_binomial_distribution(opened):
    found = opened.page.evaluate(
        "[[8, 8], [9, 10], [0, 5], [5, 10], [0, 0]].map((x) => chance(...x))"
    )
    assert found == pytest.approx([1 / 256, 11 / 1024, 1, 638 / 1024, 1])


def test_sorts(opened):
    page = opened.page
    table = page.locator("table").first

    def column(index):
        return table.locator("tbody").first.evaluate(
            "(body, i) => [...body.rows].map((x) => x.cells[i].innerText)",
            index,
        )

    order = column(0)
    heading = table.locator("th[data-column='1']")
    heading.get_by_role("button").click()
    assert heading.get_attribute("aria-sort") == "ascending"
    # blanks are last in the order that they had
    assert column(1) == ["1.50", "3.00", "3.20", "6.00", "–", "–"]
    assert column(0)[-2:] == [order[0], order[-1]]
    heading.get_by_role("button").focus()
    opened.press("Enter")
    assert heading.get_attribute("aria-sort") == "descending"
    assert column(1) == ["6.00", "3.20", "3.00", "1.50", "–", "–"]
    assert column(0)[-2:] == [order[0], order[-1]]
    # equal ones (Opus and Codec2 have the same ESTOI) keep their order
    other = table.locator("th[data-column='3']")
    other.get_by_role("button").click()
    assert heading.get_attribute("aria-sort") is None
    names = column(0)
    assert names.index("Opus 6 kbps") < names.index("Codec2 3.2 kbps")
    assert column(3)[0].startswith("0.763")
    # what is not available stays at the end
    assert table.locator("tr").last.inner_text().startswith("LC3")


@pytest.mark.parametrize("javascript", [True, False])
def test_fits_a_phone(open_page, tmp_path, javascript):
    results = make_results(tmp_path, names=("long" * 40 + ".wav", "b.wav"))
    results.command = "flowmac evaluate " + "x" * 300
    results.systems[0].label = "A codec with a very long name of words"
    results.systems[-1].unavailable = "needs " + "y" * 200
    results.results[0].error = "z" * 200
    opened = open_page(
        write_report(results, tmp_path),
        viewport={"width": 360, "height": 740},
        java_script_enabled=javascript,
    )
    if javascript:
        opened.page.evaluate(
            "document.querySelectorAll('details').forEach("
            "(x) => { x.open = true; })"
        )
        opened.button("Blind test").click()
        opened.load()
    assert opened.page.evaluate("document.documentElement.scrollWidth") == 360
    # and nothing is cut off: what is wider is in a box that scrolls
    wide = opened.page.evaluate(
        """[...document.querySelectorAll("body *")].filter((x) =>
          !x.closest(".scroll table") && x.getClientRects().length
          && x.getBoundingClientRect().right > 360).map((x) => x.outerHTML)"""
    )
    assert wide == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_follow_the_system(opened, scheme):
    opened.page.emulate_media(color_scheme=scheme)
    back, text = (
        sum(map(int, colour[len("rgb(") : -1].split(",")))
        for colour in opened.page.evaluate(
            """() => {
              const style = getComputedStyle(document.body);
              return [style.backgroundColor, style.color];
            }"""
        )
    )
    assert (back > text + 400) if scheme == "light" else (text > back + 400)


def test_page_is_read_without_javascript(open_page, tones):
    opened = open_page(tones, java_script_enabled=False)
    assert opened.page.locator("audio:visible").count() == len(SYSTEMS)
    assert opened.page.locator("table").first.is_visible()


def test_every_control_has_a_name(opened):
    unnamed = opened.page.evaluate(
        """[...document.querySelectorAll("button, input, select, img")]
          .filter((x) => !(x.textContent || x.ariaLabel || x.labels?.length
            || x.alt))
          .length"""
    )
    assert unnamed == 0


def test_names_do_no_harm(open_page, tmp_path):
    results = harmful(make_results(tmp_path))
    opened = open_page(write_report(results, tmp_path))
    opened.load()
    assert opened.page.evaluate("window.harmed") is None
    assert opened.player.locator("h3").inner_text() == NASTY
    assert NASTY in opened.player.locator(".choices").inner_text()


def test_audio_that_the_browser_cannot_decode(open_page, tones):
    opened = open_page(tones)
    opened.page.evaluate(
        "players[0].versions[1].audio.src = 'data:audio/flac;base64,AAAA'"
    )
    opened.player.evaluate("x => x.scrollIntoView()")
    message = opened.player.get_by_role("alert")
    opened.wait_for(lambda: "cannot decode" in message.inner_text())
    assert opened.player.locator("audio:visible").count() == len(SYSTEMS)
