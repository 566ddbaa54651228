use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::oneshot;

use super::*;
use crate::metrics::Metrics;

const LIMITS: Limits = Limits {
    max_connections: 4,
    max_requests: 100,
    max_connection_requests: 100,
    max_connection_age: Duration::from_secs(60),
    header_timeout: Duration::from_millis(200),
    idle_timeout: Duration::from_secs(30),
    drain_timeout: Duration::from_secs(5),
};

async fn started(limits: Limits) -> (std::net::SocketAddr, oneshot::Sender<()>, tokio::task::JoinHandle<Drained>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel();
    let app = |_, _| async { Response::new(Full::from("fine")) };
    let metrics = ServerMetrics::new(&Metrics::new().unwrap());
    let server = tokio::spawn(serve(listener, app, limits, metrics, async {
        let _ = stopped.await;
    }));
    (address, stop, server)
}

async fn read_to_end(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    let _ = stream.read_to_end(&mut text).await;
    String::from_utf8_lossy(&text).into_owned()
}

#[tokio::test]
async fn a_head_that_does_not_end_closes_its_connection() {
    let (address, _stop, _server) = started(LIMITS).await;
    for start in ["", "G", "GET / HTTP/1.1\r\nhost: a\r\nx-slow: "] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(start.as_bytes()).await.unwrap();
        let waited = tokio::time::timeout(Duration::from_secs(10), read_to_end(&mut stream)).await;
        assert!(waited.is_ok(), "still open after {start:?}");
    }
}

#[tokio::test]
async fn a_kept_alive_connection_may_idle_longer_than_a_head_may_take() {
    let (address, _stop, _server) = started(LIMITS).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    let mut answer = [0; 512];
    for _ in 0..2 {
        stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        let read = stream.read(&mut answer).await.unwrap();
        assert!(answer[..read].starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer[..read]));
        // Longer than the head's limit, shorter than the idle limit: silence itself is what is tested.
        let silence = tokio::time::timeout(LIMITS.header_timeout * 2, stream.read(&mut answer)).await;
        assert!(silence.is_err(), "the connection was closed while idle");
    }
}

#[tokio::test]
async fn an_idle_connection_is_closed_in_the_end() {
    let (address, _stop, _server) = started(Limits { idle_timeout: Duration::from_millis(200), ..LIMITS }).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let all = tokio::time::timeout(Duration::from_secs(10), read_to_end(&mut stream)).await.unwrap();
    assert!(all.ends_with("fine"), "{all}");
}

#[tokio::test]
async fn a_flood_of_headers_is_431() {
    let (address, _stop, _server) = started(LIMITS).await;
    let many = "x-a: 1\r\n".repeat(MAX_HEADERS + 1);
    let large = format!("x-a: {}\r\n", "a".repeat(MAX_HEAD_BYTES));
    for headers in [many, large] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let head = format!("GET / HTTP/1.1\r\nhost: a\r\n{headers}\r\n");
        let _ = stream.write_all(head.as_bytes()).await;
        let mut answer = [0; 64];
        let read = stream.read(&mut answer).await.unwrap_or(0);
        assert!(answer[..read].starts_with(b"HTTP/1.1 431"), "{}", String::from_utf8_lossy(&answer[..read]));
    }
}

#[tokio::test]
async fn a_stop_drains_and_closes_idle_connections() {
    let (address, stop, server) = started(LIMITS).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let mut answer = [0; 512];
    let _ = stream.read(&mut answer).await.unwrap();
    stop.send(()).unwrap();
    assert_eq!(server.await.unwrap(), Drained::Clean);
    assert!(TcpStream::connect(address).await.is_err(), "the listener is closed");
}

const REQUEST: &[u8] = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n";

async fn exchange(stream: &mut TcpStream) -> String {
    let mut answer = [0; 512];
    stream.write_all(REQUEST).await.unwrap();
    let read = stream.read(&mut answer).await.unwrap_or(0);
    String::from_utf8_lossy(&answer[..read]).into_owned()
}

