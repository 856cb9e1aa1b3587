"""The executable."""

from contimg.runtime.contract import main as contract_main
from contimg_tiny.options import STAGE


def main() -> None:
    contract_main(STAGE)


if __name__ == "__main__":
    main()
