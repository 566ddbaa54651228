use std::collections::BTreeMap;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use uuid::Uuid;

use super::*;
use crate::config::Secret;
use crate::event::Identity;

pub(super) fn delivery() -> Delivery {
    Delivery {
        delivery_id: Uuid::nil(),
        identity: Identity { source: "shop".into(), id: "1".into(), event_type: "purchase_completed".into() },
        offset: 7,
        received_at_ms: Some(1_767_225_600_000),
        occurred_at: None,
        schema_id: 1,
        content: Content::Json(br#"{"total":19.90}"#.to_vec()),
    }
}

fn config(url: String) -> config::Http {
    config::Http {
        url,
        headers: BTreeMap::new(),
        standard_webhooks: Some(Secret::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")),
        concurrency: 1,
        pacing: config::Pacing::default(),
        timeout: Duration::from_secs(5),
        batch: None,
    }
}

fn loopback() -> Vec<Network> {
    vec!["127.0.0.0/8".parse().unwrap()]
}

#[test]
fn the_signature_is_the_published_one() {
    // The Standard Webhooks specification's own vector.
    let signer = Signer::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
    let header = signer.sign(b"msg_p5jXN8AQM9LWM0D4loKWxJek", b"1614265330", br#"{"test": 2432232314}"#);
    assert_eq!(&header, b"v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    assert!(Signer::new("whsec_").is_none());
    assert!(Signer::new("not base64!").is_none());
    assert_eq!(format!("{signer:?}"), "Signer([redacted])");
}

#[test]
fn the_body_holds_type_time_and_exact_data() {
    let body = String::from_utf8(body_of(&delivery()).unwrap()).unwrap();
    assert_eq!(body, r#"{"type":"purchase_completed","timestamp":"2026-01-01T00:00:00.000Z","data":{"total":19.90}}"#);
    let mapped = Delivery { content: Content::Mapped(b"{}".to_vec()), occurred_at: Some("then".into()), ..delivery() };
    assert_eq!(body_of(&mapped).unwrap(), br#"{"type":"purchase_completed","timestamp":"then","data":{}}"#);
}

#[test]
fn answers_are_classed_by_what_to_do_next() {
    let seconds = |seconds| Some(Duration::from_secs(seconds));
    for (status, after, class, pause) in [
        (200, None, "delivered", None),
        (204, Some("9"), "delivered", None),
        (301, None, "misconfigured", None),
        (400, None, "rejected", None),
        (401, None, "denied", None),
        (403, None, "denied", None),
        (404, None, "rejected", None),
        (408, None, "transient", None),
        (410, None, "rejected", None),
        (422, None, "rejected", None),
        (429, None, "throttled", None),
        (429, Some("30"), "throttled", seconds(30)),
        (429, Some("Thu, 01 Jan 2026 00:01:00 GMT"), "throttled", seconds(60)),
        (429, Some("Wed, 31 Dec 2025 00:00:00 GMT"), "throttled", seconds(0)),
        (429, Some("soon"), "throttled", None),
        (500, Some("30"), "transient", None),
        (503, None, "transient", None),
        (503, Some("5"), "throttled", seconds(5)),
    ] {
        let outcome = classify(StatusCode::from_u16(status).unwrap(), after, 1_767_225_600_000);
        assert_eq!(outcome.class(), class, "{status}");
        if let Outcome::Throttled { after } = outcome {
            assert_eq!(after, pause, "{status}");
        }
    }
}

#[test]
fn a_private_address_is_refused_before_anything_is_sent() {
    for url in
        ["http://127.0.0.1/", "http://0x7f000001/", "http://2130706433/", "http://[::1]/", "http://169.254.169.254/"]
    {
        assert!(matches!(Http::new("crm", &config(url.into()), &[]), Err(Error::Egress { .. })), "{url}");
    }
    assert!(matches!(Http::new("crm", &config("ftp://x/".into()), &[]), Err(Error::Url { .. })));
    assert!(Http::new("crm", &config("http://127.0.0.1/".into()), &loopback()).is_ok());
}

#[tokio::test]
async fn a_name_that_resolves_to_a_private_address_is_misconfigured() {
    let sink = Http::new("crm", &config("http://localhost:9/".into()), &[]).unwrap();
    let outcome = sink.send(&delivery()).await;
    assert!(matches!(&outcome, Outcome::Misconfigured { reason } if reason.contains("egress.allow")), "{outcome:?}");
}

/// A sink, and where it calls.
pub(super) async fn sink_at() -> (Http, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hooks", listener.local_addr().unwrap());
    (Http::new("crm", &config(url), &loopback()).unwrap(), listener)
}

/// One request, up to `end`.
async fn read_up_to(stream: &mut TcpStream, end: &str) -> Vec<u8> {
    let mut request = Vec::new();
    let mut buffer = [0; 4096];
    while !request.ends_with(end.as_bytes()) {
        let read = stream.read(&mut buffer).await.unwrap();
        assert_ne!(read, 0, "it was closed before the request's end");
        request.extend_from_slice(&buffer[..read]);
    }
    request
}

/// Takes one request, up to `end`, gives it back as text, and answers with what it is told.
pub(super) async fn receive_once(listener: TcpListener, end: &str, answer: Option<&'static str>) -> String {
    let (mut stream, _) = listener.accept().await.unwrap();
    let request = read_up_to(&mut stream, end).await;
    if let Some(answer) = answer {
        stream.write_all(answer.as_bytes()).await.unwrap();
    }
    String::from_utf8(request).unwrap()
}

#[tokio::test]
async fn an_event_arrives_signed_under_its_delivery_id_with_the_headers_of_the_file() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let headers = [("authorization", "Bearer t0p"), ("user-agent", "shop/1"), ("x-tenant", "eu")];
    let headers = headers.map(|(name, value)| (name.to_owned(), Secret::new(value))).into();
    let config = config::Http { headers, ..config(format!("http://{}/hooks", listener.local_addr().unwrap())) };
    assert!(!format!("{config:?}").contains("t0p"));
    let sink = Http::new("crm", &config, &loopback()).unwrap();
    assert!(!format!("{sink:?}").contains("t0p"));
    let delivery = delivery();
    let (outcome, request) = tokio::join!(
        sink.send(&delivery),
        receive_once(listener, "}}", Some("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"))
    );
    assert_eq!(outcome, Outcome::Delivered);
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    let header = |name: &str| head.lines().find_map(|line| line.strip_prefix(&format!("{name}: "))).unwrap();
    assert_eq!(header("webhook-id"), "00000000-0000-0000-0000-000000000000");
    assert_eq!(header("content-type"), "application/json");
    assert_eq!((header("authorization"), header("x-tenant")), ("Bearer t0p", "eu"));
    assert_eq!(head.matches("user-agent: ").count(), 1, "the file's own takes the place of ours");
    assert_eq!(header("user-agent"), "shop/1");
    let (id, timestamp) = (header("webhook-id").as_bytes(), header("webhook-timestamp").as_bytes());
    let expected = sink.signer.as_ref().unwrap().sign(id, timestamp, body.as_bytes());
    assert_eq!(header("webhook-signature").as_bytes(), expected);
    assert_eq!((header("host"), header("content-length")), (host.as_str(), body.len().to_string().as_str()));
    assert_eq!(head.lines().next(), Some("POST /hooks HTTP/1.1"));
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let sink = Http::new("crm", &config(format!("http://{}/", listener.local_addr().unwrap())), &loopback()).unwrap();
    let delivery = delivery();
    let answer = "HTTP/1.1 307 Temporary Redirect\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n";
    let (outcome, _) = tokio::join!(sink.send(&delivery), receive_once(listener, "}}", Some(answer)));
    assert!(matches!(outcome, Outcome::Misconfigured { .. }), "{outcome:?}");
}

#[tokio::test]
async fn a_receiver_that_hangs_up_without_an_answer_leaves_the_outcome_unknown() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let sink = Http::new("crm", &config(format!("http://{}/", listener.local_addr().unwrap())), &loopback()).unwrap();
    let delivery = delivery();
    let (outcome, _) = tokio::join!(sink.send(&delivery), receive_once(listener, "}}", None));
    assert!(matches!(outcome, Outcome::Unknown { .. }), "{outcome:?}");
}

#[tokio::test]
async fn a_refused_connection_is_transient() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let sink = Http::new("crm", &config(format!("http://{address}/")), &loopback()).unwrap();
    let outcome = sink.send(&delivery()).await;
    assert!(matches!(outcome, Outcome::Transient { .. }), "{outcome:?}");
}

#[test]
fn a_login_in_the_address_is_sent_as_a_header_and_not_as_part_of_it() {
    let (uri, headers) = target(Url::parse("https://me:p%40ss%zz@crm.example:443/in?a=b#part").unwrap()).unwrap();
    assert_eq!(uri, "https://crm.example/in?a=b");
    assert_eq!(headers[header::HOST], "crm.example");
    assert_eq!(headers[header::AUTHORIZATION], format!("Basic {}", STANDARD.encode("me:p@ss%zz")));
    let (uri, headers) = target(Url::parse("http://[::1]:8080").unwrap()).unwrap();
    assert_eq!(
        (uri.to_string().as_str(), &headers[header::HOST]),
        ("http://[::1]:8080/", &HeaderValue::from_static("[::1]:8080"))
    );
    assert!(!headers.contains_key(header::AUTHORIZATION));
}

#[tokio::test]
async fn a_receiver_that_does_not_answer_in_time_leaves_the_outcome_unknown() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let brief = config::Http { timeout: Duration::from_millis(50), ..config(format!("http://{address}/")) };
    let sink = Http::new("crm", &brief, &loopback()).unwrap();
    let outcome = sink.send(&delivery()).await;
    assert!(matches!(&outcome, Outcome::Unknown { reason } if reason.contains("50ms")), "{outcome:?}");
}

#[tokio::test]
async fn a_connection_is_used_again_once_its_answer_was_read() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let sink = Http::new("crm", &config(format!("http://{}/", listener.local_addr().unwrap())), &loopback()).unwrap();
    let receiver = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        for _ in 0..3 {
            read_up_to(&mut stream, "}}").await;
            let answer = b"HTTP/1.1 202 Accepted\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
            stream.write_all(answer).await.unwrap();
        }
    };
    let delivery = delivery();
    let sender = async {
        for _ in 0..3 {
            assert_eq!(sink.send(&delivery).await, Outcome::Delivered);
        }
    };
    tokio::join!(receiver, sender);
}

#[tokio::test]
async fn a_connection_that_was_closed_while_it_rested_is_replaced_before_anything_is_sent() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let sink = Http::new("crm", &config(format!("http://{address}/")), &loopback()).unwrap();
    let (closed, mut was_closed) = tokio::sync::mpsc::channel(1);
    let receiver = async {
        for _ in 0..3 {
            let (mut stream, _) = listener.accept().await.unwrap();
            let request = read_up_to(&mut stream, "}}").await;
            assert_eq!(request.windows(4).filter(|bytes| bytes == b"POST").count(), 1);
            // It promises to be there for the next one, and is not.
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
            drop(stream);
            closed.send(()).await.unwrap();
        }
    };
    let delivery = delivery();
    let sender = async {
        for _ in 0..3 {
            assert_eq!(sink.send(&delivery).await, Outcome::Delivered);
            was_closed.recv().await.unwrap();
            // The runtime looks at its sockets before it looks at its clock: then it has heard of it.
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::join!(receiver, sender);
}
