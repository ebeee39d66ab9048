"""The page in a real Chromium: it loads nothing, filters, sorts, prints, and is readable."""

import os
from collections.abc import Generator
from pathlib import Path

import pytest
from support.browser import Browser, find, running
from support.command_line import run
from support.sample_run import write_run

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(find() is None, reason="no Chromium on PATH"),
]
NO_AXE = "TRAINER_AXE does not name axe.min.js of the npm package axe-core"
KINDS = ("classification", "hostile", "question_answering", "language_model")
SHOWN = """[...document.querySelectorAll("#examples-test ~ table tbody tr")]
    .filter((row) => row.checkVisibility())"""


@pytest.fixture(scope="module")
def browser() -> Generator[Browser]:
    with running() as started:
        yield started


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("runs")
    for kind in KINDS:
        write_run(folder / kind, kind)
        run("report", folder / kind)
    return {kind: folder / kind / "report.html" for kind in KINDS}


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("kind", KINDS)
def test_it_is_readable_and_loads_nothing(browser, pages, kind, width, dark):
    page = pages[kind]
    browser.open(page, width=width, dark=dark)
    browser.evaluate("document.querySelectorAll('details').forEach((one) => (one.open = true))")
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    assert browser.low_contrasts() == []
    assert browser.evaluate("matchMedia('(prefers-color-scheme: dark)').matches") is dark
    assert browser.evaluate("window.hacked ?? null") is None
    assert browser.requests() == [page.as_uri()]
    assert browser.complaints() == []


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("kind", KINDS)
def test_axe_finds_nothing(browser, pages, kind, width, dark):
    axe = os.environ.get("TRAINER_AXE")
    if not axe:
        pytest.skip(NO_AXE)
    browser.open(pages[kind], width=width, dark=dark)
    browser.evaluate("document.querySelectorAll('details').forEach((one) => (one.open = true))")
    browser.evaluate(f"{Path(axe).read_text('utf-8')}; null")
    found = browser.evaluate("axe.run().then((result) => result.violations)")
    assert [(one["id"], [node["html"][:200] for node in one["nodes"]]) for one in found] == []


def test_axe_finds_a_page_without_a_language(browser, pages):
    axe = os.environ.get("TRAINER_AXE")
    if not axe:
        pytest.skip(NO_AXE)
    browser.open(pages["classification"])
    browser.evaluate("document.documentElement.removeAttribute('lang')")
    browser.evaluate(f"{Path(axe).read_text('utf-8')}; null")
    found = browser.evaluate("axe.run().then((result) => result.violations)")
    assert "html-has-lang" in [one["id"] for one in found]


def test_texts_with_too_little_contrast_are_found(browser, pages):
    browser.open(pages["classification"])
    browser.evaluate("document.body.style.setProperty('--soft', '#aaaaaa')")
    browser.evaluate("document.body.style.setProperty('color', 'var(--ink)')")
    assert any(one["ratio"] < 3 for one in browser.low_contrasts())


def test_examples_are_filtered_by_text_and_kind(browser, pages):
    browser.open(pages["classification"])
    assert browser.evaluate(f"{SHOWN}.length") == 60
    browser.evaluate(
        """{
          const kind = document.querySelector(".kind");
          kind.value = "still wrong";
          kind.dispatchEvent(new Event("change"));
        }"""
    )
    assert browser.evaluate(f"{SHOWN}.length") == 15
    assert browser.evaluate(f"{SHOWN}.every((row) => row.innerText.startsWith('still wrong'))")
    browser.evaluate(
        """{
          const search = document.querySelector(".search");
          search.value = "NEVER FINDS 14";
          search.dispatchEvent(new Event("input"));
        }"""
    )
    assert browser.evaluate(f"{SHOWN}.length") == 1
    assert browser.evaluate("document.querySelector('.count').textContent") == "1 of 60 shown"
    assert browser.complaints() == []


@pytest.mark.parametrize("width", [390, 1280])
def test_examples_are_sorted_by_a_column_both_ways(browser, pages, width):
    browser.open(pages["classification"], width=width)
    values = f"{SHOWN}.map((row) => Number(row.cells[5].textContent))"
    before = browser.evaluate(values)
    assert before != sorted(before)
    head = "document.querySelector('#examples-test ~ table').tHead.rows[0].cells[5]"
    for order, expected in (("ascending", sorted(before)), ("descending", sorted(before)[::-1])):
        browser.evaluate(f"{head}.querySelector('button').click()")
        assert browser.evaluate(f"{head}.getAttribute('aria-sort')") == order
        assert browser.evaluate(values) == expected
    browser.evaluate(f"{head}.parentElement.cells[1].querySelector('button').click()")
    assert browser.evaluate(f"{head}.getAttribute('aria-sort')") is None
    texts = browser.evaluate(f"{SHOWN}.map((row) => row.cells[1].textContent.trim())")
    assert len(set(texts)) == 60
    assert texts == browser.evaluate(
        f"{SHOWN}.map((row) => row.cells[1].textContent.trim()).sort((a, b) => a.localeCompare(b))"
    )


def test_only_tables_that_scroll_are_stops_of_the_keyboard(browser, pages):
    wide = """[...document.querySelectorAll('.scroll')]
        .filter((one) => (one.scrollWidth > one.clientWidth) !== (one.tabIndex === 0)).length"""
    for width in (390, 1280):
        browser.open(pages["classification"], width=width)
        assert browser.evaluate(wide) == 0
        stops = browser.evaluate("document.querySelectorAll('.scroll[tabindex]').length")
        assert (stops > 2) if width == 390 else (stops == 0)


def test_without_script_everything_is_readable_and_no_control_is_dead(browser, pages):
    browser.open(pages["question_answering"], scripts=False)
    assert browser.evaluate(f"{SHOWN}.length") == 60
    assert browser.evaluate("document.querySelector('.controls').checkVisibility()") is False
    assert browser.evaluate("document.querySelectorAll('.examples button').length") == 0


def test_printing_opens_what_is_closed_and_leaves_controls_out(browser, pages):
    browser.open(pages["classification"])
    browser.call("Emulation.setEmulatedMedia", media="print", features=[])
    browser.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert browser.evaluate("[...document.querySelectorAll('details')].every((one) => one.open)")
    for hidden in ("nav", ".controls"):
        assert not browser.evaluate(f"document.querySelector('{hidden}').checkVisibility()")
    assert browser.evaluate(f"{SHOWN}.length") == 12
    browser.evaluate("dispatchEvent(new Event('afterprint'))")
    assert not browser.evaluate("[...document.querySelectorAll('details')].some((one) => one.open)")


def test_the_command_prints_a_pdf(pages, tmp_path):
    run("report", pages["classification"].parent, "--format", "pdf", "--output", tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["report.pdf"]
    content = (tmp_path / "report.pdf").read_bytes()
    assert content.startswith(b"%PDF-")
    assert len(content) > 50_000
