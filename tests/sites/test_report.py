"""The page a run leaves behind: whole, self-contained, readable, honest about what is missing."""

import json
import math
import re
import struct
from html.parser import HTMLParser

import numpy as np
import pytest

from sites.plots import ARMS, DARK, LIGHT, Film, draw_cross_site, draw_curves, draw_films, draw_recovery
from sites.report import write_report
from sites.verdict import verdict, verdict_text

TITLES = {
    "liverpool": "Liverpool",
    "manchester": "Manchester",
    "alder_hey": "Alder Hey children's hospital",
    "bolton_icu": "Bolton intensive care",
    "ormskirk": "Ormskirk district hospital",
    "wigan": "Wigan, old detector",
}
FINDINGS = ["cardiomegaly", "effusion", "pneumothorax", "consolidation", "atelectasis", "nodule", "oedema", "device"]
LEVELS = {  # base, local, shared, private, pooled
    "liverpool": (0.848, 0.866, 0.871, 0.879, 0.884),
    "manchester": (0.772, 0.838, 0.846, 0.861, 0.869),
    "alder_hey": (0.741, 0.812, 0.803, 0.846, 0.858),
    "bolton_icu": (0.764, 0.829, 0.838, 0.851, 0.857),
    "ormskirk": (0.803, 0.798, 0.851, 0.856, 0.864),
    "wigan": (0.861, 0.869, 0.864, 0.866, 0.868),
}
PATIENTS = {"liverpool": 900, "manchester": 760, "alder_hey": 420, "bolton_icu": 380, "ormskirk": 150, "wigan": 240}


def between(value, half):
    return {"value": round(value, 4), "low": round(value - half, 4), "high": round(min(value + half * 0.9, 0.999), 4)}


def fake_arm(level, half, rng, left_out):
    findings = {}
    for finding in FINDINGS:
        at = None if finding in left_out else float(np.clip(level + rng.normal(0, 0.035), 0.4, 0.99))
        measured = {"value": None, "low": None, "high": None} if at is None else between(at, half * 1.8)
        findings[finding] = dict.fromkeys(("auroc", "auprc", "brier", "ece"), measured)
    return {
        "auroc": between(level, half),
        "auprc": between(level - 0.3, half),
        "brier": between(0.11, 0.01),
        "ece": between(0.04, 0.01),
        "findings": findings,
    }


