//! The judge of `tests/faults`, judged: a history in which nothing is wrong is good, and each thing that can be wrong is
//! found, by its name.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has to say so and end")]

#[path = "faults/judge.rs"]
#[allow(dead_code, reason = "the rig uses the rest")]
mod judge;
#[path = "faults/ledger.rs"]
#[allow(dead_code, reason = "the rig uses the rest")]
mod ledger;

use std::collections::BTreeSet;

use judge::{Committed, Copies, Counted, Evidence, GroupOffset, Row, Written, judge};
use ledger::{Answer, Hits, Line, fingerprint};

/// Two events of one key, sent to bridge `a` and taken, in topic and table.
fn two_events() -> Evidence {
    let mut evidence = Evidence {
        uncommitted: ["evt_1", "evt_2"].map(str::to_owned).into(),
        counted: Some(Counted { uncertain: 0, accepted: 2, deduplicated: 0, settled: 2 }),
        ..Evidence::default()
    };
    for number in 1..=2 {
        let (event, trace) = (format!("evt_{number}"), format!("trace-{number}"));
        let (key, body) = ("customer".to_owned(), fingerprint("customer", number, "note"));
        let at = u64::try_from(number).unwrap() * 1_000_000;
        evidence.ledger.push(Line::Intent {
            at,
            trace: trace.clone(),
            event: event.clone(),
            key: key.clone(),
            sequence: number,
            body: body.clone(),
            to: "a".to_owned(),
        });
        let answer = Answer::Accepted { duplicate: false, partition: 3, offset: number };
        evidence.ledger.push(Line::Outcome { at: at + 5_000, trace: trace.clone(), answer });
        evidence.rows.push(Row {
            event: event.clone(),
            partition: 3,
            offset: number,
            key: key.clone(),
            sequence: number,
            body: body.clone(),
        });
        evidence.committed.push(Written { partition: 3, offset: number, event, trace, key, sequence: number, body });
        evidence.offsets.push(Committed { partition: 3, next: number + 1, epoch: 1 });
    }
    evidence
}

/// What is found after this was done to a good history.
fn found(spoil: impl FnOnce(&mut Evidence)) -> Vec<String> {
    let mut evidence = two_events();
    spoil(&mut evidence);
    let kinds: BTreeSet<String> = judge(&evidence).findings.into_iter().map(|finding| finding.kind).collect();
    kinds.into_iter().collect()
}

#[test]
fn a_good_history_is_good() {
    let verdict = judge(&two_events());
    assert_eq!(verdict.findings, []);
    assert_eq!((verdict.figures.events, verdict.figures.accepted, verdict.figures.longest_wait_ms), (2, 2, 5));
}

#[test]
fn what_was_taken_and_is_not_there_is_a_lost_write() {
    assert_eq!(found(|evidence| drop(evidence.rows.pop())), ["lost-write"]);
    let found = found(|evidence| {
        evidence.committed.pop();
        evidence.rows.pop();
    });
    assert_eq!(found, ["inconsistent-offsets", "lost-write", "miscounted"]);
}

#[test]
fn an_event_with_two_rows_is_a_duplicate() {
    let twice = |evidence: &mut Evidence| {
        let row = Row { offset: 9, ..evidence.rows[1].clone() };
        evidence.rows.push(row);
        evidence.counted = None;
    };
    assert!(found(twice).contains(&"duplicate".to_owned()));
}

#[test]
fn a_second_record_is_counted_and_is_a_duplicate_where_nothing_explains_it() {
    let again = |evidence: &mut Evidence, trace: &str| {
        let record = Written { offset: 3, trace: trace.to_owned(), ..evidence.committed[1].clone() };
        evidence.committed.push(record);
    };
    let asked = |evidence: &mut Evidence, to: &str| {
        let Line::Intent { at, event, key, sequence, body, .. } = evidence.ledger[2].clone() else {
            panic!("an intent")
        };
        evidence.ledger.push(Line::Intent {
            at,
            trace: "again".to_owned(),
            event,
            key,
            sequence,
            body,
            to: to.to_owned(),
        });
        // Counters are compared where nothing was broken.
        evidence.ledger.push(Line::Fault { at, what: String::new(), hits: Hits::Sink });
    };
    let of_the_library = |evidence: &mut Evidence| {
        again(evidence, "trace-2");
        asked(evidence, "a");
    };
    assert_eq!(found(of_the_library), Vec::<String>::new());
    let of_two = |evidence: &mut Evidence| {
        again(evidence, "again");
        evidence.counted.as_mut().unwrap().accepted = 3;
        asked(evidence, "b");
    };
    assert_eq!(found(of_two), Vec::<String>::new());
    let of_one = |evidence: &mut Evidence| {
        again(evidence, "again");
        evidence.counted.as_mut().unwrap().accepted = 3;
        asked(evidence, "a");
    };
    assert_eq!(found(of_one), ["duplicate"]);
    let after_an_uncertain_report = |evidence: &mut Evidence| {
        of_one(evidence);
        evidence.counted.as_mut().unwrap().uncertain = 1;
    };
    assert_eq!(found(after_an_uncertain_report), Vec::<String>::new());
}

