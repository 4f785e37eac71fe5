"""The page of a sweep: its content, and what a real browser without a network makes of it."""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from hydra import compose, initialize_config_dir

from robust_erm import page
from robust_erm.reports import page as pages
from robust_erm.reports.tables import load, read_curves, varying
from robust_erm.store.config import resolve
from robust_erm.store.source import conf_dir
from robust_erm.training.pack import train_pack

SEEDS = (0, 2, 10)  # as text, 10 comes before 2
KEYS = ["optimizer", "eps", "data.m", "seed"]
HOSTILE = "</script><img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 trained runs: 2 optimizers, 2 radii, m = 4 and 8, 3 seeds."""
    folder = tmp_path_factory.mktemp("page") / "outputs"
    common = [f"output_dir={folder}", "logger=none", "trainer.progress=false", "trainer.threads=1"]
    common += ["data=gaussian", "data.d=16", "model=linear", "attack=exact", "stop.steps=20", "stop.loss=null"]
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        for optimizer in ("gd", "cd"):
            for m in (4, 8):
                grid = [[f"eps={eps}", f"seed={seed}"] for eps in (0, 0.1) for seed in SEEDS]
                fixed = [*common, f"optimizer={optimizer}", f"data.m={m}"]
                train_pack([resolve(compose("train", [*fixed, *point])) for point in grid])
    return folder


def embedded(html: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)
    assert found
    data: dict[str, Any] = json.loads(found[1])
    return data


# ---- content --------------------------------------------------------------------------------------


