//! A directory as a [`SourceTree`], so that `check` and `plan` work before anything is committed.
//!
//! Only the folders of a site are walked, so that a build directory beside them costs nothing. Links are listed as links and never
//! followed.

use std::{
    fs,
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use groundplan_core::source::{Entry, EntryKind, ReadError, SourceTree};

/// The top-level entries of a site.
const TOP: [&str; 5] = ["inventory", "plugins", "secrets", "services", "site.toml"];

/// Whether a path belongs to a site.
pub(super) fn is_of_site(path: &str) -> bool {
    TOP.iter().any(|top| path.strip_prefix(top).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
}

/// How much of a file is read at a time, in bytes.
const PIECE: usize = 64 * 1024;

/// A directory whose files were listed once; their content is read later.
#[derive(Debug)]
pub(super) struct Folder {
    root: PathBuf,
    entries: Vec<Entry>,
}

/// A directory that cannot be listed.
#[derive(Debug, thiserror::Error)]
#[error("cannot list {}", path.display())]
pub(super) struct ListError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

impl Folder {
    /// Lists the site's files below `root`.
    pub(super) fn open(root: &Path) -> Result<Self, ListError> {
        let mut entries = Vec::new();
        for top in TOP {
            let path = root.join(top);
            match fs::symlink_metadata(&path) {
                Ok(meta) => add(&path, top, &meta, &mut entries)?,
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(ListError { path, source }),
            }
        }
        // Beside them only what is no folder, such as another tool's `hosts.yml`, of which `check` warns.
        let list_error = |source| ListError { path: root.to_owned(), source };
        for entry in fs::read_dir(root).map_err(list_error)? {
            let entry = entry.map_err(list_error)?;
            let meta = entry.metadata().map_err(list_error)?;
            if let Some(name) = entry.file_name().to_str().filter(|name| meta.is_file() && !TOP.contains(name)) {
                add(&entry.path(), name, &meta, &mut entries)?;
            }
        }
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(Self { root: root.to_owned(), entries })
    }
}

fn add(path: &Path, name: &str, meta: &fs::Metadata, entries: &mut Vec<Entry>) -> Result<(), ListError> {
    let fail = |source| ListError { path: path.to_owned(), source };
    if !meta.is_dir() {
        let kind = if meta.is_file() { EntryKind::File } else { EntryKind::Symlink };
        let version = format!("{}:{}:{}:{}", meta.ino(), meta.len(), meta.mtime(), meta.mtime_nsec());
        let executable = meta.is_file() && meta.mode() & 0o111 != 0;
        entries.push(Entry { path: name.into(), kind, version: version.into(), executable });
        return Ok(());
    }
    // git treats a repository inside the repository as a submodule.
    if fs::symlink_metadata(path.join(".git")).is_ok() {
        entries.push(Entry { path: name.into(), kind: EntryKind::Submodule, version: "".into(), executable: false });
        return Ok(());
    }
    for entry in fs::read_dir(path).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        let file_name = entry.file_name();
        // A name that is not UTF-8: git would keep it, but no site file can refer to it.
        let Some(file_name) = file_name.to_str() else { continue };
        let meta = entry.metadata().map_err(fail)?;
        add(&entry.path(), &format!("{name}/{file_name}"), &meta, entries)?;
    }
    Ok(())
}

impl SourceTree for Folder {
    fn entries(&self) -> &[Entry] {
        &self.entries
    }

    fn read(&self, path: &str) -> Result<Arc<[u8]>, ReadError> {
        let failed = |cause: String| ReadError { path: path.to_owned(), cause };
        match self.entry(path).map(|e| e.kind) {
            Some(EntryKind::File) => fs::read(self.root.join(path)).map(Arc::from).map_err(|e| failed(e.to_string())),
            Some(_) => Err(failed("it is not a regular file".to_owned())),
            None => Err(failed("it does not exist".to_owned())),
        }
    }

    fn scan(&self, path: &str, take: &mut dyn FnMut(u64, &[u8]) -> bool) -> Result<(), ReadError> {
        let failed = |error: io::Error| ReadError { path: path.to_owned(), cause: error.to_string() };
        let mut file = fs::File::open(self.root.join(path)).map_err(failed)?;
        let length = file.metadata().map_err(failed)?.len();
        let mut piece = vec![0; PIECE];
        let mut on = take(length, &[]);
        while on {
            match file.read(&mut piece).map_err(failed)? {
                0 => break,
                n => on = take(length, &piece[..n]),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_in_path_order_and_follows_no_link() {
        let dir = tempfile::tempdir().unwrap();
        for folder in ["services/a-b", "services/a", "target", "inventory/sub/.git"] {
            fs::create_dir_all(dir.path().join(folder)).unwrap();
        }
        for file in ["hosts.yml", "site.toml", "services/a/service.toml", "services/a-b/service.toml", "target/x"] {
            fs::write(dir.path().join(file), "x").unwrap();
        }
        std::os::unix::fs::symlink("/etc", dir.path().join("services/c")).unwrap();
        let tree = Folder::open(dir.path()).unwrap();
        let listed: Vec<_> = tree.entries().iter().map(|e| (&*e.path, e.kind)).collect();
        assert_eq!(
            listed,
            [
                ("hosts.yml", EntryKind::File),
                ("inventory/sub", EntryKind::Submodule),
                ("services/a-b/service.toml", EntryKind::File),
                ("services/a/service.toml", EntryKind::File),
                ("services/c", EntryKind::Symlink),
                ("site.toml", EntryKind::File),
            ]
        );
        assert_eq!(&*tree.read("site.toml").unwrap(), b"x");
        assert!(tree.read("services/c").is_err());
    }
}
