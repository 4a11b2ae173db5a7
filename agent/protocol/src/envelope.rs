//! DSSE envelopes signed with ed25519, around every JSON message in both directions.
//!
//! In: a message and a key. Out: JSON that `jq` can take apart, or an error with the reason. The payload of a message that is for one
//! recipient alone is encrypted to it; what is signed is the ciphertext.
//! Follows the DSSE protocol v1.0 (secure-systems-lab/dsse); signatures are RFC 8032 ed25519. No field of a
//! payload is trusted before its signature is verified.

use std::{fmt, str::FromStr};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    VERSION,
    as_text::as_text,
    digest::Digest,
    encryption::{ContentKey, DecryptionKey, EncryptionKey, SUITE, Undecipherable, UnusableKey},
    ids::{Generation, NodeId, SiteName},
    text::{FOREIGN, foreign},
};

/// A message that is sent in an envelope.
pub trait Message: Serialize + DeserializeOwned {
    /// The DSSE payload type, which names the message and its encoding.
    const TYPE: &'static str;
    /// Whether it is for its recipient alone, and travels encrypted.
    const ENCRYPTED: bool = false;
    /// The format version in the message.
    fn version(&self) -> u32;
    /// The site that it belongs to.
    fn site(&self) -> &SiteName;
}

/// How many signatures an envelope may have.
const SIGNATURES: usize = 4;

/// Why an envelope is refused.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Not JSON, or not the fields of DSSE.
    #[error("not a DSSE envelope")]
    Envelope(#[source] InvalidJson),
    /// The payload or a signature is not base64.
    #[error("not base64")]
    Base64(#[source] base64::DecodeError),
    /// The envelope holds a message of another type.
    #[error("holds `{found}`, not `{expected}`")]
    Type {
        /// The type in the envelope, cut and escaped.
        found: String,
        /// The type that was expected.
        expected: String,
    },
    /// It has more signatures than are looked at.
    #[error("has {0} signatures; the limit is {SIGNATURES}")]
    Signatures(usize),
    /// Not signed by a key that the receiver trusts.
    #[error("not signed by a trusted key")]
    Signature,
    /// Signed, and the payload cannot be decrypted.
    #[error("signed, but it cannot be decrypted")]
    Encrypted(#[source] Undecipherable),
    /// The payload is signed but does not parse as its type.
    #[error("signed, but not a valid message")]
    Payload(#[source] InvalidJson),
    /// The message is of another format version.
    #[error("is of format version {found}; this program supports version {VERSION}")]
    Version {
        /// The version in the message.
        found: u32,
    },
    /// The message belongs to another site.
    #[error("belongs to site `{0}`")]
    Site(SiteName),
}

/// Why JSON is not what it should be. The error quotes what came, also from those who have no key: so it is cut and escaped.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct InvalidJson(String);

impl InvalidJson {
    pub(crate) fn new(error: &dyn fmt::Display) -> Self {
        Self(foreign(&error.to_string(), FOREIGN))
    }
}

impl From<serde_json::Error> for InvalidJson {
    fn from(error: serde_json::Error) -> Self {
        Self::new(&error)
    }
}

#[derive(Serialize, Deserialize)]
struct Envelope {
    payload: String,
    #[serde(rename = "payloadType")]
    payload_type: String,
    signatures: Vec<Signature>,
}

#[derive(Serialize, Deserialize)]
struct Signature {
    keyid: String,
    sig: String,
}

/// DSSE's pre-authentication encoding: what is signed.
fn pae(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let head = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len());
    let mut out = Vec::with_capacity(head.len() + payload.len());
    out.extend_from_slice(head.as_bytes());
    out.extend_from_slice(payload);
    out
}

/// Puts `message` into an envelope signed by `key`.
///
/// # Panics
/// If it is for one recipient alone: a fault of the caller.
pub fn seal<M: Message>(key: &SigningKey, message: &M) -> Vec<u8> {
    assert!(!M::ENCRYPTED, "it is for its recipient alone");
    sign(key, M::TYPE.to_owned(), &to_json(message))
}

/// Puts `message`, encrypted to `recipient`, into an envelope signed by `key`.
///
/// # Errors
/// The recipient's key is none that anything can be encrypted to.
///
/// # Panics
/// If the system gives no random numbers; if the message is not for one recipient.
pub fn seal_for<M: Message>(key: &SigningKey, recipient: &EncryptionKey, message: &M) -> Result<Vec<u8>, UnusableKey> {
    assert!(M::ENCRYPTED, "it is not for one recipient");
    let payload_type = encrypted(M::TYPE);
    let payload = recipient.encrypt(&payload_type, &to_json(message))?;
    Ok(sign(key, payload_type, &payload))
}

/// The payload type of a message that is encrypted: it names the algorithms, and is covered by the signature.
fn encrypted(payload_type: &str) -> String {
    format!("{payload_type};hpke={SUITE}")
}

fn sign(key: &SigningKey, payload_type: String, payload: &[u8]) -> Vec<u8> {
    let signature = key.pair.sign(&pae(&payload_type, payload));
    let signatures = vec![Signature { keyid: key.public().id(), sig: BASE64.encode(signature) }];
    to_json(&Envelope { payload: BASE64.encode(payload), payload_type, signatures })
}

/// The JSON of a value whose maps have only string keys, as all types of this crate do.
pub(crate) fn to_json<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).expect("wire types have string keys and serialize without IO")
}

