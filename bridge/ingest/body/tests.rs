use std::collections::VecDeque;
use std::io::Write;
use std::pin::Pin;
use std::task::{Context, Poll};

use http_body_util::StreamBody;
use hyper::body::Frame;

use super::*;

const LIMITS: (usize, usize) = (64 * 1024, 8);

fn limits(max: usize) -> Limits {
    let room = Arc::new(Room::new(LIMITS.0, LIMITS.1));
    Limits { max, timeout: Duration::from_secs(15), min_rate: 1024, compressed: false, room }
}

/// Frames, and then the end; or silence for ever where a frame is `None`.
struct Frames(VecDeque<Option<Bytes>>);

impl futures_core::Stream for Frames {
    type Item = Result<Frame<Bytes>, std::io::Error>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match self.0.front() {
            Some(None) => Poll::Pending,
            _ => Poll::Ready(self.0.pop_front().flatten().map(|data| Ok(Frame::data(data)))),
        }
    }
}

fn frames(parts: &[&'static str]) -> StreamBody<Frames> {
    StreamBody::new(Frames(parts.iter().map(|part| Some(Bytes::from_static(part.as_bytes()))).collect()))
}

fn large(sizes: &[usize], ends: bool) -> StreamBody<Frames> {
    let sizes = sizes.iter().map(|size| Some(Bytes::from(vec![b'a'; *size])));
    StreamBody::new(Frames(sizes.chain((!ends).then_some(None)).collect()))
}

async fn whole(parts: &[&'static str], max: usize) -> Result<Bytes, Refused> {
    read(&mut HeaderMap::new(), frames(parts), &limits(max)).await
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
    assert_eq!(read(&mut headers, frames(&["a"]), &limits(4)).await, Err(Refused::Encoded));
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_LENGTH, "5".parse().unwrap());
    assert_eq!(read(&mut headers, frames(&["a"]), &limits(4)).await, Err(Refused::TooLarge));
}

#[tokio::test]
async fn a_compressed_body_is_inflated_where_that_was_asked_for_and_its_headers_say_so_no_longer() {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(b"plain").unwrap();
    let sent = Bytes::from(encoder.finish().unwrap());
    let body = || StreamBody::new(Frames([Some(sent.clone())].into()));
    let taken = Limits { compressed: true, ..limits(1000) };
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_ENCODING, "gzip".parse().unwrap());
    headers.insert(header::CONTENT_LENGTH, sent.len().into());
    assert_eq!(read(&mut headers, body(), &taken).await, Ok(Bytes::from_static(b"plain")));
    assert!(headers.is_empty());
    headers.insert(header::CONTENT_ENCODING, "br".parse().unwrap());
    assert_eq!(read(&mut headers, body(), &taken).await, Err(Refused::Encoded));
}

#[tokio::test]
async fn small_bodies_pass_a_full_room_and_large_ones_give_their_place_back() {
    let limits = limits(1 << 20);
    let read = async |sizes: &[usize]| read(&mut HeaderMap::new(), large(sizes, true), &limits).await;
    let first = read(&[40 * 1024, 30 * 1024]).await.unwrap();
    assert_eq!(limits.room.held(), first.len() - SMALL);
    assert_eq!(read(&[SMALL, 16 * 1024]).await, Err(Refused::Full));
    assert_eq!(limits.room.held(), first.len() - SMALL, "what was refused holds nothing");
    assert!(read(&[1000, SMALL - 1000]).await.is_ok(), "a small one asks for no room");
    let part = first.slice(1..2);
    drop(first);
    assert!(limits.room.held() > 0, "a part of it keeps all of it in memory");
    drop(part);
    assert_eq!(limits.room.held(), 0);
    assert!(read(&[SMALL, 16 * 1024]).await.is_ok());
}

#[test]
fn a_body_has_a_few_seconds_and_then_as_long_as_its_bytes_are_worth() {
    let limits = limits(1 << 20);
    for (came, seconds) in [(0, 5), (100, 5), (4096, 9), (1 << 19, 15)] {
        assert_eq!(allowed(came, &limits).as_secs(), seconds, "{came} bytes");
    }
}

#[tokio::test]
async fn a_body_that_stops_is_too_slow() {
    let limits = Limits { timeout: Duration::from_millis(50), ..limits(1 << 20) };
    for sizes in [&[][..], &[100], &[1 << 15]] {
        assert_eq!(read(&mut HeaderMap::new(), large(sizes, false), &limits).await, Err(Refused::TooSlow));
    }
    assert_eq!(limits.room.held(), 0);
}

#[tokio::test]
async fn bodies_on_their_way_are_counted_and_whole_ones_are_not() {
    let limits = Limits { room: Arc::new(Room::new(1 << 20, 1)), ..limits(1 << 20) };
    let mut headers = HeaderMap::new();
    let mut waiting = Box::pin(read(&mut headers, large(&[10], false), &limits));
    assert!(poll_once(&mut waiting).await.is_none());
    assert_eq!(read(&mut HeaderMap::new(), large(&[10], false), &limits).await, Err(Refused::Full));
    assert!(read(&mut HeaderMap::new(), frames(&["a"]), &limits).await.is_ok());
    drop(waiting);
    let mut headers = HeaderMap::new();
    let mut next = Box::pin(read(&mut headers, large(&[10], false), &limits));
    assert!(poll_once(&mut next).await.is_none(), "its place was given back");
}
