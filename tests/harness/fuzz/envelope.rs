//! Fed: an envelope as it comes from a broker.
//!
//! Checked: with no trusted key nothing opens. What opens with one is what that key has sealed, in every byte. What is refused before or for
//! its signature has not been decoded: no code of a message's type has seen a byte of it.

use std::cell::Cell;

use groundplan_protocol::{
    VERSION,
    envelope::{Message, OpenError, SigningKey, claimed_type, open, seal},
    ids::SiteName,
    report::Ack,
};
use serde::{Deserialize, Deserializer, Serialize};

/// The key whose envelopes the corpus has.
pub fn key() -> SigningKey {
    SigningKey::from_seed([7; 32])
}

thread_local! {
    static DECODED: Cell<bool> = const { Cell::new(false) };
}

/// An acknowledgement that notes when one is decoded.
#[derive(Debug, PartialEq)]
struct Noted(Ack);

impl Serialize for Noted {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Noted {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        DECODED.set(true);
        Ack::deserialize(deserializer).map(Self)
    }
}

impl Message for Noted {
    const TYPE: &'static str = Ack::TYPE;
    fn version(&self) -> u32 {
        self.0.version()
    }
    fn site(&self) -> &SiteName {
        self.0.site()
    }
}

/// See the module.
pub fn check(envelope: &[u8]) {
    let (key, other, site) = (key(), SigningKey::from_seed([8; 32]), SiteName::new("lab").expect("a name"));
    DECODED.set(false);
    open::<Noted>(envelope, &[other.public()], &site).expect_err("not signed by the other key");
    open::<Noted>(envelope, &[], &site).expect_err("signed by no key");
    assert!(!DECODED.get(), "decoded although no trusted key has signed it");

    match open::<Noted>(envelope, &[other.public(), key.public()], &site) {
        Ok(message) => {
            assert_eq!((message.version(), message.site()), (VERSION, &site));
            assert_eq!(claimed_type(envelope).as_deref(), Some(Noted::TYPE));
            // A signature is the same each time, so that this is the one envelope that the key can have made of it; the input may write the
            // same JSON in another way, and have further signatures.
            let sealed = parsed(&seal(&key, &message));
            let given = parsed(envelope);
            assert_eq!(given.payload, sealed.payload);
            assert!(given.signatures.iter().any(|one| one.sig == sealed.signatures[0].sig));
        }
        // Signed, and refused for what it is: of another version or site, or made by another program.
        Err(OpenError::Payload(_) | OpenError::Version { .. } | OpenError::Site(_)) => {}
        Err(error) => {
            assert!(!DECODED.get(), "decoded, and then refused: {error}");
            let text = error.to_string();
            assert!(text.len() < 1024 && !text.contains(char::is_control), "in a log: {text:?}");
        }
    }
}

fn parsed(json: &[u8]) -> Parsed {
    serde_json::from_slice(json).expect("JSON")
}

/// An envelope's fields; of what else it may have, not even the text is checked.
#[derive(Deserialize)]
struct Parsed {
    payload: String,
    signatures: Vec<Signature>,
}

#[derive(Deserialize)]
struct Signature {
    sig: String,
}
