//! The budget of one run. Senders choose the data that a program walks, so every operation on a value pays here first,
//! and a run that has spent its budget stops at its next operation, whatever the program says.
//!
//! jaq gives the operators of its value trait no context, so the budget stands in a thread local. A run never leaves
//! its thread, and each run sets its own. Runs for one event share a second budget ([`together`]): a source may have any
//! number of rules, and each may be driven to its own bound.

use std::cell::Cell;

/// Operations that every run may take. A map of fifty fields needs a few hundred; a microsecond each, at worst.
const BASE_STEPS: u64 = 50_000;
/// Operations more for each byte of input: enough for any work in proportion to the event, and not for the square of it.
const STEPS_PER_BYTE: u64 = 2;
/// Bytes that every run may copy, build or search with a regular expression.
const BASE_BYTES: u64 = 8 << 20;
/// Bytes more for each byte of input.
const BYTES_PER_BYTE: u64 = 8;
/// Stack below the start of a run, in bytes. Threads have 2 MiB, and callers need a share; frames of an unoptimised
/// build are about four times as large as those of a release.
const MAX_STACK: usize = if cfg!(debug_assertions) { 1 << 20 } else { 512 << 10 };
/// Nesting of a value that a program builds. Comparing, writing and dropping a value recurse; input has at most 128.
pub(super) const MAX_NESTING: u16 = 256;

/// What a run ran out of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Limit {
    #[error("it takes more than {BASE_STEPS} steps and {STEPS_PER_BYTE} for each byte of the event")]
    Steps,
    #[error("the expressions for one event take more steps together than the source allows")]
    Event,
    #[error("it builds or searches more than 8 MiB and {BYTES_PER_BYTE} times the event's size")]
    Bytes,
    #[error("it nests its calls too deeply")]
    Stack,
    #[error("it builds a value nested more than {MAX_NESTING} deep")]
    Nesting,
    #[error("it gives more than {} results", super::MAX_RESULTS)]
    Results,
    #[error("its results are larger than {} bytes together", super::MAX_RESULT_BYTES)]
    ResultBytes,
}

struct Meter {
    steps: Cell<u64>,
    bytes: Cell<u64>,
    /// Address of the stack where the run began.
    stack: Cell<usize>,
    /// Steps left for the runs of one event; those of runs that belong to none are not counted together.
    event: Cell<Option<u64>>,
    /// The limit that is met when the steps are spent.
    scarce: Cell<Limit>,
    /// The first limit that was met. It stays: `try … catch` cannot make it good.
    spent: Cell<Option<Limit>>,
}

thread_local! {
    static METER: Meter = const {
        Meter {
            steps: Cell::new(0),
            bytes: Cell::new(0),
            stack: Cell::new(0),
            event: Cell::new(None),
            scarce: Cell::new(Limit::Steps),
            spent: Cell::new(None),
        }
    };
}

/// Runs `f` under a fresh budget for an input of `input` bytes; the limit, where one was met.
pub(super) fn metered<T>(input: usize, f: impl FnOnce() -> T) -> Result<T, Limit> {
    let input = input as u64;
    let own = BASE_STEPS + STEPS_PER_BYTE * input;
    let allowed = METER.with(|meter| {
        let event = meter.event.get().unwrap_or(u64::MAX);
        let allowed = own.min(event);
        meter.steps.set(allowed);
        meter.scarce.set(if event < own { Limit::Event } else { Limit::Steps });
        meter.bytes.set(BASE_BYTES + BYTES_PER_BYTE * input);
        meter.stack.set(stack_address());
        meter.spent.set(None);
        allowed
    });
    let result = f();
    METER.with(|meter| {
        // A limit that was met stops the count where it was, which is near enough: nothing runs after it.
        let taken = allowed - meter.steps.get();
        meter.event.set(meter.event.get().map(|event| event.saturating_sub(taken)));
        meter.spent.get().map_or(Ok(result), Err)
    })
}

/// Runs `f`, whose runs take at most so many steps together.
pub(super) fn together<T>(steps: u64, f: impl FnOnce() -> T) -> T {
    METER.with(|meter| meter.event.set(Some(steps)));
    let result = f();
    METER.with(|meter| meter.event.set(None));
    result
}

/// Pays for `n` operations.
pub(super) fn steps(n: usize) -> Result<(), Limit> {
    METER.with(|meter| {
        if let Some(limit) = meter.spent.get() {
            return Err(limit);
        }
        let limit = if meter.stack.get().saturating_sub(stack_address()) > MAX_STACK {
            Limit::Stack
        } else if let Some(left) = meter.steps.get().checked_sub(n as u64) {
            meter.steps.set(left);
            return Ok(());
        } else {
            meter.scarce.get()
        };
        meter.spent.set(Some(limit));
        Err(limit)
    })
}

/// Pays for `n` bytes.
pub(super) fn bytes(n: usize) -> Result<(), Limit> {
    METER.with(|meter| {
        if let Some(limit) = meter.spent.get() {
            return Err(limit);
        }
        if let Some(left) = meter.bytes.get().checked_sub(n as u64) {
            meter.bytes.set(left);
            return Ok(());
        }
        meter.spent.set(Some(Limit::Bytes));
        Err(Limit::Bytes)
    })
}

/// Ends the run for a limit that is counted elsewhere.
pub(super) fn stop(limit: Limit) -> Limit {
    METER.with(|meter| {
        let first = meter.spent.get().unwrap_or(limit);
        meter.spent.set(Some(first));
        first
    })
}

/// Where the stack is now: the address of a local.
fn stack_address() -> usize {
    let here = 0_u8;
    (&raw const here).addr()
}
