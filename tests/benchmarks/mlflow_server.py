"""MLflow's scoring server over a LightGBM model: python mlflow_server.py FOLDER PORT, in a venv that has both."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def main(folder: str, port: str) -> None:
    import lightgbm
    import mlflow.lightgbm

    place = Path(folder, "mlflow-model")
    if not place.exists():
        mlflow.lightgbm.save_model(lightgbm.Booster(model_file=str(Path(folder, "model.txt"))), str(place))
    os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    command = ["mlflow", "models", "serve", "-m", str(place), "-p", port, "--env-manager", "local", "-w", "1"]
    server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                              start_new_session=True)  # fmt: skip
    sys.stdin.read()
    os.killpg(server.pid, 15)
    server.wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
