//! Topics as the configuration wants them, and as Kafka has them.

use crate::agent::config::Settings;
use crate::config::TopicRole;
use crate::kafka::admin::{Admin, AdminError, Found, TopicLookup, WantedTopic};
use crate::kafka::{TopicPlan, missing_right};
use crate::process::exit::{Failure, Status};

pub(crate) fn plan(settings: &Settings, only: Option<&String>, samples: bool) -> TopicPlan {
    let mut names = only.map_or_else(|| settings.topic_names(), |only| vec![only]);
    let of_samples = settings.topics.names.of(TopicRole::Samples);
    if samples && !names.contains(&of_samples) {
        names.push(of_samples);
    }
    settings.topics.plan(names)
}

/// Fails if this user may not see the topic: a list omits it as if it were missing.
pub(crate) fn visible(admin: &Admin, name: &str) -> Result<(), Failure> {
    match admin.look_up(name).map_err(failure)? {
        TopicLookup::Denied(why) => {
            Err(Failure::failed(format!("{why}: {}", missing_right("Describe", "topic", &[name]))))
        }
        TopicLookup::Found { .. } | TopicLookup::Missing => Ok(()),
    }
}

pub(crate) fn differences(wanted: &WantedTopic, found: &[Found]) -> Vec<String> {
    let found = found.iter().find(|found| found.name == wanted.name);
    found.map(|found| found.differences(wanted)).unwrap_or_default()
}

pub(crate) fn failure(error: AdminError) -> Failure {
    match error {
        AdminError::Unavailable { .. } => Failure::new(Status::Unavailable, error),
        AdminError::Misconfigured(_) => Failure::config(error),
        AdminError::Refused { .. } => Failure::failed(error),
    }
}
