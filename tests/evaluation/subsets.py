"""A corpus of eleven rows and a subset of nine of them, as artifacts."""

import pyarrow as pa
import pyarrow.parquet as pq

from engine.artifacts.files import write_json
from engine.artifacts.parts import finish_part
from engine.artifacts.run_directory import Artifact
from engine.config import EvaluationConfig
from engine.example import content_key

ROWS = 11


def write_inputs(folder):
    """What the stages after the subsets read, by name."""
    rows = []
    for i in range(ROWS):
        texts = (f"say {i} {'x' * i}", "", f"{i} is said")
        rows.append({"id": f"r{i}", "key": content_key(*texts)})
        rows[-1] |= dict(zip(("instruction", "input", "output"), texts, strict=True))
    tables = {
        "ingest": ("candidates", pa.Table.from_pylist(rows)),
        "mine": ("ranking", pa.table({"row": list(range(8, -1, -1))})),
    }
    for name, (group, table) in tables.items():
        (folder / name).mkdir(parents=True)
        path = folder / name / "rows.parquet"
        pq.write_table(table, path)
        parts = {group: [vars(finish_part(folder / name, path, len(table)))]}
        manifest = {"fingerprint": name, "counts": {}, "parts": parts}
        write_json(folder / name / "manifest.json", manifest)
    return {name: Artifact(folder / name) for name in tables}


def evaluation_settings(model, **qlora):
    """Settings that train the model a little, in full precision."""
    return EvaluationConfig.model_validate(
        {
            "test": {"path": "unused"},
            "model": {"path": str(model), "dtype": "float32"},
            "prompt_style": "plain",
            "qlora": {"quantization": None, "epochs": 2, "learning_rate": 0.01, **qlora},
        }
    )
