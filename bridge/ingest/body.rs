//! Reads a request's body: bounded in bytes and in time, and kept raw, since signatures are over raw bytes.
//!
//! Nearly every webhook is small and came with its head, in one packet. Those cost neither a timer nor a count: what
//! they hold is bounded by the number of requests under way. Larger and slower ones share a room, so that whoever fills
//! it with bytes that trickle in shuts out only others of that kind.

mod inflate;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, header};
use http_body_util::BodyExt;
use hyper::body::Body;
use tokio::time::Instant;

use self::inflate::Coding;

/// Of each body so many bytes are not counted against the room: as many as a connection's read buffer holds anyway.
const SMALL: usize = 16 * 1024;
/// How long a body may be late before its rate is looked at: a packet lost and sent again twice.
const GRACE: Duration = Duration::from_secs(5);

/// Why a body was not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    TooLarge,
    TooSlow,
    /// The peer went away, or sent less than it announced.
    Broken,
    /// Compressed in a way that is not taken, or compressed at all.
    Encoded,
    /// Compressed, and then not what was announced.
    Corrupt,
    /// There is no room for it at the moment.
    Full,
}

/// What a body may be.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Bytes, also of what a compressed body inflates to.
    pub max: usize,
    /// From the end of the head to the end of the body.
    pub timeout: Duration,
    /// Bytes a second, on the average, once the first seconds are over.
    pub min_rate: usize,
    /// Whether `gzip` and `deflate` are taken.
    pub compressed: bool,
    pub room: Arc<Room>,
}

/// What bodies may hold in memory together, beyond the first 16 KiB of each, and how many may be on their way.
#[derive(Debug)]
pub struct Room {
    max_bytes: usize,
    bytes: AtomicUsize,
    max_coming: usize,
    coming: AtomicUsize,
}

impl Room {
    #[must_use]
    pub fn new(max_bytes: usize, max_coming: usize) -> Self {
        Self { max_bytes, bytes: AtomicUsize::new(0), max_coming, coming: AtomicUsize::new(0) }
    }

    /// Bytes held at present.
    #[must_use]
    pub fn held(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }
}

/// Counts first and looks afterwards: two at the edge may both be refused, but never both pass it.
fn add(count: &AtomicUsize, amount: usize, max: usize) -> Result<(), Refused> {
    if count.fetch_add(amount, Ordering::Relaxed) + amount <= max {
        return Ok(());
    }
    count.fetch_sub(amount, Ordering::Relaxed);
    Err(Refused::Full)
}

/// A body that has not come whole with its head; counted until this is dropped.
#[derive(Debug)]
struct OnItsWay<'a>(&'a Room);

impl<'a> OnItsWay<'a> {
    fn new(room: &'a Room) -> Result<Self, Refused> {
        add(&room.coming, 1, room.max_coming).map(|()| Self(room))
    }
}

impl Drop for OnItsWay<'_> {
    fn drop(&mut self) {
        self.0.coming.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What one request's bytes hold of the room, given back when it is dropped.
#[derive(Debug)]
struct Claim<'a> {
    room: &'a Arc<Room>,
    /// Bytes that it holds in memory, and those of them that are counted.
    held: usize,
    counted: usize,
}

impl<'a> Claim<'a> {
    fn new(room: &'a Arc<Room>) -> Self {
        Self { room, held: 0, counted: 0 }
    }

    /// So many bytes more, asked for before they are kept.
    fn grow(&mut self, bytes: usize) -> Result<(), Refused> {
        self.held += bytes;
        let more = self.held.saturating_sub(SMALL) - self.counted;
        if more > 0 {
            add(&self.room.bytes, more, self.room.max_bytes)?;
            self.counted += more;
        }
        Ok(())
    }

    /// Bytes that give the claim back when the last of them is dropped.
    fn keep(mut self, bytes: Bytes) -> Bytes {
        let counted = std::mem::take(&mut self.counted);
        if counted == 0 {
            return bytes;
        }
        Bytes::from_owner(Kept { bytes, room: Arc::clone(self.room), counted })
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        if self.counted > 0 {
            self.room.bytes.fetch_sub(self.counted, Ordering::Relaxed);
        }
    }
}

/// Bytes with their claim on the room.
struct Kept {
    bytes: Bytes,
    room: Arc<Room>,
    counted: usize,
}

impl AsRef<[u8]> for Kept {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.room.bytes.fetch_sub(self.counted, Ordering::Relaxed);
    }
}