#[test]
fn what_was_never_sent_or_differs_is_found() {
    assert!(found(|evidence| evidence.rows[0].event = "evt_9".to_owned()).contains(&"phantom".to_owned()));
    assert_eq!(found(|evidence| evidence.rows[0].body = "another".to_owned()), ["corrupt"]);
}

#[test]
fn a_row_of_an_aborted_record_is_an_aborted_read() {
    assert!(found(|evidence| drop(evidence.committed.pop())).contains(&"aborted-read".to_owned()));
}

#[test]
fn a_receipt_that_names_another_place_is_inconsistent() {
    assert!(found(|evidence| evidence.committed[0].offset = 7).contains(&"inconsistent-offsets".to_owned()));
}

#[test]
fn an_order_that_is_not_the_senders_is_found() {
    let turned = |evidence: &mut Evidence| {
        evidence.rows[0].offset = 8;
    };
    assert_eq!(found(turned), ["nonmonotonic"]);
}

#[test]
fn an_offset_that_goes_back_is_found() {
    let back = |evidence: &mut Evidence| evidence.offsets.push(Committed { partition: 3, next: 1, epoch: 1 });
    assert_eq!(found(back), ["rewound-offset"]);
}

#[test]
fn an_event_that_is_never_taken_is_stuck() {
    let refused = |evidence: &mut Evidence| {
        let Line::Outcome { answer, .. } = &mut evidence.ledger[3] else { panic!("an outcome") };
        *answer = Answer::Status(503);
    };
    assert_eq!(found(refused), ["stuck"]);
}

#[test]
fn recovery_is_counted_where_the_fault_hit() {
    let mut evidence = two_events();
    evidence.ledger.insert(2, Line::Fault { at: 1_500_000, what: String::new(), hits: Hits::Partition(3) });
    evidence.ledger.insert(2, Line::Fault { at: 1_500_000, what: String::new(), hits: Hits::Bridge("b".to_owned()) });
    assert_eq!(judge(&evidence).figures.recovery_ms, 505);
}

/// Both events given to the vendor, who took them.
fn with_a_vendor() -> Evidence {
    let mut evidence = two_events();
    evidence.dead = Some(Vec::new());
    for number in 1..=2 {
        evidence.ledger.push(call(number, &format!("id-{number}"), 204));
    }
    evidence
}

fn call(sequence: i64, id: &str, status: u16) -> Line {
    let body = fingerprint("customer", sequence, "note");
    Line::Call { at: 3_000_000, id: id.to_owned(), key: "customer".to_owned(), sequence, body, status }
}

fn found_at_the_vendor(spoil: impl FnOnce(&mut Evidence)) -> Vec<String> {
    let mut evidence = with_a_vendor();
    spoil(&mut evidence);
    judge(&evidence).findings.into_iter().map(|finding| finding.kind).collect()
}

#[test]
fn a_call_that_is_repeated_under_its_id_has_one_effect() {
    let mut evidence = with_a_vendor();
    evidence.ledger.push(call(1, "id-1", 204));
    let verdict = judge(&evidence);
    assert_eq!((verdict.findings, verdict.figures.calls, verdict.figures.repeated_calls), (vec![], 3, 1));
}

