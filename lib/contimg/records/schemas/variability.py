"""Light curves, their variability statistics, and the candidates for extreme scattering events."""

from __future__ import annotations

from contimg.records.tables import FLUX, Schema, parse_columns

SOURCE = "source | string | | meta.id;meta.main | DSA Jhhmmss.s+ddmmss"
RA = "ra | float64 | deg | pos.eq.ra;meta.main | ICRS"
DEC = "dec | float64 | deg | pos.eq.dec;meta.main | ICRS"
FIELD = "field | string | | meta.id | As in the table normalization"
EPOCHS = "n_epochs | int32 | | meta.number;time.epoch | Epochs with a normalised flux"
SCORE = "ese_score | float64? | | stat.value | 0.2 (1 - asymmetry) + 0.4 (duration) \
    + 0.4 (amplitude); null up to 20 epochs"
ASYMMETRY = "ese_asymmetry | float64? | | stat.value | |rise - fall| / (rise + fall) \
    of the largest excursion"
TAU = "ese_tau | float64? | d | time.duration | Duration of the largest excursion"
AMPLITUDE = "ese_amplitude | float64? | | src.var.amplitude | (Largest - smallest flux) / mean flux"

LIGHTCURVES = Schema(
    name="lightcurves",
    version=1,
    sort=("source", "mjd"),
    meaning="Normalised fluxes, with the fitted lens where a source is a candidate.",
    columns=parse_columns(f"""
    {SOURCE}
    mjd | float64 | d | time.epoch | UTC
    epoch | int32 | | meta.number;time.epoch | As in the table normalization
    flux | float64 | mJy/beam | {FLUX};meta.main | Normalised
    flux_err | float64 | mJy/beam | stat.error;{FLUX};meta.main | 1 sigma
    upper_limit | bool | | meta.code | True: not detected; flux is the forced one
    model | float64? | mJy/beam | {FLUX};meta.modelled | The fitted lens; null but for candidates
    """),
)

LIGHTCURVE_STATS = Schema(
    name="lightcurve_stats",
    version=1,
    sort=("source",),
    meaning="One row a source: how variable it is.",
    columns=parse_columns(f"""
    {SOURCE}
    {RA}
    {DEC}
    {FIELD}
    {EPOCHS}
    n_limits | int32 | | meta.number | Epochs in which it was not detected
    mjd_first | float64 | d | time.start | UTC
    mjd_last | float64 | d | time.end | UTC
    flux_mean | float64 | mJy/beam | {FLUX};stat.mean | Mean with the weights 1 / flux_err^2
    flux_mean_err | float64 | mJy/beam | stat.error;{FLUX} | 1 sigma
    flux_median | float64 | mJy/beam | {FLUX};stat.median | Median of the epochs, unweighted
    flux_std | float64? | mJy/beam | stat.stdev;{FLUX} | Standard deviation; null for one epoch
    v_peak | float64? | | src.var.index | flux_std / unweighted mean; null for one epoch
    eta_peak | float64? | | stat.fit.chi2;src.var | Reduced chi-square about the mean, or null
    p_constant | float64? | | stat.probability | Probability of such an eta from noise alone
    vs_abs_max_peak | float64? | | src.var.index | Largest |difference / error| of two epochs
    m_abs_max_peak | float64? | | src.var.index | |2 difference / sum| of the same two epochs
    n_significant_pairs | int32 | | meta.number | Pairs with |Vs| >= 4.3 and |m| > 0.26
    outlier_max | float64? | | stat.value | Largest deviation from other epochs, in their sigma
    outlier_mjd | float64? | d | time.epoch | Where
    reference | bool | | meta.code | True: the source is a reference of its field
    {SCORE}
    {ASYMMETRY}
    {TAU}
    {AMPLITUDE}
    ese_evidence | float64? | | stat.likelihood | Log likelihood of a lens over the best rival, \
        penalised; null if not tried
    ese_candidate | bool | | meta.code | True: a row of ese_candidates
    ese_reason | string | | meta.note | Why it is a candidate, or why not
    """),
)

ESE_CANDIDATES = Schema(
    name="ese_candidates",
    version=1,
    sort=("source",),
    meaning="Sources whose light curve looks like a plasma lens passing in front of them.",
    columns=parse_columns(f"""
    {SOURCE}
    {RA}
    {DEC}
    {FIELD}
    {EPOCHS}
    {SCORE}
    {ASYMMETRY}
    {TAU}
    {AMPLITUDE}
    ese_evidence | float64 | | stat.likelihood | The least of the next three
    over_red_noise | float64 | | stat.likelihood | Penalised log likelihood ratio, lens to red noise
    over_flare | float64 | | stat.likelihood | The same, lens to flare
    over_bad_epochs | float64 | | stat.likelihood | The same, lens to one or two bad epochs
    lens_mjd | float64 | d | time.epoch | Middle of the lens's passage, UTC
    lens_duration | float64 | d | time.duration | Time in which the lens changes the flux by 5 \
        percent or more of the lensed part
    lens_alpha | float64 | | stat.param | Strength of the lens, Clegg, Fey & Lazio 1998
    lens_beta | float64 | | stat.param | Source size (1 sigma) in lens radii
    lens_fraction | float64 | | phot.flux.density;arith.ratio | Lensed part of the flux
    lens_depth | float64 | | src.var.amplitude | Depth of the dip, a fraction of the quiescent flux
    flux_quiescent | float64 | mJy/beam | {FLUX} | Without the lens
    red_noise | float64 | | src.var.amplitude | 1 sigma of its own slow variation, as a fraction
    """),
)
