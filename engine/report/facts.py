"""Everything that the page says, collected from the artifacts of a run.

The only place of the report that reads rows, and only those it shows; it runs in a worker.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from engine.artifacts.files import load_array
from engine.artifacts.run_directory import Artifact
from engine.config import Config
from engine.report.composition import Composition, composition
from engine.report.fidelity_facts import (
    Calibration,
    one_sentence,
    read_calibration,
    read_choice,
    read_fidelity,
)
from engine.report.funnel import SideFunnel, read_funnel
from engine.report.known_bad import KnownBad, known_bad
from engine.report.leak_facts import LeakFacts, read_leaks
from engine.report.ledger import Ledger, make_ledger
from engine.report.lookup import Lookup, read_lookup
from engine.report.other_results import ResultTable, read_results
from engine.report.picks import (
    Distribution,
    ExampleRow,
    GainCurve,
    bottom_examples,
    distribution,
    gain_curve,
    label_distribution,
    read_ranking,
    top_examples,
)
from engine.report.provenance import Provenance, read_provenance
from engine.report.quality_facts import QualityFacts, quality_facts
from engine.report.selection_facts import (
    FreeAlternative,
    asked_selected,
    free_alternative,
    read_free,
    selection_remarks,
)

__all__ = ["Facts", "collect"]


@dataclass(frozen=True)
class Facts:
    """What `render` draws. No rows but the examples."""

    title: str
    verdict: str
    num_targets: int
    pairwise: bool
    own_targets: bool
    objective: str
    kernel: dict[str, Any]
    selection_remarks: list[str]
    zero_gain_tail: str
    asked_selected: dict[str, float] | None
    unscorable: int
    sample_remarks: list[str]
    funnel: list[SideFunnel]
    leaks: LeakFacts | None
    student: str | None
    choice: dict[str, Any]
    fidelity: dict[str, Any]
    calibration: Calibration | None
    influence: Distribution
    labels: Distribution
    gains: GainCurve
    top: list[ExampleRow]
    bottom: list[ExampleRow]
    free: FreeAlternative | None
    quality: QualityFacts | None
    composition: Composition | None
    lookup: Lookup
    known_bad: KnownBad | None
    ledger: Ledger
    results: list[ResultTable]
    provenance: Provenance


def collect(config: Config, inputs: Mapping[str, Artifact]) -> Facts:
    """Read what the page shows. Memory: some numbers per candidate and one part of the corpus."""
    corpus, score, select = inputs["ingest"], inputs["score"], inputs["select"]
    pairwise = bool(inputs["sample"].counts["pairwise"])
    num_targets = int(corpus.counts.get("targets", corpus.counts["candidates"]))
    means = load_array(inputs["predict"].path("means"))
    ranking = read_ranking(select)
    free = read_free(select)
    fidelity, settings = read_fidelity(inputs["fit"]), config.report
    column, quotas = settings.known_bad_column, config.selection.quotas
    examples = (corpus, ranking, means, settings.num_examples, column)
    return Facts(
        title=settings.title,
        verdict=one_sentence(fidelity),
        num_targets=num_targets if pairwise else 1,
        pairwise=pairwise,
        own_targets="targets" in corpus.counts,
        objective=str(select.counts["objective"]),
        kernel=inputs["predict"].counts,
        selection_remarks=list(selection_remarks(select.counts, "targets" in corpus.counts)),
        zero_gain_tail=config.selection.zero_gain_tail or "by_mean_influence",
        asked_selected=asked_selected(select.counts),
        unscorable=int(score.counts["unscorable"]),
        sample_remarks=list(inputs["sample"].counts.get("remarks", ())),
        funnel=read_funnel(corpus, inputs["embed"], inputs["sample"], len(ranking.rows)),
        leaks=read_leaks(corpus),
        student=inputs["fit"].counts["student"],
        choice=read_choice(inputs["fit"]),
        fidelity=fidelity,
        calibration=read_calibration(score, inputs["predict"], fidelity["judged_quadrant"]),
        influence=distribution(means, means[ranking.rows]),
        labels=label_distribution(score),
        gains=gain_curve(ranking.gains, int(select.counts["zero_gain_picks"])),
        free=free_alternative(select.counts),
        quality=quality_facts(inputs, column),
        top=top_examples(*examples),
        bottom=bottom_examples(*examples),
        composition=composition(
            corpus,
            ranking.rows,
            settings.composition_column,
            quotas.column if quotas else None,
            free,
        ),
        lookup=read_lookup(corpus, inputs["embed"], inputs["predict"], select),
        known_bad=known_bad(corpus, column, ranking.rows, means, free) if column else None,
        ledger=make_ledger({name: artifact.manifest for name, artifact in inputs.items()}),
        results=read_results(settings.results),
        provenance=read_provenance(config, inputs),
    )
