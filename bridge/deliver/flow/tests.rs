use std::collections::BTreeSet;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::kafka::Headers;
use crate::outcome::Settlement;
use crate::sinks::postgres::Row;

const EPOCH: AssignmentEpoch = AssignmentEpoch(1);
const LIMITS: Limits = Limits { records: 4, bytes: 1 << 20 };

/// By what they say: records have no equality of their own.
impl PartialEq for Action {
    fn eq(&self, other: &Self) -> bool {
        format!("{self:?}") == format!("{other:?}")
    }
}

fn at(partition: i32) -> TopicPartition {
    TopicPartition { topic: Arc::from("orders"), partition }
}

fn record(partition: i32, offset: i64) -> Record {
    Record { at: at(partition), offset, timestamp_ms: None, key: None, value: None, headers: Headers::default() }
}

fn next(offset: i64) -> NextOffset {
    NextOffset::stored(offset)
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn transient() -> Outcome {
    Outcome::Transient { reason: "down".into() }
}

fn settled(offsets: impl IntoIterator<Item = i64>) -> Vec<Settled> {
    let one = |offset| Settled { offset, settlement: Settlement::Delivered, received_at_ms: None };
    offsets.into_iter().map(one).collect()
}

fn attempted(partition: i32, offsets: impl IntoIterator<Item = i64>, halt: Option<(i64, Halt)>) -> Step {
    let halt = halt.map(|(offset, halt)| Halted { offset, event_id: None, halt });
    let report = Report { settled: settled(offsets), halt };
    Step::Attempted { at: at(partition), epoch: EPOCH, claim: Claim::Group, report }
}

/// A worker with partitions 0 and 1, claimed and started.
fn started() -> Flow {
    let mut flow = Flow::new(LIMITS, 3);
    let partitions = vec![(at(0), None), (at(1), Some(next(7)))];
    let actions = flow.step(Step::Assigned { epoch: EPOCH, partitions }, seconds(0), 0.5);
    let claim = |p, committed| Action::Claim { at: at(p), epoch: EPOCH, committed };
    assert_eq!(actions, [claim(0, None), claim(1, Some(next(7)))]);
    for p in 0..2 {
        let claimed = Step::Claimed { at: at(p), epoch: EPOCH, claimed: Ok(Claim::Group) };
        let start = Action::Start { at: at(p), epoch: EPOCH, start: StartAt::CommittedOrEarliest };
        assert_eq!(flow.step(claimed, seconds(0), 0.5), [start]);
    }
    flow
}

fn attempts(actions: &[Action]) -> Vec<(i32, Vec<i64>)> {
    let attempt = |action: &Action| match action {
        Action::Attempt { at, records, .. } => Some((at.partition, records.iter().map(|r| r.offset).collect())),
        _ => None,
    };
    actions.iter().filter_map(attempt).collect()
}

#[test]
fn one_attempt_at_a_time_takes_what_has_gathered() {
    let mut flow = started();
    assert_eq!(attempts(&flow.step(Step::Records(vec![record(0, 0)]), seconds(0), 0.5)), [(0, vec![0])]);
    assert!(attempts(&flow.step(Step::Records((1..6).map(|o| record(0, o)).collect()), seconds(0), 0.5)).is_empty());
    let actions = flow.step(attempted(0, [0], None), seconds(0), 0.5);
    assert_eq!(attempts(&actions), [(0, vec![1, 2, 3])]);
}

#[test]
fn a_full_window_pauses_its_partition_until_half_of_it_is_settled() {
    let mut flow = started();
    let actions = flow.step(Step::Records((0..5).map(|o| record(0, o)).collect()), seconds(0), 0.5);
    assert!(actions.contains(&Action::Pause(at(0))));
    let actions = flow.step(attempted(0, 0..3, None), seconds(0), 0.5);
    assert!(actions.contains(&Action::Resume(at(0))));
}

#[test]
fn an_event_that_is_refused_holds_its_own_partition_only() {
    let mut flow = started();
    flow.step(Step::Records(vec![record(0, 0), record(0, 1), record(1, 7)]), seconds(0), 0.5);
    let refused = Outcome::Rejected { reason: "no".into() };
    let actions = flow.step(attempted(0, [0], Some((1, Halt::Answer(refused.clone())))), seconds(0), 1.0);
    let stuck = Notice::Stuck { at: at(0), offset: Some(1), event_id: None, outcome: refused.clone() };
    assert!(actions.contains(&Action::Tell(stuck)));
    assert!(attempts(&actions).is_empty(), "it waits");
    assert_eq!(flow.state(), State::Held);

    let actions = flow.step(attempted(1, [7], None), seconds(0), 0.5);
    assert!(attempts(&actions).is_empty());
    assert_eq!(attempts(&flow.step(Step::Records(vec![record(1, 8)]), seconds(0), 0.5)), [(1, vec![8])]);

    // Again after a second, and the notice is not repeated.
    assert_eq!(attempts(&flow.step(Step::Tick, seconds(1), 0.5)), [(0, vec![1])]);
    let actions = flow.step(attempted(0, [], Some((1, Halt::Answer(refused)))), seconds(1), 1.0);
    assert!(!actions.iter().any(|action| matches!(action, Action::Tell(_))));
    assert!(attempts(&flow.step(Step::Tick, seconds(2), 0.5)).is_empty(), "the pause has doubled");
    assert_eq!(attempts(&flow.step(Step::Tick, seconds(3), 0.5)), [(0, vec![1])]);

    let actions = flow.step(attempted(0, [1], None), seconds(3), 0.5);
    assert!(actions.contains(&Action::Tell(Notice::Recovered { at: at(0) })));
    assert_eq!(flow.state(), State::Running);
}

#[test]
fn an_operator_holds_every_partition_and_what_is_under_way_ends() {
    let mut flow = started();
    flow.step(Step::Records(vec![record(0, 0), record(0, 1)]), seconds(0), 0.5);
    let actions = flow.step(Step::Paused(true), seconds(0), 0.5);
    assert_eq!(actions, [Action::Pause(at(0)), Action::Pause(at(1))]);
    assert_eq!(flow.state(), State::Paused);
    let actions = flow.step(attempted(0, [0], Some((1, Halt::Answer(transient())))), seconds(0), 0.5);
    assert!(attempts(&actions).is_empty());
    flow.step(Step::Committed { offsets: vec![(at(0), next(1))], accepted: true }, seconds(0), 0.5);
    assert!(attempts(&flow.step(Step::Tick, seconds(60), 0.5)).is_empty());
    assert_eq!(flow.due(), None, "nothing is waited for but the operator");
    let actions = flow.step(Step::Paused(false), seconds(60), 0.5);
    assert_eq!(attempts(&actions), [(0, vec![1])]);
    assert!(actions.contains(&Action::Resume(at(0))) && actions.contains(&Action::Resume(at(1))));
}

#[test]
fn a_partition_that_comes_while_the_sink_is_held_is_claimed_and_paused() {
    let mut flow = Flow::new(LIMITS, 3);
    flow.step(Step::Paused(true), seconds(0), 0.5);
    let assigned = Step::Assigned { epoch: EPOCH, partitions: vec![(at(0), None)] };
    assert_eq!(flow.step(assigned, seconds(0), 0.5).len(), 1, "it is claimed");
    let claimed = Step::Claimed { at: at(0), epoch: EPOCH, claimed: Ok(Claim::Group) };
    let start = Action::Start { at: at(0), epoch: EPOCH, start: StartAt::CommittedOrEarliest };
    assert_eq!(flow.step(claimed, seconds(0), 0.5), [start, Action::Pause(at(0))]);
}

#[test]
fn a_partition_at_rest_looks_where_it_stands_once_it_was_put_back() {
    let mut flow = started();
    let row = |next| Ok(Claim::Row(Row::standing_at(next)));
    flow.step(Step::Records(vec![record(0, 5)]), seconds(0), 0.5);
    flow.step(attempted(0, [5], None), seconds(0), 0.5);
    let actions = flow.step(Step::LookAgain, seconds(1), 0.5);
    // Of the other one nothing was read: there is nothing to put back.
    let confirm = |next| Action::Confirm { at: at(0), epoch: EPOCH, next };
    assert!(actions.contains(&confirm(next(6))), "{actions:?}");
    assert!(!actions.iter().any(|action| matches!(action, Action::Confirm { at: other, .. } if *other == at(1))));
    let confirmed = Step::Confirmed { at: at(0), epoch: EPOCH, accepted: true };
    let actions = flow.step(confirmed, seconds(1), 0.5);
    assert!(actions.iter().any(|action| matches!(action, Action::Claim { .. })));
    let actions = flow.step(Step::Claimed { at: at(0), epoch: EPOCH, claimed: row(2) }, seconds(1), 0.5);
    assert!(
        actions.contains(&Action::Start { at: at(0), epoch: EPOCH, start: StartAt::Offset(next(2)) }),
        "{actions:?}"
    );
}

#[test]
fn offsets_are_committed_at_most_once_a_second_and_one_commit_at_a_time() {
    let mut flow = started();
    flow.step(Step::Records(vec![record(0, 0), record(1, 7)]), seconds(0), 0.5);
    let actions = flow.step(attempted(0, [0], None), seconds(0), 0.5);
    assert!(actions.contains(&Action::Commit(vec![(at(0), next(1))])));
    let actions = flow.step(attempted(1, [7], None), seconds(5), 0.5);
    assert!(!actions.iter().any(|action| matches!(action, Action::Commit(_))), "one is under way");
    flow.step(Step::Committed { offsets: vec![(at(0), next(1))], accepted: true }, seconds(5), 0.5);
    assert_eq!(flow.due(), Some(seconds(6)));
    let actions = flow.step(Step::Tick, seconds(6), 0.5);
    assert_eq!(actions, [Action::Commit(vec![(at(1), next(8))])]);
    flow.step(Step::Committed { offsets: vec![(at(1), next(8))], accepted: false }, seconds(6), 0.5);
    assert_eq!(flow.step(Step::Tick, seconds(7), 0.5), [Action::Commit(vec![(at(1), next(8))])]);
}

#[test]
fn a_fenced_partition_is_claimed_again_only_once_the_group_has_confirmed_it() {
    let mut flow = started();
    flow.step(Step::Records(vec![record(0, 3)]), seconds(0), 0.5);
    assert!(attempts(&flow.step(attempted(0, [], Some((3, Halt::Fenced))), seconds(0), 0.5)).is_empty());
    let actions = flow.step(Step::Tick, seconds(1), 0.5);
    assert_eq!(actions, [Action::Confirm { at: at(0), epoch: EPOCH, next: next(3) }]);

    let refused = Step::Confirmed { at: at(0), epoch: EPOCH, accepted: false };
    assert_eq!(flow.step(refused, seconds(1), 0.5), []);
    let actions = flow.step(Step::Tick, seconds(60), 0.5);
    assert_eq!(actions, [Action::Confirm { at: at(0), epoch: EPOCH, next: next(3) }]);

    let accepted = Step::Confirmed { at: at(0), epoch: EPOCH, accepted: true };
    let actions = flow.step(accepted, seconds(60), 0.5);
    assert_eq!(actions, [Action::Claim { at: at(0), epoch: EPOCH, committed: None }]);
    let actions = flow.step(Step::Claimed { at: at(0), epoch: EPOCH, claimed: Ok(Claim::Group) }, seconds(60), 0.5);
    assert_eq!(attempts(&actions), [(0, vec![3])]);
}

#[test]
fn a_row_that_somebody_moved_back_is_read_again_from_there() {
    let mut flow = Flow::new(LIMITS, 3);
    flow.step(Step::Assigned { epoch: EPOCH, partitions: vec![(at(0), None)] }, seconds(0), 0.5);
    let start = |offset| Action::Start { at: at(0), epoch: EPOCH, start: StartAt::Offset(next(offset)) };
    assert!(flow.step(claimed(50), seconds(0), 0.5).contains(&start(50)));
    flow.step(Step::Records(vec![record(0, 50), record(0, 51)]), seconds(0), 0.5);
    flow.step(attempted(0, [], Some((50, Halt::Fenced))), seconds(0), 0.5);
    flow.step(Step::Tick, seconds(1), 0.5);
    flow.step(Step::Confirmed { at: at(0), epoch: EPOCH, accepted: true }, seconds(1), 0.5);
    let actions = flow.step(claimed(20), seconds(1), 0.5);
    assert!(actions.contains(&start(20)) && attempts(&actions).is_empty());
    assert!(attempts(&flow.step(Step::Records(vec![record(0, 52)]), seconds(1), 0.5)).is_empty(), "read before");
    let actions = flow.step(Step::Records(vec![record(0, 20)]), seconds(1), 0.5);
    assert_eq!(attempts(&actions), [(0, vec![20])]);
}

/// A worker whose only partition is full, paused, fenced at its first record and confirmed: it is being claimed again.
fn full_and_claimed_again() -> Flow {
    let mut flow = Flow::new(LIMITS, 3);
    flow.step(Step::Assigned { epoch: EPOCH, partitions: vec![(at(0), None)] }, seconds(0), 0.5);
    flow.step(claimed(50), seconds(0), 0.5);
    let actions = flow.step(Step::Records((50..55).map(|o| record(0, o)).collect()), seconds(0), 0.5);
    assert!(actions.contains(&Action::Pause(at(0))));
    flow.step(attempted(0, [], Some((50, Halt::Fenced))), seconds(0), 0.5);
    flow.step(Step::Tick, seconds(1), 0.5);
    flow.step(Step::Confirmed { at: at(0), epoch: EPOCH, accepted: true }, seconds(1), 0.5);
    flow
}

fn claimed(offset: i64) -> Step {
    Step::Claimed { at: at(0), epoch: EPOCH, claimed: Ok(Claim::Row(Row::standing_at(offset))) }
}

#[test]
fn a_full_partition_flows_again_wherever_its_row_was_moved_to() {
    for (moved_to, still_full) in [(20, false), (50, true), (54, false), (99, false)] {
        let actions = full_and_claimed_again().step(claimed(moved_to), seconds(1), 0.5);
        assert_eq!(actions.contains(&Action::Resume(at(0))), !still_full, "{moved_to}: {actions:?}");
    }
}

#[test]
fn a_partition_that_is_started_anew_elsewhere_stands_still_no_more() {
    let mut flow = full_and_claimed_again();
    flow.step(Step::StandsStill { at: at(0) }, seconds(1), 0.5);
    assert_eq!(flow.state(), State::Held);
    flow.step(claimed(20), seconds(1), 0.5);
    assert_eq!(flow.state(), State::Running);
}

#[test]
fn a_partition_that_kafka_cannot_read_holds_the_sink() {
    let mut flow = started();
    flow.step(Step::StandsStill { at: at(1) }, seconds(0), 0.5);
    assert_eq!(flow.state(), State::Held);
}

#[test]
fn a_revoked_partition_drains_commits_and_is_let_go() {
    let mut flow = started();
    flow.step(Step::Records(vec![record(0, 0), record(0, 1)]), seconds(0), 0.5);
    let revoked = Step::Revoked { ticket: 9, partitions: vec![at(0), at(1)], lost: false };
    assert_eq!(flow.step(revoked, seconds(0), 0.5), []);
    let actions = flow.step(attempted(0, [0], None), seconds(1), 0.5);
    assert!(attempts(&actions).is_empty());
    assert!(actions.contains(&Action::Drained { ticket: 9, commit: vec![(at(0), next(1))] }));
    assert_eq!(flow.step(Step::Records(vec![record(0, 2)]), seconds(1), 0.5), []);
}

#[test]
fn an_attempt_that_outlasts_the_deadline_is_let_go_and_its_end_changes_nothing() {
    let mut flow = started();
    flow.step(Step::Records(vec![record(0, 0)]), seconds(0), 0.5);
    flow.step(Step::Revoked { ticket: 1, partitions: vec![at(0)], lost: false }, seconds(0), 0.5);
    assert_eq!(flow.due(), Some(REVOKE_DEADLINE));
    let actions = flow.step(Step::Tick, REVOKE_DEADLINE, 0.5);
    let let_go = Action::Tell(Notice::LetGo { at: at(0) });
    assert_eq!(actions, [let_go, Action::Drained { ticket: 1, commit: vec![] }]);

    let partitions = vec![(at(0), None)];
    flow.step(Step::Assigned { epoch: AssignmentEpoch(2), partitions }, seconds(2), 0.5);
    assert_eq!(flow.step(attempted(0, [0], None), seconds(2), 0.5), []);
}

#[test]
fn a_lost_partition_is_dropped_without_a_commit() {
    let mut flow = started();
    flow.step(Step::Records(vec![record(0, 0)]), seconds(0), 0.5);
    let actions = flow.step(Step::Revoked { ticket: 1, partitions: vec![at(0)], lost: true }, seconds(0), 0.5);
    assert_eq!(actions, [Action::Drained { ticket: 1, commit: vec![] }]);
    assert_eq!(flow.step(attempted(0, [0], None), seconds(0), 0.5), []);
}

#[test]
fn a_stop_waits_for_what_is_under_way_and_begins_nothing() {
    let mut flow = started();
    flow.step(Step::Records(vec![record(0, 0), record(1, 7)]), seconds(0), 0.5);
    assert_eq!(flow.step(Step::Stop, seconds(0), 0.5), []);
    assert_eq!(flow.due(), Some(STOP_DEADLINE));
    flow.step(attempted(0, [0], None), seconds(1), 0.5);
    let actions = flow.step(attempted(1, [7], None), seconds(1), 0.5);
    assert_eq!(actions.last(), Some(&Action::Finish { commit: vec![(at(0), next(1)), (at(1), next(8))] }));
}

#[test]
fn a_claim_that_fails_is_made_again() {
    let mut flow = Flow::new(LIMITS, 3);
    flow.step(Step::Assigned { epoch: EPOCH, partitions: vec![(at(0), None)] }, seconds(0), 0.5);
    flow.step(Step::Claimed { at: at(0), epoch: EPOCH, claimed: Err(transient()) }, seconds(0), 0.5);
    assert_eq!(flow.state(), State::Retrying);
    let due = flow.due().unwrap();
    let actions = flow.step(Step::Tick, due, 0.5);
    assert_eq!(actions, [Action::Claim { at: at(0), epoch: EPOCH, committed: None }]);
}

/// A partition's log, a sink that remembers what it took, and what is under way between them.
#[derive(Default)]
struct World {
    fed: i64,
    taken: Vec<i64>,
    committed: i64,
    under_way: Option<Action>,
    paused: bool,
}

impl World {
    fn act(&mut self, actions: Vec<Action>) -> Result<(), TestCaseError> {
        for action in actions {
            match action {
                Action::Attempt { .. } | Action::Claim { .. } | Action::Confirm { .. } => {
                    prop_assert!(self.under_way.is_none(), "two things under way in one partition");
                    self.under_way = Some(action);
                }
                Action::Commit(offsets) => {
                    for (_, offset) in offsets {
                        let highest = self.taken.last().map_or(0, |last| last + 1);
                        prop_assert!(offset.get() <= highest, "committed before it was settled");
                        prop_assert!(offset.get() >= self.committed, "a commit went back");
                        self.committed = offset.get();
                    }
                }
                Action::Pause(_) => self.paused = true,
                Action::Resume(_) => self.paused = false,
                _ => {}
            }
        }
        Ok(())
    }

    /// Ends what is under way, as the dice say; without dice, well.
    fn end(&mut self, dice: Option<u8>) -> Option<Step> {
        let dice = dice.map(usize::from);
        let fails = |one_in: usize| dice.is_some_and(|dice| dice.is_multiple_of(one_in));
        Some(match self.under_way.take()? {
            Action::Claim { at, epoch, .. } => {
                let next = self.taken.last().map_or(-1, |last| last + 1);
                let claim = Claim::Row(Row::standing_at(next));
                let claimed = if fails(3) { Err(transient()) } else { Ok(claim) };
                Step::Claimed { at, epoch, claimed }
            }
            Action::Confirm { at, epoch, .. } => Step::Confirmed { at, epoch, accepted: !fails(2) },
            Action::Attempt { at, epoch, claim, records } => {
                let good = dice.map_or(records.len(), |dice| dice % (records.len() + 1));
                let offsets: Vec<_> = records.iter().take(good).map(|record| record.offset).collect();
                let halt = records.get(good).map(|record| Halted {
                    offset: record.offset,
                    event_id: None,
                    halt: if fails(2) { Halt::Fenced } else { Halt::Answer(transient()) },
                });
                self.taken.extend(&offsets);
                let report = Report { settled: settled(offsets), halt };
                Step::Attempted { at, epoch, claim, report }
            }
            _ => return None,
        })
    }
}

proptest! {
    #[test]
    fn whatever_happens_each_record_is_taken_once_and_in_order(dice in proptest::collection::vec(any::<u8>(), 1..300)) {
        let mut flow = Flow::new(LIMITS, 3);
        let mut world = World::default();
        let mut now = Duration::ZERO;
        world.act(flow.step(Step::Assigned { epoch: EPOCH, partitions: vec![(at(0), None)] }, now, 0.5))?;
        // Random steps first, then everything goes well until nothing is left to do.
        let calm = std::iter::repeat_n(None, 300);
        for dice in dice.into_iter().map(Some).chain(calm) {
            let step = match dice.map(|dice| dice % 4) {
                Some(0) if !world.paused => {
                    world.fed += 1;
                    Step::Records(vec![record(0, world.fed - 1)])
                }
                Some(1) => {
                    now += Duration::from_millis(u64::from(dice.unwrap_or(0)) * 300);
                    Step::Tick
                }
                _ => world.end(dice.map(|dice| dice / 4)).unwrap_or_else(|| {
                    now += seconds(31);
                    Step::Tick
                }),
            };
            let actions = flow.step(step, now, f64::from(dice.unwrap_or(0)) / 256.0);
            world.act(actions)?;
        }
        let expected: Vec<i64> = (0..world.fed).collect();
        let distinct: BTreeSet<_> = world.taken.iter().copied().collect();
        prop_assert_eq!(distinct.len(), world.taken.len(), "taken twice");
        prop_assert_eq!(&world.taken[..], &expected[..world.taken.len()]);
        prop_assert_eq!(world.taken.len(), expected.len(), "something was left");
        prop_assert_eq!(flow.state(), State::Running);
    }
}
