//! Reads a request's body: bounded in bytes and in time, and kept raw, since signatures are over raw bytes.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, header};
use http_body_util::BodyExt;
use hyper::body::Body;

/// Why a body was not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    TooLarge,
    TooSlow,
    /// The peer went away, or sent less than it announced.
    Broken,
    /// Compressed: only plain bodies are taken.
    Encoded,
}

/// The whole body, at most `max` bytes, within `timeout`.
pub async fn read<B>(headers: &HeaderMap, body: B, max: usize, timeout: Duration) -> Result<Bytes, Refused>
where
    B: Body<Data = Bytes> + Unpin,
{
    if let Some(encoding) = headers.get(header::CONTENT_ENCODING)
        && !encoding.as_bytes().eq_ignore_ascii_case(b"identity")
    {
        return Err(Refused::Encoded);
    }
    // What was announced is refused before a byte of it is held.
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|n| n.to_str().ok()).and_then(|n| n.parse().ok());
    if announced.is_some_and(|bytes: u64| bytes > max as u64) {
        return Err(Refused::TooLarge);
    }
    let mut whole = std::pin::pin!(collect(body, max));
    // Most bodies came with the head, in one packet: those cost no timer.
    if let Some(done) = poll_once(whole.as_mut()).await {
        return done;
    }
    tokio::time::timeout(timeout, whole).await.unwrap_or(Err(Refused::TooSlow))
}

async fn collect(mut body: impl Body<Data = Bytes> + Unpin, max: usize) -> Result<Bytes, Refused> {
    let first = next(&mut body, max).await?;
    let second = next(&mut body, max - first.len()).await?;
    if second.is_empty() {
        return Ok(first); // one frame, as hyper read it: nothing is copied
    }
    let mut whole = BytesMut::with_capacity(first.len() + second.len());
    whole.extend_from_slice(&first);
    whole.extend_from_slice(&second);
    loop {
        let more = next(&mut body, max - whole.len()).await?;
        if more.is_empty() {
            return Ok(whole.freeze());
        }
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
mod tests {
    use http_body_util::StreamBody;
    use hyper::body::Frame;

    use super::*;

    fn frames(parts: &'static [&'static str]) -> StreamBody<Frames> {
        let frames = parts.iter().map(|part| Ok::<_, std::io::Error>(Frame::data(Bytes::from_static(part.as_bytes()))));
        StreamBody::new(Frames(frames.collect()))
    }

    struct Frames(std::collections::VecDeque<Result<Frame<Bytes>, std::io::Error>>);

    impl futures_core::Stream for Frames {
        type Item = Result<Frame<Bytes>, std::io::Error>;

        fn poll_next(
            mut self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Self::Item>> {
            std::task::Poll::Ready(self.0.pop_front())
        }
    }

    async fn whole(parts: &'static [&'static str], max: usize) -> Result<Bytes, Refused> {
        read(&HeaderMap::new(), frames(parts), max, Duration::from_secs(5)).await
    }

    #[tokio::test]
    async fn frames_become_one_body_up_to_the_limit() {
        assert_eq!(whole(&[], 4).await, Ok(Bytes::new()));
        assert_eq!(whole(&["abcd"], 4).await, Ok(Bytes::from_static(b"abcd")));
        assert_eq!(whole(&["", "ab", "", "c", "d"], 4).await, Ok(Bytes::from_static(b"abcd")));
        assert_eq!(whole(&["abcde"], 4).await, Err(Refused::TooLarge));
        assert_eq!(whole(&["ab", "cd", "e"], 4).await, Err(Refused::TooLarge));
    }

    #[tokio::test]
    async fn compressed_and_announced_too_large_are_refused_unread() {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_ENCODING, "gzip".parse().unwrap());
        assert_eq!(read(&headers, frames(&["a"]), 4, Duration::from_secs(5)).await, Err(Refused::Encoded));
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_LENGTH, "5".parse().unwrap());
        assert_eq!(read(&headers, frames(&["a"]), 4, Duration::from_secs(5)).await, Err(Refused::TooLarge));
    }
}
