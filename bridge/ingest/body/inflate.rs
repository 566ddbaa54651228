//! `gzip` and `deflate` bodies (RFC 9110 section 8.4.1), inflated within bounds.

use std::io::{self, Read};

use bytes::Bytes;
use flate2::bufread::{MultiGzDecoder, ZlibDecoder};

use super::Refused;

/// Times that a body may grow. JSON of a webhook shrinks to a fifth or a tenth; deflate itself could do a thousand.
const MAX_RATIO: usize = 100;
/// Whatever the ratio: a small body of one long repetition is nobody's attack.
const ALWAYS: usize = 16 * 1024;
/// Inflated at once, about a tenth of a millisecond; then whoever else is on this thread has its turn.
const STEP: usize = 32 * 1024;

/// How a body is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coding {
    Gzip,
    /// zlib's format (RFC 1950), as HTTP defines the word.
    Deflate,
}

impl Coding {
    /// The coding of a `content-encoding`; several at once are nobody's.
    pub(super) fn named(value: &[u8]) -> Option<Self> {
        let is = |name: &str| value.trim_ascii().eq_ignore_ascii_case(name.as_bytes());
        if is("gzip") || is("x-gzip") {
            Some(Self::Gzip)
        } else if is("deflate") {
            Some(Self::Deflate)
        } else {
            None
        }
    }
}

/// The plain bytes of `sent`: at most `max`, and at most a hundred times as many. `grow` is asked for each piece before
/// it is kept.
pub(super) async fn inflate(
    coding: Coding,
    sent: &[u8],
    max: usize,
    mut grow: impl FnMut(usize) -> Result<(), Refused>,
) -> Result<Bytes, Refused> {
    let most = max.min(sent.len().saturating_mul(MAX_RATIO).max(ALWAYS));
    let mut decoder = Decoder::new(coding, sent);
    let mut plain = Vec::new();
    let mut piece = vec![0; STEP];
    loop {
        let read = decoder.read(&mut piece).map_err(|_| Refused::Corrupt)?;
        if read == 0 {
            return if decoder.is_at_end() { Ok(plain.into()) } else { Err(Refused::Corrupt) };
        }
        if plain.len() + read > most {
            return Err(Refused::TooLarge);
        }
        grow(read)?;
        plain.extend_from_slice(&piece[..read]);
        tokio::task::consume_budget().await;
    }
}

