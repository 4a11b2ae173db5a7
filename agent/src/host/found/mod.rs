//! The store of what was found: a note for each claim, and the contents of replaced files.
//!
//! In: what a job finds before its first change to what it claims. Out: the note, to be kept in the ledger with the job's end; and what
//! was there, for a removal. A claim that has a note keeps it until no task has the claim. Before the change the note is in a file
//! beside the contents, which survives a kill of the agent; where something was there, note and content are also synced to the disk,
//! which a new file costs nothing. Contents are named by their digest, kept once, and bounded together.

mod own;
mod path;

pub(crate) use self::own::Own;

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    fs::{self, File},
    io::{self, Read as _, Write as _},
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard},
};

use groundplan_protocol::{
    digest::{Digest, Hasher},
    plan::OnRemove,
};
use nix::unistd::syncfs;
use serde::{Deserialize, Serialize};

use super::error::KindError;
use crate::{machine::Found, private};

/// Why what was found cannot be kept, so that nothing is changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FoundError {
    #[error(
        "{path}: the file that is there has {size} bytes, and cannot be kept to be restored later: all that is kept may have \
         {limit} bytes, and {used} are used; nothing was changed. Raise `max_found` in the agent's settings, or give the task \
         `on_remove = \"delete\"` or `\"keep\"`"
    )]
    Full { path: String, size: u64, used: u64, limit: u64 },
    #[error("{}: what was there cannot be kept, and nothing was changed", path.display())]
    Store { path: PathBuf, source: io::Error },
    #[error("{path}: cannot {doing}")]
    Read { path: String, doing: &'static str, source: io::Error },
    #[error("{path}: what was there cannot be restored, because its content is not in {} any more", store.display())]
    Lost { path: String, store: PathBuf },
}

impl KindError for FoundError {}

/// The file of notes, in the store's directory.
const NOTES: &str = "noted";

/// What names of files end with until they are complete.
const UNFINISHED: &str = ".new";

/// The store, in a directory of the agent's state.
#[derive(Debug)]
pub(crate) struct FoundStore {
    dir: PathBuf,
    /// Most bytes of all contents together.
    limit: u64,
    books: Mutex<Books>,
}

#[derive(Debug, Default)]
struct Books {
    notes: BTreeMap<String, Found>,
    /// Notes of jobs that have not ended: the file of notes is all that has them.
    pending: BTreeMap<String, Found>,
    /// The file of notes, once something is written.
    file: Option<File>,
    /// Notes that jobs have dropped whose ends are not reported: the ledger still has them.
    forgotten: Vec<(String, Found)>,
    /// Sizes of the contents, by digest.
    contents: BTreeMap<Digest, u64>,
    /// Contents whose notes are about to be made, and how many.
    awaited: BTreeMap<Digest, usize>,
    /// Whether notes were dropped since the contents were swept.
    dropped: bool,
}

impl Books {
    /// Has a content stay until its note is made; whether it is in the store.
    fn await_note(&mut self, digest: Digest) -> bool {
        let is_there = self.contents.contains_key(&digest);
        if is_there {
            *self.awaited.entry(digest).or_default() += 1;
        }
        is_there
    }

    /// The note of what was found is made, or will not be.
    fn expect_no_longer(&mut self, found: &Found) {
        found.contents(&mut |digest| {
            if let Entry::Occupied(mut awaited) = self.awaited.entry(digest) {
                *awaited.get_mut() -= 1;
                if *awaited.get() == 0 {
                    awaited.remove();
                }
            }
        });
    }
}

/// A line of the file of notes.
#[derive(Debug, Serialize, Deserialize)]
struct Line {
    claim: String,
    found: Found,
}

