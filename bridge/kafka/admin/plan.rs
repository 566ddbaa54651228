//! Topics as they should be. Pure: what a plan comes to in a cluster of so many brokers.

use std::collections::BTreeSet;
use std::time::Duration;

use super::cluster::Cluster;
use crate::kafka::difference::Sized;
use crate::kafka::preflight::ENOUGH_BROKERS;

/// How records go from a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cleanup {
    /// By age.
    Delete,
    /// All but the last of a key.
    Compact,
}

/// A topic as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicPlan {
    pub name: String,
    pub partitions: i32,
    /// The topic that it has to have as many partitions as, whatever was planned: its records go to the same ones.
    pub partitioned_as: Option<String>,
    /// `None`: 3, or as many as the cluster has brokers.
    pub replication: Option<i32>,
    /// `None`: 2, or 1 where there are fewer than three replicas.
    pub min_isr: Option<i32>,
    /// `None`: the broker's default.
    pub retention: Option<Duration>,
    pub cleanup: Cleanup,
    /// `None`: the broker's default.
    pub max_message_bytes: Option<usize>,
}

/// What became of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicOutcome {
    pub name: String,
    /// It was there before, as it is: nothing about it was changed.
    pub existed: bool,
    pub partitions: i32,
    pub replication: i32,
    /// `None`: it existed; [`Admin::preflight`](super::Admin::preflight) tells.
    pub min_isr: Option<i32>,
    /// What a person should know: fewer replicas than the promise wants.
    pub warnings: Vec<String>,
}

impl TopicOutcome {
    /// Of a topic that is new, and so has a minimum.
    pub(super) fn sized(&self) -> Sized {
        Sized { replication: self.replication, min_isr: self.min_isr.unwrap_or(1) }
    }
}

/// Everything that has to be looked at.
pub(super) fn names(plans: &[TopicPlan]) -> Vec<String> {
    let names: BTreeSet<&String> =
        plans.iter().flat_map(|plan| std::iter::once(&plan.name).chain(&plan.partitioned_as)).collect();
    names.into_iter().cloned().collect()
}

/// The plans, with as many partitions as the topics have that they go by; `grown`: as those have once their own plan is
/// carried out.
pub(super) fn resolved(plans: &[TopicPlan], cluster: &Cluster, grown: bool) -> Vec<TopicPlan> {
    let mut resolved = plans.to_vec();
    for plan in &mut resolved {
        let Some(other) = &plan.partitioned_as else { continue };
        let found = cluster.topics.get(other).and_then(|topic| i32::try_from(topic.replicas.len()).ok());
        let planned = plans.iter().find(|plan| plan.name == *other).map(|plan| plan.partitions);
        let wanted = match (found, planned) {
            (Some(found), Some(planned)) if grown => Some(found.max(planned)),
            (found, planned) => found.or(planned),
        };
        plan.partitions = wanted.unwrap_or(plan.partitions);
    }
    resolved
}

/// Three replicas of which two must have a record, or what a smaller cluster can hold.
pub(super) fn wanted(plan: &TopicPlan, brokers: usize) -> Sized {
    let able = i32::try_from(brokers.clamp(1, ENOUGH_BROKERS)).unwrap_or(1);
    let replication = plan.replication.unwrap_or(able);
    // With two replicas a minimum of two would stop publishing whenever one is down.
    let min_isr = plan.min_isr.unwrap_or(if replication >= 3 { 2 } else { 1 });
    Sized { replication, min_isr }
}

/// As a new topic will be; what a smaller cluster cannot hold becomes a warning.
pub(super) fn sized(plan: &TopicPlan, brokers: usize) -> TopicOutcome {
    let mut warnings = Vec::new();
    let Sized { replication, min_isr } = wanted(plan, brokers);
    if plan.replication.is_none() && brokers < ENOUGH_BROKERS {
        warnings.push(format!("{replication} replica(s) only: the cluster has {brokers} broker(s)"));
    }
    TopicOutcome {
        name: plan.name.clone(),
        existed: false,
        partitions: plan.partitions,
        replication,
        min_isr: Some(min_isr),
        warnings,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::difference;

    fn plan(replication: Option<i32>) -> TopicPlan {
        TopicPlan {
            name: "events.x".into(),
            partitions: 12,
            partitioned_as: None,
            replication,
            min_isr: None,
            retention: None,
            cleanup: Cleanup::Delete,
            max_message_bytes: Some(1_310_720),
        }
    }

    #[test]
    fn a_topic_gets_three_replicas_or_what_the_cluster_can_hold_with_a_warning() {
        let full = sized(&plan(None), 5);
        assert_eq!((full.replication, full.min_isr, full.warnings.len()), (3, Some(2), 0));
        let two = sized(&plan(None), 2);
        assert_eq!((two.replication, two.min_isr, two.warnings.len()), (2, Some(1), 1));
        let one = sized(&plan(None), 1);
        assert_eq!((one.replication, one.min_isr, one.warnings.len()), (1, Some(1), 1));
        let asked = sized(&plan(Some(5)), 5);
        assert_eq!((asked.replication, asked.min_isr), (5, Some(2)));
    }

    #[test]
    fn a_new_topic_never_elects_an_unclean_leader() {
        let plan = plan(None);
        let settings = difference::settings(&plan, wanted(&plan, 3));
        assert!(settings.contains(&("unclean.leader.election.enable", "false".to_owned())));
        assert!(settings.contains(&("max.message.bytes", "1310720".to_owned())));
    }
}
