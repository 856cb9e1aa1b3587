"""Light curves, what they say of variability, and the candidates for extreme scattering events."""

from __future__ import annotations

import pyarrow as pa

from contimg.records.tables import FLUX, Column, Schema

ERROR = f"stat.error;{FLUX}"
SOURCE = Column(
    "source", pa.string(), "", "meta.id;meta.main", "DSA Jhhmmss.s+ddmmss", nullable=False
)
RA = Column("ra", pa.float64(), "deg", "pos.eq.ra;meta.main", "ICRS", nullable=False)
DEC = Column("dec", pa.float64(), "deg", "pos.eq.dec;meta.main", "ICRS", nullable=False)
FIELD = Column("field", pa.string(), "", "meta.id", "As in the table normalization", nullable=False)
EPOCHS = Column(
    "n_epochs",
    pa.int32(),
    "",
    "meta.number;time.epoch",
    "Epochs with a normalised flux",
    nullable=False,
)
SCORE = Column(
    "ese_score",
    pa.float64(),
    "",
    "stat.value",
    "0.2 (1 - asymmetry) + 0.4 (duration) + 0.4 (amplitude); null up to 20 epochs",
)
ASYMMETRY = Column(
    "ese_asymmetry",
    pa.float64(),
    "",
    "stat.value",
    "|rise - fall| / (rise + fall) of the largest excursion",
)
TAU = Column("ese_tau", pa.float64(), "d", "time.duration", "Duration of the largest excursion")
AMPLITUDE = Column(
    "ese_amplitude", pa.float64(), "", "src.var.amplitude", "(Largest - smallest flux) / mean flux"
)

LIGHTCURVES = Schema(
    "lightcurves",
    version=1,
    sort=("source", "mjd"),
    meaning="Normalised fluxes, with the fitted lens where a source is a candidate.",
    columns=(
        SOURCE,
        Column("mjd", pa.float64(), "d", "time.epoch", "UTC", nullable=False),
        Column(
            "epoch",
            pa.int32(),
            "",
            "meta.number;time.epoch",
            "As in the table normalization",
            nullable=False,
        ),
        Column("flux", pa.float64(), "mJy/beam", f"{FLUX};meta.main", "Normalised", nullable=False),
        Column(
            "flux_err", pa.float64(), "mJy/beam", f"{ERROR};meta.main", "1 sigma", nullable=False
        ),
        Column(
            "upper_limit",
            pa.bool_(),
            "",
            "meta.code",
            "True: not detected; flux is the forced one",
            nullable=False,
        ),
        Column(
            "model",
            pa.float64(),
            "mJy/beam",
            f"{FLUX};meta.modelled",
            "The fitted lens; null but for candidates",
        ),
    ),
)