impl FoundStore {
    /// The store below `state_dir`, and the notes that its file has. Nothing is made before there is something to keep.
    pub(crate) fn open(state_dir: &Path, limit: u64) -> io::Result<(Self, Vec<(String, Found)>)> {
        let dir = state_dir.join("found");
        let text = match fs::read(dir.join(NOTES)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
            text => text?,
        };
        // A torn line is of a change that was not begun; it may end inside a character.
        let noted = text.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok());
        let noted = noted.map(|Line { claim, found }| (claim, found)).collect();
        let mut books = Books { dropped: true, ..Books::default() };
        for entry in fs::read_dir(&dir).into_iter().flatten() {
            let entry = entry?;
            let name = entry.file_name();
            match name.to_str().map(|name| (name, name.parse())) {
                Some((_, Ok(digest))) => _ = books.contents.insert(digest, entry.metadata()?.len()),
                // What an agent was writing when it was killed.
                Some((name, _)) if name.ends_with(UNFINISHED) => fs::remove_file(entry.path())?,
                _ => {}
            }
        }
        Ok((Self { dir, limit, books: Mutex::new(books) }, noted))
    }

    /// Takes over the notes of the ledger; to be called once, before the first job.
    pub(crate) fn adopt(&self, notes: &BTreeMap<String, Found>) {
        self.books().notes.clone_from(notes);
    }

    /// The note of a claim.
    pub(crate) fn get(&self, key: &str) -> Option<Found> {
        self.books().notes.get(key).cloned()
    }

    /// Keeps the note of a claim. In the file of notes before this returns; on the disk as well, if something was there.
    pub(crate) fn put(&self, key: &str, found: &Found) -> Result<(), FoundError> {
        let mut books = self.books();
        let appended = self.append(&mut books, &line(key, found)).and_then(|()| match (found, &books.file) {
            // What is not there needs no sync: after a power loss its note is missing, and then what is there is left alone.
            (Found::Absent, _) | (_, None) => Ok(()),
            (_, Some(file)) => file.sync_data().and_then(|()| File::open(&self.dir)?.sync_all()),
        });
        books.expect_no_longer(found);
        appended.map_err(|source| self.failed(NOTES, source))?;
        books.notes.insert(key.to_owned(), found.clone());
        books.pending.insert(key.to_owned(), found.clone());
        Ok(())
    }

    /// Keeps many notes, whose contents need not be on the disk: all is when this returns, at the cost of one sync.
    pub(crate) fn put_all(&self, notes: &[(String, Option<Found>)]) -> Result<(), FoundError> {
        let mut books = self.books();
        let mut text = String::new();
        for (key, found) in notes {
            found.iter().for_each(|found| text += &line(key, found));
        }
        let appended = self.append(&mut books, &text).and_then(|()| Ok(syncfs(File::open(&self.dir)?)?));
        for (key, found) in notes {
            let Some(found) = found else { continue };
            books.expect_no_longer(found);
            if appended.is_ok() {
                books.notes.insert(key.clone(), found.clone());
                books.pending.insert(key.clone(), found.clone());
            }
        }
        appended.map_err(|source| self.failed(NOTES, source))
    }

    /// The keys of notes that begin so.
    pub(crate) fn keys(&self, prefix: &str) -> Vec<String> {
        self.books().notes.keys().filter(|key| key.starts_with(prefix)).cloned().collect()
    }

    /// Drops the note of a claim that no task has any more; whether there was one.
    pub(crate) fn forget(&self, key: &str) -> bool {
        let mut books = self.books();
        let Some(found) = books.notes.remove(key) else { return false };
        // Until the job's end is in the ledger, the note is what an agent that is killed finds there.
        books.forgotten.push((key.to_owned(), found));
        true
    }

    /// No note is made of what was found.
    pub(crate) fn pass_over(&self, found: &Found) {
        let mut books = self.books();
        books.expect_no_longer(found);
        books.dropped = true;
    }

    /// The job that made these notes has ended, and its end goes into the ledger with them.
    pub(crate) fn reported(&self, found: &[(String, Option<Found>)]) {
        let mut books = self.books();
        for (key, found) in found {
            match books.notes.get(key).cloned() {
                // Given up by this job, and noted again since by one that has not ended.
                Some(again) if found.is_none() => _ = books.pending.insert(key.clone(), again),
                _ => _ = books.pending.remove(key),
            }
            books.forgotten.retain(|(forgotten, _)| forgotten != key);
            books.dropped = true;
        }
    }

    /// The ledger has the notes of all jobs that have ended: the file need not have them any more, and contents that no note names go.
    pub(crate) fn settle(&self) -> io::Result<()> {
        let mut books = self.books();
        self.sweep(&mut books);
        let Some(file) = &books.file else {
            return match fs::remove_file(self.dir.join(NOTES)) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
                _ => Ok(()),
            };
        };
        if books.pending.is_empty() {
            return file.set_len(0);
        }
        // Complete at any moment: the running jobs have made changes since.
        let text: String = books.pending.iter().map(|(key, found)| line(key, found)).collect();
        let temporary = self.dir.join(format!(".noted{UNFINISHED}"));
        private::create(&temporary)?.write_all(text.as_bytes())?;
        fs::rename(&temporary, self.dir.join(NOTES))?;
        books.file = Some(self.open_notes()?);
        Ok(())
    }

    /// Keeps the content of an open file, on the disk if `synced`; its digest and size, and whether it is kept. Where it does not fit, an
    /// error, unless `on_remove` never needs it.
    fn keep(
        &self,
        path: &str,
        place: &Path,
        file: &mut File,
        on_remove: OnRemove,
        synced: bool,
    ) -> Result<(Digest, u64, bool), FoundError> {
        let failed = |source| FoundError::Read { path: path.to_owned(), doing: "read what is there", source };
        let size = file.metadata().map_err(failed)?.len();
        let used: u64 = self.books().contents.values().sum();
        if used.saturating_add(size) > self.limit {
            let digest = digest_of(file, &mut io::sink()).map_err(failed)?;
            // It may be in the store already.
            if self.books().await_note(digest) {
                return Ok((digest, size, true));
            }
            if on_remove == OnRemove::Restore {
                return Err(FoundError::Full { path: path.to_owned(), size, used, limit: self.limit });
            }
            return Ok((digest, size, false));
        }
        // One name for each file that is read: several jobs may keep contents at the same time.
        let name = Digest::of(place.as_os_str().as_bytes()).short();
        let temporary = self.dir.join(format!(".{name}{UNFINISHED}"));
        let store = |source| FoundError::Store { path: temporary.clone(), source };
        self.make_dir().map_err(store)?;
        let mut kept = private::create(&temporary).map_err(store)?;
        let digest = digest_of(file, &mut kept).map_err(store)?;
        if synced {
            kept.sync_all().map_err(store)?;
        }
        // At once: what is swept meanwhile is what no note names, and the note of this one comes only after it.
        let mut books = self.books();
        if synced || !books.contents.contains_key(&digest) {
            fs::rename(&temporary, self.content(&digest)).map_err(store)?;
            books.contents.insert(digest, size);
        } else {
            // What is there is on the disk: it is not replaced by what is not.
            fs::remove_file(&temporary).map_err(store)?;
        }
        books.await_note(digest);
        drop(books);
        if synced {
            File::open(&self.dir).and_then(|dir| dir.sync_all()).map_err(store)?;
        }
        Ok((digest, size, true))
    }

    /// The file of a content.
    fn content(&self, digest: &Digest) -> PathBuf {
        self.dir.join(digest.to_string())
    }

    fn append(&self, books: &mut Books, text: &str) -> io::Result<()> {
        if books.file.is_none() {
            self.make_dir()?;
            books.file = Some(self.open_notes()?);
        }
        books.file.as_mut().map_or(Ok(()), |file| file.write_all(text.as_bytes()))
    }

    fn open_notes(&self) -> io::Result<File> {
        private::append(&self.dir.join(NOTES))
    }

    fn make_dir(&self) -> io::Result<()> {
        let is_new = !self.dir.exists();
        private::directory(&self.dir)?;
        if is_new { File::open(self.dir.parent().unwrap_or(&self.dir))?.sync_all() } else { Ok(()) }
    }

    /// Removes contents that no note names.
    fn sweep(&self, books: &mut Books) {
        if !std::mem::take(&mut books.dropped) {
            return;
        }
        let mut named = BTreeSet::new();
        books
            .notes
            .values()
            .chain(books.pending.values())
            .chain(books.forgotten.iter().map(|(_, found)| found))
            .for_each(|found| found.contents(&mut |d| _ = named.insert(d)));
        named.extend(books.awaited.keys().copied());
        let dir = &self.dir;
        books
            .contents
            .retain(|digest, _| named.contains(digest) || fs::remove_file(dir.join(digest.to_string())).is_err());
    }

    fn failed(&self, name: &str, source: io::Error) -> FoundError {
        FoundError::Store { path: self.dir.join(name), source }
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(|e| e.into_inner())
    }
}

