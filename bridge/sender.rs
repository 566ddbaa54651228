//! A provider, as far as a bridge can tell: signs a request by a source's description, sends it, and reads the answer.
//! For `send` and `dev`.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
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
    /// `POST`, but of some handshakes.
    pub method: &'a str,
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
        let Self { id, now_ms, method, url, headers, body } = *self;
        let message = Message { id, now_ms, method, url, headers, body };
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
        self.send(Method::POST.as_str(), url, signed).await
    }

    /// By another method, as some handshakes are asked for; a method that cannot be is sent as `POST`.
    ///
    /// # Errors
    /// Where no whole answer came.
    pub async fn send(&self, method: &str, url: &str, signed: &Signed) -> Result<Answer, reqwest::Error> {
        let method = Method::from_bytes(method.as_bytes()).unwrap_or(Method::POST);
        let request = self.client.request(method, url).headers(signed.headers.clone()).body(signed.body.clone());
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

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use http::{HeaderName, HeaderValue};
    use openssl::ec::{EcGroup, EcKey};
    use openssl::nid::Nid;
    use openssl::pkey::PKey;

    use super::*;
    use crate::catalog::{Occasion, preset, preset_names, samples};
    use crate::ingest::verify::{Request, Verifier};

    const NOW: i64 = 1_767_225_600_000;
    const URL: &str = "https://hooks.example.com/hooks/x?a=%20b";

    /// The secret that a source has, and what signs for it.
    fn keys(preset: &str) -> (Secret, Secret) {
        let same = |text: &str| (Secret::new(text), Secret::new(text));
        match preset {
            "standard-webhooks" => same("whsec_c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0"),
            "sendgrid" => {
                let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
                let pair = PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap();
                let private = String::from_utf8(pair.private_key_to_pem_pkcs8().unwrap()).unwrap();
                (Secret::new(STANDARD.encode(pair.public_key_to_der().unwrap())), Secret::new(private))
            }
            _ => same("a-secret-of-the-tests"),
        }
    }

    #[test]
    fn every_preset_takes_its_own_samples_once_they_are_signed() {
        for name in preset_names() {
            let scheme = preset(name).unwrap();
            let (held, signing) = keys(name);
            let verifier = Verifier::compile(&scheme, std::slice::from_ref(&held), Some(URL)).unwrap();
            assert_eq!(verify::needs_private_key(&scheme, &held).unwrap(), name == "sendgrid", "{name}");
            for sample in samples(name).unwrap() {
                let occasion = Occasion { id: "test-1", serial: 7, now_ms: NOW };
                let mut headers = HeaderMap::new();
                for (name, value) in sample.headers(&occasion) {
                    headers.insert(HeaderName::try_from(name).unwrap(), HeaderValue::try_from(value).unwrap());
                }
                let body = sample.body(&occasion);
                let unsigned =
                    Unsigned { id: "test-1", now_ms: NOW, method: "POST", url: URL, headers: &headers, body: &body };
                let signed = unsigned.sign(&scheme, &signing).unwrap_or_else(|error| panic!("{name}: {error}"));
                let request = |body| Request { method: "POST", url: "/", headers: &signed.headers, body };
                let taken = verifier.verify(&request(&signed.body), NOW);
                assert!(taken.is_ok(), "{name} {}: {taken:?}", sample.event);
                // Mailgun's signature does not cover the event.
                let mut forged = signed.body.to_vec();
                forged.push(b' ');
                assert_eq!(verifier.verify(&request(&forged), NOW).is_ok(), name == "mailgun", "{name}");
            }
        }
    }

    #[test]
    fn a_private_key_in_pem_signs_for_the_public_half_that_a_source_holds() {
        let scheme = preset("standard-webhooks").unwrap();
        let pair = PKey::generate_ed25519().unwrap();
        let held = Secret::new(format!("whpk_{}", STANDARD.encode(pair.raw_public_key().unwrap())));
        assert_eq!(verify::needs_private_key(&scheme, &held), Ok(true));
        let private = Secret::new(String::from_utf8(pair.private_key_to_pem_pkcs8().unwrap()).unwrap());
        let headers = HeaderMap::new();
        let unsigned = Unsigned { id: "test-1", now_ms: NOW, method: "POST", url: URL, headers: &headers, body: b"{}" };
        let signed = unsigned.sign(&scheme, &private).unwrap();
        let verifier = Verifier::compile(&scheme, &[held], None).unwrap();
        let request = Request { method: "POST", url: "/", headers: &signed.headers, body: &signed.body };
        assert!(verifier.verify(&request, NOW).is_ok());
    }
}
