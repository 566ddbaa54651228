//! What is in flight: each record between its enqueueing and its delivery report, and all of them against the limits.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use tokio::sync::Notify;

use super::lanes::{Lanes, Place};
use super::{Limits, Ticket};
use crate::kafka::{Error, Position};

/// The answer to one record, to be awaited. Dropping it cancels nothing: the record is on its way.
#[derive(Debug)]
#[must_use = "a record is accepted when this says so, and not before"]
pub struct Pending {
    pub(super) flight: Arc<Flight>,
}

impl Future for Pending {
    type Output = Result<Position, Error>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        #[cfg(feature = "seeded-bugs")]
        if crate::seeded::has(crate::seeded::Bug::AckBeforeReport) {
            return Poll::Ready(Ok(Position { partition: 0, offset: 0 }));
        }
        let mut state = self.flight.state();
        match &mut *state {
            State::Flying(waker) => {
                match waker {
                    Some(waker) => waker.clone_from(context.waker()),
                    None => *waker = Some(context.waker().clone()),
                }
                Poll::Pending
            }
            State::Landed(result) => Poll::Ready(result.clone()),
        }
    }
}

/// One record between its enqueueing and its delivery report.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) bytes: usize,
    pub(super) place: Place,
    pub(super) ticket: Option<Ticket>,
    state: Mutex<State>,
}

#[derive(Debug)]
enum State {
    Flying(Option<Waker>),
    Landed(Result<Position, Error>),
}

impl Flight {
    pub(super) fn new(bytes: usize, place: Place, ticket: Option<Ticket>) -> Self {
        Self { bytes, place, ticket, state: Mutex::new(State::Flying(None)) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn land(&self, result: Result<Position, Error>) {
        let before = std::mem::replace(&mut *self.state(), State::Landed(result));
        if let State::Flying(Some(waker)) = before {
            waker.wake();
        }
    }
}

/// What is in flight, counted against the limits.
pub(super) struct Load {
    limits: Limits,
    pub(super) bytes: AtomicUsize,
    pub(super) records: AtomicUsize,
    pub(super) idle: Notify,
    pub(super) lanes: Lanes,
}

impl Load {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            bytes: AtomicUsize::new(0),
            records: AtomicUsize::new(0),
            idle: Notify::new(),
            lanes: Lanes::new(),
        }
    }

    /// Answers how many records are in flight with this one. Counts first and looks afterwards: two threads at the edge
    /// may both be refused, but never both pass it.
    pub(super) fn claim(&self, bytes: usize) -> Result<usize, Error> {
        let all_bytes = self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let all_records = self.records.fetch_add(1, Ordering::Relaxed) + 1;
        // One record passes whatever its size, or it never would.
        let fits = all_records <= self.limits.max_in_flight_records
            && (all_bytes <= self.limits.max_in_flight_bytes || all_records == 1);
        if fits {
            return Ok(all_records);
        }
        self.release(bytes);
        Err(self.full())
    }

    pub(super) fn release(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        if self.records.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.idle.notify_waiters();
        }
    }

    pub(super) fn full(&self) -> Error {
        Error::Full { records: self.records.load(Ordering::Relaxed), bytes: self.bytes.load(Ordering::Relaxed) }
    }
}
