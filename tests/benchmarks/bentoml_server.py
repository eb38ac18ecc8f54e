"""BentoML over a LightGBM model: python bentoml_server.py FOLDER PORT, in a venv that has both."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SERVICE = """
import bentoml
import lightgbm
import numpy as np

NAMES = ("a", "b", "c", "d", "e", "f")

@bentoml.service(workers=1)
class Bench:
    def __init__(self):
        self.booster = lightgbm.Booster(model_file={model!r})

    @bentoml.api
    async def infer(self, rows: list[dict[str, float]]) -> dict:
        values = np.array([[row[name] for name in NAMES] for row in rows])
        return {{"predictions": self.booster.predict(values, num_threads=1).tolist()}}
"""


def main(folder: str, port: str) -> None:
    place = Path(folder, "bento")
    place.mkdir(exist_ok=True)
    (place / "service.py").write_text(SERVICE.format(model=str(Path(folder, "model.txt"))))
    environment = {**os.environ, "BENTOML_HOME": str(place / "home"), "BENTOML_DO_NOT_TRACK": "true"}
    command = [sys.executable, "-m", "bentoml", "serve", "service:Bench", "--port", port, "--host", "127.0.0.1"]
    server = subprocess.Popen(command, cwd=place, env=environment, stdin=subprocess.DEVNULL,
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)  # fmt: skip
    sys.stdin.read()
    os.killpg(server.pid, 15)
    server.wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
