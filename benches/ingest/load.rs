//! The load generator: raw TCP, kept alive, one thread, requests built and signed beforehand, so that it costs little
//! beside the server that it measures.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::LocalSet;

/// What a run saw.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// 2xx, the warm-up's among them.
    pub(crate) acked: u64,
    /// What was not a 2xx, likewise.
    pub(crate) failed: u64,
    /// Of the 2xx after the warm-up, in microseconds.
    latencies_us: Vec<u32>,
    seconds: f64,
}

impl Seen {
    /// 2xx a second, after the warm-up.
    pub(crate) fn rate(&self) -> f64 {
        self.latencies_us.len() as f64 / self.seconds
    }

    /// `share` of 0.5: the median. Milliseconds.
    pub(crate) fn percentile_ms(&self, share: f64) -> f64 {
        let mut sorted = self.latencies_us.clone();
        sorted.sort_unstable();
        let at = (sorted.len() as f64 * share) as usize;
        let at = at.min(sorted.len().saturating_sub(1));
        sorted.get(at).map_or(f64::NAN, |&us| f64::from(us) / 1000.0)
    }
}

/// Requests, prebuilt: head, body and signature.
pub(crate) type Requests = Arc<Vec<Vec<u8>>>;

/// Closed loop: each connection sends its next request after the answer to the last.
pub(crate) fn closed(
    address: SocketAddr,
    requests: &Requests,
    connections: usize,
    warm_up: Duration,
    run: Duration,
) -> Seen {
    let next = Arc::new(AtomicUsize::new(0));
    let start = Instant::now() + warm_up;
    let end = start + run;
    let mut seen = on_one_thread(connections, || {
        let (requests, next) = (Arc::clone(requests), Arc::clone(&next));
        async move {
            let mut seen = Seen::default();
            let mut connection = Connection::open(address).await;
            while Instant::now() < end {
                let request = &requests[next.fetch_add(1, Ordering::Relaxed) % requests.len()];
                let sent = Instant::now();
                let ok = connection.exchange(request).await;
                let done = Instant::now();
                seen.count(ok, (done >= start && done < end).then(|| done - sent));
            }
            seen
        }
    });
    seen.seconds = run.as_secs_f64();
    seen
}

/// Open loop: requests leave at fixed times whatever the answers do; latency is counted from the intended time.
pub(crate) fn open(address: SocketAddr, requests: &Requests, rate: u32, connections: usize, run: Duration) -> Seen {
    let warm_up = Duration::from_secs(1);
    let total = ((warm_up + run).as_secs_f64() * f64::from(rate)) as u32;
    let begin = Instant::now() + Duration::from_millis(50);
    let (tickets, queue) = mpsc::channel::<Instant>(total as usize);
    #[allow(clippy::disallowed_methods, reason = "a load generator waits for the clock")]
    let clock = std::thread::spawn(move || {
        for at in 0..total {
            let due = begin + Duration::from_secs_f64(f64::from(at) / f64::from(rate));
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            if tickets.try_send(due).is_err() {
                return;
            }
        }
    });
    let queue = Arc::new(tokio::sync::Mutex::new(queue));
    let next = Arc::new(AtomicUsize::new(0));
    let mut seen = on_one_thread(connections, || {
        let (requests, next, queue) = (Arc::clone(requests), Arc::clone(&next), Arc::clone(&queue));
        async move {
            let mut seen = Seen::default();
            let mut connection = Connection::open(address).await;
            loop {
                let Some(due) = queue.lock().await.recv().await else { return seen };
                let request = &requests[next.fetch_add(1, Ordering::Relaxed) % requests.len()];
                let ok = connection.exchange(request).await;
                seen.count(ok, (due >= begin + warm_up).then(|| due.elapsed()));
            }
        }
    });
    seen.seconds = run.as_secs_f64();
    let _ = clock.join();
    seen
}

impl Seen {
    /// `latency`: none outside the measured time.
    fn count(&mut self, ok: bool, latency: Option<Duration>) {
        if !ok {
            self.failed += 1;
            return;
        }
        self.acked += 1;
        let micros = |latency: Duration| u32::try_from(latency.as_micros()).unwrap_or(u32::MAX);
        self.latencies_us.extend(latency.map(micros));
    }
}

/// One kept-alive connection, opened again after an error.
struct Connection {
    address: SocketAddr,
    stream: Option<TcpStream>,
    buffer: Vec<u8>,
}

impl Connection {
    async fn open(address: SocketAddr) -> Self {
        let mut connection = Self { address, stream: None, buffer: vec![0; 8192] };
        connection.reopen().await;
        connection
    }

    async fn reopen(&mut self) {
        self.stream = TcpStream::connect(self.address).await.ok();
        if let Some(stream) = &self.stream {
            let _ = stream.set_nodelay(true);
        }
    }

    /// Whether the answer was a 2xx.
    async fn exchange(&mut self, request: &[u8]) -> bool {
        if self.stream.is_none() {
            self.reopen().await;
        }
        let Some(stream) = &mut self.stream else { return false };
        let answer = async {
            stream.write_all(request).await.ok()?;
            let mut filled = 0;
            loop {
                let read = stream.read(&mut self.buffer[filled..]).await.ok().filter(|&n| n > 0)?;
                filled += read;
                if let Some(status) = complete(&self.buffer[..filled]) {
                    return Some(status);
                }
            }
        };
        let status = answer.await;
        if status.is_none() {
            self.stream = None;
        }
        status.is_some_and(|status| status == b'2')
    }
}

/// The first digit of the status, once head and body are there.
fn complete(answer: &[u8]) -> Option<u8> {
    let head = answer.windows(4).position(|part| part == b"\r\n\r\n")?;
    let text = std::str::from_utf8(&answer[..head]).ok()?;
    let length = text.split("\r\n").find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    (answer.len() >= head + 4 + length.unwrap_or(0)).then(|| answer[9])
}

/// Runs one task a connection on this thread, and adds up what they saw.
fn on_one_thread<F: Future<Output = Seen> + 'static>(connections: usize, task: impl Fn() -> F) -> Seen {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let tasks = LocalSet::new();
    let running: Vec<_> = (0..connections).map(|_| tasks.spawn_local(task())).collect();
    tasks.block_on(&runtime, async {
        let mut seen = Seen::default();
        for task in running {
            let part = task.await.expect("a connection's task");
            seen.acked += part.acked;
            seen.failed += part.failed;
            seen.latencies_us.extend(part.latencies_us);
        }
        seen
    })
}
