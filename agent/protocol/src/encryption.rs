//! Encryption to one recipient, and of content that many recipients fetch.
//!
//! In: the key of a recipient and bytes; the digest of content. Out: bytes that only the recipient reads; a key for just that content, and
//! its chunks under it. A message is encrypted by HPKE (RFC 9180) in base mode, with X25519, HKDF-SHA256 and ChaCha20-Poly1305: who sent it
//! is shown by the envelope's signature. Content is encrypted once, with a key of its own, and that key reaches each recipient in a message.

use std::{fmt, str::FromStr};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use hpke::{
    Deserializable as _, Kem as _, OpModeR, OpModeS, Serializable as _, aead::ChaCha20Poly1305, kdf::HkdfSha256,
    kem::X25519HkdfSha256, single_shot_open, single_shot_seal,
};
use ring::{
    aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey},
    hkdf::{self, HKDF_SHA256},
};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::as_text::as_text;
use crate::digest::Digest;

type Kem = X25519HkdfSha256;

/// The identifiers of the algorithms in RFC 9180, section 7: KEM, KDF and AEAD.
pub const SUITE: &str = "0020-0001-0003";

/// Length of what encapsulates the key, before the ciphertext, in bytes.
const ENCAPSULATED: usize = 32;

/// By how much a chunk grows when it is encrypted, in bytes.
pub const TAG: usize = 16;

/// Bytes that are not for this key, or were changed on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("encrypted for another key, or damaged")]
pub struct Undecipherable;

/// A key to which nothing can be encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("nothing can be encrypted to this key")]
pub struct UnusableKey;

/// Text that is not such a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an encryption key: {0}32 bytes in base64")]
pub struct InvalidEncryptionKey(&'static str);

const PREFIX: &str = "x25519:";

fn decode(text: &str, prefix: &'static str) -> Result<[u8; 32], InvalidEncryptionKey> {
    let bytes = text.strip_prefix(prefix).and_then(|text| BASE64.decode(text).ok());
    bytes.and_then(|bytes| bytes.try_into().ok()).ok_or(InvalidEncryptionKey(prefix))
}

/// The points of order 8 (RFC 7748, section 7: the values that contributory behaviour excludes), little-endian.
const ORDER_EIGHT: [[u8; 32]; 2] = [
    [
        0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa, 0xf1, 0x9f, 0xc4, 0x6a, 0xda, 0x09,
        0x8d, 0xeb, 0x9c, 0x32, 0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16, 0x5f, 0x49, 0xb8, 0x00,
    ],
    [
        0x5f, 0x9c, 0x95, 0xbc, 0xa3, 0x50, 0x8c, 0x24, 0xb1, 0xd0, 0xb1, 0x55, 0x9c, 0x83, 0xef, 0x5b, 0x04, 0x44,
        0x5c, 0xc4, 0x58, 0x1c, 0x8e, 0x86, 0xd8, 0x22, 0x4e, 0xdd, 0xd0, 0x9f, 0x11, 0x57,
    ],
];

/// The key to encrypt messages to one recipient with, written `x25519:` and base64.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct EncryptionKey([u8; 32]);

impl EncryptionKey {
    /// Whether anything can be encrypted to it. A few values cannot be the key of anyone: the shared secret would be zero whatever the other
    /// side's key (RFC 7748, section 6.1), and HPKE refuses that.
    pub fn is_usable(&self) -> bool {
        let [low, .., high] = self.0;
        // The highest bit of all counts for nothing.
        let middle = |byte| self.0[1..31].iter().all(|other| *other == byte);
        let is_small = matches!(low, 0 | 1) && middle(0) && high & 0x7f == 0;
        let is_near_the_prime = matches!(low, 0xec..=0xee) && middle(0xff) && high & 0x7f == 0x7f;
        let mut point = self.0;
        point[31] &= 0x7f;
        !is_small && !is_near_the_prime && !ORDER_EIGHT.contains(&point)
    }

    /// Encrypts; `purpose` has to be the same when it is decrypted.
    ///
    /// # Panics
    /// If the system gives no random numbers.
    pub(crate) fn encrypt(&self, purpose: &str, plain: &[u8]) -> Result<Vec<u8>, UnusableKey> {
        let key = <Kem as hpke::Kem>::PublicKey::from_bytes(&self.0).map_err(|_| UnusableKey)?;
        let sealed =
            single_shot_seal::<ChaCha20Poly1305, HkdfSha256, Kem>(&OpModeS::Base, &key, purpose.as_bytes(), plain, b"");
        let (encapsulated, ciphertext) = sealed.map_err(|_| UnusableKey)?;
        let mut bytes = encapsulated.to_bytes().to_vec();
        bytes.extend_from_slice(&ciphertext);
        Ok(bytes)
    }
}

impl fmt::Display for EncryptionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", BASE64.encode(self.0))
    }
}

impl fmt::Debug for EncryptionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for EncryptionKey {
    type Err = InvalidEncryptionKey;

    fn from_str(text: &str) -> Result<Self, InvalidEncryptionKey> {
        decode(text, PREFIX).map(Self)
    }
}

