"""Entry point of a worker: ``python -m catalog.server.start``, with the options of ``worker.py``.

It imports almost nothing, so that the lifeline is watched while the service is imported.
"""

import gc
from argparse import ArgumentParser

from catalog.server import lifeline


def main() -> None:
    """Watch the lifeline, then import the worker and run it."""
    parser = ArgumentParser(add_help=False)
    parser.add_argument("--lifeline-fd", type=int, required=True)
    options, _ = parser.parse_known_args()
    lifeline.watch(options.lifeline_fd)
    # The collector would search the modules again and again while they are imported, in vain: that
    # is a fifth of the import's time. ``worker`` collects once, when the app is built.
    gc.disable()
    # Imported late, because this import is what takes time.
    from catalog.server import worker

    gc.enable()

    worker.main()


if __name__ == "__main__":
    main()
