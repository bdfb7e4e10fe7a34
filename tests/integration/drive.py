"""The driver of a faulty run: select on a cluster whose workers have `slow_work` laid over them.

python drive.py ADDRESS CONFIG RUN_DIR [UNTIL]
"""

import logging
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))


def main():
    import ray

    from engine.commands.command_line import main as run_job
    from engine.stages.pipeline import run

    address = os.environ.get("DRIVE_ADDRESS", "local")
    ray.init(
        address=address,
        **({"include_dashboard": False} if address == "local" else {}),
        runtime_env={"worker_process_setup_hook": "tests.integration.slow_work.lay"},
        log_to_driver=False,
        logging_level=logging.ERROR,
    )

    def select(arguments):
        directory = run(arguments.config, run_dir=arguments.run_dir, until=arguments.until)
        return {"run_dir": str(directory)}

    sys.exit(run_job(__doc__, select))


if __name__ == "__main__":
    main()
