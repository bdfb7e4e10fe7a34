"""The charts of a study: what they draw is what the trials say."""

import html
import json

import pytest
import vl_convert

from engine.study.charts import charts_of
from engine.study.figures import PAGE, write_figures

OBJECTIVE = "unseen student mse_std"
SHARES = (0.1, 0.3)


def trial(seed, error, **settings):
    row = {**settings, "seed": seed, "parameters": 1_000, "labels": 50, "teacher_cpu_s": 9.0}
    for quadrant in (1, 2, 3, 4):
        for predictor, value in {"student": error, "mean": 1.0, "linear": 0.5, "zero": 7.0}.items():
            row[f"q{quadrant} {predictor} mse_std"] = value
            row[f"q{quadrant} {predictor} r2"] = 1 - value
            row[f"q{quadrant} {predictor} spearman"] = 0.5
    row |= {n.replace("q4", "unseen"): v for n, v in row.items() if n.startswith("q4")}
    for share in SHARES:
        row |= {f"overlap {share:g}": error / 2, f"value {share:g}": 1 - error / 9}
        row |= {f"random overlap {share:g}": 0.01, f"cosine overlap {share:g}": 0.02}
    return row


def rows(**more):
    return [
        trial(seed, error + 0.1 * seed, **{"network.hidden": hidden, "sample.fraction": u}, **more)
        for hidden, error in (("linear", 0.4), ("100", 0.2))
        for u in (0.05, 0.2)
        for seed in (0, 1, 2)
    ]


def chart(found, name):
    return next(chart for chart in found if chart.name == name)


def values_of(chart):
    return chart.spec["data"]["values"]


def test_every_question_has_its_chart():
    names = [c.name for c in charts_of(rows(), ["network.hidden", "sample.fraction"], OBJECTIVE)]
    assert names == [
        "size", "fraction-mse-std", "fraction-r2", "fraction-spearman", "price", "heat-overlap",
        "heat-value",
    ]  # fmt: skip
    of_more = [{**row, "network.members": 1 + row["seed"]} for row in rows()]
    assert [c.name for c in charts_of(of_more, ["network.members"], OBJECTIVE)] == ["settings"]


def test_dots_are_means_over_seeds_and_lines_run_to_the_extremes():
    sized = [row for row in rows() if row["sample.fraction"] == 0.05]
    dots = values_of(chart(charts_of(sized, ["network.hidden"], OBJECTIVE), "size"))
    linear = [d for d in dots if d.get("shape") == "linear"]
    assert len(linear) == 4  # quadrants
    for dot in linear:
        assert (dot["mean"], dot["low"], dot["high"]) == pytest.approx((0.5, 0.4, 0.6))
        assert dot["hidden layers"] == "0" and dot["trials"] == 3


@pytest.mark.parametrize("name", ["size", "fraction-mse-std", "price"])
def test_what_knows_nothing_of_the_network_stands_beside_it(name):
    found = charts_of(rows(), ["network.hidden", "sample.fraction"], OBJECTIVE)
    drawn = {(v["predictor"], v.get("quadrant")) for v in values_of(chart(found, name))}
    for quadrant in {quadrant for _, quadrant in drawn}:
        assert {"linear", "mean", "zero"} <= {p for p, q in drawn if q == quadrant}


def test_baselines_of_a_search_are_those_of_its_trials():
    (drawn,) = charts_of(
        [{**row, "network.members": 1} for row in rows()], ["network.members"], OBJECTIVE
    )
    (panel,) = drawn.spec["vconcat"][0]["hconcat"]
    known = {v["predictor"]: v["mean"] for v in panel["layer"][0]["data"]["values"]}
    assert known == {"mean": 1.0, "linear": 0.5, "zero": 7.0}
    assert len(panel["data"]["values"]) == len(rows())


def test_the_heat_map_has_a_cell_for_each_pair_of_shares():
    found = charts_of(rows(), ["sample.fraction"], OBJECTIVE)
    cells = values_of(chart(found, "heat-overlap"))
    assert sorted({(c["u"], c["v"]) for c in cells}) == [
        (u, v) for u in ("0.05", "0.2", "cosine", "random") for v in SHARES
    ]


def test_trials_that_failed_and_teachers_side_by_side():
    both = [*rows(teacher="less"), *rows(teacher="delift_se")]
    both.append({"network.hidden": "100", "sample.fraction": 0.01, "seed": 0, "teacher": "less"})
    for drawn in charts_of(both, ["network.hidden", "sample.fraction"], OBJECTIVE):
        json.dumps(drawn.spec, allow_nan=False)
        assert {"less", "delift_se"} <= {v["teacher"] for v in values_of(drawn)}


def test_pictures_and_a_page_that_loads_nothing(tmp_path):
    bad = [{**row, "sample.design": "</script><img src=x>"} for row in rows()]
    settings = ["network.hidden", "sample.fraction", "sample.design"]
    charts = charts_of(bad, settings, OBJECTIVE)
    written = write_figures(charts, "A <study>", "All of it.", tmp_path)
    assert {path.name for path in written} == {path.name for path in tmp_path.iterdir()}
    for drawn in charts:
        picture = html.unescape((tmp_path / f"{drawn.name}.svg").read_text())
        assert picture.startswith("<svg") and drawn.title in picture
        assert (tmp_path / f"{drawn.name}.png").read_bytes().startswith(b"\x89PNG")
    page = (tmp_path / PAGE).read_text()
    assert page.count("</script>") == 2 and "A &lt;study&gt;" in page
    assert "<script src" not in page and "<link" not in page
    assert vl_convert.javascript_bundle() in page and "u003c/script>" in page
    first = (tmp_path / "size.svg").read_bytes()
    write_figures(charts, "A <study>", "All of it.", tmp_path)
    assert (tmp_path / "size.svg").read_bytes() == first
