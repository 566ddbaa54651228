//! The admin port, for operators and their tools: health, readiness, metrics, version. Loopback by default.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use http::{Response, StatusCode, header};
use serde::Serialize;

use crate::app::readiness::{Readiness, Report};
use crate::metrics::Metrics;

/// What the admin port shows.
#[derive(Debug)]
pub struct Console {
    pub readiness: Arc<Readiness>,
    pub metrics: Metrics,
    /// Brings gauges up to date before each scrape.
    pub before_scrape: Box<dyn Scrape>,
}

/// Reads what is only known when asked.
pub trait Scrape: Send + Sync + std::fmt::Debug {
    fn update(&self, metrics: &Metrics);
}

pub fn router(console: Arc<Console>) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/version", get(|| async { Json(Version::default()) }))
        .with_state(console)
}

async fn readyz(State(console): State<Arc<Console>>) -> (StatusCode, Json<Report>) {
    let (ready, report) = console.readiness.report();
    (if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, Json(report))
}

async fn metrics(State(console): State<Arc<Console>>) -> Response<Body> {
    console.before_scrape.update(&console.metrics);
    let mut response = Response::new(Body::from(console.metrics.render()));
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, http::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"));
    response
}

/// What is running.
#[derive(Debug, Serialize)]
pub struct Version {
    pub hookbridge: &'static str,
    pub librdkafka: String,
}

impl Default for Version {
    fn default() -> Self {
        Self { hookbridge: env!("CARGO_PKG_VERSION"), librdkafka: crate::kafka::library_version() }
    }
}
