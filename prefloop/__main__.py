"""The command ``prefloop``, also as ``python -m prefloop``. Ctrl-C while it is being imported ends it without a word too many."""

import sys


def main() -> None:
    """The console script; prefloop.cli is read where an interruption of that is heard."""
    try:
        from prefloop.cli import app

        app()
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(130)


if __name__ == "__main__":
    main()