fn line(key: &str, found: &Found) -> String {
    let line = Line { claim: key.to_owned(), found: found.clone() };
    let text = serde_json::to_string(&line).expect("a note has string keys and serializes without IO");
    // After a break of its own: the line before may be torn, by a full disk for one.
    format!("\n{text}\n")
}

/// Copies a file in pieces; the digest of what was copied.
fn digest_of(file: &mut File, to: &mut dyn io::Write) -> io::Result<Digest> {
    let (mut hasher, mut buffer) = (Hasher::new(), vec![0; 64 * 1024]);
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(hasher.finish()),
            Ok(n) => {
                hasher.update(&buffer[..n]);
                to.write_all(&buffer[..n])?;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(dir: &Path) -> FoundStore {
        FoundStore::open(dir, 1 << 20).unwrap().0
    }

    /// What is found at a path, with its content kept.
    fn find(store: &FoundStore, file: &Path) -> Found {
        let root = crate::host::fs::paths::Root::new(PathBuf::from("/"));
        store.find(&root, file.to_str().unwrap(), false, OnRemove::Restore).unwrap()
    }

    #[test]
    fn a_content_stays_from_when_it_is_kept_until_its_note_is_made() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "theirs").unwrap();
        let store = store(dir.path());
        let is_kept = || store.content(&Digest::of(b"theirs")).exists();
        store.put("path /other", &find(&store, &file)).unwrap();
        // Another job finds the same, and the only note of it goes, before it has made its own.
        let found = find(&store, &file);
        assert!(store.forget("path /other"));
        store.reported(&[("path /other".to_owned(), None)]);
        store.settle().unwrap();
        assert!(is_kept());
        store.put("path /file", &found).unwrap();
        store.settle().unwrap();
        assert!(is_kept());
        // Without a note it goes.
        store.pass_over(&find(&store, &file));
        assert!(store.forget("path /file"));
        store.reported(&[("path /file".to_owned(), None)]);
        store.settle().unwrap();
        assert!(!is_kept());
    }

    #[test]
    fn a_note_is_not_taken_for_that_of_an_earlier_job() {
        let dir = tempfile::tempdir().unwrap();
        let [file, key] = [dir.path().join("file"), PathBuf::from("path /file")];
        let key = key.to_str().unwrap();
        fs::write(&file, "theirs").unwrap();
        let store = store(dir.path());
        store.put(key, &find(&store, &file)).unwrap();
        store.reported(&[(key.to_owned(), store.get(key))]);
        store.settle().unwrap();
        // A removal restores it, and the next task takes it, before the end of the removal is handled, and a plan is accepted.
        assert!(store.forget(key));
        let again = find(&store, &file);
        store.put(key, &again).unwrap();
        store.reported(&[(key.to_owned(), None)]);
        store.settle().unwrap();
        // Then the agent is killed: its file of notes is all that has the second one.
        drop(store);
        let (_, noted) = FoundStore::open(dir.path(), 1 << 20).unwrap();
        assert_eq!(noted, [(key.to_owned(), again)]);
    }

    #[test]
    fn a_content_stays_until_the_ledger_has_that_it_is_restored() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "theirs").unwrap();
        let store = store(dir.path());
        let is_kept = || store.content(&Digest::of(b"theirs")).exists();
        store.put("path /file", &find(&store, &file)).unwrap();
        store.reported(&[("path /file".to_owned(), store.get("path /file"))]);
        // The job that gives it back goes on, or its end is not handled yet: the ledger still has the note.
        assert!(store.forget("path /file"));
        store.settle().unwrap();
        assert!(is_kept());
        store.reported(&[("path /file".to_owned(), None)]);
        store.settle().unwrap();
        assert!(!is_kept());
    }

    #[test]
    fn a_torn_line_takes_no_other_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let found = Found::Value { value: "1".to_owned() };
        store(dir.path()).put("kernel parameter a", &found).unwrap();
        // Torn inside a character.
        let notes = dir.path().join("found").join(NOTES);
        private::append(&notes).unwrap().write_all(b"\n{\"claim\":\"path /m\xc3").unwrap();
        store(dir.path()).put("kernel parameter b", &found).unwrap();
        let (_, noted) = FoundStore::open(dir.path(), 1 << 20).unwrap();
        let keys: Vec<&str> = noted.iter().map(|(key, _)| &**key).collect();
        assert_eq!(keys, ["kernel parameter a", "kernel parameter b"]);
    }
}
