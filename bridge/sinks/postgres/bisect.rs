//! Finding the one record that the database refuses. The server names the value, never the row, so a batch that is
//! refused is tried again in halves: what stands before the bad record is committed on the way, in order.

use std::ops::Range;

/// Which records of a batch to try next. The record that is refused alone is the bad one; at most
/// `2 log2(n) + 1` tries find it.
#[derive(Debug)]
pub(super) struct Bisection {
    done: usize,
    end: usize,
    len: usize,
    /// The bad record stands before this one, so far as is known.
    bad_before: Option<usize>,
}

impl Bisection {
    /// Of `len` records the first `done` are settled already.
    pub(super) fn new(done: usize, len: usize) -> Self {
        Self { done, end: len, len, bad_before: None }
    }

    pub(super) fn done(&self) -> usize {
        self.done
    }

    /// `None`: all of them are settled.
    pub(super) fn next(&self) -> Option<Range<usize>> {
        (self.done < self.len).then_some(self.done..self.end)
    }

    /// The range that was tried is committed.
    pub(super) fn passed(&mut self) {
        self.done = self.end;
        match self.bad_before {
            Some(before) if self.done < before => self.end = self.done + (before - self.done).div_ceil(2),
            // All that was refused together passed in parts: what was wrong has been mended meanwhile.
            _ => {
                self.bad_before = None;
                self.end = self.len;
            }
        }
    }

    /// The range that was tried was refused. `true`: it was one record, which is the bad one.
    pub(super) fn refused(&mut self) -> bool {
        if self.end - self.done <= 1 {
            return true;
        }
        self.bad_before = Some(self.end);
        self.end = self.done + (self.end - self.done) / 2;
        false
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn everything_before_the_first_bad_record_is_committed_in_order(
            len in 1_usize..600,
            bad in proptest::collection::btree_set(0_usize..600, 0..4),
        ) {
            let mut bisection = Bisection::new(0, len);
            let mut committed = Vec::new();
            let mut tries = 0;
            let mut found = None;
            while let Some(range) = bisection.next() {
                tries += 1;
                if bad.range(range.clone()).next().is_none() {
                    committed.extend(range);
                    bisection.passed();
                } else if bisection.refused() {
                    found = Some(bisection.done());
                    break;
                }
            }
            let first = bad.iter().copied().find(|at| *at < len);
            prop_assert_eq!(found, first);
            prop_assert_eq!(committed, (0..first.unwrap_or(len)).collect::<Vec<_>>());
            prop_assert!(tries <= 2 * (usize::BITS - len.leading_zeros()) as usize + 1, "{} tries", tries);
        }
    }

    #[test]
    fn a_batch_that_is_mended_on_the_way_is_committed_whole() {
        let mut bisection = Bisection::new(0, 10);
        assert!(!bisection.refused());
        while bisection.next().is_some() {
            bisection.passed();
        }
        assert_eq!(bisection.done(), 10);
    }
}
