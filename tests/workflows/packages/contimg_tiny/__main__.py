"""The executable of a step: ``contimg-a`` is the stage ``a``."""

import sys
from pathlib import Path

from contimg.runtime.contract import main as contract_main
from contimg_tiny.options import spec


def main() -> None:
    contract_main(spec(Path(sys.argv[0]).name.removeprefix("contimg-")))


if __name__ == "__main__":
    main()
