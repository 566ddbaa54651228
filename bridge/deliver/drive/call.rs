//! Calls: a crew that decodes, filters, asks for consent, maps and sends, each member one record at a time.
//!
//! There are as many as calls were ever out at once, and they stay: no task is made for an event, and what they need of
//! the processor is spread over all threads.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::Target;
use crate::deliver::attempt::{Preparation, Prepared};
use crate::deliver::machine::{CallId, Ended};
use crate::kafka::Record;
use crate::schema::plan::Scratch;

/// What every member has.
pub(super) struct Desk {
    pub(super) sink: Arc<str>,
    pub(super) preparation: Preparation,
    pub(super) target: Target,
}

/// A record to be sent.
pub(super) struct Order {
    pub(super) call: CallId,
    pub(super) delivery_id: Uuid,
    pub(super) record: Arc<Record>,
}

/// What a call came to.
pub(super) struct Done {
    member: usize,
    pub(super) call: CallId,
    pub(super) ended: Ended,
    pub(super) sent: bool,
}

pub(super) struct Crew {
    desk: Arc<Desk>,
    members: Vec<mpsc::Sender<Order>>,
    /// Who has nothing to do; the last one that had goes first, since its memory is warm.
    idle: Vec<usize>,
    done: mpsc::Sender<Done>,
    tasks: JoinSet<()>,
}

impl Crew {
    /// `concurrency`: calls that are out at once, at most; whoever gives orders keeps to it.
    pub(super) fn new(desk: Desk, concurrency: usize) -> (Self, mpsc::Receiver<Done>) {
        let (done, ended) = mpsc::channel(concurrency.max(1));
        let crew = Self { desk: Arc::new(desk), members: Vec::new(), idle: Vec::new(), done, tasks: JoinSet::new() };
        (crew, ended)
    }

    pub(super) fn desk(&self) -> &Arc<Desk> {
        &self.desk
    }

    pub(super) fn call(&mut self, order: Order) {
        let member = self.idle.pop().unwrap_or_else(|| self.hire());
        // An idle member waits for just this; one that has failed is seen by whoever awaits `failed`.
        let _ = self.members[member].try_send(order);
    }

    fn hire(&mut self) -> usize {
        let (orders, mut waiting) = mpsc::channel::<Order>(1);
        let member = self.members.len();
        self.members.push(orders);
        let (desk, done) = (Arc::clone(&self.desk), self.done.clone());
        self.tasks.spawn(async move {
            let mut scratch = Scratch::default();
            while let Some(Order { call, delivery_id, record }) = waiting.recv().await {
                let (ended, sent) = desk.attempt(delivery_id, &record, &mut scratch).await;
                drop(record);
                if done.send(Done { member, call, ended, sent }).await.is_err() {
                    return;
                }
            }
        });
        member
    }

    /// To be told of every [`Done`].
    pub(super) fn rest(&mut self, done: &Done) {
        self.idle.push(done.member);
    }

    /// Waits for a member that ended by a fault of ours, which none should.
    pub(super) async fn failed(&mut self) -> tokio::task::JoinError {
        loop {
            match self.tasks.join_next().await {
                Some(Err(error)) => return error,
                Some(Ok(())) => {}
                None => std::future::pending().await,
            }
        }
    }
}

impl Desk {
    /// What it came to, and whether the sink has seen it.
    async fn attempt(&self, delivery_id: Uuid, record: &Record, scratch: &mut Scratch) -> (Ended, bool) {
        // What is sent once more on purpose has another id than the first time.
        let delivery_id = Some(delivery_id);
        #[cfg(feature = "seeded-bugs")]
        let delivery_id = delivery_id.filter(|_| !crate::seeded::has(crate::seeded::Bug::NewDeliveryIds));
        match self.preparation.prepare(&self.sink, record, delivery_id).await {
            Err(unfit) => (Ended::Failed(unfit.outcome), false),
            Ok(Prepared::Skip(reason)) => (Ended::Skipped(reason), false),
            Ok(Prepared::Send(delivery)) => (self.target.send(&delivery, record, scratch).await, true),
        }
    }
}
