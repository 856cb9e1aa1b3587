--[[
 AOFlagger strategy of the DSA-110: 24 integrations of 12.9 s, 768 channels of 244 kHz, one baseline at a time.

 Differences from the generic strategies:
 * Chunks of channels are flagged separately: the noise of a chunk sets its threshold, and AOFlagger
   once hung on 768 channels at a time.
 * The background is a Gaussian of one integration and one and a half channels. Fringes of a second
   source on a bright one are as short as four integrations on the outriggers; the generic filter
   (five integrations) flags 9 % of a clean 16 Jy calibrator, this one 0.01 %.
 * There are no thresholds on the rms of whole integrations or channels: of only 24 integrations
   they flag noise.
 * Existing flags (missing subbands, zeros, dead antennas, interference in the array mean) are
   missing data. SumThreshold gets them as zeros, because sumthreshold_masked of AOFlagger 3.1 flags
   good samples beside strong missing ones (13 % of a group with one burst).

 The caller may set by -preamble: base (sensitivity of SumThreshold, 1 is AOFlagger's own) and
 chunk (channels).
]]--

aoflagger.require_min_version("3.1")

base = base or 1.0
chunk = chunk or 48

local first_pass = 2.0 -- times base, to find samples that would spoil the background
local window_time, window_channels = 5, 7
local sigma2_time, sigma2_channels = 1.0, 2.0
local grow = 0.2 -- of the scale-invariant rank operator

-- Flag outliers of data by the threshold, ignoring the samples that original has flagged; other flags are dropped.
local function detect(data, original, threshold)
  data:set_mask(original)
  aoflagger.low_pass_filter(data, 1, 1, 1.0, 1.0) -- one sample wide: keeps good samples, zeroes flagged ones
  aoflagger.sumthreshold(data, threshold, threshold, true, true)
end

local function flag_chunk(part)
  local before = part:copy()
  for _, polarization in ipairs(part:get_polarizations()) do
    local original = part:convert_to_polarization(polarization):convert_to_complex("amplitude")
    local smooth = original:copy()
    detect(smooth, original, first_pass * base)
    smooth:set_visibilities(original)
    smooth:join_mask(original)
    aoflagger.low_pass_filter(smooth, window_time, window_channels, sigma2_time, sigma2_channels)
    local residual = original - smooth
    detect(residual, original, base)
    part:set_polarization_data(polarization, residual:convert_to_complex("complex"))
  end
  aoflagger.scale_invariant_rank_operator_masked(part, before, grow, grow)
end

function execute(input)
  local channels = #input:get_frequencies()
  for first = 0, channels - 1, chunk do
    local part = aoflagger.trim_channels(input, first, math.min(first + chunk, channels))
    flag_chunk(part)
    aoflagger.copy_to_channel(input, part, first)
  end
end