def test_the_page_holds_every_run(outputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert page.main([str(outputs), "--out", str(tmp_path / "page.html")]) == 0
    assert "24 runs" in capsys.readouterr().out
    data, frame = embedded((tmp_path / "page.html").read_text()), load(outputs)
    assert data["count"] == len(frame) == 24
    assert data["keys"] == varying(frame) == KEYS
    assert {*data["columns"], *data["constant"]} == set(frame.columns)
    for column in frame:
        values = data["columns"].get(column, [data["constant"].get(column)] * 24)
        for mine, theirs in zip(values, frame[column], strict=True):
            assert mine == (None if theirs is None or theirs != theirs else "inf" if theirs == math.inf else theirs)
    curves = read_curves(frame)
    for i, (_, run) in enumerate(curves.groupby("folder", sort=False)):
        assert data["curves"]["step"][i] == run["step"].tolist()
        np.testing.assert_allclose(data["curves"]["gap_robust"][i], run["gap_robust"], rtol=1e-5)


def test_nothing_is_fetched() -> None:
    text = pages.TEMPLATE.read_text()
    assert set(re.findall(r"\w+://[^\"'\s]*", text)) == {"http://www.w3.org/2000/svg"}, "the name of SVG, no address"
    assert not re.search(r"\b(src|href)\s*=|url\((?!#)|@import|\bimport\b|fetch\(|XMLHttp|WebSocket|innerHTML", text)
    assert "default-src 'none'" in text


def test_numbers_that_are_not_finite_and_text_that_is_hostile(outputs: Path) -> None:
    frame = load(outputs)
    frame.loc[0, ["gap_robust", "gap_clean"]] = math.nan, math.inf
    frame["data.ties"] = frame["data.ties"].where(frame["seed"] != 0, HOSTILE)
    html = pages.page(pages.content(frame, HOSTILE)).decode()
    assert HOSTILE not in html
    data = embedded(html)
    assert data["columns"]["gap_robust"][0] is None
    assert data["columns"]["gap_clean"][0] == "inf"
    assert data["columns"]["data.ties"].count(HOSTILE) == 8
    assert data["title"] == HOSTILE


def test_keys_that_follow_another_are_no_keys_of_their_own(outputs: Path) -> None:
    """p sets attack.p: lines over p would fall apart if both told runs apart."""
    frame = load(outputs)
    frame["p"] = frame["attack.p"] = np.where(frame["eps"] == 0, 2.0, math.inf)
    assert varying(frame) == ["optimizer", "eps", "p", "data.m", "attack.p", "seed"]
    data = pages.content(frame, "runs")
    assert data["keys"] == ["optimizer", "eps", "p", "data.m", "seed"]
    assert set(data["columns"]["attack.p"]) == {2.0, "inf"}


def test_thinned_curves_keep_their_ends(outputs: Path) -> None:
    frame = load(outputs)
    whole, none = pages.thinned(frame)
    short, thin = pages.thinned(frame, numbers=1)
    assert (none, thin) == (0, 24)
    for full, kept in zip(whole["step"], short["step"], strict=True):
        assert len(kept) == 8 < len(full)
        assert (kept[0], kept[-1]) == (full[0], full[-1]) == (0, 20)
        assert set(kept) < set(full)


def test_a_sweeps_folder(outputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the sweep wrote it, relative to its working directory; and from elsewhere."""
    frame = load(outputs)
    sweep = outputs / "sweeps" / "mine"
    sweep.mkdir(parents=True, exist_ok=True)
    folders = [f"outputs/{Path(folder).name}" for folder in frame["folder"][:3]]
    frame[:3].assign(folder=folders).to_csv(sweep / "table.csv", index=False)
    monkeypatch.chdir(outputs.parent)
    assert pages.expand(["outputs/sweeps/mine", "outputs"]) == [*map(Path, folders), Path("outputs")]
    assert page.main(["outputs/sweeps/mine", str(outputs), "--out", str(tmp_path / "page.html")]) == 0
    assert embedded((tmp_path / "page.html").read_text())["count"] == 24, "no run twice"
    monkeypatch.chdir(tmp_path)
    assert page.main([str(sweep), "--out", "page.html"]) == 0
    assert embedded((tmp_path / "page.html").read_text())["count"] == 3


def test_runs_that_have_not_ended_are_counted(outputs: Path, tmp_path: Path) -> None:
    shutil.copytree(outputs, tmp_path / "outputs", ignore=shutil.ignore_patterns("sweeps"))
    run = next((tmp_path / "outputs").glob("*/summary.json")).parent
    (run / "summary.json").unlink()
    (run / "wandb" / "files").mkdir(parents=True)
    (run / "wandb" / "files" / "config.yaml").write_text(yaml.safe_dump({"wandb_version": 1}))
    assert page.main([str(tmp_path / "outputs"), "--out", str(tmp_path / "page.html")]) == 0
    data = embedded((tmp_path / "page.html").read_text())
    assert (data["count"], data["not_ended"]) == (23, 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "paths = nowhere: there is no such folder"),
        (["empty"], "paths = empty: no run has ended there yet"),
        (["outputs", "--where", "optimiser=gd"], "--where = optimiser: no such column"),
        (["outputs", "--where", "optimizer=adam"], "--where = optimizer=adam: no run matches"),
        (["outputs", "--out", "no/page.html"], "--out = no/page.html: its folder is missing"),
        (["outputs", "--out", "empty"], "--out = empty: is a folder"),
        (["strange"], "is no table of a sweep"),
        (["torn"], "metrics.parquet: is missing; train it again with fresh=true"),
    ],
)
def test_refusals(
    arguments: list[str],
    message: str,
    outputs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("empty", "strange"):
        (tmp_path / name).mkdir()
    (tmp_path / "strange" / "table.csv").write_text("a,b\n1,2\n")
    (tmp_path / "outputs").symlink_to(outputs)
    shutil.copytree(next(outputs.glob("*/summary.json")).parent, "torn", ignore=shutil.ignore_patterns("*.parquet"))
    assert page.main(arguments) == 2
    said = capsys.readouterr().err
    assert said.startswith("robust_erm: ")
    assert message in said
    assert said.count("\n") == 1 + ("torn" in arguments)
    assert not (tmp_path / "page.html").exists()


# ---- in a browser ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        pytest.skip("no chromium, chromium-browser or google-chrome here: THE PAGE IS NOT TESTED IN A BROWSER")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def opened(browser: Any, tmp_path: Path) -> Iterator[Any]:
    """opened(frame) -> its page; whatever the browser complains of, or asks for, fails the test."""
    context = browser.new_context(offline=True)
    complaints, requests = [], []
    tab = context.new_page()
    tab.set_default_timeout(20_000)
    tab.on("console", lambda message: complaints.append(message.text))
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    tab.on("dialog", lambda dialog: (complaints.append(dialog.message), dialog.dismiss()))
    tab.on("request", lambda request: requests.append(request.url))
    file = tmp_path / "page.html"

    def show(frame: pd.DataFrame, title: str = "runs") -> Any:
        file.write_bytes(pages.page(pages.content(frame, title)))
        tab.goto(file.as_uri())
        return tab

    yield show
    context.close()
    assert complaints == []
    assert set(requests) == {file.as_uri()}


def shown(tab: Any, column: str) -> list[str]:
    """The texts of a column, in the rows that are visible."""
    headings = tab.locator("thead th").evaluate_all("nodes => nodes.map(node => node.dataset.key)")
    script = "(rows, k) => rows.filter(row => !row.hidden).map(row => row.cells[k].textContent)"
    found: list[str] = tab.locator("tbody tr").evaluate_all(script, headings.index(column))
    return found


def strokes(tab: Any) -> set[str]:
    """The colours of the curves."""
    script = "nodes => nodes.map(node => node.getAttribute('stroke'))"
    return set(tab.locator("#curves .line path:first-child").evaluate_all(script))


def test_the_table_sorts_and_filters(outputs: Path, opened: Any) -> None:
    frame = load(outputs)
    tab = opened(frame)
    assert tab.title() == "runs"
    assert f"24: {len(frame)} max_steps" in tab.locator("#head").text_content()
    assert tab.locator("tbody tr").count() == 24
    for column in ("seed", "test_robust_acc"):
        heading = tab.locator(f'th[data-key="{column}"]')
        for direction in ("ascending", "descending"):
            heading.locator("button").click()
            assert heading.get_attribute("aria-sort") == direction
            numbers = [float(text) for text in shown(tab, column)]
            assert len(set(numbers)) > 1
            assert numbers == sorted(numbers, reverse=direction == "descending")
    assert tab.locator("th[aria-sort]").count() == 1

    tab.locator("#filter").fill("optimizer=cd eps=0")
    assert shown(tab, "optimizer") == ["cd"] * 6
    assert set(shown(tab, "eps")) == {"0"}, "not 0.1"
    assert tab.locator("#rows").text_content() == "6 of 24 runs"
    assert tab.locator("#curves .line").count() == 6, "the plots follow the filter"
    tab.locator("#filter").fill("no such word")
    assert shown(tab, "seed") == []
    tab.locator("#filter").fill("")
    assert len(shown(tab, "seed")) == 24

    assert tab.locator('th[data-key="norm_l2"]').count() == 0
    tab.locator("#all-columns").check()
    assert sorted(map(float, shown(tab, "norm_l2"))) == pytest.approx(sorted(frame["norm_l2"]), rel=1e-3)
    assert "data.d16" in tab.locator("#constant").text_content()


def test_the_curves(outputs: Path, opened: Any) -> None:
    frame = load(outputs)
    tab = opened(frame)
    lines = tab.locator("#curves .line")
    assert lines.count() == 24
    tab.locator("#curve-metric").select_option("margin_robust_l2")
    measured = read_curves(frame)
    for i, (_, run) in enumerate(measured.groupby("folder", sort=False)):
        path = tab.locator(f'#curves .line[data-run="{i}"] path').first.get_attribute("d")
        assert len(re.findall("[ML]", path)) == run["margin_robust_l2"].notna().sum()
    assert strokes(tab) == {"#0072B2", "#CC79A7"}
    tab.locator("#curve-colour").select_option("seed")
    assert tab.locator("#curves .legend").text_content() == "seed = 0seed = 2seed = 10eps = 0eps = 0.1"

    row = tab.locator("tbody tr").nth(5)
    row.click()
    assert lines.count() == 24
    assert tab.locator("#curves .line.picked").get_attribute("data-run") == row.get_attribute("data-run")
    tab.locator("#curves .line.picked path.hit").dispatch_event("pointermove")
    run = frame.iloc[int(row.get_attribute("data-run"))]
    assert tab.locator("#tip").text_content().startswith(f"optimizer = {run['optimizer']}\neps = {run['eps']:g}\n")
    assert run["folder"] in tab.locator("#tip").text_content()
    tab.locator("#clear").click()
    assert tab.locator(".picked").count() == 0


def test_the_means_are_those_of_pandas(outputs: Path, opened: Any) -> None:
    """Against m: a mark for every combination, at its mean; heatmap: a cell for every pair."""
    frame = load(outputs)
    tab = opened(frame)
    expected = frame.groupby(["optimizer", "eps", "data.m"])[["gap_robust", "gap_clean"]].mean()
    panels = tab.locator("#gap figure")
    assert panels.count() == 2
    for side, metric in enumerate(("gap_robust", "gap_clean")):
        panel = panels.nth(side)
        assert panel.locator(".line").count() == panel.locator(".band").count() == 4
        script = "nodes => nodes.map(n => ({...n.dataset, cx: n.getAttribute('cx'), cy: n.getAttribute('cy')}))"
        marks = pd.DataFrame(panel.locator("circle").evaluate_all(script)).astype(float)
        assert len(marks) == len(expected) == 8
        for mark in marks.itertuples():
            head = frame.iloc[int(mark.first)]
            assert mark.mean == pytest.approx(expected.loc[(head["optimizer"], head["eps"], mark.x), metric])
        slope, offset = np.polyfit(marks["mean"], marks["cy"], 1)
        np.testing.assert_allclose(marks["cy"], slope * marks["mean"] + offset, atol=0.02)
        assert slope < 0, "up is more"
        assert (marks["cx"] < marks["cx"].mean()).equals(marks["x"] == 4)
    panels.first.locator("circle").first.hover()
    assert "runs: 3" in tab.locator("#tip").text_content()
    tab.locator("#gap-x").select_option("eps")
    assert panels.first.locator("circle").count() == 8

    tab.locator("#heat-x").select_option("eps")
    tab.locator("#heat-metric").select_option("test_robust_acc")
    means = frame.groupby(["optimizer", "eps"])["test_robust_acc"].mean()
    cells = tab.locator("#heat .cell desc").evaluate_all("nodes => nodes.map(node => node.dataset)")
    assert sorted(float(cell["mean"]) for cell in cells) == pytest.approx(sorted(means))
    assert {cell["runs"] for cell in cells} == {"6"}
    assert "6 runs a cell" in tab.locator("#heat .note").text_content()
    fills = tab.locator("#heat .cell rect").evaluate_all("nodes => nodes.map(node => node.getAttribute('fill'))")
    assert {"rgb(68,1,84)", "rgb(253,231,37)"} <= set(fills), "the ends of the colour bar"


def test_hostile_text_stays_text(outputs: Path, opened: Any) -> None:
    frame = load(outputs)
    frame["data.ties"] = frame["data.ties"].where(frame["seed"] != 0, HOSTILE)
    frame.loc[0, "gap_robust"] = math.nan
    tab = opened(frame, HOSTILE)
    assert tab.locator("h1").text_content() == HOSTILE
    assert shown(tab, "data.ties").count(HOSTILE) == 8
    assert shown(tab, "gap_robust").count("-") == 1
    assert tab.locator("img").count() == 0


def test_plots_without_a_subject_are_left_out(outputs: Path, opened: Any) -> None:
    """Only seeds differ: curves. Also m: and the gap against it. Two keys: the heatmap, too."""
    frame = load(outputs)
    four, gd = frame["data.m"] == 4, (frame["optimizer"] == "gd") & (frame["eps"] == 0)
    cases = ((four & gd, [True, False, False]), (gd, [True, True, False]), (four, [True, True, True]))
    for part, visible in ((frame[rows], visible) for rows, visible in cases):
        tab = opened(part)
        assert [tab.locator(f"#{name}").is_visible() for name in ("curves", "gap", "heat")] == visible
        assert tab.locator("#curves .line").count() == len(part)


def test_at_most_400_curves_are_drawn(outputs: Path, opened: Any, tmp_path: Path) -> None:
    """Of 600 runs, spread over all of them, and said so."""
    frame, parts = load(outputs), []
    for k in range(25):
        (tmp_path / str(k)).symlink_to(outputs)
        folders = [str(tmp_path / str(k) / Path(folder).name) for folder in frame["folder"]]
        parts.append(frame.assign(folder=folders, seed=frame["seed"] + 11 * k))
    tab = opened(pd.concat(parts, ignore_index=True))
    assert tab.locator("tbody tr").count() == 600
    assert tab.locator("#curves .line").count() == 400
    assert "400 of 600 curves are drawn" in tab.locator("#curves .note").text_content()
    assert strokes(tab) == {"#0072B2", "#CC79A7"}, "both optimizers"