/// The payload type that `bytes` claims, before any check and without its parameters; to choose which message to open it as.
pub fn claimed_type(bytes: &[u8]) -> Option<String> {
    let mut claimed = serde_json::from_slice::<Envelope>(bytes).ok()?.payload_type;
    claimed.truncate(claimed.find(';').unwrap_or(claimed.len()));
    Some(claimed)
}

/// Takes the message out of an envelope that one of `trusted` signed, for `site`.
///
/// # Errors
/// See [`OpenError`].
///
/// # Panics
/// If it is one that travels encrypted: a fault of the caller.
pub fn open<M: Message>(bytes: &[u8], trusted: &[PublicKey], site: &SiteName) -> Result<M, OpenError> {
    assert!(!M::ENCRYPTED, "it is encrypted");
    message(&verified(bytes, trusted, M::TYPE)?, site)
}

/// Takes the message out of an envelope that one of `trusted` signed, for `site`, encrypted to the recipient whose key this is.
///
/// # Errors
/// See [`OpenError`].
///
/// # Panics
/// If it is one that does not travel encrypted.
pub fn open_for<M: Message>(
    bytes: &[u8],
    trusted: &[PublicKey],
    site: &SiteName,
    recipient: &DecryptionKey,
) -> Result<M, OpenError> {
    assert!(M::ENCRYPTED, "it is not encrypted");
    let payload_type = encrypted(M::TYPE);
    let payload = verified(bytes, trusted, &payload_type)?;
    message(&recipient.decrypt(&payload_type, &payload).map_err(OpenError::Encrypted)?, site)
}

/// The payload of an envelope that one of `trusted` signed.
fn verified(bytes: &[u8], trusted: &[PublicKey], payload_type: &str) -> Result<Vec<u8>, OpenError> {
    let envelope: Envelope = serde_json::from_slice(bytes).map_err(|e| OpenError::Envelope(e.into()))?;
    if envelope.payload_type != payload_type {
        let found = foreign(&envelope.payload_type, FOREIGN);
        return Err(OpenError::Type { found, expected: payload_type.to_owned() });
    }
    // One good signature suffices; others may be by keys that are not known here. Each costs time, whoever sent it: so they are few, and
    // each is tried with the key that it names alone.
    if envelope.signatures.len() > SIGNATURES {
        return Err(OpenError::Signatures(envelope.signatures.len()));
    }
    let payload = BASE64.decode(&envelope.payload).map_err(OpenError::Base64)?;
    // With the expected type, not the claimed one: a signed message of one type is never valid as another.
    let signed = pae(payload_type, &payload);
    let keys: Vec<(String, &PublicKey)> = trusted.iter().map(|key| (key.id(), key)).collect();
    let mut good = false;
    for signature in &envelope.signatures {
        let named = keys.iter().filter(|(id, _)| *id == signature.keyid);
        for (_, key) in named {
            let sig = BASE64.decode(&signature.sig).map_err(OpenError::Base64)?;
            good |= key.verify(&signed, &sig);
        }
    }
    if good { Ok(payload) } else { Err(OpenError::Signature) }
}

