//! The output of a command until it is sent: text in the order in which it came, in bounded memory.
//!
//! In: bytes, each from one of two streams. Out: pieces of text, cut between characters. Output beyond the command's limit is counted
//! and dropped. The writer waits for room while a connection takes output; while there is none (`lossy`), the middle of what is
//! held is dropped instead, and counted as well. One task writes, one takes; neither blocks the other for long.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard},
};

use groundplan_protocol::exec::{Piece, Stream};
use tokio::sync::Notify;

/// Most text that is held, in bytes; one more read may exceed it.
const HELD: usize = 128 * 1024;
/// Pieces of one stream that follow each other are joined up to this length, in bytes.
const JOINED: usize = 8 * 1024;
/// Text that is enough for a message of its own, in bytes.
pub const BATCH: usize = 16 * 1024;

/// The output of one command between its writer and its reader.
#[derive(Debug)]
pub struct Spool {
    inner: Mutex<Inner>,
    room: Notify,
    /// Notified when there is something to take, and when it is enough for a message.
    notify: Arc<Notify>,
}

#[derive(Debug)]
struct Inner {
    pieces: VecDeque<Piece>,
    bytes: usize,
    /// Bytes that may still be passed on.
    left: u64,
    omitted: u64,
    lossy: bool,
    /// The first bytes of a character whose rest has not come, for each stream.
    begun: [Vec<u8>; 2],
}

impl Spool {
    /// A spool that passes on at most `limit` bytes.
    pub fn new(limit: u64, notify: Arc<Notify>) -> Self {
        let inner = Inner {
            pieces: VecDeque::new(),
            bytes: 0,
            left: limit,
            omitted: 0,
            lossy: false,
            begun: [Vec::new(), Vec::new()],
        };
        Self { inner: Mutex::new(inner), room: Notify::new(), notify }
    }

    /// Adds bytes that came on a stream.
    pub(super) fn push(&self, stream: Stream, bytes: &[u8]) {
        let mut inner = self.lock();
        let before = inner.bytes;
        inner.push(stream, bytes);
        let now = inner.bytes;
        drop(inner);
        // Twice for each batch at most, and not for every piece: the reader is the agent's main loop.
        if (before == 0 && now > 0) || (before < BATCH && now >= BATCH) {
            self.notify.notify_one();
        }
    }

    /// Nothing more comes: incomplete characters are replaced.
    pub(super) fn close(&self) {
        let mut inner = self.lock();
        for stream in [Stream::Out, Stream::Err] {
            let begun = std::mem::take(&mut inner.begun[index(stream)]);
            inner.keep(stream, &String::from_utf8_lossy(&begun));
        }
    }

    /// Returns when more may be pushed.
    pub(super) async fn room(&self) {
        loop {
            let room = self.room.notified();
            if self.lock().has_room() {
                return;
            }
            room.await;
        }
    }

    /// Whether no connection takes output: then the writer does not wait.
    pub fn set_lossy(&self, lossy: bool) {
        self.lock().lossy = lossy;
        self.room.notify_one();
    }

    /// Takes the oldest pieces: at most `most` bytes, but one piece at least if there is any.
    pub fn take(&self, most: usize) -> Vec<Piece> {
        let mut inner = self.lock();
        let (mut taken, mut bytes) = (Vec::new(), 0);
        while let Some(piece) = inner.pieces.front() {
            bytes += piece.text.len();
            if bytes > most && !taken.is_empty() {
                break;
            }
            inner.bytes -= piece.text.len();
            taken.extend(inner.pieces.pop_front());
        }
        drop(inner);
        self.room.notify_one();
        taken
    }

    /// Bytes of text that are held.
    pub fn held(&self) -> usize {
        self.lock().bytes
    }

    /// Bytes that will never be passed on.
    pub fn omitted(&self) -> u64 {
        self.lock().omitted
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(|e| e.into_inner())
    }
}

impl Inner {
    fn has_room(&self) -> bool {
        self.lossy || self.bytes < HELD
    }

    fn push(&mut self, stream: Stream, bytes: &[u8]) {
        // A pipe is read in pieces that may end within a character; its first bytes wait for the rest, apart for each
        // stream.
        let mut all = std::mem::take(&mut self.begun[index(stream)]);
        all.extend_from_slice(bytes);
        let cut = cut_off(&all);
        let rest = all.split_off(all.len() - cut);
        self.begun[index(stream)] = rest;
        self.keep(stream, &String::from_utf8_lossy(&all));
        if self.lossy {
            self.thin();
        }
    }