def fake_site(name, title, levels, patients, rounds, rng):
    half = 0.55 / math.sqrt(patients)
    left_out = ["nodule"] if name == "ormskirk" else []
    arms = {each: fake_arm(level, half, rng, left_out) for each, level in zip(ARMS, levels, strict=True)}
    base, local, shared, private, pooled = levels
    curve = lambda end, pace: [  # noqa: E731
        {"round": k + 1, "auroc": round(end - (end - base) * math.exp(-pace * k) + float(rng.normal(0, 0.004)), 4), "loss": 0.5}
        for k in range(rounds + 1)
    ]
    site = {
        "title": title,
        "patients": {"train": int(patients * 0.6), "val": int(patients * 0.15), "test": int(patients * 0.25)},
        "images": {"train": patients, "val": patients // 4, "test": patients // 2},
        "prevalence": {finding: round(float(rng.uniform(0.02, 0.3)), 3) for finding in FINDINGS},
        **arms,
        "left_out": left_out,
        "differences": {
            f"private_minus_{other}": between(private - level, half * 0.5)
            for other, level in (("base", base), ("local", local), ("shared", shared))
        },
        "recovered": round((private - base) / (pooled - base), 3) if pooled - base > 0.01 else None,
        "curve": {"local": curve(local, 0.5), "shared": curve(shared, 0.6)},
    }
    site["private"] |= {"steps": 40, "temperature": 1.13}
    site["verdict"] = verdict(site["differences"]["private_minus_base"])
    site["verdict_text"] = verdict_text(title, site)
    return site


def fake_results(levels=LEVELS, titles=TITLES, patients=PATIENTS, rounds=8, seed=0):
    rng = np.random.default_rng(seed)
    names = list(levels)
    sites = {name: fake_site(name, titles[name], levels[name], patients[name], rounds, rng) for name in names}
    means = {each: round(float(np.mean([site[each]["auroc"]["value"] for site in sites.values()])), 4) for each in ARMS}
    rows = ["base", *names, "shared", "pooled"]
    matrix = [
        [
            levels[c][0]
            if r == "base"
            else levels[c][2]
            if r == "shared"
            else levels[c][4]
            if r == "pooled"
            else levels[c][1]
            if r == c
            else round(levels[c][1] - float(rng.uniform(0.02, 0.09)), 4)
            for c in names
        ]
        for r in rows
    ]
    refused = {3: {names[-1]: "budget spent: epsilon 2.0 of 2.0"}} if len(names) > 1 else {}
    log = []
    for k in range(1, rounds + 1):
        answered = [name for name in names if name not in refused.get(k, {})]
        log.append(
            {
                "round": k,
                "asked": names,
                "answered": answered,
                "refused": refused.get(k, {}),
                "seconds": 3.1 + 0.1 * k,
                "down_bytes": dict.fromkeys(names, 295_000),
                "up_bytes": dict.fromkeys(answered, 295_000),
                "log": {"energy_kept": 0.97 - 0.002 * k},
            }
        )
    return {
        "format": 1,
        "name": "demo",
        "title": "Six phantom hospitals adapt one small model",
        "recipe_sha256": "3f" * 32,
        "seed": 0,
        "engine": "inline",
        "task": "findings",
        "strategy": "flexlora",
        "encoding": "float32",
        "outputs": FINDINGS,
        "base": {"model": "vit", "weights": "embedded:thorax_tiny", "sha256": "9a" * 32, "parameters": 1_200_000},
        "lora": {"rank": 8, "ranks": {}, "modules": 18, "parameters": 73_728, "last_blocks": 3},
        "source": {
            "site": "halifax",
            "title": "Halifax",
            "auroc": between(0.882, 0.012),
            "findings": {finding: {"auroc": between(0.88, 0.02)} for finding in FINDINGS},
        },
        "sites": sites,
        "cross_site": {"rows": rows, "columns": names, "auroc": matrix},
        "consortium": means | {"recovered": round((means["private"] - means["base"]) / (means["pooled"] - means["base"]), 3)},
        "rounds": log,
        "bytes_per_site_round": 590_000.0,
        "bytes_full_model": 4_800_000,
        "bytes_ratio": 2 * 4_800_000 / 590_000,
        "privacy": None,
        "seconds": 88.2,
        "seconds_by_phase": {"data": 12.1, "local": 21.0, "shared": 26.4, "pooled": 14.0, "private": 6.1, "evaluation": 8.6},
        "peak_rss_mb": 1400,
        "adapters": {"shared": "0c" * 32} | {f"local/{name}": f"{index:02x}" * 32 for index, name in enumerate(names)},
        "software": {"rainhill": "0.1.0", "torch": "2.13.0", "flwr": "1.41.0", "python": "3.11.7"},
    }


def fake_films(names, size=48, seed=0):
    rng = np.random.default_rng(seed)
    return {name: [Film(image=rng.integers(0, 255, (size, size), dtype=np.uint8), caption="PA, 54 y") for _ in range(4)] for name in names}


VOID = {"meta", "img", "source", "br", "link", "hr", "input"}


class Page(HTMLParser):
    """What a browser would make of it: the text, the tags that do not balance, whatever would be fetched."""

    def __init__(self, html):
        super().__init__(convert_charrefs=True)
        self.open, self.unbalanced, self.tags, self.text, self.skip = [], [], [], [], 0
        self.feed(html)
        self.unbalanced += self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.unbalanced.append(tag)

    def handle_data(self, data):
        if "style" not in self.open:
            self.text.append(data)

    @property
    def words(self):
        return re.sub(r"\s+", " ", " ".join(self.text))

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


def written(folder, results, films=None):
    return Page(write_report(results, {} if films is None else films, folder).read_text("utf-8"))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "new"
    results = fake_results()
    path = write_report(results, fake_films(["halifax", *results["sites"]]), folder)
    return results, folder, path.read_text("utf-8"), Page(path.read_text("utf-8"))


def test_the_page_is_whole_and_fetches_nothing(run):
    _, _, html, page = run
    assert page.unbalanced == []
    assert not page.all("script")
    assert not page.all("link")
    assert [attrs["src"][:22] for attrs in page.all("img")] == ["data:image/png;base64,"] * 4
    assert all(attrs["srcset"].startswith("data:image/png;base64,") for attrs in page.all("source"))
    assert not any("href" in attrs or any(key.startswith("on") for key in attrs) for _, attrs in page.tags)
    assert "url(" not in html
    assert "http" not in html


def test_the_page_can_be_read_without_seeing_it(run):
    _, _, _, page = run
    assert all(len(attrs["alt"]) > 30 for attrs in page.all("img"))
    assert all(attrs.get("scope") in ("row", "col") for attrs in page.all("th"))
    assert page.all("html")[0]["lang"] == "en"
    assert len(page.all("h1")) == 1


def test_the_page_says_what_was_run_and_what_it_was_worth(run):
    results, _, _, page = run
    for site in results["sites"].values():
        assert site["title"] in page.words
    for expected in (
        "Mean AUROC over the 6 sites rose from 0.798 as the model arrived to 0.860 adapted",
        "better at 5, no different at 1, worse at none",
        "0.861 0.841–0.879",  # Manchester, adapted
        "+0.089 0.079–0.098",
        "92 %",
        "Federation added nothing measurable beyond training alone here",
        "This run was not differentially private.",
        "0.59 MB",
        "16.3×",
        "rainhill simulate RECIPE --seed 0",
        "1,200,000",
        results["recipe_sha256"],
        results["base"]["sha256"],
        *results["adapters"].values(),
        "flwr 1.41.0",
        "not for clinical use",
    ):
        assert expected in page.words.replace("\xa0", " ")


def test_lower_ranks_and_compressed_updates_are_told(tmp_path, run):
    results = fake_results()
    results["lora"]["ranks"], results["encoding"] = {"liverpool": 2, "ormskirk": 4}, "int8"
    told = " ".join(written(tmp_path, results).words.split())
    assert "of flexlora, updates sent as int8." in told
    titles = [results["sites"][site]["title"] for site in ("liverpool", "ormskirk")]
    assert f"The rank is 8, but 2 at {titles[0]}, 4 at {titles[1]}." in told
    assert "The rank is" not in run[3].words


def test_a_refusal_is_told_with_its_reason_and_a_silent_site_by_name(tmp_path):
    results = fake_results()
    results["rounds"][4]["answered"] = ["liverpool", "manchester", "alder_hey", "bolton_icu", "ormskirk"]
    page = written(tmp_path, results)
    assert "46 of 48 requests were answered." in page.words
    assert "Round 3: Wigan, old detector refused: budget spent: epsilon 2.0 of 2.0" in page.words
    assert "Round 5: no answer from Wigan, old detector" in page.words
    assert "Every site answered" not in page.words


def test_only_the_best_possible_arm_is_marked_and_never_pooled(run):
    _, _, _, page = run
    marks = [attrs.get("class", "").split() for attrs in page.all("td")]
    assert sum("best" in mark for mark in marks) == 6
    assert not any({"best", "bound"} <= set(mark) for mark in marks)


def test_words_from_elsewhere_are_escaped(tmp_path):
    results = fake_results()
    results["title"] = "<script>alert(1)</script> & $x_$"
    results["sites"]["wigan"]["title"] = results["sites"]["wigan"]["verdict_text"] = '<img src="http://x" onerror=1> $\\frac$ 広州'
    results["rounds"][2]["refused"] = {"wigan": "<b>no</b>"}
    results["privacy"] = {
        "epsilon": 2.0,
        "delta": 1e-5,
        "unit": "<i>patient</i>",
        "neighbours": "<i>add</i>",
        "noise": "<i>simulated</i>",
        "sites": {"<i>wigan</i>": {"joined": False}},
    }
    page = written(tmp_path, results, {"wigan": [Film(image=np.zeros((8, 12), np.uint8), caption="<i>$\\alpha")]})
    assert page.unbalanced == []
    assert not any(page.all(tag) for tag in ("script", "i"))
    assert all("onerror" not in attrs for attrs in page.all("img"))
    assert "<script>alert(1)</script> & $x_$" in page.words
    assert "<b>no</b>" in page.words


def png_size(path):
    header = path.read_bytes()[:24]
    assert header[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", header[16:24])


def test_the_figures_lie_beside_the_page(run):
    _, folder, _, page = run
    for name, tall in (("recovery", 800), ("cross_site", 600), ("curves", 600), ("films", 600)):
        width, height = png_size(folder / f"{name}.png")
        assert width == 1600
        assert tall < height < 2400
        assert (folder / f"{name}.png").stat().st_size < 2_000_000
    assert sorted(path.name for path in folder.iterdir()) == ["cross_site.png", "curves.png", "films.png", "recovery.png", "report.html"]
    assert page.all("img")[0]["width"] == "1600"


def test_the_same_results_draw_the_same_figures():
    assert draw_recovery(fake_results()) == draw_recovery(json.loads(json.dumps(fake_results())))


def test_a_missing_arm_source_or_matrix_leaves_the_rest_standing(tmp_path):
    results = fake_results()
    for site in results["sites"].values():
        del site["pooled"], site["shared"], site["curve"], site["differences"]["private_minus_shared"]
        site["recovered"] = None
    results |= {"source": None, "cross_site": None, "rounds": [], "consortium": {"base": 0.798, "private": 0.86}}
    page = written(tmp_path, results)
    assert page.unbalanced == []
    assert len(page.all("img")) == 1
    assert not (tmp_path / "cross_site.png").exists()
    assert "Halifax" not in page.words
    assert "0 of 0 requests" in page.words


@pytest.mark.parametrize("nothing", [math.nan, None])
def test_a_site_where_nothing_could_be_measured_gets_no_verdict(tmp_path, nothing):
    results = fake_results({name: LEVELS[name] for name in ("manchester", "ormskirk")})
    site = results["sites"]["ormskirk"]
    blank = {"value": nothing, "low": nothing, "high": nothing}
    for name in ARMS:
        site[name] = {"auroc": blank, "findings": {}}
    site |= {
        "differences": dict.fromkeys(site["differences"], blank),
        "left_out": FINDINGS,
        "recovered": nothing,
        "verdict": "no different",
    }
    site["verdict_text"] = verdict_text(site["title"], site)
    for name in ("local", "shared"):
        site["curve"][name] = [{"round": 1, "auroc": nothing, "loss": nothing}]
    results["cross_site"]["auroc"] = [[row[0], nothing] for row in results["cross_site"]["auroc"]]
    page = written(tmp_path, results)
    assert page.unbalanced == []
    assert "too few positives for any finding to be measured" in page.words
    assert "at 1 no verdict could be reached" in page.words
    assert "no verdict" in page.words
    assert "nan" not in page.words.lower().replace("adapter fingerprints", "")


@pytest.mark.parametrize("sites", [1, 50])
def test_figures_fit_one_site_and_fifty(sites):
    names = [f"site_{index}" for index in range(sites)]
    rng = np.random.default_rng(1)
    levels = {name: tuple(np.round(np.array([0.76, 0.81, 0.82, 0.84, 0.85]) + rng.normal(0, 0.02), 3).tolist()) for name in names}
    results = fake_results(levels, {name: f"Hospital {name}" for name in names}, dict.fromkeys(names, 300), rounds=3)
    for draw in (draw_recovery, draw_cross_site, draw_curves):
        assert 100 < int.from_bytes(draw(results)[20:24], "big") < 3000
    sheet = draw_films(fake_films(names, size=16), {})
    assert 100 < int.from_bytes(sheet[20:24], "big") < 3000


def test_films_of_any_shape_and_none_at_all():
    wide = Film(image=np.zeros((20, 60), np.uint8))
    tall = Film(image=np.full((60, 20), 255, np.uint8), caption="a caption that is far too long for its film " * 3)
    assert draw_films({"a": [wide, tall], "b": [], "c": [tall]}, {"a": "A"})
    assert draw_films({}, {})


def luminance(colour):
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one, other):
    """WCAG 2.2."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_all_text_has_a_contrast_of_at_least_four_and_a_half(run, scheme):
    _, _, html, _ = run
    block = html.split(":root")[1 + scheme].split("}")[0]
    colours = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", block))
    for text, ground in [
        ("ink", "paper"),
        ("muted", "paper"),
        ("muted", "wash"),
        ("accent", "paper"),
        ("ink", "wash"),
        ("better", "better-wash"),
        ("worse", "worse-wash"),
        ("same", "same-wash"),
    ]:
        assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground)


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
def test_figures_keep_the_contrast_of_text_and_of_markers(theme):
    assert min(contrast(theme.ink, theme.paper), contrast(theme.muted, theme.paper)) >= 4.5
    assert all(contrast(theme.arms[name], theme.paper) >= 2 for name in ARMS)
