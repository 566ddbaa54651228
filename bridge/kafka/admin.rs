//! Topics: created by plan and never by accident, waited for until their leaders lead, and judged.

mod cluster;
mod plan;

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, ConfigResource, ConfigSource, NewPartitions, NewTopic,
    OwnedResourceSpecifier, ResourceSpecifier, TopicReplication,
};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode;

use self::cluster::{Cluster, existing, facts, leaderless, seen};
pub use self::plan::{Cleanup, TopicOutcome, TopicPlan};
use self::plan::{names, resolved, sized, wanted};
use super::client::{Client, Logged, blocking};
use super::difference::{self, Change, Difference, TopicDifference};
use super::preflight::{self, Preflight};
use super::{Code, Error, code_of};

/// For one request to the cluster.
const ASK: Duration = Duration::from_secs(10);

/// For the leaders of new topics; an election takes the broker's session timeout, 9 s by default.
const LEADERS_WITHIN: Duration = Duration::from_secs(30);

/// Between two looks at the same leaders.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Creates topics and looks at them.
pub struct Admin {
    client: Client,
    /// Gone only while it is dropped.
    native: Option<AdminClient<Logged>>,
}

impl fmt::Debug for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admin").field("client", &self.client).finish_non_exhaustive()
    }
}

impl Client {
    /// # Errors
    /// [`Error::Property`] or [`Error::Start`] where librdkafka refuses the settings.
    pub fn admin(&self) -> Result<Admin, Error> {
        let mut config = self.plain_config();
        // rdkafka never reads an admin client's log, which would only pile up.
        config.set_log_level(RDKafkaLogLevel::Emerg);
        let native = config.create_with_context(Logged).map_err(|cause| self.start_error("admin client", cause))?;
        Ok(Admin { client: self.clone(), native: Some(native) })
    }
}

impl Drop for Admin {
    /// Elsewhere: an admin client waits for its thread.
    fn drop(&mut self) {
        let native = self.native.take();
        let spawned = std::thread::Builder::new().name("kafka-admin-end".to_owned()).spawn(move || drop(native));
        if let Err(error) = spawned {
            tracing::debug!(%error, "an admin client was dropped in place");
        }
    }
}

impl Admin {
    /// Creates the topics that are missing, then waits until every partition of all of them has a leader that answers:
    /// what is published before is answered NOT_LEADER, and such batches have been reported as taken without being so.
    ///
    /// # Errors
    /// [`Error::Topic`] for a topic that cannot be created; [`Error::NoLeader`] for one without a leader in time;
    /// [`Error::Unreachable`].
    pub async fn ensure_topics(&self, plans: &[TopicPlan]) -> Result<Vec<TopicOutcome>, Error> {
        let cluster = self.look(names(plans)).await?;
        let plans = &resolved(plans, &cluster, false);
        let mut outcomes = Vec::with_capacity(plans.len());
        let mut missing = Vec::new();
        for plan in plans {
            let outcome = match cluster.topics.get(&plan.name) {
                Some(found) => existing(plan, found),
                None => sized(plan, cluster.brokers),
            };
            if !outcome.existed {
                missing.push((plan, outcome.clone()));
            }
            outcomes.push(outcome);
        }
        self.create(&missing).await?;
        let fresh: Vec<String> = missing.iter().map(|(plan, _)| plan.name.clone()).collect();
        let names: Vec<String> = plans.iter().map(|plan| plan.name.clone()).collect();
        self.leaders(names, fresh, LEADERS_WITHIN).await?;
        Ok(outcomes)
    }

    /// Whether every partition of the topics has a leader, waited for within `timeout`.
    ///
    /// # Errors
    /// [`Error::NoLeader`] for the first that has none; [`Error::Topic`] for a topic that does not exist.
    pub async fn leaders_ready(&self, topics: &[String], timeout: Duration) -> Result<(), Error> {
        self.leaders(topics.to_vec(), topics.to_vec(), timeout).await
    }

    /// Judges the cluster and the topics: what breaks the promise is a problem, what weakens it a warning.
    /// `max_message_bytes` is the largest record that will be published.
    ///
    /// # Errors
    /// [`Error::Unreachable`], or [`Error::Admin`] where the cluster does not describe its topics.
    pub async fn preflight(&self, plans: &[TopicPlan], max_message_bytes: usize) -> Result<Preflight, Error> {
        let cluster = self.look(names(plans)).await?;
        let plans = &resolved(plans, &cluster, false);
        let names: Vec<&str> = cluster.topics.keys().map(String::as_str).collect();
        let settings = self.settings(&names).await?;
        let mut report = Preflight::default();
        preflight::judge_cluster(cluster.brokers, &mut report);
        for plan in plans {
            let facts = cluster.topics.get(&plan.name).map(|found| facts(found, settings.get(&plan.name)));
            preflight::judge_topic(plan, facts.as_ref(), cluster.brokers, max_message_bytes, &mut report);
        }
        Ok(report)
    }

