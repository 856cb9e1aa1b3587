"""The executable ``contimg-starter``."""

from functools import partial

from contimg.runtime.contract import main as run_stage
from contimg_starter.options import STAGE

main = partial(run_stage, STAGE)

if __name__ == "__main__":
    main()
