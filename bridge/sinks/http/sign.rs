//! Signatures as the Standard Webhooks specification says: HMAC-SHA256 of `id.timestamp.body`, base64 after `v1,`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// Bytes of a signature: `v1,` and the 32 bytes of a SHA-256 in base64.
pub(super) const SIGNATURE: usize = 3 + 44;

#[derive(Clone)]
pub(super) struct Signer {
    /// The key is taken in once, which costs as much as a short body.
    keyed: Hmac<Sha256>,
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Signer([redacted])")
    }
}

impl Signer {
    /// `None`: no base64, or nothing in it.
    pub(super) fn new(secret: &str) -> Option<Self> {
        let key = STANDARD.decode(secret.strip_prefix("whsec_").unwrap_or(secret)).ok()?;
        let keyed = Hmac::new_from_slice(&key).ok()?;
        (!key.is_empty()).then_some(Self { keyed })
    }

    pub(super) fn sign(&self, id: &[u8], timestamp: &[u8], body: &[u8]) -> [u8; SIGNATURE] {
        let mut mac = self.keyed.clone();
        for part in [id, b".", timestamp, b".", body] {
            mac.update(part);
        }
        let mut signature = *b"v1,00000000000000000000000000000000000000000000";
        // 32 bytes are 44 of base64, for which there is room.
        let _ = STANDARD.encode_slice(mac.finalize().into_bytes(), &mut signature[3..]);
        signature
    }
}
