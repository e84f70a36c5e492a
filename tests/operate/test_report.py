"""The report in a real browser: asks for nothing, shows every plot, in light, dark, on a phone and on paper."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.operate.browser import chromium
from tests.stillhouse.report.tiny_report import add_watch, make_home

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
COMMON = {
    "quality", "difference-champion", "difference-baseline", "confusion", "ladder-speed", "ladder-bytes", "stages",
    "learning-curve", "label-shares", "lineage", "drift-input-drift", "drift-in-use",
}  # fmt: skip
PLOTS = {"text-classification": COMMON | {"reliability"}, "token-classification": COMMON}
PAPER = 690
"""CSS pixels of A4 less its margins."""
VISIBLE = """() => [...document.querySelectorAll('svg[data-plot]')].map(plot => {
    const box = plot.getBoundingClientRect();
    const drawn = [...plot.querySelectorAll('path, rect, circle, polygon, line')].filter(part => {
        const style = getComputedStyle(part);
        return [style.fill, style.stroke].some(c => c !== 'none' && c !== 'rgba(0, 0, 0, 0)');
    });
    return [plot.dataset.plot, box.width, box.height, drawn.length];
})"""
OUTSIDE = """() => [...document.querySelectorAll('svg[data-plot] text')].filter(text => {
    const box = text.getBoundingClientRect(), plot = text.closest('svg').getBoundingClientRect();
    const beside = box.left < plot.left - 1 || box.right > plot.right + 1;
    return beside || box.top < plot.top - 1 || box.bottom > plot.bottom + 1;
}).map(text => text.textContent)"""
CONTRAST = """() => {
    const light = color => {
        const parts = color.match(/[\\d.]+/g).slice(0, 3).map(v => v / 255).map(
            v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
    };
    const behind = node => {
        for (; node; node = node.parentElement) {
            const color = getComputedStyle(node).backgroundColor;
            if (color !== 'rgba(0, 0, 0, 0)') return color;
        }
        return 'rgb(255, 255, 255)';
    };
    const found = [];
    const texts = 'p, li, td, th, dt, dd, a, small, h1, h2, h3, h4, span, text.tick, text.name';
    for (const node of document.querySelectorAll(texts)) {
        if (!node.textContent.trim()) continue;
        const style = getComputedStyle(node);
        const pair = [light(node.tagName === 'text' ? style.fill : style.color), light(behind(node))];
        const ratio = (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
        if (ratio < 4.5) found.push([node.outerHTML.slice(0, 80), ratio]);
    }
    return found;
}"""


@pytest.fixture(scope="module", params=list(PLOTS))
def report(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """(problem, file) as the command writes it, of a home with all there can be."""
    home = tmp_path_factory.mktemp("report") / "home"
    key = make_home(home, request.param)
    add_watch(home, "tiny")
    environment = {**os.environ, "STILLHOUSE_HOME": str(home), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "flows.cli", "report", key[:12]]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return request.param, Path(done.stdout.strip())


@pytest.fixture(scope="module")
def browser() -> Iterator:
    with chromium() as opened:
        yield opened


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("media", "width"), [("screen", 1280), ("screen", 400), ("print", PAPER)])
def test_every_plot_is_there_and_nothing_is_asked_for(report, browser, scheme, media, width):
    problem, path = report
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True)
    page, said, asked = context.new_page(), [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.emulate_media(media=media)
    page.goto(path.as_uri())
    assert (asked, said) == ([path.as_uri()], [])
    plots = {name: rest for name, *rest in page.evaluate(VISIBLE)}
    assert PLOTS[problem] <= set(plots)
    assert all(wide > 150 and high > 60 and parts > 2 for wide, high, parts in plots.values()), plots
    assert page.evaluate(OUTSIDE) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(CONTRAST) == []
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    dark = scheme == "dark" and media == "screen"
    assert (sum(int(part) for part in background[4:-1].split(",")) < 150) == dark
    links = page.evaluate("[...document.querySelectorAll('nav a')].map(a => !!document.querySelector(a.hash))")
    assert links and all(links)
    context.close()


def test_on_paper_the_settings_are_open_and_nothing_is_cut_off(report, browser, tmp_path):
    _, path = report
    page = browser.new_page(viewport={"width": PAPER, "height": 1000})
    page.emulate_media(media="print", color_scheme="dark")
    page.goto(path.as_uri())
    heights = page.evaluate(
        "[...document.querySelectorAll('details table')].map(t => t.getBoundingClientRect().height)"
    )
    assert heights and min(heights) > 20
    wide = (
        "[...document.querySelectorAll('.scroll')].filter(b => b.scrollWidth > b.clientWidth + 1).map(b => b.innerText)"
    )
    assert page.evaluate(wide) == []
    page.pdf(path=str(tmp_path / "report.pdf"), format="A4")
    assert (tmp_path / "report.pdf").stat().st_size > 50_000
    page.close()