    /// The largest record that a topic takes; `None`: the cluster does not say.
    ///
    /// # Errors
    /// [`Error::Unreachable`], or [`Error::Admin`] where the cluster does not describe the topic.
    pub async fn max_message_bytes(&self, topic: &str) -> Result<Option<usize>, Error> {
        let settings = self.settings(&[topic]).await?;
        let entry = settings.get(topic).and_then(|all| all.get("max.message.bytes"));
        Ok(entry.and_then(|entry| entry.value.as_deref()).and_then(|value| value.parse().ok()))
    }

    /// What stands between the plans and the cluster; nothing is changed.
    ///
    /// # Errors
    /// As [`Admin::preflight`].
    pub async fn difference(&self, plans: &[TopicPlan], max_message_bytes: usize) -> Result<Difference, Error> {
        let cluster = self.look(names(plans)).await?;
        let plans = &resolved(plans, &cluster, true);
        let names: Vec<&str> = cluster.topics.keys().map(String::as_str).collect();
        let settings = self.settings(&names).await?;
        let mut about_cluster = Preflight::default();
        preflight::judge_cluster(cluster.brokers, &mut about_cluster);
        let of_plan = |plan: &TopicPlan| {
            let facts = cluster.topics.get(&plan.name).map(|found| facts(found, settings.get(&plan.name)));
            let sized = wanted(plan, cluster.brokers);
            difference::of_topic(plan, sized, facts.as_ref(), cluster.brokers, max_message_bytes)
        };
        Ok(Difference {
            brokers: cluster.brokers,
            warnings: about_cluster.warnings,
            topics: plans.iter().map(of_plan).collect(),
        })
    }