    /// Keeps the part of a text that may be passed on.
    fn keep(&mut self, stream: Stream, text: &str) {
        // Cut between characters, so that every piece is text by itself.
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(text.len());
        let end = (0..=most).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        // After a character that does not fit nothing more is passed on, even if it would fit: the result is the beginning.
        self.left = if end < text.len() { 0 } else { self.left - end as u64 };
        self.omitted += (text.len() - end) as u64;
        self.bytes += end;
        match self.pieces.back_mut() {
            _ if end == 0 => {}
            Some(last) if last.stream == stream && last.text.len() + end <= JOINED => last.text.push_str(&text[..end]),
            _ => self.pieces.push_back(Piece { stream, text: text[..end].to_owned() }),
        }
    }

    /// Drops pieces from the middle, until the rest may be held.
    fn thin(&mut self) {
        while self.bytes > HELD {
            // The piece at the middle of what is held: both the beginning and the latest output are of use to an
            // operator.
            let mut before = 0;
            let middle = self.pieces.iter().position(|piece| {
                before += piece.text.len();
                before > HELD / 2
            });
            let Some(dropped) = middle.and_then(|at| self.pieces.remove(at)) else { return };
            self.bytes -= dropped.text.len();
            self.omitted += dropped.text.len() as u64;
        }
    }
}

fn index(stream: Stream) -> usize {
    match stream {
        Stream::Out => 0,
        Stream::Err => 1,
    }
}

/// How many bytes at the end begin a character whose rest is missing.
fn cut_off(bytes: &[u8]) -> usize {
    let last = bytes.utf8_chunks().last().map_or(&[][..], |chunk| chunk.invalid());
    // No error length means that the text ends within a character; other invalid bytes will not become valid.
    let missing = std::str::from_utf8(last).is_err_and(|e| e.error_len().is_none());
    if missing { last.len() } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spool(limit: u64) -> Spool {
        Spool::new(limit, Arc::default())
    }

    fn text(pieces: &[Piece]) -> String {
        pieces.iter().map(|p| p.text.as_str()).collect()
    }

    #[test]
    fn streams_stay_apart_and_characters_whole() {
        let spool = spool(1000);
        let a = "aä".as_bytes();
        spool.push(Stream::Out, &a[..2]);
        spool.push(Stream::Err, b"e");
        spool.push(Stream::Out, &a[2..]);
        spool.push(Stream::Out, b"b\xff\xe2\x82");
        spool.close();
        let pieces = spool.take(1000);
        let texts: Vec<_> = pieces.iter().map(|p| (p.stream, p.text.as_str())).collect();
        assert_eq!(texts, [(Stream::Out, "a"), (Stream::Err, "e"), (Stream::Out, "äb\u{fffd}\u{fffd}")]);
        assert_eq!((spool.held(), spool.omitted()), (0, 0));
    }

    #[test]
    fn beyond_the_limit_it_is_counted() {
        let spool = spool(5);
        for text in ["abcd", "ä", "x", "yz"] {
            spool.push(Stream::Out, text.as_bytes());
        }
        assert_eq!((text(&spool.take(100)).as_str(), spool.omitted()), ("abcd", 5));
    }

    #[tokio::test]
    async fn a_writer_waits_for_room_unless_it_is_lossy() {
        let spool = spool(u64::MAX);
        let room = async |wanted: bool| {
            let waited = tokio::time::timeout(std::time::Duration::from_millis(20), spool.room()).await;
            assert_eq!(waited.is_ok(), wanted);
        };
        for i in 0..HELD / 1024 {
            room(true).await;
            spool.push(Stream::Out, format!("{i:1024}").as_bytes());
        }
        room(false).await;
        assert!(spool.take(BATCH).iter().map(|p| p.text.len()).sum::<usize>() <= BATCH);
        room(true).await;
        for i in 0..1000 {
            spool.set_lossy(true);
            spool.push(Stream::Err, format!("{i:1024}").as_bytes());
        }
        assert!(spool.held() <= HELD);
        let kept = spool.held() as u64 + spool.omitted();
        assert_eq!(kept + BATCH as u64, (HELD + 1000 * 1024) as u64);
        let all = text(&spool.take(usize::MAX));
        assert!(all.trim_start().starts_with("16"), "the beginning stays");
        assert!(all.ends_with("999"), "the end stays");
    }

    #[tokio::test]
    async fn the_taker_is_notified_of_the_first_text_and_of_a_full_message() {
        let notify = Arc::new(Notify::new());
        let spool = Spool::new(u64::MAX, notify.clone());
        let notified =
            async || tokio::time::timeout(std::time::Duration::from_millis(20), notify.notified()).await.is_ok();
        assert!(!notified().await);
        spool.push(Stream::Out, b"a");
        assert!(notified().await);
        spool.push(Stream::Out, b"b");
        assert!(!notified().await);
        spool.push(Stream::Out, &[b'c'; BATCH]);
        assert!(notified().await);
    }
}