LIGHTCURVE_STATS = Schema(
    "lightcurve_stats",
    version=1,
    sort=("source",),
    meaning="One row a source: how variable it is.",
    columns=(
        SOURCE,
        RA,
        DEC,
        FIELD,
        EPOCHS,
        Column(
            "n_limits",
            pa.int32(),
            "",
            "meta.number",
            "Epochs in which it was not detected",
            nullable=False,
        ),
        Column("mjd_first", pa.float64(), "d", "time.start", "UTC", nullable=False),
        Column("mjd_last", pa.float64(), "d", "time.end", "UTC", nullable=False),
        Column(
            "flux_mean",
            pa.float64(),
            "mJy/beam",
            f"{FLUX};stat.mean",
            "Mean with the weights 1 / flux_err^2",
            nullable=False,
        ),
        Column("flux_mean_err", pa.float64(), "mJy/beam", ERROR, "1 sigma", nullable=False),
        Column(
            "flux_median",
            pa.float64(),
            "mJy/beam",
            f"{FLUX};stat.median",
            "Median of the epochs, unweighted",
            nullable=False,
        ),
        Column(
            "flux_std",
            pa.float64(),
            "mJy/beam",
            f"stat.stdev;{FLUX}",
            "Sample standard deviation; null for one epoch",
        ),
        Column(
            "v_peak",
            pa.float64(),
            "",
            "src.var.index",
            "flux_std / unweighted mean; null for one epoch",
        ),
        Column(
            "eta_peak",
            pa.float64(),
            "",
            "stat.fit.chi2;src.var",
            "Reduced chi-square about the mean; null for one epoch",
        ),
        Column(
            "p_constant",
            pa.float64(),
            "",
            "stat.probability",
            "Probability of such an eta from noise alone",
        ),
        Column(
            "vs_abs_max_peak",
            pa.float64(),
            "",
            "src.var.index",
            "Largest |difference / error| of two epochs",
        ),
        Column(
            "m_abs_max_peak",
            pa.float64(),
            "",
            "src.var.index",
            "|2 difference / sum| of the same two epochs",
        ),
        Column(
            "n_significant_pairs",
            pa.int32(),
            "",
            "meta.number",
            "Pairs with |Vs| >= 4.3 and |m| > 0.26",
            nullable=False,
        ),
        Column(
            "outlier_max",
            pa.float64(),
            "",
            "stat.value",
            "Largest deviation from the other epochs, in their standard deviation",
        ),
        Column("outlier_mjd", pa.float64(), "d", "time.epoch", "Where"),
        Column(
            "reference",
            pa.bool_(),
            "",
            "meta.code",
            "True: the source is a reference of its field",
            nullable=False,
        ),
        SCORE,
        ASYMMETRY,
        TAU,
        AMPLITUDE,
        Column(
            "ese_evidence",
            pa.float64(),
            "",
            "stat.likelihood",
            "Log likelihood of a lens over the best rival, penalised; null if not tried",
        ),
        Column(
            "ese_candidate",
            pa.bool_(),
            "",
            "meta.code",
            "True: a row of ese_candidates",
            nullable=False,
        ),
        Column(
            "ese_reason",
            pa.string(),
            "",
            "meta.note",
            "Why it is a candidate, or why not",
            nullable=False,
        ),
    ),
)

ESE_CANDIDATES = Schema(
    "ese_candidates",
    version=1,
    sort=("source",),
    meaning="Sources whose light curve looks like a plasma lens passing in front of them.",
    columns=(
        SOURCE,
        RA,
        DEC,
        FIELD,
        EPOCHS,
        SCORE,
        ASYMMETRY,
        TAU,
        AMPLITUDE,
        Column(
            "ese_evidence",
            pa.float64(),
            "",
            "stat.likelihood",
            "The least of the next three",
            nullable=False,
        ),
        Column(
            "over_red_noise",
            pa.float64(),
            "",
            "stat.likelihood",
            "Penalised log likelihood ratio, lens to red noise",
            nullable=False,
        ),
        Column(
            "over_flare",
            pa.float64(),
            "",
            "stat.likelihood",
            "The same, lens to flare",
            nullable=False,
        ),
        Column(
            "over_bad_epochs",
            pa.float64(),
            "",
            "stat.likelihood",
            "The same, lens to one or two bad epochs",
            nullable=False,
        ),
        Column(
            "lens_mjd",
            pa.float64(),
            "d",
            "time.epoch",
            "Middle of the lens's passage, UTC",
            nullable=False,
        ),
        Column(
            "lens_duration",
            pa.float64(),
            "d",
            "time.duration",
            "Time in which the lens changes the flux by 5 percent or more of the lensed part",
            nullable=False,
        ),
        Column(
            "lens_alpha",
            pa.float64(),
            "",
            "stat.param",
            "Strength of the lens, Clegg, Fey & Lazio 1998",
            nullable=False,
        ),
        Column(
            "lens_beta",
            pa.float64(),
            "",
            "stat.param",
            "Source size (1 sigma) in lens radii",
            nullable=False,
        ),
        Column(
            "lens_fraction",
            pa.float64(),
            "",
            "phot.flux.density;arith.ratio",
            "Lensed part of the flux",
            nullable=False,
        ),
        Column(
            "lens_depth",
            pa.float64(),
            "",
            "src.var.amplitude",
            "Depth of the dip, a fraction of the quiescent flux",
            nullable=False,
        ),
        Column(
            "flux_quiescent", pa.float64(), "mJy/beam", FLUX, "Without the lens", nullable=False
        ),
        Column(
            "red_noise",
            pa.float64(),
            "",
            "src.var.amplitude",
            "1 sigma of the source's own slow variation, a fraction of its flux",
            nullable=False,
        ),
    ),
)
