//! A provider, as far as a bridge can tell: signs a request by a source's description, sends it, and reads the answer.
//! For `send` and `dev`.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use reqwest::Client;
use serde::Deserialize;

use crate::catalog::SourceScheme;
use crate::config::Secret;
use crate::ingest::verify::{self, Message, SignError};

/// Longer than any deadline of `ingest`.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);

/// One request before it is signed.
#[derive(Debug, Clone, Copy)]
pub struct Unsigned<'a> {
    /// Goes into the header that the scheme reads the event's id from, where that header is signed.
    pub id: &'a str,
    /// Milliseconds since the Unix epoch: the signed timestamp.
    pub now_ms: i64,
    /// The address as the provider knows it, which some of them sign.
    pub url: &'a str,
    pub headers: &'a HeaderMap,
    pub body: &'a [u8],
}

/// One request as it is sent, any number of times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// What came back.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: StatusCode,
    pub body: Bytes,
}

/// A bridge's receipts, as far as they are told to people.
#[derive(Debug, Default, Deserialize)]
pub struct Receipts {
    #[serde(default)]
    pub events: Vec<Receipt>,
}

/// What became of one event.
#[derive(Debug, Default, Deserialize)]
pub struct Receipt {
    pub status: String,
    pub event_id: Option<String>,
    pub event_type: Option<String>,
    pub topic: Option<String>,
    pub partition: Option<i32>,
    pub offset: Option<i64>,
    pub schema: Option<Schema>,
    pub reason: Option<String>,
    #[serde(default)]
    pub violations: Vec<Violation>,
    pub violations_total: Option<usize>,
}

#[derive(Debug, Deserialize)]
pub struct Schema {
    pub subject: String,
    pub version: u32,
    pub id: u32,
}

#[derive(Debug, Deserialize)]
pub struct Violation {
    pub pointer: String,
    pub message: String,
}

impl Unsigned<'_> {
    /// Signs it by the first way that the secret fits.
    ///
    /// # Errors
    /// As [`verify::sign`].
    pub fn sign(&self, scheme: &SourceScheme, secret: &Secret) -> Result<Signed, SignError> {
        let Self { id, now_ms, url, headers, body } = *self;
        let message = Message { id, now_ms, method: "POST", url, headers, body };
        let signed = verify::sign(scheme, secret, &message)?;
        let mut headers = headers.clone();
        headers.extend(signed.headers);
        Ok(Signed { headers, body: Bytes::from(signed.body.into_owned()) })
    }
}

/// Sends over one pool of connections.
#[derive(Debug, Clone)]
pub struct Sender {
    client: Client,
}

impl Sender {
    /// `direct`: past any proxy of the environment, which knows no way to this machine.
    ///
    /// # Errors
    /// Where the TLS library cannot be set up.
    pub fn new(direct: bool) -> Result<Self, reqwest::Error> {
        let client = Client::builder().timeout(ANSWER_WITHIN);
        let client = if direct { client.no_proxy() } else { client };
        Ok(Self { client: client.build()? })
    }

    /// # Errors
    /// Where no whole answer came.
    pub async fn post(&self, url: &str, signed: &Signed) -> Result<Answer, reqwest::Error> {
        let request = self.client.post(url).headers(signed.headers.clone()).body(signed.body.clone());
        let answer = request.send().await?;
        let status = answer.status();
        Ok(Answer { status, body: answer.bytes().await? })
    }
}

impl Answer {
    /// The receipts of a 2xx; none where the answer is no bridge's, or of a request that is no event.
    #[must_use]
    pub fn receipts(&self) -> Option<Receipts> {
        serde_json::from_slice(&self.body).ok().filter(|_| self.status.is_success())
    }
}