/// The whole body, plain: what was compressed is inflated, and the headers then no longer say that it is.
///
/// What is compressed is inflated before anybody looks at its signature, since providers sign the plain payload and
/// compress it for the way (Stream and QuickNode document it so). That is why it has to be asked for.
///
/// # Errors
/// Nothing of the body is kept.
pub async fn read<B>(headers: &mut HeaderMap, body: B, limits: &Limits) -> Result<Bytes, Refused>
where
    B: Body<Data = Bytes> + Unpin,
{
    let coding = match headers.get(header::CONTENT_ENCODING) {
        None => None,
        Some(value) if value.as_bytes().eq_ignore_ascii_case(b"identity") => None,
        Some(value) if limits.compressed => Some(Coding::named(value.as_bytes()).ok_or(Refused::Encoded)?),
        Some(_) => return Err(Refused::Encoded),
    };
    // What was announced is refused before a byte of it is held.
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|n| n.to_str().ok()).and_then(|n| n.parse().ok());
    if announced.is_some_and(|bytes: u64| bytes > limits.max as u64) {
        return Err(Refused::TooLarge);
    }
    let came = AtomicUsize::new(0);
    let (sent, mut claim) = {
        let mut whole = std::pin::pin!(collect(body, limits, &came));
        // Most bodies came with the head, in one packet: those cost no timer.
        if let Some(done) = poll_once(whole.as_mut()).await {
            done?
        } else {
            let _on_its_way = OnItsWay::new(&limits.room)?;
            patiently(whole, limits, &came).await?
        }
    };
    let Some(coding) = coding else { return Ok(claim.keep(sent)) };
    let plain = inflate::inflate(coding, &sent, limits.max, |bytes| claim.grow(bytes)).await?;
    headers.remove(header::CONTENT_ENCODING);
    headers.remove(header::CONTENT_LENGTH);
    Ok(claim.keep(plain))
}

/// Waits for the body for as long as it comes fast enough: until `timeout`, and never longer than the bytes that are
/// there take at the least rate.
async fn patiently<F, T>(mut whole: F, limits: &Limits, came: &AtomicUsize) -> Result<T, Refused>
where
    F: Future<Output = Result<T, Refused>> + Unpin,
{
    let start = Instant::now();
    let deadline = || start + allowed(came.load(Ordering::Relaxed), limits);
    loop {
        let until = deadline();
        match tokio::time::timeout_at(until, &mut whole).await {
            Ok(done) => return done,
            // Bytes that came meanwhile have moved it.
            Err(_) if deadline() > until => {}
            Err(_) => return Err(Refused::TooSlow),
        }
    }
}

/// How long a body of which so many bytes have come may have taken.
fn allowed(came: usize, limits: &Limits) -> Duration {
    let seconds = came as u64 / (limits.min_rate as u64).max(1);
    (GRACE + Duration::from_secs(seconds)).min(limits.timeout)
}

async fn collect<'a>(
    mut body: impl Body<Data = Bytes> + Unpin,
    limits: &'a Limits,
    came: &AtomicUsize,
) -> Result<(Bytes, Claim<'a>), Refused> {
    let mut claim = Claim::new(&limits.room);
    let first = next(&mut body, limits.max).await?;
    claim.grow(first.len())?;
    came.store(first.len(), Ordering::Relaxed);
    let second = next(&mut body, limits.max - first.len()).await?;
    if second.is_empty() {
        return Ok((first, claim)); // one frame, as hyper read it: nothing is copied
    }
    claim.grow(second.len())?;
    let mut whole = BytesMut::with_capacity(first.len() + second.len());
    whole.extend_from_slice(&first);
    whole.extend_from_slice(&second);
    drop((first, second));
    loop {
        came.store(whole.len(), Ordering::Relaxed);
        let more = next(&mut body, limits.max - whole.len()).await?;
        if more.is_empty() {
            return Ok((whole.freeze(), claim));
        }
        claim.grow(more.len())?;
        whole.extend_from_slice(&more);
    }
}

/// The next data that is not empty, at most `room` bytes; empty at the end.
async fn next(body: &mut (impl Body<Data = Bytes> + Unpin), room: usize) -> Result<Bytes, Refused> {
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| Refused::Broken)?.into_data() else { continue };
        if data.len() > room {
            return Err(Refused::TooLarge);
        }
        if !data.is_empty() {
            return Ok(data);
        }
    }
    Ok(Bytes::new())
}

async fn poll_once<F: Future + Unpin>(mut future: F) -> Option<F::Output> {
    std::future::poll_fn(|cx| match std::pin::Pin::new(&mut future).poll(cx) {
        std::task::Poll::Ready(done) => std::task::Poll::Ready(Some(done)),
        std::task::Poll::Pending => std::task::Poll::Ready(None),
    })
    .await
}

#[cfg(test)]
mod tests;
