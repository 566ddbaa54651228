//! Calls that carry several events: each is prepared as for a call of its own, and one call carries those that remain.
//!
//! Such a call has a task of its own: shared by its events, that costs less than a channel to somebody who waits.

use std::sync::Arc;

use tokio::task::{JoinError, JoinSet};

use super::call::Desk;
use crate::deliver::attempt::Prepared;
use crate::deliver::machine::{BatchId, Bundled, CallId, Ended};
use crate::outcome::Answers;

/// What a call came to.
pub(super) struct Together {
    pub(super) batch: BatchId,
    pub(super) aside: Vec<(CallId, Ended)>,
    pub(super) answers: Option<Answers>,
    /// The sink has seen it.
    pub(super) sent: bool,
    /// Events in the call.
    pub(super) events: usize,
}

/// Calls that are out, as many as the machine allows.
pub(super) struct Carriers {
    desk: Arc<Desk>,
    tasks: JoinSet<Together>,
}

impl Carriers {
    pub(super) fn new(desk: Arc<Desk>) -> Self {
        Self { desk, tasks: JoinSet::new() }
    }

    pub(super) fn call(&mut self, batch: BatchId, events: Vec<Bundled>) {
        let desk = Arc::clone(&self.desk);
        self.tasks.spawn(async move { desk.attempt_together(batch, events).await });
    }

    pub(super) fn is_idle(&self) -> bool {
        self.tasks.is_empty()
    }

    /// The next call that has ended; waits for ever where none is out.
    pub(super) async fn next(&mut self) -> Result<Together, JoinError> {
        match self.tasks.join_next().await {
            Some(ended) => ended,
            None => std::future::pending().await,
        }
    }
}

impl Desk {
    async fn attempt_together(&self, batch: BatchId, events: Vec<Bundled>) -> Together {
        let (mut aside, mut deliveries) = (Vec::new(), Vec::with_capacity(events.len()));
        for Bundled { call, delivery_id, record, .. } in events {
            match self.preparation.prepare(&self.sink, &record, Some(delivery_id)).await {
                Err(unfit) => aside.push((call, Ended::Failed(unfit.outcome))),
                Ok(Prepared::Skip(reason)) => aside.push((call, Ended::Skipped(reason))),
                Ok(Prepared::Send(delivery)) => deliveries.push(delivery),
            }
        }
        if deliveries.is_empty() {
            return Together { batch, aside, answers: None, sent: false, events: 0 };
        }
        let sent_along: Vec<_> = deliveries.iter().map(|delivery| &**delivery).collect();
        let (answers, sent) = self.target.send_together(&sent_along).await;
        Together { batch, aside, answers: Some(answers), sent, events: deliveries.len() }
    }
}
