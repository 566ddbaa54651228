//! hookbridge: webhooks into Kafka as versioned Avro events, and out again to marketing sinks.
//!
//! ```text
//!  provider ──HTTP──▶ ingest: verify ▶ split ▶ map ▶ validate+encode ▶ publish ──▶ Kafka  events.*
//!                       │ 401                      │ quarantine.*         │ 2xx           │  one consumer group per sink
//!                                                                                        ▼
//!                                                                      deliver: route ▶ consent ▶ send ▶ settle
//!                                                                                        │
//!                                                                                     Postgres, HTTP
//! ```
//!
//! Read the modules in this order, which is the order in which data flows.

// What is written down before anything runs.
pub mod catalog;
pub mod config;

// The words that every stage shares.
pub mod calendar;
mod causes;
pub mod clock;
pub mod event;
pub mod metrics;
pub mod outcome;
mod patience;
#[cfg(feature = "seeded-bugs")]
mod seeded;

// HTTP → event.
pub mod expr;
pub mod ingest;
pub mod schema;

// The log in the middle.
pub mod kafka;

// Record → settlement.
pub mod deliver;
pub mod sinks;

// What operators want: sinks paused, records sent once more.
pub mod control;
pub mod replay;

// What people and their tools see.
pub mod console;
pub mod sender;

// The wiring, and the ways to start it.
pub mod app;
pub mod cli;
pub mod dev;