/// The message of a payload that is signed.
fn message<M: Message>(payload: &[u8], site: &SiteName) -> Result<M, OpenError> {
    // The version is read alone first: a newer message may not parse as today's.
    #[derive(Deserialize)]
    struct Versioned {
        version: u32,
    }
    let Versioned { version } = serde_json::from_slice(payload).map_err(|e| OpenError::Payload(e.into()))?;
    if version != VERSION {
        return Err(OpenError::Version { found: version });
    }
    let message: M = serde_json::from_slice(payload).map_err(|e| OpenError::Payload(e.into()))?;
    // A node key may be used on two sites: a message from one must not count on the other.
    if message.site() != site {
        return Err(OpenError::Site(message.site().clone()));
    }
    Ok(message)
}

/// A planner's signature on a plan that it offered to a node: by what a node returns of it, a planner without a store finds out which
/// generations and terms are in use, and which plan the node has; and no node can make one up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PlanReceipt {
    /// The plan's id: the digest of its JSON.
    pub plan: Digest,
    /// The term of the planner that offered it.
    pub term: u64,
    /// An ed25519 signature in base64, over DSSE's pre-authentication encoding of the type `application/vnd.groundplan.receipt` and
    /// `SITE NODE GENERATION TERM PLAN`.
    signature: String,
}

/// The payload type of what a receipt signs: no message has it.
const RECEIPT: &str = "application/vnd.groundplan.receipt";

impl PlanReceipt {
    /// Signed by a planner in a term of its.
    pub fn sign(
        key: &SigningKey,
        site: &SiteName,
        node: &NodeId,
        generation: Generation,
        (plan, term): (Digest, u64),
    ) -> Self {
        let mut receipt = Self { plan, term, signature: String::new() };
        receipt.signature = BASE64.encode(key.pair.sign(&receipt.signed(site, node, generation)).as_ref());
        receipt
    }

    /// Whether `key` signed it for this generation of this node.
    pub fn is_by(&self, key: &PublicKey, site: &SiteName, node: &NodeId, generation: Generation) -> bool {
        let signature = BASE64.decode(&self.signature);
        signature.is_ok_and(|signature| key.verify(&self.signed(site, node, generation), &signature))
    }

    /// Names have no spaces, so that no two sets of these give the same bytes.
    fn signed(&self, site: &SiteName, node: &NodeId, generation: Generation) -> Vec<u8> {
        pae(RECEIPT, format!("{site} {node} {generation} {} {}", self.term, self.plan).as_bytes())
    }
}

/// Text that is not a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an ed25519 key: `{prefix}` and 32 bytes in base64")]
pub struct InvalidKey {
    prefix: &'static str,
}

const PUBLIC_PREFIX: &str = "ed25519:";
const SECRET_PREFIX: &str = "ed25519-secret:";

fn decode_key(s: &str, prefix: &'static str) -> Result<[u8; 32], InvalidKey> {
    let text = s.trim().strip_prefix(prefix).ok_or(InvalidKey { prefix })?;
    let bytes = BASE64.decode(text).map_err(|_| InvalidKey { prefix })?;
    bytes.try_into().map_err(|_| InvalidKey { prefix })
}

