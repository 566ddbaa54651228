//! W3C Trace Context: the sender's `traceparent` is carried on, and one is made where none came.
//! (Trace Context level 1, section 3.2: `00-<32 hex>-<16 hex>-<2 hex>`.)

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

/// Makes trace ids that differ within and between processes: a keyed hash of a counter, the key being random for
/// each process. Ids need to be unlike, not secret.
#[derive(Debug, Default)]
pub struct Traces {
    key: RandomState,
    next: AtomicU64,
}

/// A `traceparent` in its own 55 bytes.
#[derive(Debug, Clone, Copy)]
pub struct TraceParent([u8; 55]);

impl TraceParent {
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl Traces {
    /// What came, if it is well formed; else a new one, marked as not sampled.
    #[must_use]
    pub fn carry_on(&self, came: Option<&[u8]>) -> TraceParent {
        if let Some(Ok(text)) = came.map(<[u8; 55]>::try_from)
            && is_well_formed(&text)
        {
            return TraceParent(text);
        }
        let at = self.next.fetch_add(3, Ordering::Relaxed);
        let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
        write_hex(&mut text[3..19], self.key.hash_one(at));
        write_hex(&mut text[19..35], self.key.hash_one(at + 1));
        write_hex(&mut text[36..52], self.key.hash_one(at + 2) | 1); // an id of all zeros is invalid
        TraceParent(text)
    }
}

fn write_hex(to: &mut [u8], value: u64) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (place, byte) in to.iter_mut().enumerate() {
        let shift = 60 - 4 * place;
        *byte = DIGITS[(value >> shift & 0xf) as usize];
    }
}

fn is_well_formed(text: &[u8; 55]) -> bool {
    let lower_hex = |part: &[u8]| part.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let zeros = |part: &[u8]| part.iter().all(|&b| b == b'0');
    text[..3] == *b"00-"
        && text[35] == b'-'
        && text[52] == b'-'
        && lower_hex(&text[3..35])
        && lower_hex(&text[36..52])
        && lower_hex(&text[53..])
        && !zeros(&text[3..35])
        && !zeros(&text[36..52])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_well_formed_traceparent_is_carried_on_and_any_other_replaced() {
        let traces = Traces::default();
        let good = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert_eq!(traces.carry_on(Some(good)).as_bytes(), good);
        for bad in [
            &b""[..],
            b"00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            b"00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            b"00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            b"ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
        ] {
            let made = traces.carry_on(Some(bad));
            assert_ne!(made.as_bytes(), bad);
            assert!(is_well_formed(&made.0), "{}", String::from_utf8_lossy(&made.0));
        }
        assert_ne!(traces.carry_on(None).as_bytes(), traces.carry_on(None).as_bytes());
    }

    proptest::proptest! {
        /// Whatever a sender writes, what goes on is well formed.
        #[test]
        fn any_bytes_are_carried_on_or_replaced(came in "[-0-9a-fA-F ]{0,60}", soup in proptest::collection::vec(0u8.., 0..70)) {
            for bytes in [came.as_bytes(), &soup] {
                let carried = Traces::default().carry_on(Some(bytes));
                proptest::prop_assert!(is_well_formed(&carried.0));
            }
        }
    }
}