as_text!(EncryptionKey, "An X25519 public key: `x25519:` and 32 bytes in base64", "^x25519:[A-Za-z0-9+/]{43}=$");

/// The key that decrypts what was encrypted to its public part. Never printed by `Debug`.
pub struct DecryptionKey(<Kem as hpke::Kem>::PrivateKey, EncryptionKey);

impl DecryptionKey {
    /// The key of a seed: `DeriveKeyPair` of RFC 9180, whose labels separate it from whatever else is derived from the same seed.
    pub(crate) fn derive(seed: &[u8; 32]) -> Self {
        let (private, public) = Kem::derive_keypair(seed);
        Self(private, EncryptionKey(public.to_bytes().into()))
    }

    /// The key that others encrypt with.
    pub fn public(&self) -> EncryptionKey {
        self.1
    }

    /// Decrypts what [`EncryptionKey::encrypt`] made for the same purpose.
    pub(crate) fn decrypt(&self, purpose: &str, bytes: &[u8]) -> Result<Vec<u8>, Undecipherable> {
        let (encapsulated, ciphertext) = bytes.split_at_checked(ENCAPSULATED).ok_or(Undecipherable)?;
        let encapsulated = <Kem as hpke::Kem>::EncappedKey::from_bytes(encapsulated).map_err(|_| Undecipherable)?;
        let (mode, purpose) = (OpModeR::Base, purpose.as_bytes());
        let opened = single_shot_open::<ChaCha20Poly1305, HkdfSha256, Kem>(
            &mode,
            &self.0,
            &encapsulated,
            purpose,
            ciphertext,
            b"",
        );
        opened.map_err(|_| Undecipherable)
    }
}

impl fmt::Debug for DecryptionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DecryptionKey of {}", self.1)
    }
}

/// The key of one content, whoever fetches it. It encrypts nothing else: so a chunk's number can be its nonce. Never printed by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct ContentKey([u8; 32]);

impl ContentKey {
    /// The key that the owner of a seed gives the content of a digest: HKDF (RFC 5869) over the seed, with the digest as its purpose. Who has
    /// some of these keys cannot derive another.
    pub(crate) fn derive(seed: &[u8; 32], content: &Digest) -> Self {
        let mut key = [0; 32];
        let purpose = [content.as_bytes().as_slice()];
        let derived = hkdf::Salt::new(HKDF_SHA256, b"groundplan content").extract(seed);
        let derived = derived.expand(&purpose, HKDF_SHA256).and_then(|derived| derived.fill(&mut key));
        derived.expect("a key of 32 bytes is within what HKDF gives");
        Self(key)
    }

    fn cipher(&self) -> LessSafeKey {
        LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, &self.0).expect("a key of the right length"))
    }

    /// The nonce of a chunk: of one content there is one chunk of each number, and the key is of this content alone.
    fn nonce(n: u32) -> Nonce {
        let mut nonce = [0; 12];
        nonce[8..].copy_from_slice(&n.to_be_bytes());
        Nonce::assume_unique_for_key(nonce)
    }

    /// Encrypts chunk `n` of the content.
    pub fn encrypt(&self, n: u32, mut chunk: Vec<u8>) -> Vec<u8> {
        let sealed = self.cipher().seal_in_place_append_tag(Self::nonce(n), Aad::empty(), &mut chunk);
        sealed.expect("a chunk is far shorter than what may be encrypted at once");
        chunk
    }

    /// Decrypts chunk `n` of the content.
    ///
    /// # Errors
    /// It is none of this content, or was changed on the way.
    pub fn decrypt(&self, n: u32, chunk: &[u8]) -> Result<Vec<u8>, Undecipherable> {
        let mut chunk = chunk.to_vec();
        let plain =
            self.cipher().open_in_place(Self::nonce(n), Aad::empty(), &mut chunk).map_err(|_| Undecipherable)?.len();
        chunk.truncate(plain);
        Ok(chunk)
    }
}

impl fmt::Debug for ContentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ContentKey")
    }
}

impl Serialize for ContentKey {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&BASE64.encode(self.0))
    }
}

impl<'de> Deserialize<'de> for ContentKey {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        decode(&std::borrow::Cow::<'de, str>::deserialize(d)?, "").map(Self).map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for ContentKey {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "ContentKey".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "description": "A ChaCha20-Poly1305 key: 32 bytes in base64", "pattern": "^[A-Za-z0-9+/]{43}=$" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_recipient_reads_and_only_what_was_sent_for_that_purpose() {
        let (own, other) = (DecryptionKey::derive(&[1; 32]), DecryptionKey::derive(&[2; 32]));
        let sent = own.public().encrypt("purpose", b"secret").unwrap();
        assert_eq!(own.decrypt("purpose", &sent).unwrap(), b"secret");
        assert_eq!(other.decrypt("purpose", &sent), Err(Undecipherable));
        assert_eq!(own.decrypt("other", &sent), Err(Undecipherable));
        for at in 0..sent.len() {
            let mut changed = sent.clone();
            changed[at] ^= 1;
            assert_eq!(own.decrypt("purpose", &changed), Err(Undecipherable), "byte {at}");
            assert_eq!(own.decrypt("purpose", &sent[..at]), Err(Undecipherable), "{at} bytes");
        }
        assert_ne!(own.public().encrypt("purpose", b"secret").unwrap(), sent, "each time under another key");
    }

