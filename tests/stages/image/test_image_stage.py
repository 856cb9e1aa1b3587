"""The stage on a small simulated group: its files, its errors, and catalogues as masks alone."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from chain import Chain
from contimg.astro.catalogues import nvss
from contimg.records.calibration import RECORD
from contimg.records.flagfile import pack_flags, read_flags
from contimg.records.images import read_image
from contimg.records.schemas.images import IMAGES
from contimg.records.schemas.shipped import CATALOGUE
from contimg.runtime import contract
from contimg.runtime.console import Console
from contimg.runtime.errors import AllFlaggedError, BadImageError, BadInputError, MissingError
from contimg.runtime.manifest import read_manifest
from contimg_image.options import STAGE, ImageOptions
from image_truth import check_scatter, check_sources, compare, metrics, plane
from observed import packed, write_artifact

Array = np.ndarray[Any, Any]
Plane = tuple[Array, fits.Header]
GainError = Callable[[Array, int], Array]
"""A factor of antenna numbers and the number of channels, shape (rows, channels or 1, 2)."""

FILES = """image.fits image.pbcor.fits residual.fits psf.fits beam.fits rms.fits thumbnail.png
    primary_beam.json imaging.json uv.npz"""
QUICK = {"tier": "development", "size": 960, "cell_arcsec": 15.0}
"""4 deg of sky in a quarter of the pixels: for what does not depend on fluxes to a per cent."""


def run_image(chain: Chain, out: Path, **chosen: Any) -> dict[str, Any]:
    artifacts = {"ms": chain.ms, "flags": chain.flags, "calibration": chain.calibration}
    options = ImageOptions(**(artifacts | chosen), out=str(out))
    return contract.run(STAGE, options, dict(os.environ), Console("image", {}))


@pytest.fixture(scope="module")
def image(small_chain: Chain) -> Plane:
    return plane(small_chain.image, "image.fits")


def test_artifact_has_all_files_and_metrics(small_chain: Chain) -> None:
    manifest = read_manifest(small_chain.image)
    assert {output.name for output in manifest.outputs} == set(FILES.split())
    wanted = "rms_jy thermal_rms_jy bmaj_arcsec bmin_arcsec bpa_deg mjd group pointing_dec_deg"
    assert set(wanted.split()) <= set(manifest.metrics)
    assert manifest.metrics["group"] == small_chain.group_id
    record = json.loads((Path(small_chain.image) / "imaging.json").read_text())
    assert record["settings"]["size"] == 1620
    (short,) = record["sets"]
    assert (short["name"], short["averaged"], short["channels"]) == ("short", 2, 96)
    assert plane(small_chain.image, "psf.fits")[0].max() == pytest.approx(1.0, abs=1e-3)
    found = read_image(Path(small_chain.image) / "image.fits")
    assert found.pixels.shape == (1620, 1620)
    assert found.beam.major_deg * 3600 == pytest.approx(manifest.metrics["bmaj_arcsec"])


def test_headers_have_provenance(small_chain: Chain, image: Plane) -> None:
    head, known = image[1], metrics(small_chain.image)
    assert head["GROUPID"] == small_chain.group_id
    assert head["CALPROV"] == "PRIMARY_TRANSIT_GENERATED"
    assert head["CALTBL"] == Path(small_chain.calibration).name
    assert head["CALDATE"].startswith("2026-01-25T01:1")
    assert head["TELESCOP"] == "DSA_110"
    assert head["RMSMED"] == pytest.approx(known["rms_jy"])
    assert head["PBMODEL"].startswith("airy")
    assert any(key.startswith("WSC") for key in head)
    assert "/" not in str(head.get("HISTORY", "")), "no path of this machine"
    assert abs(head["MJD-AVG"] - known["mjd"]) < 1e-9


def test_beam_is_in_key_and_header(small_chain: Chain, tmp_path: Path) -> None:
    beam = {"beam": "gaussian:3.13@1405MHz", **QUICK, "niter": 0}
    with pytest.raises(BadInputError, match="other-beam"):
        run_image(small_chain, tmp_path / "refused", **beam)
    made = Path(run_image(small_chain, tmp_path, **beam, other_beam=True)["artifact"])
    assert plane(str(made), "beam.fits")[1]["PBMODEL"] == "gaussian:3.13@1405MHz"
    named = {one.name: one.uri for one in read_manifest(str(made)).inputs}
    assert named["beam"] == "gaussian:3.13@1405MHz"


def test_table_row_agrees_with_header(small_chain: Chain, image: Plane) -> None:
    pixels, head = image
    name = f"tables/images/date=2026-01-25/{small_chain.group_id}.parquet"
    (row,) = IMAGES.read((small_chain.store / name).read_bytes(), name).to_pylist()
    assert (row["image"], row["group"]) == (Path(small_chain.image).name, small_chain.group_id)
    assert (small_chain.store / row["artifact"]).samefile(small_chain.image)
    assert (row["ms"], row["calibration"]) == (Path(small_chain.ms).name, head["CALTBL"])
    assert (row["rung"], row["tier"], row["backend"]) == (head["CALPROV"], "development", "wsclean")
    assert (row["mjd_start"] + row["mjd_end"]) / 2 == pytest.approx(head["MJD-AVG"], abs=1e-9)
    expected = {"ra": head["CRVAL1"], "dec": head["CRVAL2"], "bpa": head["BPA"]}
    expected |= {"bmaj": head["BMAJ"] * 3600, "bmin": head["BMIN"] * 3600, "robust": head["ROBUST"]}
    expected |= {"width": head["NAXIS1"] * head["CDELT2"], "peak": 1e3 * pixels.max()}
    expected |= {"rms": 1e3 * head["RMSMED"], "thermal_rms": 1e3 * head["RMSTHERM"]}
    assert {name: row[name] for name in expected} == pytest.approx(expected)
    # WSClean's own axis holds the middle and the width of the band.
    assert (row["freq_min"] + row["freq_max"]) / 2 == pytest.approx(head["CRVAL3"])
    assert row["freq_max"] - row["freq_min"] == pytest.approx(head["CDELT3"])


def test_corrected_image_is_image_over_beam(small_chain: Chain, image: Plane) -> None:
    beam, _ = plane(small_chain.image, "beam.fits")
    corrected, head = plane(small_chain.image, "image.pbcor.fits")
    assert head["PBCOR"] is True
    inside = beam >= 0.2
    assert np.array_equal(np.isfinite(corrected), inside)
    np.testing.assert_allclose(corrected[inside], image[0][inside] / beam[inside], rtol=1e-6)


def test_sources_have_true_fluxes_and_positions(small_chain: Chain) -> None:
    check_sources(compare(small_chain), least=25)
    check_scatter(compare(small_chain))
    # Also near 16 Jy: catalogue sources are subtracted with their drift and spectrum.
    assert 0.9 < metrics(small_chain.image)["noise_ratio"] < 1.1


@pytest.mark.slow
def test_sources_without_noise_have_true_fluxes() -> None:
    """No sidelobe of a source beyond the edge, nor flux that the gains took for the calibrator."""
    quiet = Chain("small", seed=1, tier="development", sky={"sefd_jy": 60}, name="small-quiet")
    found = compare(quiet)
    assert len(found) >= 45
    # Down to 14 mJy apparent; two on 3C48's grating lobe once lost 7 and 5 %, one below a source
    # outside the image gained 13.
    worst = np.argmax(np.abs(found.ratio - 1))
    assert np.all(np.abs(found.ratio - 1) <= 0.015), (found.names[worst], found.ratio[worst])


def test_image_is_not_mirrored(small_chain: Chain, image: Plane) -> None:
    """Bright sources off the axis are at their own position, and at none of its reflections."""
    pixels, head = image
    beam = plane(small_chain.image, "beam.fits")[0]
    wcs, size, own, others = WCS(head, naxis=2), pixels.shape[0], [], []
    for source in small_chain.truth["groups"][0]["sources"]:
        x, y = (round(float(v)) for v in wcs.all_world2pix(source["ra_deg"], source["dec_deg"], 0))
        away = np.hypot(x - size / 2, y - size / 2) * head["CDELT2"]
        if not (0.5 < away < 1.5) or beam[y, x] * source["flux_jy"] < 0.05:
            continue
        shown = pixels / (beam[y, x] * source["flux_jy"])
        own.append(shown[y, x])
        others += [shown[y, size - x], shown[size - y, x], shown[size - y, size - x]]
    assert len(own) >= 8
    assert np.median(own) > 0.9
    assert np.median(np.abs(others)) < 0.1


def test_same_input_makes_same_bytes(small_chain: Chain, tmp_path: Path) -> None:
    runs = [run_image(small_chain, tmp_path / name, **QUICK) for name in ("a", "b")]
    first, second = (read_manifest(run["artifact"]).outputs for run in runs)
    assert {o.name: o.sha256 for o in first} == {o.name: o.sha256 for o in second}


def write_catalogue(path: Path, factor: float = 1.0, nearest_deg: float = 0.0) -> str:
    """Write NVSS about 3C48 from a distance on as a user's catalogue, its fluxes times a factor."""
    part = nvss().within(24.42, 32.86, 4.0)
    part = part.select(np.hypot(part.ra_deg - 24.42, part.dec_deg - 33.16) >= nearest_deg)
    columns = {column.name: [None] * len(part) for column in CATALOGUE.columns}
    columns |= {"name": part.name, "ra": part.ra_deg, "dec": part.dec_deg}
    columns |= {"flux": part.flux_jy * factor, "flux_peak": part.peak_jy * factor}
    path.write_bytes(CATALOGUE.to_bytes(columns | {"frequency": np.full(len(part), 1.4e9)}))
    return str(path)


