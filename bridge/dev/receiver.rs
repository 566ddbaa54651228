//! The local receiver: what a vendor would be. It answers 200 and says what arrived.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::routing::post;
use http::{HeaderMap, StatusCode};
use serde::Deserialize;

use super::view::View;

/// What a plain HTTP sink sends, as far as it is shown.
#[derive(Deserialize)]
struct Delivery {
    r#type: String,
}

pub(super) fn router(view: Arc<View>) -> Router {
    Router::new().route("/{sink}", post(receive)).with_state(view)
}

async fn receive(
    State(view): State<Arc<View>>,
    Path(sink): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> StatusCode {
    let Ok(delivery) = serde_json::from_slice::<Delivery>(&body) else { return StatusCode::BAD_REQUEST };
    let id = headers.get("webhook-id").and_then(|id| id.to_str().ok()).unwrap_or("without an id");
    view.arrived(&sink, &delivery.r#type, id);
    StatusCode::OK
}
