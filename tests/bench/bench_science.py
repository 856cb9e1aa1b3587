"""Full-size images of the realistic sky against the truth: 3C48's group and two after it."""

from chain import Chain, full_calibrator, next_group
from image_truth import check_agreement, check_noise, check_sources, compare


def main() -> None:
    """Print the numbers of each image; fail where one is not what the science needs."""
    first = full_calibrator()
    groups = [first, next_group(first, 1), next_group(first, 2)]
    for chain in [*groups, Chain("full", seed=2, tier="standard")]:
        print(f"seed {chain.seed}, {chain.group_id}")
        check_sources(compare(chain), least=30)
        check_noise(chain.image)
    west, centre, east = (compare(chain) for chain in groups)
    for other in (west, east):
        check_agreement(centre, other)
    check_agreement(west, east)


if __name__ == "__main__":
    main()
