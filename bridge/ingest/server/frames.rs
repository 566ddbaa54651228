//! Counts the frames of an HTTP/2 connection (RFC 9113 section 4.1), since most of them make work and belong to no
//! request.
//!
//! h2 bounds what it would have to remember: streams that were reset before anybody saw them (CVE-2023-44487), frames
//! that continue one head, heads, small DATA frames. It answers every PING and SETTINGS, follows every WINDOW_UPDATE and
//! PRIORITY, and lets a stream be reset as soon as we work on it; none of that grows, and all of it takes our time. So a
//! connection has an allowance of frames that grows with the requests that it brought to an answer.

use std::time::Duration;

/// What a client sends before its first frame.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEADER_BYTES: usize = 9;
const DATA: u8 = 0;
/// A DATA frame of so many bytes carries more than it costs; the body's own limits bound those.
const USEFUL_BYTES: u32 = 256;

/// Frames that a connection may send before anything was answered: a client that opens as many streams as it may,
/// with a few frames each.
const FIRST: u64 = 1000;
/// For each answer: head, body, window updates, and a ping after each of a few packets, as clients that measure their
/// bandwidth send them.
const FOR_EACH_ANSWER: u64 = 64;
/// For each second: pings of a client that has nothing else to say.
const FOR_EACH_SECOND: u64 = 10;

/// Reads along with a connection's bytes.
#[derive(Debug)]
pub(super) struct Frames {
    state: State,
    /// So far, without the useful ones.
    charged: u64,
}

#[derive(Debug)]
enum State {
    /// So many bytes of the preface came.
    Preface(usize),
    /// HTTP/1.1: there is nothing to count.
    Plain,
    Header {
        bytes: [u8; HEADER_BYTES],
        filled: usize,
    },
    Payload {
        left: usize,
    },
}

impl Frames {
    pub(super) fn new() -> Self {
        Self { state: State::Preface(0), charged: 0 }
    }

    /// These bytes came next.
    pub(super) fn read(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let taken = match &mut self.state {
                State::Plain => return,
                State::Preface(seen) => {
                    let wanted = &PREFACE[*seen..];
                    let taken = wanted.len().min(bytes.len());
                    *seen += taken;
                    if wanted[..taken] != bytes[..taken] {
                        self.state = State::Plain;
                    } else if taken == wanted.len() {
                        self.state = State::Header { bytes: [0; HEADER_BYTES], filled: 0 };
                    }
                    taken
                }
                State::Header { bytes: header, filled } => {
                    let taken = (HEADER_BYTES - *filled).min(bytes.len());
                    header[*filled..*filled + taken].copy_from_slice(&bytes[..taken]);
                    *filled += taken;
                    if *filled == HEADER_BYTES {
                        let header = *header;
                        self.begin(header);
                    }
                    taken
                }
                State::Payload { left } => {
                    let taken = bytes.len().min(*left);
                    *left -= taken;
                    if *left == 0 {
                        self.state = State::Header { bytes: [0; HEADER_BYTES], filled: 0 };
                    }
                    taken
                }
            };
            bytes = &bytes[taken..];
        }
    }

    fn begin(&mut self, [a, b, c, kind, ..]: [u8; HEADER_BYTES]) {
        let length = u32::from_be_bytes([0, a, b, c]);
        if kind != DATA || length < USEFUL_BYTES {
            self.charged += 1;
        }
        // 24 bits fit wherever the bridge runs.
        let left = usize::try_from(length).unwrap_or(usize::MAX);
        self.state =
            if left > 0 { State::Payload { left } } else { State::Header { bytes: [0; HEADER_BYTES], filled: 0 } };
    }

    /// Whether more frames came than a connection of that age, with so many answers, may have sent.
    pub(super) fn too_many(&self, answers: u64, age: Duration) -> bool {
        // The common case asks for no clock and no product.
        self.charged > FIRST && self.charged > FIRST + FOR_EACH_ANSWER * answers + FOR_EACH_SECOND * age.as_secs()
    }

    /// Whether [`Self::too_many`] can say yes at all: spares the clock.
    pub(super) fn is_suspect(&self) -> bool {
        self.charged > FIRST
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, length: u32) -> Vec<u8> {
        let [_, a, b, c] = length.to_be_bytes();
        let mut frame = vec![a, b, c, kind, 0, 0, 0, 0, 1];
        frame.resize(HEADER_BYTES + length as usize, 0);
        frame
    }

    fn charged(bytes: &[u8], piece: usize) -> u64 {
        let mut frames = Frames::new();
        bytes.chunks(piece).for_each(|piece| frames.read(piece));
        frames.charged
    }

    #[test]
    fn frames_are_counted_however_their_bytes_are_cut() {
        let mut bytes = PREFACE.to_vec();
        for (kind, length) in [(4, 0), (1, 30), (0, 1000), (0, 0), (0, 16_384), (6, 8), (9, 5)] {
            bytes.extend(frame(kind, length));
        }
        for piece in [1, 2, 7, 9, 24, 25, 1000, bytes.len()] {
            assert_eq!(charged(&bytes, piece), 5, "in pieces of {piece}");
        }
    }

    #[test]
    fn http_1_has_no_frames() {
        for text in ["POST /hooks/a HTTP/1.1\r\n\r\n", "PRI * HTTP/1.1\r\n\r\n", "P"] {
            assert_eq!(charged(&text.as_bytes().repeat(100), 3), 0, "{text}");
        }
    }

    #[test]
    fn answers_and_time_allow_for_more_frames() {
        let mut frames = Frames::new();
        frames.read(PREFACE);
        let ping = frame(6, 8);
        (0..FIRST).for_each(|_| frames.read(&ping));
        assert!(!frames.too_many(0, Duration::ZERO));
        frames.read(&ping);
        assert!(frames.too_many(0, Duration::ZERO));
        assert!(!frames.too_many(1, Duration::ZERO));
        assert!(!frames.too_many(0, Duration::from_secs(1)));
    }
}