#[test]
fn a_vendor_who_is_given_too_little_too_much_or_in_another_order_is_seen() {
    assert_eq!(found_at_the_vendor(|evidence| drop(evidence.ledger.pop())), ["lost-write"]);
    let refused = |evidence: &mut Evidence| {
        evidence.ledger.pop();
        evidence.ledger.push(call(2, "id-2", 400));
    };
    assert_eq!(found_at_the_vendor(refused), ["lost-write"], "a refusal without a dead letter");
    let buried = |evidence: &mut Evidence| {
        refused(evidence);
        evidence.dead = Some(vec!["evt_2".to_owned()]);
    };
    assert_eq!(found_at_the_vendor(buried), Vec::<String>::new());
    let both = |evidence: &mut Evidence| evidence.dead = Some(vec!["evt_2".to_owned()]);
    assert_eq!(found_at_the_vendor(both), ["duplicate"]);
    let renamed = |evidence: &mut Evidence| evidence.ledger.push(call(2, "id-9", 500));
    assert_eq!(found_at_the_vendor(renamed), ["duplicate"]);
    let turned = |evidence: &mut Evidence| {
        let at = evidence.ledger.len() - 2;
        evidence.ledger.swap(at, at + 1);
    };
    assert_eq!(found_at_the_vendor(turned), ["nonmonotonic"]);
}

#[test]
fn counters_that_do_not_add_up_are_found() {
    assert_eq!(found(|evidence| evidence.counted.as_mut().unwrap().accepted = 1), ["miscounted"]);
    assert_eq!(found(|evidence| evidence.counted.as_mut().unwrap().settled = 1), ["miscounted"]);
}

/// Both events copied, with their receipts.
fn with_copies() -> Evidence {
    let mut evidence = two_events();
    let written = evidence.committed.clone();
    let delivered = written.iter().map(|copy| (copy.partition, copy.offset)).collect();
    evidence.copies = Some(Copies { written, aborted: 0, delivered });
    let group = |next| GroupOffset { group: "copies".to_owned(), partition: 3, next };
    evidence.group = vec![group(2), group(2), group(3)];
    evidence
}

fn found_in_the_copies(spoil: impl FnOnce(&mut Copies)) -> Vec<String> {
    let mut evidence = with_copies();
    spoil(evidence.copies.as_mut().unwrap());
    let kinds: BTreeSet<String> = judge(&evidence).findings.into_iter().map(|finding| finding.kind).collect();
    kinds.into_iter().collect()
}

#[test]
fn what_was_copied_once_with_its_receipt_is_good() {
    assert_eq!(found_in_the_copies(|copies| copies.aborted = 5), Vec::<String>::new());
}

#[test]
fn an_event_without_a_copy_or_with_two_is_found() {
    assert_eq!(found_in_the_copies(|copies| _ = copies.written.pop()), ["lost-write", "torn"]);
    let twice = |copies: &mut Copies| copies.written.push(Written { offset: 9, ..copies.written[1].clone() });
    assert_eq!(found_in_the_copies(twice), ["duplicate", "nonmonotonic"]);
}

#[test]
fn a_copy_without_its_receipt_or_a_receipt_alone_is_torn() {
    assert_eq!(found_in_the_copies(|copies| _ = copies.delivered.pop()), ["torn"]);
    assert_eq!(found_in_the_copies(|copies| copies.delivered.push(copies.delivered[0])), ["torn"]);
    assert_eq!(found_in_the_copies(|copies| copies.delivered.push((3, 77))), ["torn"]);
}

#[test]
fn a_copy_of_another_content_or_of_nothing_is_found() {
    assert_eq!(found_in_the_copies(|copies| copies.written[0].body.clear()), ["corrupt"]);
    let of_nothing = |copies: &mut Copies| {
        copies.written.push(Written { event: "evt_9".to_owned(), offset: 9, sequence: 9, ..copies.written[1].clone() });
    };
    assert_eq!(found_in_the_copies(of_nothing), ["phantom", "torn"]);
}

#[test]
fn a_groups_offset_that_goes_back_is_found() {
    let mut evidence = with_copies();
    evidence.group.push(GroupOffset { group: "copies".to_owned(), partition: 3, next: 1 });
    assert_eq!(judge(&evidence).findings[0].kind, "rewound-offset");
}

#[test]
fn where_nothing_died_no_call_is_repeated() {
    let mut evidence = with_a_vendor();
    evidence.ledger.push(call(1, "id-1", 204));
    evidence.repeats_no_call = true;
    assert_eq!(judge(&evidence).findings[0].kind, "duplicate");
}