/// A public key, written `ed25519:` and base64.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    /// The key's id in envelopes: the first 16 hexadecimal digits of its SHA-256.
    pub fn id(&self) -> String {
        Digest::of(&self.0).short()
    }

    fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.0).verify(message, signature).is_ok()
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PUBLIC_PREFIX}{}", BASE64.encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for PublicKey {
    type Err = InvalidKey;

    fn from_str(s: &str) -> Result<Self, InvalidKey> {
        decode_key(s, PUBLIC_PREFIX).map(Self)
    }
}

as_text!(PublicKey, "An ed25519 public key: `ed25519:` and 32 bytes in base64", "^ed25519:[A-Za-z0-9+/]{43}=$");

/// A key that signs. Never printed by `Debug`.
pub struct SigningKey {
    seed: [u8; 32],
    pair: Ed25519KeyPair,
}

impl SigningKey {
    /// The key of a seed, which the caller has to draw at random.
    pub fn from_seed(seed: [u8; 32]) -> Self {
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed).expect("any 32 bytes are an ed25519 seed");
        Self { seed, pair }
    }

    /// The public key, with which others verify its signatures.
    pub fn public(&self) -> PublicKey {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(self.pair.public_key().as_ref());
        PublicKey(bytes)
    }

    /// The key that belongs to this one, for what others encrypt to its owner: of the same seed, so that there is one secret to keep.
    pub fn decryption(&self) -> DecryptionKey {
        DecryptionKey::derive(&self.seed)
    }

    /// The key that the owner of this one gives to some content.
    pub fn content_key(&self, content: &Digest) -> ContentKey {
        ContentKey::derive(&self.seed, content)
    }

    /// A name for `purpose` that only the key's owner can know: 32 hex digits. The same each time, since an ed25519 signature is.
    pub fn private_name(&self, purpose: &str) -> String {
        // No envelope is signed this way: what DSSE signs begins with `DSSEv1`.
        let signature = self.pair.sign(format!("groundplan private name: {purpose}").as_bytes());
        let mut name = Digest::of(signature.as_ref()).to_string();
        name.truncate(32);
        name
    }

    /// The text of its key file: `ed25519-secret:` and base64. A secret: write it with mode 0600.
    pub fn secret_text(&self) -> String {
        format!("{SECRET_PREFIX}{}\n", BASE64.encode(self.seed))
    }
}

impl FromStr for SigningKey {
    type Err = InvalidKey;

    fn from_str(s: &str) -> Result<Self, InvalidKey> {
        decode_key(s, SECRET_PREFIX).map(Self::from_seed)
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.public().id())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Note {
        version: u32,
        site: SiteName,
        text: String,
    }

    impl Message for Note {
        const TYPE: &'static str = "application/vnd.groundplan.note+json";
        fn version(&self) -> u32 {
            self.version
        }
        fn site(&self) -> &SiteName {
            &self.site
        }
    }

    fn site(name: &str) -> SiteName {
        SiteName::new(name).unwrap()
    }

    fn note(version: u32) -> Note {
        Note { version, site: site("s"), text: "hello".into() }
    }

    #[test]
    fn opens_what_a_trusted_key_sealed_and_nothing_else() {
        let (key, other) = (SigningKey::from_seed([1; 32]), SigningKey::from_seed([2; 32]));
        let sealed = seal(&key, &note(VERSION));
        assert_eq!(open::<Note>(&sealed, &[other.public(), key.public()], &site("s")).unwrap(), note(VERSION));
        assert!(matches!(open::<Note>(&sealed, &[other.public()], &site("s")), Err(OpenError::Signature)));
        assert!(matches!(open::<Note>(&sealed, &[key.public()], &site("t")), Err(OpenError::Site(_))));
        let future = seal(&key, &note(VERSION + 1));
        assert!(matches!(open::<Note>(&future, &[key.public()], &site("s")), Err(OpenError::Version { found: 2 })));
    }