enum Decoder<'a> {
    Gzip(MultiGzDecoder<&'a [u8]>),
    Deflate(ZlibDecoder<&'a [u8]>),
}

impl<'a> Decoder<'a> {
    fn new(coding: Coding, sent: &'a [u8]) -> Self {
        match coding {
            Coding::Gzip => Self::Gzip(MultiGzDecoder::new(sent)),
            Coding::Deflate => Self::Deflate(ZlibDecoder::new(sent)),
        }
    }

    fn read(&mut self, piece: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Gzip(decoder) => decoder.read(piece),
            Self::Deflate(decoder) => decoder.read(piece),
        }
    }

    /// Whether nothing is left over behind what was compressed.
    fn is_at_end(&self) -> bool {
        match self {
            Self::Gzip(decoder) => decoder.get_ref().is_empty(),
            Self::Deflate(decoder) => decoder.get_ref().is_empty(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::{GzEncoder, ZlibEncoder};

    use super::*;

    fn gzip(plain: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap()
    }

    fn deflate(plain: &[u8]) -> Vec<u8> {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap()
    }

    async fn inflated(coding: Coding, sent: &[u8], max: usize) -> Result<Bytes, Refused> {
        inflate(coding, sent, max, |_| Ok(())).await
    }

    #[tokio::test]
    async fn both_codings_give_back_what_was_sent() {
        let events = (0..5_000).map(|number| format!(r#"{{"type": "order_placed", "number": {number}}}"#));
        let plain = events.collect::<String>().into_bytes();
        assert_eq!(inflated(Coding::Gzip, &gzip(&plain), 1 << 20).await.unwrap(), plain);
        assert_eq!(inflated(Coding::Deflate, &deflate(&plain), 1 << 20).await.unwrap(), plain);
        assert_eq!(inflated(Coding::Gzip, &[gzip(b"a"), gzip(b"b")].concat(), 8).await.unwrap(), "ab");
        assert_eq!(inflated(Coding::Gzip, &gzip(b""), 8).await.unwrap(), "");
    }

    #[tokio::test]
    async fn what_would_grow_too_much_is_refused_before_it_has() {
        let zeros = vec![0; 4 << 20];
        let sent = gzip(&zeros);
        let mut kept = 0;
        let result = inflate(Coding::Gzip, &sent, 64 << 20, |bytes| {
            kept += bytes;
            Ok(())
        });
        assert_eq!(result.await, Err(Refused::TooLarge));
        assert!(kept <= sent.len() * MAX_RATIO, "{kept} bytes kept of {}", sent.len());
        // The limit itself, whatever the ratio.
        assert_eq!(inflated(Coding::Gzip, &gzip(b"abcde"), 4).await, Err(Refused::TooLarge));
        assert_eq!(inflated(Coding::Gzip, &gzip(&[0; ALWAYS]), 1 << 20).await.unwrap().len(), ALWAYS);
    }

    #[tokio::test]
    async fn what_is_cut_short_damaged_or_followed_by_something_is_corrupt() {
        for (coding, sent) in [(Coding::Gzip, gzip(b"some text")), (Coding::Deflate, deflate(b"some text"))] {
            let mut damaged = sent.clone();
            let last = damaged.len() - 1;
            damaged[last] ^= 1;
            let longer = [sent.as_slice(), b"more"].concat();
            for wrong in [&sent[..last], &damaged, &longer, b"", b"{}"] {
                assert_eq!(inflated(coding, wrong, 1000).await, Err(Refused::Corrupt), "{coding:?} {wrong:?}");
            }
        }
    }

    #[tokio::test]
    async fn a_room_that_is_full_stops_it() {
        let result = inflate(Coding::Gzip, &gzip(b"abc"), 1000, |_| Err(Refused::Full)).await;
        assert_eq!(result, Err(Refused::Full));
    }

    #[test]
    fn only_one_known_coding_is_taken() {
        assert_eq!(Coding::named(b" GZIP"), Some(Coding::Gzip));
        assert_eq!(Coding::named(b"deflate"), Some(Coding::Deflate));
        for other in [&b"br"[..], b"gzip, gzip", b""] {
            assert_eq!(Coding::named(other), None);
        }
    }

    proptest::proptest! {
        /// Bytes from anybody, and compressed ones of which some are changed: refused, or within the bounds.
        #[test]
        fn any_bytes_are_inflated_within_the_bounds(
            soup in proptest::collection::vec(0u8.., 0..300), plain in proptest::collection::vec(0u8..4, 0..5_000),
            at in 0usize.., with in 0u8..,
        ) {
            const MAX: usize = 2_000;
            let mut changed = gzip(&plain);
            let place = at % changed.len();
            changed[place] = with;
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            for (coding, sent) in [Coding::Gzip, Coding::Deflate].into_iter().flat_map(|coding| [(coding, &soup), (coding, &changed)]) {
                let mut grown = 0;
                let inflated = runtime.block_on(inflate(coding, sent, MAX, |bytes| { grown += bytes; Ok(()) }));
                proptest::prop_assert!(grown <= MAX);
                proptest::prop_assert!(inflated.is_err() || inflated.is_ok_and(|bytes| bytes.len() == grown));
            }
            let whole = runtime.block_on(inflate(Coding::Gzip, &gzip(&plain), plain.len(), |_| Ok(())));
            proptest::prop_assert_eq!(whole, Ok(plain.into()));
        }
    }
}
