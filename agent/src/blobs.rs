//! The blob store: content that plans name, fetched chunk by chunk, kept as files named by their digest.
//!
//! In: blobs to fetch and their keys, chunks as they come, the time. Out: requests for chunks, and an event for each blob that is complete
//! or failed. Chunks come encrypted, and one that the blob's key does not decrypt counts as none. A file gets its final name only if its
//! digest is right; chunks that came before a restart are kept. One blob is fetched at a time, and its chunks are taken in order, so that a
//! small host holds no more than what is in flight. Keys are in memory alone: the broker repeats the offer that has them at each connection.

use std::{
    collections::{BTreeMap, VecDeque},
    fs::{self, File},
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
    time::Duration,
};

use groundplan_protocol::{
    blob::{BlobRef, CHUNK, WANT_LIMIT},
    digest::{Digest, Hasher},
    encryption::ContentKey,
    ids::Generation,
};

use crate::private;

/// Chunks that did not come in this time are requested again; doubled each time, up to `PATIENCE_MAX`.
const PATIENCE: Duration = Duration::from_secs(3);
const PATIENCE_MAX: Duration = Duration::from_secs(60);

/// What happened to a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BlobEvent {
    /// It is complete.
    Ready(Digest),
    /// It could not be fetched or stored; it will be tried again.
    Failed {
        /// Its digest.
        blob: Digest,
        /// Why, as a message for the operator.
        reason: String,
    },
}

/// The blob that is being fetched.
struct Part {
    file: File,
    hasher: Hasher,
    /// Number of chunks that are in the file.
    got: u64,
}

/// The directory of blobs, and what is being fetched into it.
pub struct Blobs {
    dir: PathBuf,
    keys: BTreeMap<Digest, ContentKey>,
    /// The generation of the newest offer that keys came with.
    newest: Generation,
    wanted: VecDeque<BlobRef>,
    part: Option<Part>,
    /// Chunks below this have been requested.
    requested: u64,
    /// When to request chunks, at the earliest.
    request_at: Duration,
    patience: Duration,
}

impl Blobs {
    /// The store in `dir`, which is made if it is not there.
    pub fn open(dir: PathBuf) -> io::Result<Self> {
        private::directory(&dir)?;
        let (keys, wanted, request_at) = (BTreeMap::new(), VecDeque::new(), Duration::ZERO);
        let newest = Generation(0);
        Ok(Self { dir, keys, newest, wanted, part: None, requested: 0, request_at, patience: PATIENCE })
    }

    /// The file of a complete blob.
    pub fn path(&self, digest: &Digest) -> PathBuf {
        self.dir.join(digest.to_string())
    }

    fn part_path(&self, digest: &Digest) -> PathBuf {
        self.dir.join(format!("{digest}.part"))
    }

    /// Takes the keys of an offer: those that came last count. Those of earlier ones are kept for what is still to be fetched.
    pub fn learn(&mut self, offered: Generation, keys: &BTreeMap<Digest, ContentKey>) {
        // An offer that was followed by another one may come again. Its plan is not taken, so it must not drop the keys of the newer plan,
        // whose blobs may not be requested yet.
        if offered < self.newest {
            return;
        }
        let other = |blob: &BlobRef| keys.get(&blob.sha256).is_some_and(|key| self.keys.get(&blob.sha256) != Some(key));
        if self.wanted.front().is_some_and(other) {
            // What was requested under another key came in vain, or was not requested at all.
            (self.request_at, self.patience) = (Duration::ZERO, PATIENCE);
        }
        if offered > self.newest {
            self.keys.retain(|digest, _| self.wanted.iter().any(|blob| blob.sha256 == *digest));
            self.newest = offered;
        }
        self.keys.extend(keys.iter().map(|(digest, key)| (*digest, key.clone())));
    }

    /// Has blobs fetched; returns those that are in the store already.
    pub fn fetch(&mut self, blobs: Vec<BlobRef>) -> Vec<Digest> {
        let mut ready = Vec::new();
        for blob in blobs {
            if fs::metadata(self.path(&blob.sha256)).is_ok_and(|m| m.len() == blob.size) {
                ready.push(blob.sha256);
            } else if !self.wanted.contains(&blob) {
                self.wanted.push_back(blob);
            }
        }
        ready
    }

