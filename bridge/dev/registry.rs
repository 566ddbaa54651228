//! The built-in registry, served over HTTP, so that `kcat`, Python consumers and the bridge itself find schemas where
//! they expect them.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use http::{HeaderValue, Method, Response, StatusCode, Uri, header};

use crate::schema::builtin::Builtin;

pub(super) fn router(registry: Arc<Builtin>) -> Router {
    Router::new().fallback(answer).with_state(registry)
}

async fn answer(State(registry): State<Arc<Builtin>>, method: Method, uri: Uri, body: Bytes) -> Response<Body> {
    let (status, json) = registry.answer(method.as_str(), uri.path(), &body);
    let mut response = Response::new(Body::from(json));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let json = HeaderValue::from_static("application/vnd.schemaregistry.v1+json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}
