"""The executable contimg-calibrate."""

from contimg.runtime.contract import main as contract_main
from contimg_calibrate.options import STAGE


def main() -> None:
    """Run the stage and exit."""
    contract_main(STAGE)


if __name__ == "__main__":
    main()
