"""The executable."""

from contimg.runtime.contract import leave, run_command
from contimg_watch.commands import SERVICE


def main() -> None:
    """Run ``contimg-watch``."""
    leave(run_command(SERVICE, program="contimg-watch"))


if __name__ == "__main__":
    main()