#[tokio::test]
async fn a_crowd_of_silent_connections_makes_room_and_one_that_was_answered_stays() {
    let patient = Limits { header_timeout: Duration::from_secs(60), ..LIMITS };
    let (address, _stop, _server) = started(patient).await;
    let mut known = TcpStream::connect(address).await.unwrap();
    assert!(exchange(&mut known).await.starts_with("HTTP/1.1 200"));
    let mut silent = Vec::new();
    for _ in 0..LIMITS.max_connections * 3 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"POST / HTTP/1.1\r\nx-slow: ").await.unwrap();
        silent.push(stream);
    }
    let mut new = TcpStream::connect(address).await.unwrap();
    let answer = tokio::time::timeout(Duration::from_secs(10), exchange(&mut new)).await.expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(exchange(&mut known).await.starts_with("HTTP/1.1 200"), "the one that was answered lost its place");
    // The oldest went first.
    read_to_end(&mut silent[0]).await;
}

/// A server whose answers wait: it says when one is being made, and makes it when it is let.
async fn hesitating(limits: Limits) -> (std::net::SocketAddr, Arc<Semaphore>, Arc<Semaphore>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (begun, go) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let app = {
        let (begun, go) = (Arc::clone(&begun), Arc::clone(&go));
        move |request: Request<Arriving>, _| {
            let (begun, go) = (Arc::clone(&begun), Arc::clone(&go));
            async move {
                drop(request);
                begun.add_permits(1);
                drop(go.acquire().await);
                Response::new(Full::from("fine"))
            }
        }
    };
    let metrics = ServerMetrics::new(&Metrics::new().unwrap());
    tokio::spawn(serve(listener, app, limits, metrics, std::future::pending()));
    (address, begun, go)
}

#[tokio::test]
async fn where_every_request_is_being_answered_nobody_is_cut_for_another() {
    let (address, begun, go) = hesitating(Limits { max_connections: 2, ..LIMITS }).await;
    let ask = async || {
        let mut stream = TcpStream::connect(address).await.unwrap();
        exchange(&mut stream).await
    };
    let third = async {
        drop(begun.acquire_many(2).await);
        ask().await
    };
    let between = async {
        drop(begun.acquire_many(2).await);
        // The third may only come in when one of these is answered, however often a place is looked for.
        tokio::time::sleep(PAUSE * 3).await;
        assert_eq!(begun.available_permits(), 2);
        go.add_permits(3);
    };
    let (first, second, third, ()) = tokio::join!(ask(), ask(), third, between);
    for answer in [first, second, third] {
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
}

#[tokio::test]
async fn a_sender_that_closes_its_half_early_gets_its_answer_and_then_the_end() {
    let (address, begun, go) = hesitating(LIMITS).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(REQUEST).await.unwrap();
    drop(begun.acquire().await);
    stream.shutdown().await.unwrap();
    // The end of its half has to come before the answer is made.
    tokio::time::sleep(PAUSE).await;
    go.add_permits(1);
    let all = tokio::time::timeout(Duration::from_secs(10), read_to_end(&mut stream)).await.unwrap();
    assert!(all.starts_with("HTTP/1.1 200") && all.ends_with("fine"), "{all}");
}

#[tokio::test]
async fn past_the_limit_of_requests_the_answer_is_503_and_says_when_to_come_again() {
    let (address, _stop, _server) = started(Limits { max_requests: 0, ..LIMITS }).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    for _ in 0..2 {
        let answer = exchange(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("retry-after"), "{answer}");
    }
}

#[tokio::test]
async fn a_connection_that_has_served_long_enough_is_told_with_its_last_answer() {
    for limits in [
        Limits { max_connection_requests: 2, ..LIMITS },
        Limits { max_connection_age: Duration::ZERO, max_connection_requests: 2, ..LIMITS },
    ] {
        let (address, _stop, _server) = started(limits).await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        if limits.max_connection_age > Duration::ZERO {
            let first = exchange(&mut stream).await;
            assert!(!first.contains("connection: close"), "{first}");
        }
        let last = exchange(&mut stream).await;
        assert!(last.starts_with("HTTP/1.1 200") && last.contains("connection: close"), "{last}");
        assert_eq!(read_to_end(&mut stream).await, "");
    }
}

#[tokio::test]
async fn answers_that_nobody_reads_end_their_connection() {
    let (address, _stop, _server) = started(Limits { max_connection_requests: u64::MAX, ..LIMITS }).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    // As many as it takes until the server's answers fill both sockets, and then until it gives up.
    let flood = async { while stream.write_all(REQUEST).await.is_ok() {} };
    tokio::time::timeout(Duration::from_secs(20), flood).await.expect("the connection is ended");
}

fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0, 0, u8::try_from(payload.len()).unwrap(), kind, flags, 0, 0, 0, stream];
    frame.extend(payload);
    frame
}

