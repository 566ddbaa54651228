//! What is compared with: a bare `axum` + `rdkafka` handler. It verifies nothing, validates nothing, and sends the JSON
//! as it is, keyed by the customer, with the same durability: `acks=all`, idempotent, lz4, linger 1 ms.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::routing::post;
use http::StatusCode;
use rdkafka::ClientConfig;
use rdkafka::producer::{FutureProducer, FutureRecord};
use serde::Deserialize;

struct Bare {
    producer: FutureProducer,
    topic: String,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    data: Keyed<'a>,
}

#[derive(Deserialize)]
struct Keyed<'a> {
    #[serde(borrow)]
    customer_id: std::borrow::Cow<'a, str>,
}

/// Serves until the process is ended.
pub(crate) fn serve(address: SocketAddr, bootstrap: &str, topic: &str) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let producer = ClientConfig::new()
            .set("bootstrap.servers", bootstrap)
            .set("acks", "all")
            .set("enable.idempotence", "true")
            .set("compression.type", "lz4")
            .set("linger.ms", "1")
            .create()
            .expect("a producer");
        let bare = Arc::new(Bare { producer, topic: topic.to_owned() });
        let app = Router::new().route("/hooks/storefront", post(receive)).with_state(bare);
        let listener = tokio::net::TcpListener::bind(address).await.expect("the address");
        axum::serve(axum::serve::ListenerExt::tap_io(listener, |stream| drop(stream.set_nodelay(true))), app)
            .await
            .expect("the server");
    });
}

async fn receive(State(bare): State<Arc<Bare>>, body: Bytes) -> StatusCode {
    let Ok(event) = serde_json::from_slice::<Envelope>(&body) else { return StatusCode::BAD_REQUEST };
    let record = FutureRecord::to(&bare.topic).key(event.data.customer_id.as_ref()).payload(&body[..]);
    match bare.producer.send(record, Duration::from_secs(5)).await {
        Ok(_) => StatusCode::ACCEPTED,
        Err(_) => StatusCode::SERVICE_UNAVAILABLE,
    }
}
