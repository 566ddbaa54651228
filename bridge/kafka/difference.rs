//! What stands between a topic as it should be and as it is, and which of it a change can mend. Pure.
//!
//! A change only ever adds: partitions, replicas that must have a record, time, room. Nothing is taken away, for what a
//! topic has, somebody may rely on; where it has more than was planned, a note says so.

use std::fmt;
use std::time::Duration;

use super::admin::{Cleanup, TopicPlan};
use super::preflight::{self, Finding, Preflight, TopicFacts};
use crate::config::units::show_duration;

/// What is done to a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    Create { partitions: i32, replication: i32, settings: Vec<(&'static str, String)> },
    AddPartitions { from: usize, to: usize },
    Set { setting: &'static str, from: Option<String>, to: String },
}

/// Everything about one topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicDifference {
    pub topic: String,
    /// In the order in which they are carried out.
    pub changes: Vec<Change>,
    /// What breaks the promise and no change of ours mends.
    pub problems: Vec<Finding>,
    /// What weakens it, or is worth knowing before the changes are made.
    pub warnings: Vec<Finding>,
}

/// What the cluster lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    pub brokers: usize,
    /// About the cluster itself.
    pub warnings: Vec<Finding>,
    /// One for each topic that was planned, in that order.
    pub topics: Vec<TopicDifference>,
}

impl Difference {
    /// Changes of all topics.
    #[must_use]
    pub fn changes(&self) -> usize {
        self.topics.iter().map(|topic| topic.changes.len()).sum()
    }

    /// Problems of all topics, which stay whatever is changed.
    pub fn problems(&self) -> impl Iterator<Item = &Finding> {
        self.topics.iter().flat_map(|topic| &topic.problems)
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Create { partitions, replication, settings } => {
                write!(f, "create it: {partitions} partitions, {replication} replica(s)")?;
                settings.iter().try_for_each(|(name, value)| write!(f, ", {name}={}", shown(name, value)))
            }
            Self::AddPartitions { from, to } => write!(f, "add partitions: {from} -> {to}"),
            Self::Set { setting, from, to } => {
                let from = from.as_deref().map_or_else(|| "(unset)".to_owned(), |from| shown(setting, from));
                write!(f, "set {setting}: {from} -> {}", shown(setting, to))
            }
        }
    }
}

/// Milliseconds as a person reads them, with Kafka's own number beside.
fn shown(setting: &str, value: &str) -> String {
    if setting != "retention.ms" {
        return value.to_owned();
    }
    let span = value.parse().ok().map(Duration::from_millis);
    span.map_or_else(|| value.to_owned(), |span| format!("{value} ({})", show_duration(span)))
}

/// What the plan asks for, once the cluster's size is known.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sized {
    pub(super) replication: i32,
    pub(super) min_isr: i32,
}

/// Compares one topic with its plan; `facts` is `None` where it does not exist.
pub(super) fn of_topic(
    plan: &TopicPlan,
    sized: Sized,
    facts: Option<&TopicFacts>,
    brokers: usize,
    max_message_bytes: usize,
) -> TopicDifference {
    let mut changes = Vec::new();
    let mut after = Preflight::default();
    if let Some(facts) = facts {
        let mended = mend(plan, sized, facts, &mut changes);
        preflight::judge_topic(plan, Some(&mended), brokers, max_message_bytes, &mut after);
        note(plan, facts, &mut after);
    } else {
        let settings = settings(plan, sized);
        changes.push(Change::Create { partitions: plan.partitions, replication: sized.replication, settings });
    }
    TopicDifference { topic: plan.name.clone(), changes, problems: after.problems, warnings: after.warnings }
}

/// The settings of a new topic.
pub(super) fn settings(plan: &TopicPlan, sized: Sized) -> Vec<(&'static str, String)> {
    let mut settings = vec![
        ("unclean.leader.election.enable", "false".to_owned()),
        ("cleanup.policy", policy(plan.cleanup).to_owned()),
        ("min.insync.replicas", sized.min_isr.to_string()),
    ];
    if let Some(retention) = plan.retention {
        settings.push(("retention.ms", retention.as_millis().to_string()));
    }
    if let Some(bytes) = plan.max_message_bytes {
        settings.push(("max.message.bytes", bytes.to_string()));
    }
    settings
}

fn policy(cleanup: Cleanup) -> &'static str {
    match cleanup {
        Cleanup::Delete => "delete",
        Cleanup::Compact => "compact",
    }
}

/// Collects the changes, and tells what the topic is like after them.
fn mend(plan: &TopicPlan, sized: Sized, facts: &TopicFacts, changes: &mut Vec<Change>) -> TopicFacts {
    let mut after = facts.clone();
    let planned = usize::try_from(plan.partitions).unwrap_or(0);
    if facts.partitions < planned {
        changes.push(Change::AddPartitions { from: facts.partitions, to: planned });
        after.partitions = planned;
    }
    let mut set = |setting, from: Option<String>, to: String| changes.push(Change::Set { setting, from, to });
    if facts.unclean_election {
        set("unclean.leader.election.enable", Some("true".to_owned()), "false".to_owned());
        after.unclean_election = false;
    }
    // Compaction beside deletion deletes as well: what is asked for is one of them.
    if facts.cleanup != policy(plan.cleanup) {
        set("cleanup.policy", Some(facts.cleanup.clone()), policy(plan.cleanup).to_owned());
        policy(plan.cleanup).clone_into(&mut after.cleanup);
    }
    // Of as many replicas as there are: a minimum above them would stop publishing.
    let wanted = usize::try_from(sized.min_isr).unwrap_or(0).min(facts.replication);
    if let Some(least) = facts.min_insync_replicas
        && least < wanted
    {
        set("min.insync.replicas", Some(least.to_string()), wanted.to_string());
        after.min_insync_replicas = Some(wanted);
    }
    if let (Some(kept), Some(wanted)) = (facts.retention_ms, plan.retention)
        && kept < wanted.as_millis()
    {
        set("retention.ms", Some(kept.to_string()), wanted.as_millis().to_string());
        after.retention_ms = Some(wanted.as_millis());
    }
    if let (Some(limit), Some(wanted)) = (facts.max_message_bytes, plan.max_message_bytes)
        && limit < wanted
    {
        set("max.message.bytes", Some(limit.to_string()), wanted.to_string());
        after.max_message_bytes = Some(wanted);
    }
    after
}