/// The preface, SETTINGS, and the head of `POST http://a/` on stream 1 (RFC 7541: static table and one literal).
fn http2_head(flags: u8) -> Vec<u8> {
    let head = frame(1, flags, 1, &[0x83, 0x86, 0x84, 0x01, 1, b'a']);
    [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &frame(4, 0, 0, &[]), &head].concat()
}

/// The kinds of the frames that a server has sent.
fn kinds(mut bytes: &[u8]) -> Vec<u8> {
    let mut kinds = Vec::new();
    while let Some((&[a, b, c, kind, ..], rest)) = bytes.split_first_chunk::<9>() {
        kinds.push(kind);
        bytes = rest.get(u32::from_be_bytes([0, a, b, c]) as usize..).unwrap_or_default();
    }
    kinds
}

async fn bytes_to_end(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut bytes)).await.expect("an end");
    bytes
}

#[tokio::test]
async fn a_connection_of_http_2_that_has_served_long_enough_answers_and_says_goodbye() {
    const END_HEADERS_AND_STREAM: u8 = 5;
    let limits = Limits { max_connection_requests: 1, idle_timeout: Duration::from_millis(200), ..LIMITS };
    let (address, _stop, _server) = started(limits).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(&http2_head(END_HEADERS_AND_STREAM)).await.unwrap();
    let kinds = kinds(&bytes_to_end(&mut stream).await);
    assert!(kinds.contains(&1) && kinds.contains(&7), "no answer or no GOAWAY among {kinds:?}");
}

#[tokio::test]
async fn a_request_that_was_taken_back_keeps_no_connection_open() {
    const END_HEADERS: u8 = 4;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let begun = Arc::new(Semaphore::new(0));
    let app = {
        let begun = Arc::clone(&begun);
        move |_, _| {
            begun.add_permits(1);
            std::future::pending::<Response<Full<Bytes>>>()
        }
    };
    let metrics = ServerMetrics::new(&Metrics::new().unwrap());
    let limits = Limits { idle_timeout: Duration::from_millis(200), ..LIMITS };
    tokio::spawn(serve(listener, app, limits, metrics, std::future::pending()));
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(&http2_head(END_HEADERS)).await.unwrap();
    drop(begun.acquire().await);
    stream.write_all(&frame(3, 0, 1, &[0, 0, 0, 8])).await.unwrap();
    bytes_to_end(&mut stream).await;
}

#[tokio::test]
async fn a_flood_of_pings_ends_its_connection() {
    let (address, _stop, _server) = started(LIMITS).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(&http2_head(5)).await.unwrap();
    let pings = frame(6, 0, 0, b"pingpong").repeat(2_000);
    let _ = stream.write_all(&pings).await;
    bytes_to_end(&mut stream).await;
}
