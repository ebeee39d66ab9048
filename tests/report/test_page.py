"""report.html and what is written beside it: structure, escaping, size, the same bytes again."""

import csv
import itertools
import json
import re
import shutil
from collections import Counter
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml
from support.command_line import invoke, run
from support.sample_run import write_run
from support.sample_tasks import HOSTILE

import trainer
from trainer.errors import ConfigError
from trainer.report.documents import write_report
from trainer.report.page.making import making, shipped_name
from trainer.report.recorded import read_run
from trainer.report.report import report_of

KINDS = ("classification", "hostile", "question_answering", "language_model")
VOID = {"col", "meta", "input", "br", "hr", "img", "link"}


class Page(HTMLParser):
    """The elements of a page in order, each with its attributes and the text directly in it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str], list[str]]] = []
        self._open: list[int] = []
        self.feed(text)
        self.close()
        assert not self._open, "every element is closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}, []))
        if tag not in VOID:
            self._open.append(len(self.elements) - 1)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}, []))

    def handle_endtag(self, tag: str) -> None:
        assert self.elements[self._open.pop()][0] == tag, "elements are nested"

    def handle_data(self, data: str) -> None:
        for position in self._open:
            self.elements[position][2].append(data)

    def texts(self, *tags: str) -> list[str]:
        """Returns the whole text of each element with one of the tags."""
        return [" ".join("".join(text).split()) for tag, _, text in self.elements if tag in tags]

    def values(self, name: str) -> list[str]:
        """Returns every value of an attribute."""
        return [attributes[name] for _, attributes, _ in self.elements if name in attributes]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("runs")
    return {kind: write_run(folder / kind, kind) for kind in KINDS}


@pytest.fixture(scope="module")
def documents(
    runs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """Returns the folder with all documents of a kind of run but the printed one."""
    folder = tmp_path_factory.mktemp("documents")

    def written(kind: str) -> Path:
        if not (folder / kind).is_dir():
            write_report(report_of(read_run(runs[kind])), folder / kind, ["html", "md", "latex"])
        return folder / kind

    return written


@pytest.fixture
def page(documents: Callable[[str], Path]) -> Callable[[str], Page]:
    return lambda kind: Page((documents(kind) / "report.html").read_text("utf-8"))


@pytest.mark.parametrize("kind", KINDS)
def test_headings_tables_and_figures_can_be_read_aloud(page, kind):
    read = page(kind)
    levels = [int(tag[1]) for tag, _, _ in read.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    tags = Counter(tag for tag, _, _ in read.elements)
    assert tags["caption"] == tags["table"] > 4
    assert {attributes.get("scope") for tag, attributes, _ in read.elements if tag == "th"} == {
        "col",
        "row",
    }
    assert tags["svg"] == tags["figure"] == tags["figcaption"] > 4
    for tag, attributes, _ in read.elements:
        if tag == "svg":
            assert attributes["role"] == "img"
    ids = read.values("id")
    assert len(ids) == len(set(ids)), "figures share no ids"
    named = [name for value in read.values("aria-labelledby") for name in value.split()]
    assert {*named, *(link[1:] for link in read.values("href") if link[0] == "#")} <= set(ids)
    assert ("html", "en") in [(tag, one.get("lang")) for tag, one, _ in read.elements]


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_loaded(documents, kind):
    text = (documents(kind) / "report.html").read_text("utf-8")
    read = Page(text)
    assert read.values("src") == []
    assert all(link.startswith("#") for link in [*read.values("href"), *read.values("xlink:href")])
    style = read.texts("style")[0]
    assert "url(" not in style
    assert "@import" not in style
    tags = {tag for tag, _, _ in read.elements}
    assert not tags & {"link", "img", "iframe", "object", "image", "foreignobject", "base", "form"}


def test_sections_come_in_the_order_in_which_a_reader_needs_them(page):
    read = page("classification")
    assert read.texts("h1", "h2") == [
        "classification",
        "Before you trust the numbers",
        "Results",
        "Curves",
        "Answers",
        "Parameters",
        "Evaluations",
        "Diagnosis",
        "How it was made",
    ]
    paragraphs = read.texts("p")
    assert any(
        text.startswith("Fine-tuning raised test accuracy from 0.509") for text in paragraphs
    )
    assert "Try: train for fewer epochs, or with more weight decay" in paragraphs
    assert (
        "Smallest change that 872 examples show in four of five repetitions: accuracy 0.033. "
        "Models that agree more often need less." in paragraphs
    )


def test_numbers_stand_with_their_intervals_and_tests(page):
    rows = page("classification").texts("tr")
    best = "0.874 (0.852–0.896) 0.869 (0.846–0.892)"
    assert f"accuracy 0.509 (0.476–0.542) 0.509 (0.476–0.542) {best}" in rows
    assert any("exact McNemar 0.365 (0.319–0.411) <0.001 <0.001 343 25" in row for row in rows)
    assert "negative 381 55" in rows, "the confusion matrix"
    assert "test 343 25 85 419" in rows, "churn"
    assert any("1,000 x 128 1 128,000 128,000" in row for row in rows), "parameters"


def test_what_differs_from_the_shipped_recipe_is_listed(page):
    read = page("classification")
    assert "optimizer.learning_rate 0.0005 0.0004" in read.texts("tr")
    assert any(text.startswith("trainer train demo --set") for text in read.texts("dd"))


def test_curves_say_in_words_what_they_show(page):
    read = page("classification")
    assert "Gradient norm; 45 % of 40 logged steps clipped at 1" in read.texts("figcaption")
    described = [text for text in read.texts("desc") if text.startswith("train: ")]
    assert all("validation: 0.6984 at step 0, 0.41 at step 360" in text for text in described)
    assert len(described) == 3


def test_an_old_run_has_a_page_that_names_what_it_lacks(tmp_path):
    directory = write_run(tmp_path / "old")
    results = json.loads((directory / "results.json").read_text())
    new = {"version", "statistics", "failures", "diagnosis", "data", "learned", "environment"}
    old = {key: value for key, value in results.items() if key not in {*new, "summary", "checksum"}}
    for key in ("modules", "backbone", "notes"):
        del old["parameters"][key]
    (directory / "results.json").write_text(json.dumps(old))
    (directory / "environment.json").unlink()
    (directory / "metrics.jsonl").unlink()
    for file in (directory / "predictions").iterdir():
        file.unlink()
    run("report", directory)
    read = Page((directory / "report.html").read_text())
    lacks = "what its data was, which parameters got a gradient, its starts and restarts"
    assert f"This run did not record {lacks}." in read.texts("p")
    assert any(re.match(r"accuracy .*0\.509 .*0\.874 .*0\.869", row) for row in read.texts("tr"))
    assert "Curves" not in read.texts("h2")


@pytest.mark.parametrize("name", ["report.html", "report.md"])
def test_hostile_texts_are_only_texts(runs, documents, name):
    text = (documents("hostile") / name).read_text("utf-8")
    for character in "\x1b\u202e\u2066":
        assert character not in text
    if name == "report.html":
        read = Page(text)
        assert sum(tag == "script" for tag, _, _ in read.elements) == 1
        assert not [name for _, one, _ in read.elements for name in one if name.startswith("on")]
        for label in (*HOSTILE[:2], HOSTILE[5]):
            assert label in read.texts("th"), label


def test_hostile_texts_are_no_formulas_in_a_spreadsheet(documents):
    folder = documents("hostile") / "tables"
    for file in folder.glob("*.csv"):
        with file.open(newline="") as opened:
            rows = list(csv.reader(opened))
        assert len({len(row) for row in rows}) == 1, file.name
        for cell in (cell for row in rows for cell in row):
            number = re.fullmatch(r"-?[\d.]+(e-?\d+)?", cell)
            assert number or not cell.startswith(("=", "+", "-", "@", "\t", "\r")), cell
    assert "'=1+1" in (folder / "confusion-test.csv").read_text()


def test_hostile_texts_are_escaped_in_latex(documents):
    for file in (documents("hostile") / "tables").glob("*.tex"):
        text = file.read_text("utf-8")
        assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") == 1, file.name
        body = text.split(r"\toprule")[1].split(r"\bottomrule")[0].replace(r"\midrule", "")
        alignment = re.search(r"\\begin{tabular}{([lr]+)}", text)
        assert alignment
        for row in filter(None, (line.strip() for line in body.splitlines())):
            assert row.endswith(r"\\")
            cells = re.split(r"(?<!\\)&", row)
            assert len(cells) == len(alignment[1]), row
            assert not re.search(r"(?<!\\)[%#_]", row), row
            assert len(re.findall(r"(?<!\\){", row)) == len(re.findall(r"(?<!\\)}", row)), row


def test_the_same_run_gives_the_same_bytes(runs, documents, tmp_path):
    for kind in ("classification", "hostile"):
        again = tmp_path / kind
        write_report(report_of(read_run(runs[kind])), again, ["html", "md", "latex"])
        files = sorted(path.relative_to(again) for path in again.rglob("*") if path.is_file())
        assert len(files) > 60
        for file in files:
            assert (again / file).read_bytes() == (documents(kind) / file).read_bytes(), file
    text = (tmp_path / "classification" / "report.html").read_text()
    assert str(tmp_path) not in text


def test_a_new_process_gives_the_same_bytes(runs, documents, warm, tmp_path):
    process = warm.start(
        *("-m", "trainer", "report", str(runs["hostile"])),
        *("--output", str(tmp_path), "--format", "html,md"),
    )
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    for name in ("report.html", "report.md"):
        assert (tmp_path / name).read_bytes() == (documents("hostile") / name).read_bytes()


def test_a_page_of_100000_predictions_is_small(tmp_path):
    directory = write_run(
        tmp_path / "large", num_lines=20_000, num_examples=100_000, num_shown=1_200
    )
    run("report", directory)
    content = (directory / "report.html").read_bytes()
    assert len(content) < 3_000_000
    text = content.decode()
    assert "43,700" in text, "counts are whole"
    points = max((path.count("\n") for path in re.findall(r'd="([^"]*)"', text)), default=0)
    assert 200 < points <= 500


def test_the_end_of_a_run_writes_what_the_command_writes(reviews_recipe, tmp_path):
    reviews_recipe["tracking"] = {"trackers": [], "log_every_steps": 4}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(reviews_recipe))
    directory = tmp_path / "run"
    run("train", tmp_path / "recipe.yaml", "--run-dir", directory)
    names = ("report.html", "report.md")
    before = {name: (directory / name).read_bytes() for name in names}
    for name in names:
        (directory / name).unlink()
    output = run("report", directory)
    assert output.split() == [str(directory / name) for name in names]
    assert {name: (directory / name).read_bytes() for name in names} == before
    assert not list(directory.glob(".*staging"))


@pytest.mark.parametrize(
    ("formats", "sentence"),
    [
        ("htlm", "--format: 'htlm' is not one of html, md, pdf, latex; did you mean html?"),
        ("html,", "--format: '' is not one of html, md, pdf, latex"),
        ("html,qqq", "--format: 'qqq' is not one of html, md, pdf, latex"),
    ],
)
def test_an_unknown_format_is_refused_in_a_sentence(runs, tmp_path, formats, sentence):
    output = tmp_path / "out"
    ended = invoke("report", runs["classification"], "--format", formats, "--output", output)
    assert (ended.exit_code, ended.stderr) == (2, f"trainer: {sentence}\n")
    assert not output.exists()


def test_without_a_browser_nothing_is_written_and_a_sentence_says_so(runs, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    output = tmp_path / "out"
    formats = "html,pdf"
    ended = invoke("report", runs["classification"], "--format", formats, "--output", output)
    assert ended.exit_code == 2
    assert "none of chromium, chromium-browser, google-chrome is on PATH" in ended.stderr
    assert "install the package chromium" in ended.stderr
    assert ended.stderr.count("\n") == 1
    assert not output.exists()


def test_a_browser_that_prints_nothing_is_named(runs, tmp_path, monkeypatch):
    program = tmp_path / "chromium"
    program.write_text("#!/bin/sh\nexit 7\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    ended = invoke("report", runs["classification"], "--format", "pdf", "--output", tmp_path / "o")
    assert ended.exit_code == 2
    assert f"{program} printed nothing (code 7)" in ended.stderr


def test_what_a_failing_browser_leaves_is_no_pdf(runs, tmp_path, monkeypatch):
    program = tmp_path / "chromium"
    program.write_text(
        "#!/bin/sh\nfor word; do case $word in --print-to-pdf=*) "
        'echo half > "${word#*=}";; esac; done\nexit 9\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    ended = invoke("report", runs["classification"], "--format", "pdf", "--output", tmp_path / "o")
    assert ended.exit_code == 2
    assert f"{program} printed nothing (code 9)" in ended.stderr


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["demo"], "demo"),
        (["--smoke", "mine.yaml"], None),
        (["mine.yaml", "--run-dir", "demo"], None),
        (["demo", "--run-dir", "demo"], "demo"),
    ],
)
def test_only_the_argument_of_train_is_a_shipped_recipe(words, name):
    assert shipped_name({"command": ["trainer", "train", *words]}) == name


def test_a_shipped_recipe_that_cannot_be_loaded_is_not_called_unchanged(runs, monkeypatch):
    report = report_of(read_run(runs["classification"]))
    report.results["environment"]["command"] = ["trainer", "train", "demo"]
    known = making(report)
    assert (known["shipped"], known["changed"] is None) == ("demo", False)

    def refuse(name: str) -> None:
        raise ConfigError(f"{name} needs what is not here")

    monkeypatch.setattr("trainer.tasks.recipe.load_recipe", refuse)
    unknown = making(report)
    assert (unknown["shipped"], unknown["changed"]) == (None, None)


@pytest.mark.parametrize(
    ("runs_named", "formats", "key"), [(0, ["html"], "RUN_DIR"), (1, [], "--format")]
)
def test_a_report_of_nothing_is_refused(runs, tmp_path, runs_named, formats, key):
    with pytest.raises(ConfigError) as caught:
        trainer.write_report(
            [runs["classification"]][:runs_named], output=tmp_path / "o", formats=formats
        )
    assert caught.value.key == key
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize("key", ["final", "model", "epochs", "parameters", "precision", "warnings"])
def test_damaged_results_are_refused_in_a_sentence(tmp_path, key):
    directory = write_run(tmp_path / "run", num_lines=3, num_examples=20, num_shown=4)
    results = json.loads((directory / "results.json").read_text())
    del results["checksum"]
    missing = {name: value for name, value in results.items() if name != key}
    for damaged in ({**results, key: None}, missing):
        (directory / "results.json").write_text(json.dumps(damaged))
        ended = invoke("report", directory)
        assert ended.exit_code == 2
        assert ended.stderr.count("\n") == 1
        assert f"has no {key}" in ended.stderr


@pytest.mark.parametrize("line", ['{"id": 1}', '{"kind": "fixed", "texts": "x"}'])
def test_damaged_examples_are_refused_in_a_sentence(tmp_path, line):
    directory = write_run(tmp_path / "run", num_lines=3, num_examples=20, num_shown=4)
    with (directory / "predictions" / "examples-test.jsonl").open("a") as file:
        file.write(f"{line}\n")
    ended = invoke("report", directory)
    assert ended.exit_code == 2
    assert "examples-test.jsonl, line 5: not an example as a run writes it" in ended.stderr


def test_a_folder_without_a_run_is_refused(tmp_path):
    ended = invoke("report", tmp_path)
    assert ended.exit_code == 2
    assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize("key", ["packages", "gpus", "sessions", "command", "num_cpus"])
@pytest.mark.parametrize("value", [None, 3, "x", [1], {"a": 1}])
def test_an_environment_that_was_edited_is_shown_as_far_as_it_goes(tmp_path, key, value):
    directory = write_run(tmp_path / "run")
    results = json.loads((directory / "results.json").read_text())
    environment = results.pop("environment")  # as of an older version, which had only the file
    del results["checksum"]
    (directory / "results.json").write_text(json.dumps(results))
    (directory / "environment.json").write_text(json.dumps({**environment, key: value}))
    assert write_report(report_of(read_run(directory)), tmp_path / "out", ["md", "html"])


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("recipe.model", 3),
        ("recipe.data", None),
        ("parameters.total", "many"),
        ("epochs.0", [1]),
        ("epochs.0.seconds", None),
        ("final.metrics.test", []),
        ("best.metrics.test.per_class", {"positive": 1}),
        ("seconds.per_epoch", "long"),
        ("model", "worst"),
    ],
)
def test_results_that_no_run_writes_are_refused_by_the_key(tmp_path, path, value):
    directory = write_run(tmp_path / "run")
    results = json.loads((directory / "results.json").read_text())
    del results["checksum"]
    *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    inside = results
    for part in parents:
        inside = inside[part]
    inside[last] = value
    (directory / "results.json").write_text(json.dumps(results))
    ended = invoke("report", directory, "--output", tmp_path / "out")
    assert ended.exit_code == 2, ended.output
    assert "results.json" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not (tmp_path / "out").exists()


def test_a_share_beyond_its_scale_is_named_and_has_no_interval(tmp_path):
    directory = write_run(tmp_path / "run")
    results = json.loads((directory / "results.json").read_text())
    for key in ("checksum", "version", "statistics", "failures", "diagnosis", "summary"):
        del results[key]
    results["baseline"]["test"]["accuracy"] = 75.0
    shutil.rmtree(directory / "predictions")
    (directory / "results.json").write_text(json.dumps(results))
    report = report_of(read_run(directory))
    assert "beyond-scale" in {finding["code"] for finding in report.findings}
    assert report.statistics["test"]["metrics"]["accuracy"]["baseline"]["low"] is None
