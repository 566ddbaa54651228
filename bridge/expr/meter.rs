//! The budget of one run. Senders choose the data that a program walks, so every operation on a value pays here first,
//! and a run that has spent its budget stops at its next operation, whatever the program says.
//!
//! jaq gives the operators of its value trait no context, so the budget stands in a thread local. A run never leaves
//! its thread, and each run sets its own.

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
    /// The first limit that was met. It stays: `try … catch` cannot make it good.
    spent: Cell<Option<Limit>>,
}

thread_local! {
    static METER: Meter = const {
        Meter { steps: Cell::new(0), bytes: Cell::new(0), stack: Cell::new(0), spent: Cell::new(None) }
    };
}

/// Runs `f` under a fresh budget for an input of `input` bytes; the limit, where one was met.
pub(super) fn metered<T>(input: usize, f: impl FnOnce() -> T) -> Result<T, Limit> {
    let input = input as u64;
    METER.with(|meter| {
        meter.steps.set(BASE_STEPS + STEPS_PER_BYTE * input);
        meter.bytes.set(BASE_BYTES + BYTES_PER_BYTE * input);
        meter.stack.set(stack_address());
        meter.spent.set(None);
    });
    let result = f();
    METER.with(|meter| meter.spent.get()).map_or(Ok(result), Err)
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
            Limit::Steps
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
