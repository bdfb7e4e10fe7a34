"""What is laid over the workers of a faulty run: work that takes its time, is counted, or crashes.

`lay` is Ray's `worker_process_setup_hook`: it runs in every worker process before anything else.
What it does is told by the environment of the node: SLOW_S, seconds that each piece takes longer;
WORK_LOG, folder with a file for each piece that was begun; POISON, a text on which the encoder and
the teacher crash the process; NO_MODEL, no model can be loaded here.
"""

import ctypes
import os
import secrets
import time


def lay():
    from engine.errors import ModelError
    from engine.models import encoder
    from engine.runtime.executor import PartitionRunner
    from engine.teachers import delift

    finish, poison = PartitionRunner._finish, os.environ.get("POISON")

    def slow_finish(self, partition, path):
        if log := os.environ.get("WORK_LOG"):
            name = partition.path.replace("/", "_")
            with open(f"{log}/{name}.{secrets.token_hex(4)}", "w") as file:
                file.write(str(os.getpid()))
        time.sleep(float(os.environ.get("SLOW_S", "0")))
        return finish(self, partition, path)

    PartitionRunner._finish = slow_finish

    def crashing(function, texts_of):
        def call(*args, **kwargs):
            if poison and any(poison in text for text in texts_of(*args)):
                ctypes.string_at(0)  # at once, which a signal to oneself is not
            return function(*args, **kwargs)

        return call

    encoder.Encoder.encode = crashing(encoder.Encoder.encode, lambda self, texts, *rest: texts)
    delift.DeliftTeacher.score = crashing(
        delift.DeliftTeacher.score, lambda self, candidate, *rest: [candidate.text]
    )
    if os.environ.get("NO_MODEL"):

        def refuse(*args, **kwargs):
            raise ModelError("model tiny cannot be loaded: no such file")

        encoder.Encoder.__init__ = refuse
