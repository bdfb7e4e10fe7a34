from engine.report.selection_facts import selection_remarks


def test_what_is_covered_and_how_well():
    counts = {"cover": "self", "at_least": 0.934, "tokens_selected": 1234}
    said = " ".join(selection_remarks(counts, own_targets=True))
    assert "by the cosine of the embeddings" in said and "1,234 tokens" in said and "93" in said
    assert "predicted influence" in " ".join(selection_remarks(counts, own_targets=False))
    assert list(selection_remarks({"cover": None, "at_least": None}, own_targets=True)) == []


def test_partitions():
    counts = {"partitions": 8, "second_round": "greedy", "partition_ratio": 0.9876}
    (said,) = selection_remarks(counts, own_targets=True)
    assert "8 partitions" in said and "greedily: 0.988 of selecting at once" in said
    counts = {"partitions": 8, "second_round": "merged by gain", "partition_ratio": None}
    (said,) = selection_remarks(counts, own_targets=True)
    assert said.endswith("by their gains.")
