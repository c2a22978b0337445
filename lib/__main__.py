"""`python -m lib`: the command line."""

import sys

if __name__ == "__main__":
    try:
        from lib.cli import main  # takes seconds, in which Ctrl+C is no error either

        main()
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        raise SystemExit(130) from None