def test_catalogue_fluxes_change_no_image(small_chain: Chain, tmp_path: Path) -> None:
    paths = [write_catalogue(tmp_path / f"{factor}.parquet", factor) for factor in (1.0, 2.0)]
    runs = [run_image(small_chain, tmp_path, catalogue=path, **QUICK) for path in paths]
    assert runs[0]["key"] != runs[1]["key"]
    once, twice = (plane(run["artifact"], "image.fits")[0] for run in runs)
    bright = once > 0.02
    assert np.count_nonzero(bright) > 100
    assert np.abs(twice[bright] / once[bright] - 1).max() < 1e-3
    first, second = (run["metrics"]["flux_ratio"] for run in runs)
    assert first == pytest.approx(2 * second, rel=0.05)


def test_uncatalogued_source_is_cleaned(small_chain: Chain, tmp_path: Path) -> None:
    """Without 3C48 in the catalogue, its sidelobes remain until the second round cleans it."""
    path = write_catalogue(tmp_path / "most.parquet", nearest_deg=0.05)
    made = run_image(small_chain, tmp_path / "out", catalogue=path, **QUICK)
    assert made["metrics"]["strangers"] >= 1
    assert made["metrics"]["peak_jy"] == pytest.approx(15.7, rel=0.05)
    assert made["metrics"]["noise_ratio"] < 4
    assert "in no catalogue" in " ".join(made["qa"]["reasons"])


