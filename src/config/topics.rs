//! Topics: each but that of events has a key under `[topics]` of both programs, and is defined by its lines here alone.

pub const EVENTS_TOPIC: &str = "highwater.events";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TopicRole {
    Rates,
    Histograms,
    Samples,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConsumerUse {
    /// Read unless its name is empty; may be missing, since agents need not send any.
    Reads,
    ReadsIfNamed,
    Writes,
}

#[derive(Debug)]
pub struct TopicSpec {
    pub role: TopicRole,
    pub key: &'static str,
    pub usual: &'static str,
    pub consumers: ConsumerUse,
    pub is_compacted: bool,
    /// Continues the line of `highwater-agent topics --help`.
    pub about: &'static str,
}

pub const TOPICS: [TopicSpec; 3] = [
    TopicSpec {
        role: TopicRole::Rates,
        key: "topics.rates",
        usual: "highwater.rates",
        consumers: ConsumerUse::Reads,
        is_compacted: false,
        about: "rates, unless rates.enabled = false",
    },
    TopicSpec {
        role: TopicRole::Histograms,
        key: "topics.histograms",
        usual: "highwater.histograms",
        consumers: ConsumerUse::Writes,
        is_compacted: true,
        about: "what consumers merge; compacted",
    },
    TopicSpec {
        role: TopicRole::Samples,
        key: "topics.samples",
        usual: "highwater.samples",
        consumers: ConsumerUse::ReadsIfNamed,
        is_compacted: false,
        about: "each reading; only with --samples,\nor with samples.enabled",
    },
];

/// Declares the raw table `[topics]`: a name for each topic, and further fields.
macro_rules! raw_topics {
    ($name:ident { $($more:tt)* }) => {
        #[derive(Debug, Default, serde::Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub(super) struct $name {
            rates: Option<String>,
            histograms: Option<String>,
            samples: Option<String>,
            $($more)*
        }

        impl $name {
            fn name(&mut self, role: $crate::config::TopicRole) -> Option<String> {
                use $crate::config::TopicRole::{Histograms, Rates, Samples};
                match role {
                    Rates => self.rates.take(),
                    Histograms => self.histograms.take(),
                    Samples => self.samples.take(),
                }
            }
        }
    };
}
pub(crate) use raw_topics;

impl TopicRole {
    pub const fn spec(self) -> &'static TopicSpec {
        &TOPICS[self as usize]
    }
}

impl TopicSpec {
    pub fn label(&self) -> &'static str {
        self.key.rsplit('.').next().unwrap_or(self.key)
    }
}

/// A name for each of [`TOPICS`], in the order of [`TopicRole`]; `T` is optional for consumers, which may do without one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicNames<T>(Vec<T>);

impl<T> TopicNames<T> {
    pub fn new<E>(name: impl FnMut(&TopicSpec) -> Result<T, E>) -> Result<Self, E> {
        TOPICS.iter().map(name).collect::<Result<_, _>>().map(Self)
    }

    pub fn of(&self, role: TopicRole) -> &T {
        &self.0[role as usize]
    }

    pub fn of_mut(&mut self, role: TopicRole) -> &mut T {
        &mut self.0[role as usize]
    }
}

pub fn usual_names<'a>(specs: impl Iterator<Item = &'a TopicSpec>) -> String {
    specs.map(|TopicSpec { key, usual, .. }| format!("{key} = \"{usual}\"\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_role_finds_its_own_line() {
        for (at, spec) in TOPICS.iter().enumerate() {
            assert_eq!((spec.role as usize, spec.role.spec().key), (at, spec.key));
        }
    }
}