    #[test]
    fn to_points_that_make_the_secret_zero_nothing_is_encrypted() {
        let hex = |hex: &str| -> [u8; 32] {
            std::array::from_fn(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap())
        };
        // All encodings of the points whose order divides 8 (RFC 7748, section 7), with the highest bit, which counts for nothing, clear and set.
        let points = [
            "0000000000000000000000000000000000000000000000000000000000000000",
            "0100000000000000000000000000000000000000000000000000000000000000",
            "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
            "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
            "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
            "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
            "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        ];
        for mut point in points.map(hex) {
            for _ in 0..2 {
                assert_eq!(EncryptionKey(point).encrypt("purpose", b"secret"), Err(UnusableKey), "{point:x?}");
                assert!(!EncryptionKey(point).is_usable(), "{point:x?}");
                // Nor does what is said to have been encrypted with such a key decrypt, or end the program.
                let own = DecryptionKey::derive(&[1; 32]);
                assert_eq!(own.decrypt("purpose", &[&point[..], &[0; 40]].concat()), Err(Undecipherable));
                point[31] |= 0x80;
            }
        }
        assert!(DecryptionKey::derive(&[1; 32]).public().is_usable());
    }

    /// RFC 9180, A.2.1: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, ChaCha20Poly1305, base mode: the recipient's key pair, and the first
    /// ciphertext, with the `info` and `aad` of the RFC.
    #[test]
    fn agrees_with_the_vectors_of_the_rfc() {
        let bytes = |hex: &str| -> Vec<u8> {
            (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
        };
        let seed: [u8; 32] =
            bytes("1ac01f181fdf9f352797655161c58b75c656a6cc2716dcb66372da835542e1df").try_into().unwrap();
        let recipient = DecryptionKey::derive(&seed);
        let public = bytes("4310ee97d88cc1f088a5576c77ab0cf5c3ac797f3d95139c6c84b5429c59662a");
        assert_eq!(recipient.public().0.as_slice(), public);
        let encapsulated = bytes("1afa08d3dec047a643885163f1180476fa7ddb54c6a8029ea33f95796bf2ac4a");
        let ciphertext =
            bytes("1c5250d8034ec2b784ba2cfd69dbdb8af406cfe3ff938e131f0def8c8b60b4db21993c62ce81883d2dd1b51a28");
        let opened = single_shot_open::<ChaCha20Poly1305, HkdfSha256, Kem>(
            &OpModeR::Base,
            &recipient.0,
            &<Kem as hpke::Kem>::EncappedKey::from_bytes(&encapsulated).unwrap(),
            &bytes("4f6465206f6e2061204772656369616e2055726e"),
            &ciphertext,
            &bytes("436f756e742d30"),
        );
        assert_eq!(opened.unwrap(), bytes("4265617574792069732074727574682c20747275746820626561757479"));
    }

    #[test]
    fn each_content_has_a_key_of_its_own_and_each_chunk_its_place() {
        let (one, other) = (Digest::of(b"one"), Digest::of(b"other"));
        let key = ContentKey::derive(&[1; 32], &one);
        assert_eq!(key, ContentKey::derive(&[1; 32], &one), "whichever planner of the site ships it");
        let chunk = key.encrypt(3, b"chunk".to_vec());
        assert_eq!(chunk.len(), 5 + TAG);
        assert_eq!(key.decrypt(3, &chunk).unwrap(), b"chunk");
        assert_eq!(key.decrypt(4, &chunk), Err(Undecipherable));
        assert_eq!(ContentKey::derive(&[1; 32], &other).decrypt(3, &chunk), Err(Undecipherable));
        assert_eq!(ContentKey::derive(&[2; 32], &one).decrypt(3, &chunk), Err(Undecipherable));
        assert_eq!(key.decrypt(3, &[]), Err(Undecipherable));
        let text = serde_json::to_string(&key).unwrap();
        assert_eq!(serde_json::from_str::<ContentKey>(&text).unwrap(), key);
        assert!(serde_json::from_str::<ContentKey>("\"AAAA\"").is_err());
    }

    #[test]
    fn keys_round_trip_as_text_and_private_ones_are_not_printed() {
        let key = DecryptionKey::derive(&[7; 32]);
        assert_eq!(key.public().to_string().parse::<EncryptionKey>().unwrap(), key.public());
        assert!("ed25519:AAAA".parse::<EncryptionKey>().is_err());
        assert_eq!(format!("{key:?}"), format!("DecryptionKey of {}", key.public()));
        assert_eq!(format!("{:?}", ContentKey::derive(&[7; 32], &Digest::of(b""))), "ContentKey");
    }
}