def test_image_without_iterations_is_dirty(small_chain: Chain, tmp_path: Path) -> None:
    artifact = run_image(small_chain, tmp_path, niter=0, **QUICK)["artifact"]
    image, residual = (plane(artifact, name)[0] for name in ("image.fits", "residual.fits"))
    assert np.array_equal(image, residual)


def copy_artifact(folder: Path, uri: str, files: dict[str, bytes]) -> str:
    """Copy an artifact with some files replaced."""
    manifest = read_manifest(uri)
    whole = {o.name: files.get(o.name, (Path(uri) / o.name).read_bytes()) for o in manifest.outputs}
    write_artifact(folder / "0123456789abcdef", manifest.stage, manifest.metrics, whole)
    return str(folder / "0123456789abcdef")


def test_fully_flagged_data_are_refused(small_chain: Chain, tmp_path: Path) -> None:
    flags = read_flags(Path(small_chain.flags) / "flags.bin")
    flags[:] = True
    full = copy_artifact(tmp_path / "flag", small_chain.flags, {"flags.bin": pack_flags(flags)})
    with pytest.raises(AllFlaggedError):
        run_image(small_chain, tmp_path / "out", flags=full, **QUICK)
    assert not list((tmp_path / "out").rglob("manifest.json"))


def run_corrupted(chain: Chain, folder: Path, role: str, factor: GainError) -> dict[str, Any]:
    """Image with the solutions of one table of the calibration multiplied by a factor."""
    import casacore.tables as ct

    record = json.loads((Path(chain.calibration) / RECORD).read_text())
    (name,) = (item["file"] for item in record["tables"] if item["role"] == role)
    shutil.unpack_archive(Path(chain.calibration) / name, folder / role, "tar")
    (tree,) = (folder / role).iterdir()
    with ct.table(str(tree), readonly=False, ack=False) as table:
        value = table.getcol("CPARAM")
        value = value * factor(table.getcol("ANTENNA1"), value.shape[1])
        table.putcol("CPARAM", value.astype(np.complex64))
    wrong = copy_artifact(folder / "calibrate", chain.calibration, {name: packed(tree)})
    return run_image(chain, folder / "out", calibration=wrong, **QUICK)


