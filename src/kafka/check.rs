use super::admin::{Admin, TopicLookup};
use super::{Connection, missing_right};
use crate::process::checks::Finding;
use crate::units::counted;

/// Topic that a program uses. `missing` reports its absence, with the remedy; `right` is the operation of Kafka's ACLs that the
/// program's user needs, which includes `Describe`.
#[derive(Clone, Copy, Debug)]
pub struct CheckedTopic<'a> {
    pub name: &'a str,
    pub if_missing: IfMissing,
    pub missing: &'a str,
    pub right: &'a str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IfMissing {
    Fail,
    Warn,
    /// Only others use it: the program's user need not even see it.
    Unused,
    Create,
}

/// Asks the cluster, and returns an admin client if it answers. Blocks for seconds, or as long as the resolver does.
pub fn check_cluster(connection: &Connection) -> (Finding, Option<Admin>) {
    let asked = Admin::new(connection).and_then(|admin| Ok((admin.cluster()?, admin)));
    match asked {
        Ok(((brokers, None), admin)) => {
            let brokers = counted(brokers as u64, "broker");
            (Finding::ok("kafka", format!("{} answers: {brokers}", connection.brokers())), Some(admin))
        }
        Ok(((_, Some(unreachable)), admin)) => (Finding::failed("kafka", unreachable), Some(admin)),
        Err(error) => (Finding::failed("kafka", error), None),
    }
}

pub fn check_topic(admin: &Admin, topic: CheckedTopic<'_>) -> Finding {
    let about = format!("topic {}", topic.name);
    match admin.look_up(topic.name) {
        Ok(TopicLookup::Found { partitions, leaderless }) if leaderless.is_empty() => {
            Finding::ok(about, counted(partitions as u64, "partition"))
        }
        Ok(TopicLookup::Found { leaderless, .. }) => Finding::failed(
            about,
            format!("partitions {leaderless:?} have no leader; start the brokers that hold their replicas"),
        ),
        Ok(TopicLookup::Missing) => match topic.if_missing {
            IfMissing::Fail => Finding::failed(about, topic.missing),
            IfMissing::Warn | IfMissing::Unused => Finding::warning(about, topic.missing),
            IfMissing::Create => Finding::ok(about, "is missing, and created at the start"),
        },
        Ok(TopicLookup::Denied(_)) if topic.if_missing == IfMissing::Unused => {
            Finding::ok(about, "is hidden from this user, which does not use it")
        }
        Ok(TopicLookup::Denied(why)) => {
            Finding::failed(about, format!("{why}: {}", missing_right(topic.right, "topic", &[topic.name])))
        }
        Err(error) => Finding::failed(about, error),
    }
}
