//! Content: small in the plan itself, larger as a blob that the agent requests, chunk by chunk.
//!
//! In: bytes. Out: references to them, requests and chunks, and the bytes again, checked against their digest.
//! A blob is never trusted by its topic or length: only its digest, which the signed plan names, counts.

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    digest::Digest,
    envelope::Message,
    ids::{NodeId, SiteName},
};

/// Content above this travels as a blob, in bytes.
pub const INLINE_LIMIT: usize = 32 * 1024;

/// Length of every chunk of a blob but the last, in bytes.
pub const CHUNK: usize = 128 * 1024;

/// Most bytes of one blob that an agent takes unless it is configured otherwise. The planner ships nothing longer.
pub const MAX_BLOB: u64 = 256 * 1024 * 1024;

/// Most bytes of all blobs of a plan together that an agent takes unless it is configured otherwise.
pub const MAX_BLOBS: u64 = 1024 * 1024 * 1024;

/// Most chunks that one `Want` may request: what may be in flight towards a small host.
pub const WANT_LIMIT: usize = 16;

/// A blob: content named by its digest.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BlobRef {
    /// SHA-256 digest of all its bytes.
    pub sha256: Digest,
    /// Length of the whole content in bytes, before it is cut into chunks.
    pub size: u64,
}

impl BlobRef {
    /// The reference to `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self { sha256: Digest::of(bytes), size: bytes.len() as u64 }
    }

    /// How many chunks it has; the last one may be shorter than [`CHUNK`].
    pub fn chunks(&self) -> u64 {
        self.size.div_ceil(CHUNK as u64)
    }
}

/// Chunk `n` (from 0) of `bytes`, if it has one.
pub fn chunk(bytes: &[u8], n: u32) -> Option<&[u8]> {
    bytes.chunks(CHUNK).nth(n as usize)
}

/// What a task ships: text, bytes, or a blob.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Content {
    /// UTF-8 text in the plan.
    Text(String),
    /// Other bytes in the plan, as base64.
    Base64(String),
    /// Content to be requested, by its digest and size.
    Blob(BlobRef),
}

/// Content in a plan that is not base64.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("content is not base64")]
pub struct InvalidContent(#[source] base64::DecodeError);

impl Content {
    /// `bytes`, in the plan if they are at most `INLINE_LIMIT` long.
    pub fn of(bytes: &[u8]) -> Self {
        if bytes.len() > INLINE_LIMIT {
            return Self::Blob(BlobRef::of(bytes));
        }
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::Text(text.to_owned()),
            Err(_) => Self::Base64(BASE64.encode(bytes)),
        }
    }

    /// The blob that must be fetched first, if it is one.
    pub fn blob(&self) -> Option<&BlobRef> {
        match self {
            Self::Blob(blob) => Some(blob),
            Self::Text(_) | Self::Base64(_) => None,
        }
    }

    /// Digest and size of the content, by which it is recorded where its bytes are not kept; `None` if it is not base64.
    pub fn name(&self) -> Option<BlobRef> {
        match self {
            Self::Blob(blob) => Some(blob.clone()),
            Self::Text(text) => Some(BlobRef::of(text.as_bytes())),
            Self::Base64(text) => Some(BlobRef::of(&BASE64.decode(text).ok()?)),
        }
    }

    /// How many bytes of text it takes where it is.
    pub fn inline_length(&self) -> usize {
        match self {
            Self::Text(text) | Self::Base64(text) => text.len(),
            Self::Blob(_) => 0,
        }
    }

    /// Leaves digest and size alone, unless it is not base64.
    pub fn replace_by_name(&mut self) {
        // What is no content has no name, and takes no room either.
        *self = self.name().map_or_else(|| Self::Text(String::new()), Self::Blob);
    }

    /// The bytes, if they are in the plan.
    ///
    /// # Errors
    /// If they are not base64.
    pub fn inline(&self) -> Result<Option<Vec<u8>>, InvalidContent> {
        match self {
            Self::Text(text) => Ok(Some(text.clone().into_bytes())),
            Self::Base64(text) => BASE64.decode(text).map(Some).map_err(InvalidContent),
            Self::Blob(_) => Ok(None),
        }
    }
}

/// An agent requests chunks of a blob that its plan names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Want {
    /// Format version; [`VERSION`](crate::VERSION) of the sender.
    pub version: u32,
    /// The site; any other refuses it.
    pub site: SiteName,
    /// The node that requests them.
    pub node: NodeId,
    /// The blob that the chunks are of.
    pub blob: BlobRef,
    /// The chunks it misses, counted from 0; at most `WANT_LIMIT`.
    pub chunks: Vec<u32>,
}

impl Message for Want {
    const TYPE: &'static str = "application/vnd.groundplan.want+json";
    fn version(&self) -> u32 {
        self.version
    }
    fn site(&self) -> &SiteName {
        &self.site
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_is_inline_up_to_the_limit_and_comes_back() {
        for bytes in [&b"text"[..], &[0xff, 0xfe], &[b'x'; INLINE_LIMIT]] {
            assert_eq!(Content::of(bytes).inline().unwrap().unwrap(), bytes);
            assert_eq!(Content::of(bytes).name(), Some(BlobRef::of(bytes)));
        }
        let large = vec![0; INLINE_LIMIT + 1];
        assert_eq!(Content::of(&large).blob(), Some(&BlobRef::of(&large)));
        assert_eq!(Content::of(&large).name(), Some(BlobRef::of(&large)));
    }

    #[test]
    fn chunks_make_up_the_whole() {
        let bytes: Vec<u8> = (0..CHUNK * 2 + 5).map(|i| i as u8).collect();
        let blob = BlobRef::of(&bytes);
        assert_eq!(blob.chunks(), 3);
        let whole: Vec<u8> = (0..3).flat_map(|n| chunk(&bytes, n).unwrap().to_vec()).collect();
        assert_eq!(whole, bytes);
        assert_eq!(chunk(&bytes, 3), None);
        assert_eq!(BlobRef::of(b"").chunks(), 0);
    }
}
