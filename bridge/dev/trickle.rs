//! The trickle of samples: each is signed as its provider would and sent over HTTP, as from outside.

use std::sync::Arc;
use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue};

use super::Options;
use super::samples::{Kind, Sample, Samples};
use super::view::View;
use crate::app::compile::Compiled;
use crate::catalog::SourceScheme;
use crate::clock;
use crate::sender::{Receipts, Sender, Unsigned};

/// For one look whether the bridge is ready.
const LOOK_WITHIN: Duration = Duration::from_secs(5);
/// The timer's own grain; a person cannot read faster anyway.
const SHORTEST: Duration = Duration::from_millis(1);

/// Sends samples at a fixed pace once the bridge is ready.
pub(super) struct Trickle {
    schemes: Vec<(String, SourceScheme)>,
    base: String,
    ready: String,
    every: Option<Duration>,
    events: Option<u64>,
    view: Arc<View>,
    sender: Sender,
    /// For the bridge's readiness.
    client: reqwest::Client,
}

impl Trickle {
    pub(super) fn new(compiled: &Compiled, options: &Options, view: Arc<View>) -> Result<Self, reqwest::Error> {
        let sources = compiled.sources.iter();
        let client = reqwest::Client::builder().no_proxy().timeout(LOOK_WITHIN).build()?;
        Ok(Self {
            schemes: sources.map(|source| (source.config.name.clone(), source.config.scheme.clone())).collect(),
            base: format!("http://{}/hooks", options.listen),
            ready: format!("http://{}/readyz", options.admin),
            // None for zero, for what is no number, and for less than one in the age of the universe.
            every: Duration::try_from_secs_f64(1.0 / options.rate).ok().map(|every| every.max(SHORTEST)),
            events: options.events,
            view,
            sender: Sender::new(true)?,
            client,
        })
    }

    /// Until the wanted number was sent; for ever where none was named.
    pub(super) async fn run(self) {
        let Some(every) = self.every else { return std::future::pending().await };
        let mut look = tokio::time::interval(Duration::from_millis(100));
        loop {
            look.tick().await;
            let ready = self.client.get(&self.ready).send().await;
            if ready.is_ok_and(|answer| answer.status().is_success()) {
                break;
            }
        }
        let mut samples = Samples::new(clock::now_ms().unsigned_abs(), &format!("dev{}", std::process::id()));
        let mut ticks = tokio::time::interval(every);
        let mut sent = 0;
        loop {
            ticks.tick().await;
            let (source, kind) = match sent % 4 {
                1 => ("storefront", Kind::Lead),
                3 => ("stripe", Kind::Invoice),
                _ => ("storefront", Kind::Purchase),
            };
            let sample = samples.next(kind, clock::now_ms());
            self.send(source, &sample).await;
            sent += 1;
            if self.events.is_some_and(|events| sent >= events) {
                return;
            }
        }
    }

    async fn send(&self, source: &str, sample: &Sample) {
        let Some((_, scheme)) = self.schemes.iter().find(|(name, _)| name == source) else { return };
        let path = format!("{}/{source}", self.base);
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
        let unsigned = Unsigned {
            id: &sample.id,
            now_ms: clock::now_ms(),
            method: "POST",
            url: &path,
            headers: &headers,
            body: &sample.body,
        };
        let signed = match unsigned.sign(scheme, &super::secret_of(source)) {
            Ok(signed) => signed,
            Err(error) => return self.view.answered(source, sample.event_type, false, &error.to_string()),
        };
        let (ok, what) = match self.sender.post(&path, &signed).await {
            Ok(answer) => {
                let what = answer.receipts().map_or_else(String::new, |receipts| told(&receipts));
                (answer.status.is_success(), format!("{:<11} {what}", answer.status.as_u16()))
            }
            Err(error) => (false, error.to_string()),
        };
        self.view.answered(source, sample.event_type, ok, &what);
    }
}

fn told(receipts: &Receipts) -> String {
    let Some(entry) = receipts.events.first() else { return String::new() };
    match (&entry.topic, entry.partition, entry.offset) {
        (Some(topic), Some(partition), Some(offset)) => format!("{} {topic} {partition}@{offset}", entry.status),
        _ => entry.status.clone(),
    }
}