    /// Carries the changes out, then looks again until the cluster shows them: a broker answers before all of them know.
    ///
    /// # Errors
    /// [`Error::Topic`] for the first topic that cannot be changed, what was done before it being done;
    /// [`Error::NotSeen`] where a change was accepted and does not show in time; [`Error::NoLeader`];
    /// [`Error::Unreachable`].
    pub async fn apply(&self, plans: &[TopicPlan], max_message_bytes: usize, found: &Difference) -> Result<(), Error> {
        let is_new = |topic: &TopicDifference| matches!(topic.changes.first(), Some(Change::Create { .. }));
        let missing = plans.iter().zip(&found.topics).filter(|(_, topic)| is_new(topic));
        let missing: Vec<_> = missing.map(|(plan, _)| (plan, sized(plan, found.brokers))).collect();
        self.create(&missing).await?;
        for topic in &found.topics {
            self.change(topic).await?;
        }
        let names: Vec<String> = plans.iter().map(|plan| plan.name.clone()).collect();
        let changed = found.topics.iter().filter(|topic| !topic.changes.is_empty());
        self.leaders(names, changed.map(|topic| topic.topic.clone()).collect(), LEADERS_WITHIN).await?;
        let begun = Instant::now();
        loop {
            let left = self.difference(plans, max_message_bytes).await?;
            let Some(unseen) = left.topics.iter().find(|topic| !topic.changes.is_empty()) else { return Ok(()) };
            if begun.elapsed() >= LEADERS_WITHIN {
                let change = unseen.changes.first().map(ToString::to_string).unwrap_or_default();
                return Err(Error::NotSeen { topic: unseen.topic.clone(), change, waited: LEADERS_WITHIN });
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Partitions and settings of a topic that exists.
    async fn change(&self, found: &TopicDifference) -> Result<(), Error> {
        let topic = found.topic.as_str();
        let refused = |asked: &'static str| {
            move |(topic, code): (String, RDKafkaErrorCode)| Error::Topic { topic, asked, source: code.into() }
        };
        let native = self.native.as_ref().ok_or(Error::Stopped { role: "admin client" })?;
        let mut changed: Vec<(&str, &str)> = Vec::new();
        for change in &found.changes {
            match change {
                Change::Create { .. } => {}
                Change::Set { setting, to, .. } => changed.push((*setting, to.as_str())),
                Change::AddPartitions { to, .. } => {
                    let more = native.create_partitions(&[NewPartitions::new(topic, *to)], &options()).await;
                    for one in more.map_err(|cause| self.failed("create partitions", &cause))? {
                        one.map_err(refused("given more partitions"))?;
                    }
                }
            }
        }
        if changed.is_empty() {
            return Ok(());
        }
        // librdkafka's binding has the whole alteration only: whatever is not sent goes back to its default. So what
        // was set at the topic before is sent again.
        let before = self.settings(&[topic]).await?;
        let kept = before.get(topic).into_iter().flat_map(|found| &found.entries).filter(|entry| {
            entry.source == ConfigSource::DynamicTopic && !changed.iter().any(|(name, _)| *name == entry.name)
        });
        let kept = kept.filter_map(|entry| Some((entry.name.as_str(), entry.value.as_deref()?)));
        let all = kept.chain(changed.iter().copied());
        let alter = AlterConfig::new(ResourceSpecifier::Topic(topic));
        let alter = all.fold(alter, |alter, (name, value)| alter.set(name, value));
        let answers = native.alter_configs(&[alter], &options()).await;
        for answer in answers.map_err(|cause| self.failed("alter topics", &cause))? {
            answer.map_err(|(_, code)| refused("altered")((topic.to_owned(), code)))?;
        }
        Ok(())
    }

    async fn create(&self, missing: &[(&TopicPlan, TopicOutcome)]) -> Result<(), Error> {
        if missing.is_empty() {
            return Ok(());
        }
        let settings: Vec<_> =
            missing.iter().map(|(plan, outcome)| difference::settings(plan, outcome.sized())).collect();
        let topics: Vec<_> = missing
            .iter()
            .zip(&settings)
            .map(|((plan, outcome), settings)| {
                let replication = TopicReplication::Fixed(outcome.replication);
                let topic = NewTopic::new(&plan.name, plan.partitions, replication);
                settings.iter().fold(topic, |topic, (name, value)| topic.set(name, value))
            })
            .collect();
        let asked = "create topics";
        let native = self.native.as_ref().ok_or(Error::Stopped { role: "admin client" })?;
        let results = native.create_topics(&topics, &options()).await.map_err(|cause| self.failed(asked, &cause))?;
        for result in results {
            match result {
                // Another instance was faster.
                Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((topic, code)) => return Err(Error::Topic { topic, asked: "created", source: code.into() }),
            }
        }
        Ok(())
    }

    /// Waits for a leader of every partition. Of `fresh` topics each leader is asked itself, too: metadata names it
    /// before it knows that it leads.
    async fn leaders(&self, topics: Vec<String>, fresh: Vec<String>, within: Duration) -> Result<(), Error> {
        let client = self.client.clone();
        let begun = Instant::now();
        loop {
            let (client, topics, fresh) = (client.clone(), topics.clone(), fresh.clone());
            let left = within.saturating_sub(begun.elapsed()).max(LOOK_AGAIN);
            let missing = blocking("metadata", move || leaderless(&client, &topics, &fresh, left.min(ASK))).await;
            match missing {
                Ok(None) => return Ok(()),
                Ok(Some((topic, partition))) if begun.elapsed() >= within => {
                    return Err(Error::NoLeader { topic, partition, waited: within });
                }
                Err(error) if begun.elapsed() >= within => return Err(error),
                Ok(Some(_)) | Err(_) => tokio::time::sleep(LOOK_AGAIN).await,
            }
        }
    }

    async fn look(&self, names: Vec<String>) -> Result<Cluster, Error> {
        let client = self.client.clone();
        blocking("metadata", move || {
            let mut cluster = Cluster { brokers: 0, topics: BTreeMap::new() };
            for name in &names {
                let found = client.metadata(Some(name), ASK)?;
                cluster.brokers = found.brokers().len();
                if let Some(topic) = seen(&found, name)? {
                    cluster.topics.insert(name.clone(), topic);
                }
            }
            if names.is_empty() {
                cluster.brokers = client.metadata(Some("__consumer_offsets"), ASK)?.brokers().len();
            }
            Ok(cluster)
        })
        .await
    }

    async fn settings(&self, topics: &[&str]) -> Result<BTreeMap<String, ConfigResource>, Error> {
        if topics.is_empty() {
            return Ok(BTreeMap::new());
        }
        let asked: Vec<_> = topics.iter().map(|topic| ResourceSpecifier::Topic(topic)).collect();
        let native = self.native.as_ref().ok_or(Error::Stopped { role: "admin client" })?;
        let told = native.describe_configs(&asked, &options()).await;
        let told = told.map_err(|cause| self.failed("describe topics", &cause))?;
        let mut settings = BTreeMap::new();
        for resource in told {
            let resource = resource
                .map_err(|code| Error::Admin { asked: "describe topics", reason: Code::from(code).to_string() })?;
            if let OwnedResourceSpecifier::Topic(name) = &resource.specifier {
                settings.insert(name.clone(), resource);
            }
        }
        Ok(settings)
    }

    fn failed(&self, asked: &'static str, cause: &KafkaError) -> Error {
        let code = code_of(cause);
        match code.0 {
            RDKafkaErrorCode::OperationTimedOut | RDKafkaErrorCode::BrokerTransportFailure => {
                Error::Unreachable { bootstrap: self.client.bootstrap().to_owned(), waited: ASK, source: code }
            }
            _ => Error::Admin { asked, reason: cause.to_string() },
        }
    }
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(ASK)).operation_timeout(Some(ASK))
}
