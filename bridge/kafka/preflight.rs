//! The verdict on topics: what breaks the promise is a problem, what weakens it is a warning. Pure.

use std::fmt;

use super::admin::{Cleanup, TopicPlan};

/// Brokers below which a cluster is served with a warning: with fewer, one lost disk may hold the only copy.
pub const ENOUGH_BROKERS: usize = 3;

/// What was found; `run` refuses to start while there are problems.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Preflight {
    pub problems: Vec<Finding>,
    pub warnings: Vec<Finding>,
}

/// One thing that was found, and what mends it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// `None`: about the cluster.
    pub topic: Option<String>,
    pub what: String,
    pub hint: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.topic {
            Some(topic) => write!(f, "topic {topic}: {} ({})", self.what, self.hint),
            None => write!(f, "{} ({})", self.what, self.hint),
        }
    }
}

/// What a topic is like, as the brokers tell it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicFacts {
    pub partitions: usize,
    /// The smallest number of replicas among the partitions.
    pub replication: usize,
    pub min_insync_replicas: Option<usize>,
    pub unclean_election: bool,
    /// `cleanup.policy`.
    pub cleanup: String,
    pub max_message_bytes: Option<usize>,
    /// `retention.ms`; `None`: for ever, or not told.
    pub retention_ms: Option<u128>,
}

/// Judges the cluster.
pub(super) fn judge_cluster(brokers: usize, report: &mut Preflight) {
    if brokers < ENOUGH_BROKERS {
        report.warnings.push(Finding {
            topic: None,
            what: format!("the cluster has {brokers} broker(s)"),
            hint: format!("with fewer than {ENOUGH_BROKERS}, the loss of one may lose acknowledged events"),
        });
    }
}