    /// Fetches a blob no more.
    pub fn forget(&mut self, digest: &Digest) {
        let active = self.wanted.front().cloned();
        self.wanted.retain(|blob| blob.sha256 != *digest);
        if self.wanted.front() != active.as_ref() {
            self.start_over(Duration::ZERO);
        }
    }

    /// Drops all blobs but these. A file that cannot be removed is tried again the next time.
    pub fn keep(&mut self, digests: &[Digest]) {
        // Only the blob at the front has an open file: if another comes to the front, its own must be opened.
        let active = self.wanted.front().cloned();
        self.wanted.retain(|blob| digests.contains(&blob.sha256));
        if self.wanted.front() != active.as_ref() {
            self.start_over(Duration::ZERO);
        }
        let names: Vec<String> = digests.iter().map(Digest::to_string).collect();
        for entry in fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if !names.iter().any(|keep| *keep == name.trim_end_matches(".part")) {
                // A file too many only takes space.
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    /// The blob that is being fetched.
    pub fn active(&self) -> Option<&BlobRef> {
        self.wanted.front()
    }

    /// When `want` has something to request, by the monotonic clock.
    pub fn deadline(&self) -> Option<Duration> {
        // Without its key, chunks would come in vain: the next offer has it.
        self.wanted.front().filter(|blob| self.keys.contains_key(&blob.sha256)).map(|_| self.request_at)
    }

    /// Requests on the last connection may be lost: request again.
    pub fn reconnected(&mut self) {
        self.request_at = Duration::ZERO;
    }

    fn start_over(&mut self, at: Duration) {
        self.part = None;
        self.requested = 0;
        self.request_at = at;
    }

    /// The chunks to request now. An error is an event that came up instead: the blob was complete already, or the store failed.
    pub fn want(&mut self, now: Duration) -> Result<Option<(BlobRef, Vec<u32>)>, BlobEvent> {
        let Some(blob) = self.wanted.front().cloned() else { return Ok(None) };
        if now < self.request_at || !self.keys.contains_key(&blob.sha256) {
            return Ok(None);
        }
        if self.part.is_none() {
            match open_part(&self.part_path(&blob.sha256), &blob) {
                Ok(part) => self.part = Some(part),
                Err(e) => return Err(self.failed(&blob, e.to_string(), now)),
            }
        }
        let got = self.part.as_ref().map_or(0, |p| p.got);
        if got >= blob.chunks() {
            return match self.complete(&blob, now) {
                BlobEvent::Ready(digest) => Err(BlobEvent::Ready(digest)),
                failed => Err(failed),
            };
        }
        // Always from the first chunk that is missing: requests may be lost, and chunks that came out of order were
        // dropped.
        self.requested = blob.chunks().min(got + WANT_LIMIT as u64);
        self.request_at = now + self.patience;
        // Any chunk that comes sets it back; a planner that is away is asked more and more rarely.
        self.patience = (self.patience * 2).min(PATIENCE_MAX);
        let chunks = (got..self.requested).map(|n| n as u32).collect();
        Ok(Some((blob, chunks)))
    }

    /// Takes chunk `n` of a blob. Any but the next chunk of the blob being fetched is dropped: it is requested again.
    pub fn chunk(&mut self, digest: &Digest, n: u32, bytes: &[u8], now: Duration) -> Option<BlobEvent> {
        let blob = self.wanted.front().filter(|b| b.sha256 == *digest).cloned()?;
        let part = self.part.as_mut().filter(|p| p.got == u64::from(n))?;
        // Anyone may publish a chunk at some brokers, and a planner with another key: that is not worth a report. It is requested again.
        let bytes = self.keys.get(digest)?.decrypt(n, bytes).ok()?;
        let expected = (blob.size - part.got * CHUNK as u64).min(CHUNK as u64);
        // A wrong length would shift all that follows, and be noticed only by the digest of the whole.
        if bytes.len() as u64 != expected {
            let reason = format!("chunk {n} has {} bytes, not {expected}", bytes.len());
            self.request_at = now + self.patience;
            return Some(BlobEvent::Failed { blob: *digest, reason });
        }
        if let Err(e) = part.file.write_all(&bytes) {
            return Some(self.failed(&blob, e.to_string(), now));
        }
        part.hasher.update(&bytes);
        part.got += 1;
        self.patience = PATIENCE;
        if part.got == blob.chunks() {
            return Some(self.complete(&blob, now));
        }
        // The next ones at once; within a request, chunks are requested again only if the rest of them does not come.
        self.request_at = if part.got >= self.requested { now } else { now + PATIENCE };
        None
    }

    /// All chunks are there: gives the file its name if the digest is right.
    fn complete(&mut self, blob: &BlobRef, now: Duration) -> BlobEvent {
        let Some(part) = self.part.take() else { return self.failed(blob, "its file is not open".to_owned(), now) };
        let path = self.part_path(&blob.sha256);
        if part.hasher.finish() != blob.sha256 {
            // Some chunk is wrong, and nothing shows which.
            let _ = fs::remove_file(&path);
            return self.failed(blob, "the content that came has another digest".to_owned(), now);
        }
        // The name is the proof that the content is complete and on the disk: content, then name, then directory.
        let named = part
            .file
            .sync_all()
            .and_then(|()| fs::rename(&path, self.path(&blob.sha256)))
            .and_then(|()| File::open(&self.dir)?.sync_all());
        if let Err(e) = named {
            return self.failed(blob, e.to_string(), now);
        }
        self.wanted.pop_front();
        self.patience = PATIENCE;
        self.start_over(now);
        BlobEvent::Ready(blob.sha256)
    }

    fn failed(&mut self, blob: &BlobRef, reason: String, now: Duration) -> BlobEvent {
        self.start_over(now + self.patience);
        self.patience = (self.patience * 2).min(PATIENCE_MAX);
        let reason = format!("{}: {reason}", self.path(&blob.sha256).display());
        BlobEvent::Failed { blob: blob.sha256, reason }
    }
}

/// Opens the file of an incomplete blob and hashes its complete chunks; a partial chunk at its end is cut off.
fn open_part(path: &Path, blob: &BlobRef) -> io::Result<Part> {
    let mut file = private::open(path, File::options().read(true).append(true).create(true))?;
    let len = file.metadata()?.len();
    // Only whole chunks count: the agent may have been killed while it wrote one.
    let got = if len >= blob.size { blob.chunks() } else { len / CHUNK as u64 };
    let mut left = (got * CHUNK as u64).min(blob.size);
    file.set_len(left)?;
    let mut hasher = Hasher::new();
    let mut buffer = vec![0; 64 * 1024];
    while left > 0 {
        let n = file.read(&mut buffer)?;
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        hasher.update(&buffer[..n]);
        left -= n as u64;
    }
    Ok(Part { file, hasher, got })
}

#[cfg(test)]
mod tests {
    use groundplan_protocol::{blob::chunk, envelope::SigningKey};

    use super::*;

    fn key(blob: &BlobRef) -> ContentKey {
        SigningKey::from_seed([1; 32]).content_key(&blob.sha256)
    }

    /// Has a blob fetched, with its key.
    fn fetch(blobs: &mut Blobs, blob: &BlobRef) {
        assert!(blobs.fetch(vec![blob.clone()]).is_empty());
        blobs.learn(Generation(1), &[(blob.sha256, key(blob))].into());
    }

    fn content() -> Vec<u8> {
        (0..CHUNK * 20 + 5).map(|i| (i / 7) as u8).collect()
    }

    /// Answers requests until the blob is complete; `most` chunks at most.
    fn serve(blobs: &mut Blobs, bytes: &[u8], now: &mut Duration, most: usize) -> Option<BlobEvent> {
        let mut served = 0;
        loop {
            let (blob, chunks) = match blobs.want(*now) {
                Ok(Some(want)) => want,
                Ok(None) => {
                    *now += PATIENCE_MAX;
                    continue;
                }
                Err(event) => return Some(event),
            };
            assert!(chunks.len() <= WANT_LIMIT);
            for n in chunks {
                if served == most {
                    return None;
                }
                served += 1;
                let chunk = key(&blob).encrypt(n, chunk(bytes, n).unwrap().to_vec());
                if let Some(event) = blobs.chunk(&blob.sha256, n, &chunk, *now) {
                    return Some(event);
                }
            }
        }
    }

    #[test]
    fn a_blob_comes_in_chunks_over_a_restart() {
        let (dir, bytes, mut now) = (tempfile::tempdir().unwrap(), content(), Duration::ZERO);
        let blob = BlobRef::of(&bytes);
        let mut blobs = Blobs::open(dir.path().into()).unwrap();
        fetch(&mut blobs, &blob);
        assert_eq!(serve(&mut blobs, &bytes, &mut now, 18), None);
        let mut blobs = Blobs::open(dir.path().into()).unwrap();
        blobs.fetch(vec![blob.clone()]);
        assert_eq!((blobs.want(now), blobs.deadline()), (Ok(None), None), "its key is in no file");
        fetch(&mut blobs, &blob);
        let (_, chunks) = blobs.want(now).unwrap().unwrap();
        assert_eq!(chunks[0], 18, "chunks from before the restart are kept");
        now += PATIENCE_MAX;
        assert_eq!(serve(&mut blobs, &bytes, &mut now, 99), Some(BlobEvent::Ready(blob.sha256)));
        assert_eq!(fs::read(blobs.path(&blob.sha256)).unwrap(), bytes);
        assert_eq!(blobs.fetch(vec![blob.clone()]), [blob.sha256]);
        blobs.keep(&[]);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn other_content_is_refused_and_requested_again() {
        let (dir, bytes, mut now) = (tempfile::tempdir().unwrap(), content(), Duration::ZERO);
        let blob = BlobRef::of(&bytes);
        let mut forged = bytes.clone();
        forged[CHUNK] ^= 1;
        let mut blobs = Blobs::open(dir.path().into()).unwrap();
        fetch(&mut blobs, &blob);
        assert!(matches!(serve(&mut blobs, &forged, &mut now, 99), Some(BlobEvent::Failed { .. })));
        assert!(blobs.want(now).unwrap().is_none(), "it waits before it tries again");
        assert_eq!(serve(&mut blobs, &bytes, &mut now, 99), Some(BlobEvent::Ready(blob.sha256)));
    }

    #[test]
    fn what_the_key_does_not_decrypt_counts_as_no_chunk_and_another_key_is_taken() {
        let (dir, bytes, now) = (tempfile::tempdir().unwrap(), b"content".repeat(10), Duration::ZERO);
        let blob = BlobRef::of(&bytes);
        let mut blobs = Blobs::open(dir.path().into()).unwrap();
        fetch(&mut blobs, &blob);
        assert!(blobs.want(now).unwrap().is_some());
        let other = SigningKey::from_seed([2; 32]).content_key(&blob.sha256);
        for junk in [bytes.clone(), Vec::new(), other.encrypt(0, bytes.clone())] {
            assert_eq!(blobs.chunk(&blob.sha256, 0, &junk, now), None);
        }
        assert!(blobs.want(now).unwrap().is_none(), "it was requested a moment ago");
        // The planner that answers is another one by now.
        blobs.learn(Generation(1), &[(blob.sha256, other.clone())].into());
        assert!(blobs.want(now).unwrap().is_some(), "at once, under the key that counts");
        let done = blobs.chunk(&blob.sha256, 0, &other.encrypt(0, bytes), now);
        assert_eq!(done, Some(BlobEvent::Ready(blob.sha256)));
    }

    #[test]
    fn an_empty_blob_needs_no_chunk() {
        let dir = tempfile::tempdir().unwrap();
        let mut blobs = Blobs::open(dir.path().into()).unwrap();
        fetch(&mut blobs, &BlobRef::of(b""));
        assert_eq!(blobs.want(Duration::ZERO), Err(BlobEvent::Ready(Digest::of(b""))));
    }
}
