//! Who is connected, and who has to go when somebody else wants in.
//!
//! A limit on connections alone lets whoever holds enough of them lock everybody out, at the cost of a socket each. A
//! share for each address would lock out the senders behind one proxy, through which in many places all of them come. So
//! the place of the one that shows least is taken: first connections on which nothing was ever answered with a 2xx, which
//! without a secret nobody can have, then those that idle; of each the one that has kept us waiting longest. A connection
//! whose request we are working on stays.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::task::AbortHandle;

use super::pace::Pace;

/// The share of all connections that goes at once: looking for one means looking at all, so that it has to make room for
/// many that come after.
const SHARE: usize = 16;

#[derive(Debug, Default)]
pub(super) struct Crowd {
    places: Mutex<Places>,
}

#[derive(Debug, Default)]
struct Places {
    seats: Vec<Option<Member>>,
    free: Vec<usize>,
}

#[derive(Debug)]
struct Member {
    pace: Arc<Pace>,
    /// None for the moment between its coming and its task's start.
    task: Option<AbortHandle>,
}

/// A place in the crowd, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Seat {
    crowd: Arc<Crowd>,
    index: usize,
}

impl Crowd {
    fn places(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a connection whose task has not started yet.
    pub(super) fn seat(self: &Arc<Self>, pace: &Arc<Pace>) -> Seat {
        let mut places = self.places();
        let member = Some(Member { pace: Arc::clone(pace), task: None });
        let index = if let Some(index) = places.free.pop() {
            places.seats[index] = member;
            index
        } else {
            places.seats.push(member);
            places.seats.len() - 1
        };
        Seat { crowd: Arc::clone(self), index }
    }

    /// The task of the connection that took this place last. It may be over: then its place is empty.
    pub(super) fn started(&self, index: usize, task: AbortHandle) {
        if let Some(Some(member)) = self.places().seats.get_mut(index) {
            member.task = Some(task);
        }
    }

    /// Cuts a sixteenth of the connections, of those that wait for their peer. Answers how many: none where all are
    /// being answered.
    pub(super) fn make_room(&self) -> usize {
        let mut waiting: Vec<_> = {
            let places = self.places();
            let tasks = places.seats.iter().flatten().filter_map(|member| Some((&member.pace, member.task.clone()?)));
            tasks.filter_map(|(pace, task)| Some((pace.waits_for_peer()?, task))).collect()
        };
        let share = (waiting.len() / SHARE).max(1).min(waiting.len());
        if share < waiting.len() {
            waiting.select_nth_unstable_by_key(share, |(rank, _)| *rank);
        }
        for (_, task) in &waiting[..share] {
            task.abort();
        }
        share
    }
}

impl Seat {
    pub(super) fn index(&self) -> usize {
        self.index
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut places = self.crowd.places();
        if let Some(seat) = places.seats.get_mut(self.index) {
            *seat = None;
        }
        places.free.push(self.index);
    }
}
