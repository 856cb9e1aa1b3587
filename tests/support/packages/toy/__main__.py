"""The executable."""

from contimg.runtime.contract import main
from toy.options import STAGE

if __name__ == "__main__":
    main(STAGE)
