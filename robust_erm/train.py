"""Train one run, or with -m a sweep:

python -m robust_erm.train -m optimizer=gd,sd eps=0,0.2
"""

from __future__ import annotations

import signal

from robust_erm.store.source import conf_dir
from robust_erm.sweeps.exits import ended_cleanly, interrupted
from robust_erm.sweeps.lines import prepare, task


def main() -> None:
    """The console command ``robust-erm-train``."""
    with ended_cleanly():
        signal.signal(signal.SIGTERM, interrupted)
        import hydra

        prepare()
        hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="train")(task)()


if __name__ == "__main__":
    main()
