"""``python -m catalog`` is the ``catalog`` command."""

import sys

if __name__ == "__main__":
    if not sys.flags.safe_path:
        # The working folder, whose modules must not replace those of the service and its libraries.
        del sys.path[0]
    from catalog.cli import main

    main()