/// What a person should know of the changes that are made, and of those that are not.
fn note(plan: &TopicPlan, facts: &TopicFacts, report: &mut Preflight) {
    let mut warn = |what: String, hint: &str| {
        report.warnings.push(Finding { topic: Some(plan.name.clone()), what, hint: hint.to_owned() });
    };
    let planned = usize::try_from(plan.partitions).unwrap_or(0);
    if facts.partitions < planned {
        let what = "more partitions move most keys to another one".to_owned();
        warn(what, "of one key, events before and after are then read in any order");
    }
    if let (Some(kept), Some(wanted)) = (facts.retention_ms, plan.retention)
        && plan.cleanup == Cleanup::Delete
        && kept > wanted.as_millis()
    {
        let (kept, wanted) = (kept.to_string(), wanted.as_millis().to_string());
        let (kept, wanted) = (shown("retention.ms", &kept), shown("retention.ms", &wanted));
        warn(
            format!("retention.ms={kept} is longer than the {wanted} that are configured"),
            "it is left so, since a shorter one deletes events: set it by Kafka's own tools if that is meant",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn plan() -> TopicPlan {
        TopicPlan {
            name: "events.purchase_completed".into(),
            partitions: 12,
            partitioned_as: None,
            replication: None,
            min_isr: None,
            retention: Some(30 * DAY),
            cleanup: Cleanup::Delete,
            max_message_bytes: Some(1_310_720),
        }
    }

    fn sound() -> TopicFacts {
        TopicFacts {
            partitions: 12,
            replication: 3,
            min_insync_replicas: Some(2),
            unclean_election: false,
            cleanup: "delete".into(),
            max_message_bytes: Some(1_310_720),
            retention_ms: Some((30 * DAY).as_millis()),
        }
    }

    fn difference(facts: Option<&TopicFacts>) -> TopicDifference {
        of_topic(&plan(), Sized { replication: 3, min_isr: 2 }, facts, 3, 1_310_720)
    }

    fn said(difference: &TopicDifference) -> Vec<String> {
        difference.changes.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_topic_as_it_should_be_needs_nothing() {
        let found = difference(Some(&sound()));
        assert_eq!((found.changes.len(), found.problems.len(), found.warnings.len()), (0, 0, 0));
    }

    #[test]
    fn a_missing_topic_is_created_with_all_of_its_settings() {
        let found = difference(None);
        assert_eq!(
            said(&found),
            ["create it: 12 partitions, 3 replica(s), unclean.leader.election.enable=false, cleanup.policy=delete, \
              min.insync.replicas=2, retention.ms=2592000000 (30d), max.message.bytes=1310720"]
        );
        assert!(found.problems.is_empty());
    }

    #[test]
    fn what_is_too_little_is_raised() {
        let little = TopicFacts {
            partitions: 4,
            min_insync_replicas: Some(1),
            unclean_election: true,
            cleanup: "compact,delete".into(),
            max_message_bytes: Some(1_048_588),
            retention_ms: Some(DAY.as_millis()),
            ..sound()
        };
        let found = difference(Some(&little));
        assert_eq!(
            said(&found),
            [
                "add partitions: 4 -> 12",
                "set unclean.leader.election.enable: true -> false",
                "set cleanup.policy: compact,delete -> delete",
                "set min.insync.replicas: 1 -> 2",
                "set retention.ms: 86400000 (1d) -> 2592000000 (30d)",
                "set max.message.bytes: 1048588 -> 1310720",
            ]
        );
        assert!(found.problems.is_empty(), "{:?}", found.problems);
        assert_eq!(found.warnings.len(), 1, "that keys move: {:?}", found.warnings);
    }

    #[test]
    fn what_is_more_than_planned_is_left_and_told() {
        let much = TopicFacts {
            partitions: 24,
            min_insync_replicas: Some(3),
            max_message_bytes: Some(8 << 20),
            retention_ms: Some((90 * DAY).as_millis()),
            ..sound()
        };
        let found = difference(Some(&much));
        assert_eq!(said(&found), Vec::<String>::new());
        assert_eq!((found.problems.len(), found.warnings.len()), (0, 3), "{:?}", found.warnings);
        let for_ever = TopicFacts { retention_ms: None, ..sound() };
        assert_eq!(difference(Some(&for_ever)).changes, []);
    }

    #[test]
    fn a_minimum_is_never_raised_above_the_replicas() {
        let single = TopicFacts { replication: 1, min_insync_replicas: Some(1), ..sound() };
        let found = difference(Some(&single));
        assert_eq!((found.changes.len(), found.problems.len(), found.warnings.len()), (0, 0, 1));
        let above = TopicFacts { replication: 1, min_insync_replicas: Some(2), ..sound() };
        assert_eq!(difference(Some(&above)).problems.len(), 1);
    }
}
