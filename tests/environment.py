"""What every test, lesson and subprocess runs under."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = Path(sys.executable).parent  # ruff, mypy, nbdev-clean ... of this environment

QUIET = {
    # nothing is sent anywhere
    "PLOOMBER_STATS_ENABLED": "false",
    "PLOOMBER_VERSION_CHECK_DISABLED": "1",
    "WANDB_MODE": "offline",
    "WANDB_ERROR_REPORTING": "false",
    "WANDB_SILENT": "true",
    "DO_NOT_TRACK": "1",
    # threads that wait must not spin
    "OMP_WAIT_POLICY": "PASSIVE",
    # outputs are the same on every machine
    "TZ": "UTC",
    "LC_ALL": "C.UTF-8",
    "COLUMNS": "120",
    "PYTHONUTF8": "1",
    "PYDEVD_DISABLE_FILE_VALIDATION": "1",
}


def apply() -> None:
    "Puts this process under QUIET and its environment's scripts on PATH."
    os.environ.update(QUIET)
    # A caller's own overrides would decide what the tests see.
    for name in [name for name in os.environ if name.startswith("TIDEBOOK__")]:
        del os.environ[name]
    scripts = str(SCRIPTS)
    if scripts not in os.environ.get("PATH", "").split(os.pathsep):
        os.environ["PATH"] = os.pathsep.join([scripts, os.environ.get("PATH", "")])


def with_changes(changes: Mapping[str, str]) -> dict[str, str]:
    "This process's environment with `changes`, for a subprocess."
    return {**os.environ, **changes}
