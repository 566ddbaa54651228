//! What the benches that start processes share: Kafka as they use it, what a process costs, and the words of a person
//! who starts one.

pub(crate) mod kafka;
pub(crate) mod process;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

/// A release build starts in a second; a machine that is busy may take its time.
const START: Duration = Duration::from_secs(60);

/// What follows the bench's name on the command line.
pub(crate) struct Arguments(Vec<String>);

impl Arguments {
    pub(crate) fn read() -> Self {
        Self(std::env::args().collect())
    }

    pub(crate) fn has(&self, flag: &str) -> bool {
        self.0.iter().any(|argument| argument == flag)
    }

    /// The words behind `flag`; `None` without it.
    pub(crate) fn behind(&self, flag: &str) -> Option<&[String]> {
        let at = self.0.iter().position(|argument| argument == flag)?;
        Some(&self.0[at + 1..])
    }

    pub(crate) fn number(&self, flag: &str) -> Option<u64> {
        Some(self.behind(flag)?.first()?.parse().expect("a number"))
    }

    /// The process of a broker that this bench has not started.
    pub(crate) fn broker(&self) -> Option<u32> {
        self.number("--broker").map(|pid| u32::try_from(pid).expect("a process id"))
    }
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Whether the `/readyz` of that admin port says yes.
pub(crate) fn is_ready(admin: SocketAddr) -> bool {
    let Ok(mut stream) = TcpStream::connect(admin) else { return false };
    let mut answer = String::new();
    let asked = stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: bench\r\nconnection: close\r\n\r\n");
    asked.is_ok() && stream.read_to_string(&mut answer).is_ok() && answer.starts_with("HTTP/1.1 200")
}

pub(crate) fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < START, "waited {START:?} for {what}");
        pause(Duration::from_millis(20));
    }
}

#[allow(clippy::disallowed_methods, reason = "other processes, and /proc, send no word when something has happened")]
pub(crate) fn pause(duration: Duration) {
    std::thread::sleep(duration);
}

pub(crate) fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("its address")
}