/// Judges one topic against its plan; `None`: it does not exist.
pub(super) fn judge_topic(
    plan: &TopicPlan,
    facts: Option<&TopicFacts>,
    brokers: usize,
    max_message_bytes: usize,
    report: &mut Preflight,
) {
    let finding = |what: String, hint: String| Finding { topic: Some(plan.name.clone()), what, hint };
    let Some(facts) = facts else {
        let hint = "run `hookbridge topics apply`, or set kafka.create_topics".to_owned();
        report.problems.push(finding("it does not exist".to_owned(), hint));
        return;
    };
    let replicas = facts.replication;
    if let Some(least) = facts.min_insync_replicas {
        let set = |to: usize| format!("set min.insync.replicas={to}");
        if least > replicas {
            let what = format!("min.insync.replicas={least} is more than its {replicas} replica(s)");
            report.problems.push(finding(what, "nothing can be published to it".to_owned()));
        } else if least < 2 && replicas >= 3 {
            let what = format!("min.insync.replicas={least} with {replicas} replicas");
            report.problems.push(finding(what, set(2)));
        } else if least < 2 && replicas == 2 {
            let what = format!("min.insync.replicas={least} with 2 replicas");
            report.warnings.push(finding(what, "a third replica lets it be 2".to_owned()));
        } else if least == replicas && replicas > 1 {
            let what = format!("min.insync.replicas={least} is all of its replicas");
            report.warnings.push(finding(what, "one broker down stops publishing".to_owned()));
        }
    }
    if replicas < 3 && brokers >= ENOUGH_BROKERS {
        let what = format!("{replicas} replica(s) on {brokers} brokers");
        report.warnings.push(finding(what, "three survive the loss of one with another at work".to_owned()));
    }
    if facts.unclean_election && replicas > 1 {
        let what = "unclean.leader.election.enable=true".to_owned();
        report.problems.push(finding(what, "a replica that is behind may become leader: set it to false".to_owned()));
    }
    let compacts = facts.cleanup.contains("compact");
    match plan.cleanup {
        Cleanup::Delete if compacts => {
            let what = format!("cleanup.policy={}", facts.cleanup);
            report.problems.push(finding(what, "compaction deletes events: set it to delete".to_owned()));
        }
        Cleanup::Compact if !compacts => {
            let what = format!("cleanup.policy={}", facts.cleanup);
            report.problems.push(finding(what, "its latest records would expire: set it to compact".to_owned()));
        }
        Cleanup::Delete | Cleanup::Compact => {}
    }
    if let Some(limit) = facts.max_message_bytes.filter(|limit| *limit < max_message_bytes) {
        let what = format!("max.message.bytes={limit}, and records may have {max_message_bytes} bytes");
        report.problems.push(finding(what, format!("set max.message.bytes={max_message_bytes}")));
    }
    let planned = usize::try_from(plan.partitions).unwrap_or(0);
    if let Some(other) = plan.partitioned_as.as_ref().filter(|_| facts.partitions != planned) {
        let what = format!("it has {} partitions, and {other} has {planned}", facts.partitions);
        let hint = if facts.partitions < planned {
            "run `hookbridge topics apply`".to_owned()
        } else {
            format!("give {other} as many: partitions cannot be taken away")
        };
        report.problems.push(finding(what, hint));
    } else if facts.partitions != planned {
        let what = format!("it has {} partitions, and {planned} are configured", facts.partitions);
        report.warnings.push(finding(what, "more partitions move keys; fewer are impossible".to_owned()));
    }
    if let (Some(kept), Some(wanted)) = (facts.retention_ms, plan.retention)
        && plan.cleanup == Cleanup::Delete
        && kept < wanted.as_millis()
    {
        let what = format!("retention.ms={kept}, and {} are configured", wanted.as_millis());
        report.warnings.push(finding(what, "events expire earlier than the configuration says".to_owned()));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn plan() -> TopicPlan {
        TopicPlan {
            name: "events.purchase_completed".into(),
            partitions: 12,
            partitioned_as: None,
            replication: None,
            min_isr: None,
            retention: Some(Duration::from_secs(3600)),
            cleanup: Cleanup::Delete,
            max_message_bytes: None,
        }
    }

    fn sound() -> TopicFacts {
        TopicFacts {
            partitions: 12,
            replication: 3,
            min_insync_replicas: Some(2),
            unclean_election: false,
            cleanup: "delete".into(),
            max_message_bytes: Some(2_000_000),
            retention_ms: None,
        }
    }

    fn judged(facts: Option<&TopicFacts>, brokers: usize) -> (usize, usize) {
        let mut report = Preflight::default();
        judge_topic(&plan(), facts, brokers, 1_310_720, &mut report);
        (report.problems.len(), report.warnings.len())
    }

    #[test]
    fn a_sound_topic_passes_in_silence() {
        assert_eq!(judged(Some(&sound()), 3), (0, 0));
    }

    #[test]
    fn what_breaks_the_promise_is_a_problem() {
        let broken = [
            TopicFacts { min_insync_replicas: Some(1), ..sound() },
            TopicFacts { min_insync_replicas: Some(4), ..sound() },
            TopicFacts { unclean_election: true, ..sound() },
            TopicFacts { cleanup: "compact,delete".into(), ..sound() },
            TopicFacts { max_message_bytes: Some(1_048_588), ..sound() },
        ];
        for facts in &broken {
            assert_eq!(judged(Some(facts), 3), (1, 0), "{facts:?}");
        }
        assert_eq!(judged(None, 3), (1, 0));
    }

    #[test]
    fn what_weakens_it_is_a_warning() {
        let weak = [
            TopicFacts { min_insync_replicas: Some(3), ..sound() },
            TopicFacts { partitions: 6, ..sound() },
            TopicFacts { retention_ms: Some(1000), ..sound() },
        ];
        for facts in &weak {
            assert_eq!(judged(Some(facts), 3), (0, 1), "{facts:?}");
        }
        // Two replicas: warned of once for the number, once for the minimum.
        assert_eq!(judged(Some(&TopicFacts { replication: 2, min_insync_replicas: Some(1), ..sound() }), 3), (0, 2));
        let mut report = Preflight::default();
        judge_cluster(1, &mut report);
        assert_eq!((report.problems.len(), report.warnings.len()), (0, 1));
    }

    #[test]
    fn a_single_broker_needs_no_second_replica() {
        let single = TopicFacts { replication: 1, min_insync_replicas: Some(1), ..sound() };
        assert_eq!(judged(Some(&single), 1), (0, 0));
    }
}