def gain_errors(phase_deg: float, delay_ns: float = 0.0) -> GainError:
    """Return random phases and delays (0 in the middle of the band) of each antenna and feed."""
    angle = np.radians(np.random.default_rng(3).normal(0, phase_deg, (117, 1, 2)))
    turns = np.random.default_rng(4).normal(0, delay_ns * 1e-9, (117, 1, 2)) * 187.5e6
    return lambda antenna, channels: np.exp(
        1j * (angle + 2 * np.pi * turns * np.linspace(-0.5, 0.5, channels)[:, None])[antenna]
    )


@pytest.mark.parametrize(
    ("role", "factor"),
    [
        ("phase", gain_errors(1000)),
        ("phase", gain_errors(30)),
        ("gain", gain_errors(60)),
        ("bandpass", gain_errors(60)),
        ("bandpass", gain_errors(0, delay_ns=2.0)),
    ],
    ids=["random", "30 deg", "gain", "bandpass", "delays"],
)
def test_wrong_phases_are_refused(small_chain: Any, tmp_path: Any, role: str, factor: Any) -> None:
    with pytest.raises(BadImageError, match="phases of the antennas differ"):
        run_corrupted(small_chain, tmp_path, role, factor)
    assert not list((tmp_path / "out").rglob("manifest.json"))


def test_small_phase_errors_are_warned_of(small_chain: Chain, tmp_path: Path) -> None:
    made = run_corrupted(small_chain, tmp_path, "phase", gain_errors(10))
    # 10 / sqrt(2), the mean of two polarizations: sources lose 1 - exp(-sigma^2) = 1.5 %.
    assert 5 < made["metrics"]["phase_error_deg"] < 10
    assert abs(made["metrics"]["flux_ratio"] - 0.985) < 0.02
    assert "antenna phases are off" in " ".join(made["qa"]["reasons"])


def test_raw_data_are_never_imaged(small_chain: Chain, tmp_path: Path) -> None:
    record = json.loads((Path(small_chain.calibration) / RECORD).read_text())
    files = {RECORD: json.dumps(record | {"tables": []}).encode()}
    bare = copy_artifact(tmp_path / "calibrate", small_chain.calibration, files)
    with pytest.raises(BadInputError, match="raw data are never imaged"):
        run_image(small_chain, tmp_path / "out", calibration=bare)


def test_artifacts_of_other_stages_are_refused(small_chain: Chain, tmp_path: Path) -> None:
    with pytest.raises((BadInputError, MissingError), match=r"ms\.tar|calibration"):
        run_image(small_chain, tmp_path, ms=small_chain.flags)
    with pytest.raises((BadInputError, MissingError)):
        run_image(small_chain, tmp_path, calibration=small_chain.flags)
