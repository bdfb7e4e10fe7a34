"""The select stage: what covers what under each objective, limits, partitions, explanations."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from engine.config import parse_config
from engine.errors import SettingsError
from engine.selection.kernel_files import scaled
from engine.selection.select import select
from engine.stages.pipeline import run
from tests.small_job import write_rows


@pytest.fixture(scope="module")
def job(small_job, tmp_path_factory):
    """The small job, cheap to run: random labels, a tiny fit, rows that are owned already."""
    folder = tmp_path_factory.mktemp("select")
    write_rows(folder / "owned.jsonl", 40, 5, "o")
    return {
        **small_job,
        "owned": {"path": str(folder / "owned.jsonl")},
        "teacher": {"name": "delift_se", "model": small_job["embedding"]["model"]},
        "run_dir": str(folder / "run"),
    }


def selected(job, **selection):
    config = parse_config({**job, "selection": {"budget": 30, **selection}})
    return run(config, overwrite=True, until="select")


def arrays(directory):
    """S (M, N), unit embeddings (M, D), best of the owned rows for each target (N,), scaling."""
    predict, embed = directory.artifact("6-influence"), directory.artifact("2-embeddings")

    def joined(artifact, group):
        return np.concatenate([np.load(artifact.directory / p.path) for p in artifact.parts(group)])

    labels = pq.read_table(directory.artifact("4-teacher").path("labels")).to_pandas()
    training = labels["score"][labels["quadrant"] == 0]
    low, high = np.float32(training.min()), np.float32(training.max())

    def scaled(values):
        return np.maximum((values - low) / (high - low), 0)

    owned = scaled(joined(predict, "owned")) if "owned" in predict.manifest["parts"] else None
    return scaled(joined(predict, "dense")), joined(embed, "candidates"), owned


def ranking(directory):
    return pq.read_table(directory.artifact("7-selection").path("ranking"))


def explained(directory):
    return pq.read_table(directory.artifact("7-selection").path("explanations")).to_pandas()


def expect(directory, kernel, objective, **settings):
    means = np.load(directory.artifact("6-influence").path("means"))
    wanted = select(kernel, 30, objective, mean_influence=means, **settings)
    assert ranking(directory)["row"].to_pylist() == wanted.ranking.tolist()
    np.testing.assert_allclose(ranking(directory)["gain"].to_numpy(), wanted.gains, rtol=1e-6)


def test_conditional_gain_is_the_default_where_rows_are_owned(job):
    directory = selected(job)
    influence, _, owned = arrays(directory)
    assert owned.shape == (60,) and owned.max() > 0
    expect(directory, influence.T, "facility_location_conditional_gain", owned=owned)


def test_nu_loosens_the_condition(job):
    directory = selected(job, nu=0.5)
    influence, _, owned = arrays(directory)
    expect(directory, influence.T, "facility_location_conditional_gain", owned=owned, nu=0.5)


@pytest.mark.parametrize(
    ("objective", "settings"),
    [
        ("facility_location", {}),
        ("facility_location_mutual_information", {"eta": 0.3}),
        ("graph_cut_mutual_information", {"trade_off": 1.0}),
        ("top_mean", {}),
        ("random", {}),
    ],
)
def test_objectives_over_the_targets(job, objective, settings):
    directory = selected(job, objective=objective, **settings)
    influence, _, owned = arrays(directory)
    if objective == "facility_location_mutual_information":
        settings = {**settings, "owned": owned}
    expect(directory, influence.T, objective, **settings)


def test_shares_by_hand():
    """Levels 0, 1, 9 are 0, a half and 1; two levels alone are a line without an end."""
    values = np.array([-3, 0, 0.5, 1, 5, 9, 90], np.float32)
    found = scaled(values, (0.0, 1.0, 9.0))
    np.testing.assert_allclose(found, [0, 0, 0.25, 0.5, 0.75, 1, 1])
    assert found.dtype == np.float32
    np.testing.assert_allclose(scaled(values, (1.0, 5.0)), [0, 0, 0, 0, 1, 2, 22.25])
    # half of the labels are one number: it passes them all
    np.testing.assert_allclose(scaled(values, (0.0, 1.0, 1.0)), [0, 0, 0.25, 1, 1, 1, 1])


def test_influence_by_its_place_among_the_labels(job):
    directory = selected(job, objective="facility_location", scaling="quantile")
    labels = pq.read_table(directory.artifact("4-teacher").path("labels")).to_pandas()
    training = np.sort(labels["score"][labels["quadrant"] == 0])
    predict = directory.artifact("6-influence")
    influence = np.concatenate(
        [np.load(predict.directory / part.path) for part in predict.parts("dense")]
    )
    levels = np.quantile(training.astype(np.float64), np.arange(101) / 100)
    kernel = np.interp(influence, levels, np.arange(101) / 100).astype(np.float32)
    # so it is the share of the labels that are lower, to a hundredth
    lower = np.searchsorted(training, influence.ravel()) / len(training)
    assert np.abs(kernel.ravel() - lower).max() < 0.011
    expect(directory, kernel.T, "facility_location")
    assert ranking(directory) != ranking(selected(job, objective="facility_location"))


def test_every_row_says_whether_the_teacher_was_asked_about_it(job):
    directory = selected(job)
    sample = pq.read_table(directory.artifact("3-sample").path("pairs")).to_pandas()
    told = explained(directory)
    asked = set(told.loc[told["known_by"] == "asked", "row"])
    assert asked == set(sample["candidate"]) and 0 < len(asked) < len(told)
    counts = directory.artifact("7-selection").counts
    picks = set(ranking(directory)["row"].to_pylist())
    assert counts["asked"] == len(asked) and counts["asked_selected"] == len(picks & asked)


def test_labelled_rows_can_be_kept_out_as_published(job):
    directory = selected(job, pool="exclude_labelled")
    sample = pq.read_table(directory.artifact("3-sample").path("pairs")).to_pandas()
    learned = set(sample.loc[sample["quadrant"] == 0, "candidate"])
    picks = set(ranking(directory)["row"].to_pylist())
    assert len(picks) == 30 and not picks & learned


def cosines(embeddings):
    return np.clip(embeddings @ embeddings.T, 0, 1)


def nearest_lists(embeddings, count):
    """Cosines of which each row keeps its `count` largest, the others 0."""
    kernel = cosines(embeddings)
    smallest = np.sort(kernel, axis=1)[:, -count][:, None]
    return np.where(kernel >= smallest, kernel, 0)


@pytest.mark.parametrize("objective", ["facility_location", "graph_cut"])
def test_candidates_cover_each_other_by_the_cosine_beside_a_target_set(job, objective):
    job = {**job, "influence": {"neighbours": 300}}
    directory = selected(job, objective=objective, cover="self")
    _, embeddings, _ = arrays(directory)
    value = directory.artifact("7-selection").counts["objective_value"]
    wanted = select(cosines(embeddings), 30, objective)
    assert value == pytest.approx(wanted.objective_value, rel=1e-5)


def test_mutual_information_of_form_1_is_capped_by_relevance(job):
    job = {**job, "influence": {"neighbours": 300}}
    directory = selected(job, objective="facility_location_mutual_information", form=1, eta=0.7)
    influence, embeddings, _ = arrays(directory)
    wanted = select(
        cosines(embeddings),
        30,
        "facility_location_mutual_information",
        form=1,
        eta=0.7,
        query=influence.max(axis=1),
        owned=np.load(directory.path / "7-selection" / "owned.npy"),
    )
    counts = directory.artifact("7-selection").counts
    assert counts["objective_value"] == pytest.approx(wanted.objective_value, rel=1e-5)
    assert counts["covered_value"] == pytest.approx(wanted.objective_value, rel=1e-5)


def test_a_floor_and_a_share_leave_out_what_is_hardly_similar(job):
    job = {**job, "influence": {"neighbours": 300}}
    settings = {"form": 1, "floor": 0.9, "relevant_share": 0.2}
    directory = selected(job, objective="facility_location_mutual_information", **settings)
    influence, embeddings, _ = arrays(directory)
    relevance = influence.max(axis=1)
    low = np.quantile(relevance, 0.8)
    kernel = np.maximum((cosines(embeddings) - 0.9) / 0.1, 0)
    near_owned = np.load(directory.path / "7-selection" / "owned.npy")
    wanted = select(
        kernel,
        30,
        "facility_location_mutual_information",
        form=1,
        query=np.maximum((relevance - low) / (relevance.max() - low), 0),
        owned=near_owned,
    )
    counts = directory.artifact("7-selection").counts
    assert counts["covered_value"] == pytest.approx(wanted.objective_value, rel=1e-4)


def test_neighbour_lists_bound_what_a_row_is_covered_by(job):
    job = {**job, "influence": {"neighbours": 10}}
    directory = selected(job, objective="facility_location", cover="self")
    _, embeddings, _ = arrays(directory)
    wanted = select(nearest_lists(embeddings, 10), 30)
    counts = directory.artifact("7-selection").counts
    # equal cosines at the end of a list may be cut differently
    assert counts["objective_value"] == pytest.approx(wanted.objective_value, rel=0.02)


def test_a_corpus_that_is_its_own_target_covers_itself_fully(job, tmp_path):
    own = {**job, "owned": None, "target": None, "run_dir": str(tmp_path / "own")}
    directory = selected(own)
    influence, _, _ = arrays(directory)
    kernel = influence.T.copy()
    np.fill_diagonal(kernel, 0)
    np.fill_diagonal(kernel, kernel.max(axis=1))
    expect(directory, kernel, "facility_location")
    table = explained(directory)
    picked = table["rank"].notna()
    # a row that was picked is covered as well as it can be
    np.testing.assert_allclose(table["coverage"][picked], kernel.max(axis=1)[picked], rtol=1e-6)
    rows = ranking(directory)["row"].to_numpy()
    np.testing.assert_allclose(table["coverage"], kernel[:, rows].max(axis=1), rtol=1e-6)
    sparse = selected({**own, "influence": {"max_dense_gib": 1e-7, "neighbours": 300}})
    assert sparse.artifact("6-influence").counts["kernel"] == "neighbours"
    expect(sparse, kernel, "facility_location")


# --- limits --------------------------------------------------------------------------------------


def test_quotas_by_column(job):
    directory = selected(job, quotas={"column": "topic", "most": 2})
    subset = pq.read_table(directory.artifact("7-selection").path("subset")).to_pandas()
    assert subset["topic"].value_counts().max() == 2
    directory = selected(job, quotas={"column": "topic", "most": {"red": 0, "blue": 1}})
    counts = (
        pq.read_table(directory.artifact("7-selection").path("subset"))
        .to_pandas()["topic"]
        .value_counts()
    )
    assert "red" not in counts and counts["blue"] <= 1 and counts.sum() == 30
    with pytest.raises(SettingsError, match="no column 'colour'; they have: bad, topic"):
        selected(job, quotas={"column": "colour", "most": 2})
    with pytest.raises(SettingsError, match="names the group 'mauve'"):
        selected(job, quotas={"column": "topic", "most": {"mauve": 2}})


def test_a_token_budget_in_place_of_a_number_of_rows(job):
    config = parse_config({**job, "selection": {"max_tokens": 2000}})
    directory = run(config, overwrite=True, until="select")
    counts = directory.artifact("7-selection").counts
    subset = pq.read_table(directory.artifact("7-selection").path("subset")).to_pandas()
    # the tiny tokenizer has one token a byte; the text is prompt, newline, mark and answer
    texts = subset["instruction"] + "\n##Answer: " + subset["output"]
    assert counts["tokens_selected"] == texts.str.len().sum() <= 2000
    assert counts["tokens_selected"] > 1900 and counts["selected"] == len(subset)


# --- partitions ----------------------------------------------------------------------------------


def test_partitions_reach_nearly_what_one_worker_does(job):
    at_once = selected(job, objective="facility_location").artifact("7-selection").counts
    in_four = selected(job, objective="facility_location", partitions=4)
    counts = in_four.artifact("7-selection").counts
    assert counts["partitions"] == 4 and counts["second_round"] == "greedy"
    assert counts["objective_value"] >= 0.97 * at_once["objective_value"]
    assert 0.97 < counts["partition_ratio"] <= 1.001
    assert len(set(ranking(in_four)["row"].to_pylist())) == 30


def test_the_memory_setting_decides_how_many_partitions(job):
    own = {**job, "selection": {}}
    bytes_of_kernel = 4 * 300 * 60
    gib = bytes_of_kernel / 3.5 / 2**30
    directory = selected(own, objective="facility_location", max_kernel_gib=gib)
    assert directory.artifact("7-selection").counts["partitions"] == 4
    tiny = selected(own, objective="facility_location", max_kernel_gib=gib / 20)
    counts = tiny.artifact("7-selection").counts
    assert counts["second_round"] == "merged by gain" and counts["selected"] == 30
    assert counts["objective_value"] == pytest.approx(counts["covered_value"])
    assert 0.8 < counts["partition_ratio"] <= 1
    with pytest.raises(SettingsError, match="graph_cut sums over all pairs"):
        selected(own, objective="graph_cut", max_kernel_gib=gib)


def test_partitions_keep_to_quotas_and_tokens(job):
    directory = selected(
        job, partitions=3, quotas={"column": "topic", "most": 2}, max_tokens=1500, budget=None
    )
    subset = pq.read_table(directory.artifact("7-selection").path("subset")).to_pandas()
    assert subset["topic"].value_counts().max() <= 2
    assert directory.artifact("7-selection").counts["tokens_selected"] <= 1500


# --- explanations --------------------------------------------------------------------------------


def test_every_row_is_explained(job):
    directory = selected(job)
    influence, embeddings, owned = arrays(directory)
    table, rows = explained(directory), ranking(directory)["row"].to_numpy()
    assert table["row"].tolist() == list(range(300))
    assert table["rank"][rows].tolist() == list(range(1, 31))
    similarity = cosines(embeddings)
    np.fill_diagonal(similarity, -1)
    np.testing.assert_allclose(table["similarity"], similarity[:, rows].max(axis=1), atol=1e-5)
    nearest = table["nearest"].to_numpy(dtype=int)
    assert set(nearest) <= set(rows)
    found = similarity[np.arange(300), nearest]
    np.testing.assert_allclose(found, table["similarity"], atol=1e-5)
    covered = np.maximum(influence[rows].max(axis=0), owned)
    left = np.maximum(influence - covered, 0).sum(axis=1)
    dropped = table["rank"].isna()
    np.testing.assert_allclose(table["gain_left"][dropped], left[dropped], atol=1e-5)
    assert table["gain_left"][~dropped].isna().all()
    counted = np.bincount(nearest[dropped], minlength=300)
    assert table["num_nearest"][rows].tolist() == counted[rows].tolist()
    by = np.bincount(rows[influence[rows].argmax(axis=0)], minlength=300)
    assert table["num_covered"][rows].tolist() == by[rows].tolist()


def test_the_bound_on_the_optimum_holds(job):
    counts = selected(job, objective="facility_location").artifact("7-selection").counts
    assert 1 - 1 / np.e <= counts["at_least"] <= 1
    few = selected(job, objective="facility_location", budget=2)
    influence, _, _ = arrays(few)
    best = max(np.maximum(influence[a], influence[b]).sum() for a in range(300) for b in range(a))
    counts = few.artifact("7-selection").counts
    assert counts["objective_value"] / counts["at_least"] >= best * (1 - 1e-6)


def test_settings_of_other_objectives_are_refused(job):
    with pytest.raises(SettingsError, match=r"selection.eta is a setting of .*mutual_information"):
        parse_config({**job, "selection": {"eta": 0.5}})
    with pytest.raises(SettingsError, match=r"covers the candidates: cover: self"):
        parse_config({**job, "selection": {"objective": "graph_cut", "cover": "target"}})
    with pytest.raises(SettingsError, match=r"set owned.path"):
        settings = {**job, "owned": None}
        settings["selection"] = {"objective": "facility_location_conditional_gain"}
        parse_config(settings)


def test_jsonl_and_parquet_hold_the_same_rows(job):
    artifact = selected(job).artifact("7-selection")
    lines = artifact.path("jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == pq.read_table(
        artifact.path("subset")
    ).to_pylist()


# --- beside what costs nothing --------------------------------------------------------------------


def test_the_free_alternative_is_the_cosine_in_turn(job):
    own = {name: value for name, value in job.items() if name != "owned"}
    directory = selected(own, objective="facility_location")
    select_artifact = directory.artifact("7-selection")
    picks = np.load(select_artifact.path("free_alternative"))
    embeddings = directory.artifact("2-embeddings")
    sides = [
        np.concatenate([np.load(embeddings.directory / p.path) for p in embeddings.parts(side)])
        for side in ("candidates", "targets")
    ]
    unit = [side / np.linalg.norm(side, axis=1, keepdims=True) for side in sides]
    expected = select((unit[0] @ unit[1].T).T, 30, "round_robin", zero_gain_tail="stop")
    assert picks.tolist() == expected.ranking.tolist()
    told = select_artifact.counts["free_alternative"]
    rows = ranking(directory)["row"].to_numpy()
    assert told == {"selected": 30, "in_both": len(np.intersect1d(picks, rows))}
    spread = select_artifact.counts["spread"]
    assert 0 < spread["additive_share"] <= 1 and 1 <= spread["distinct_best"] <= 60


def test_it_keeps_to_the_same_quotas(job):
    directory = selected(job, quotas={"column": "topic", "most": 2}, objective="facility_location")
    picks = np.load(directory.artifact("7-selection").path("free_alternative"))
    table = pq.read_table(directory.artifact("7-selection").path("explanations")).to_pandas()
    assert len(picks) == 20 and len(table) == 300  # ten topics