    /// The same for one recipient.
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(transparent)]
    struct Letter(Note);

    impl Message for Letter {
        const TYPE: &'static str = Note::TYPE;
        const ENCRYPTED: bool = true;
        fn version(&self) -> u32 {
            self.0.version
        }
        fn site(&self) -> &SiteName {
            &self.0.site
        }
    }

    #[test]
    fn what_is_for_one_recipient_is_read_by_it_alone_and_only_if_it_came_encrypted() {
        let [key, own, other] = [1, 2, 3].map(|seed| SigningKey::from_seed([seed; 32]));
        let (trusted, site) = ([key.public()], site("s"));
        let sealed = seal_for(&key, &own.decryption().public(), &Letter(note(VERSION))).unwrap();
        let opened = |bytes: &[u8], by: &SigningKey| open_for::<Letter>(bytes, &trusted, &site, &by.decryption());
        assert_eq!(opened(&sealed, &own).unwrap(), Letter(note(VERSION)));
        assert!(matches!(opened(&sealed, &other), Err(OpenError::Encrypted(_))));
        assert!(!String::from_utf8_lossy(&BASE64.decode(envelope(&sealed).payload).unwrap()).contains("hello"));
        // Neither counts as the other.
        assert!(matches!(open::<Note>(&sealed, &trusted, &site), Err(OpenError::Type { .. })));
        assert!(matches!(opened(&seal(&key, &note(VERSION)), &own), Err(OpenError::Type { .. })));
        // Nor does the type alone make it one.
        let plain = sign(&key, encrypted(Letter::TYPE), &to_json(&note(VERSION)));
        assert!(matches!(opened(&plain, &own), Err(OpenError::Encrypted(_))));
        assert_eq!(claimed_type(&sealed).as_deref(), Some(Letter::TYPE));
    }

    fn envelope(sealed: &[u8]) -> Envelope {
        serde_json::from_slice(sealed).unwrap()
    }

    /// An envelope with these signatures in the place of its own.
    fn with(sealed: &[u8], signatures: Vec<Signature>) -> Vec<u8> {
        to_json(&Envelope { signatures, ..envelope(sealed) })
    }

    #[test]
    fn only_signatures_that_name_a_trusted_key_are_looked_at_and_no_more_than_a_few() {
        let key = SigningKey::from_seed([1; 32]);
        let sealed = seal(&key, &note(VERSION));
        let own = || serde_json::from_slice::<Envelope>(&sealed).unwrap().signatures.remove(0);
        let other = |n: u8| Signature { keyid: SigningKey::from_seed([n; 32]).public().id(), sig: own().sig };
        let opened = |signatures| open::<Note>(&with(&sealed, signatures), &[key.public()], &site("s"));
        assert!(opened(vec![other(2), other(3), other(4), own()]).is_ok(), "signed by others as well");
        assert!(matches!(opened(vec![other(2)]), Err(OpenError::Signature)), "a good one under another key's id");
        let five = vec![other(2), other(3), other(4), other(5), own()];
        assert!(matches!(opened(five), Err(OpenError::Signatures(5))));
        assert!(matches!(opened((0..20_000).map(|_| own()).collect()), Err(OpenError::Signatures(20_000))));
    }

    #[test]
    fn any_altered_byte_is_refused() {
        let key = SigningKey::from_seed([1; 32]);
        let sealed = seal(&key, &note(VERSION));
        for i in 0..sealed.len() {
            let mut altered = sealed.clone();
            altered[i] ^= 1;
            // Another spelling of the same JSON may pass: everything in it is covered by the signature or by the format.
            if let Ok(opened) = open::<Note>(&altered, &[key.public()], &site("s")) {
                assert_eq!(opened, note(VERSION));
            }
            assert!(open::<Note>(&sealed[..i], &[key.public()], &site("s")).is_err());
        }
    }

    #[test]
    fn keys_round_trip_as_text() {
        let key = SigningKey::from_seed([7; 32]);
        let again: SigningKey = key.secret_text().parse().unwrap();
        assert_eq!(again.public(), key.public());
        assert_eq!(key.public().to_string().parse::<PublicKey>().unwrap(), key.public());
        assert!(key.public().to_string().parse::<SigningKey>().is_err());
        assert!(!format!("{key:?}").contains(&BASE64.encode([7; 32])));
    }
}
