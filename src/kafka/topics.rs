//! Names of the topics where the configuration has no others.

pub const EVENTS_TOPIC: &str = "highwater.events";
pub const RATES_TOPIC: &str = "highwater.rates";
pub const SAMPLES_TOPIC: &str = "highwater.samples";
pub const HISTOGRAMS_TOPIC: &str = "highwater.histograms";
