"""The executable ``contimg-starter``."""

from contimg.runtime.contract import main as contract_main
from contimg_starter.options import STAGE


def main() -> None:
    """Run the stage."""
    contract_main(STAGE)


if __name__ == "__main__":
    main()
