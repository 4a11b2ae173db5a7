//! The unit file and drop-ins that a task ships, on the disk.
//!
//! In: the wanted files. Out: what differs, written or removed, and how to roll back. Drop-ins begin with a line by which those
//! that are not wanted any more are recognised. Before a unit that runs is changed, a note in `/run` marks its restart as
//! pending: it survives the agent and not the host, as the need does.

use std::{fs, path::PathBuf};

use groundplan_protocol::kinds::{Claim, Systemd};

use crate::host::{
    error::HostError,
    fs::{
        files::{self, Access, FileError, Removal, Sum},
        paths::{Missing, Root},
    },
    job::Content,
    kinds::context::Context,
};

/// The first line of every drop-in that is shipped.
const HEADER: &str = "# Written by groundplan: changes made here are undone.\n";

/// The folder of notes about pending restarts.
const DUE: &str = "/run/groundplan/restart";

/// A file to be written or removed.
pub(super) struct Difference {
    path: String,
    wanted: Option<Wanted>,
}

/// The content to write, and its digest. A drift check has no bytes of a unit file.
struct Wanted {
    content: Option<Content>,
    sum: Sum,
}

impl Difference {
    /// Whether it writes or removes the file at `path`.
    pub(super) fn is_of(&self, path: &str) -> bool {
        self.path == path
    }
}

/// The content at a path before.
pub(super) struct Before {
    path: String,
    was: Was,
}

enum Was {
    Nothing,
    File(Vec<u8>),
    Link(String),
}

/// All files that differ from what `unit` wants; noted for a drift check as well. `shipped`: the unit file on the host may be the
/// task's own.
pub(super) fn differences(cx: &Context<'_>, unit: &Systemd, shipped: bool) -> Result<Vec<Difference>, FileError> {
    let root = &cx.host.environment.root;
    let mut differences = Vec::new();
    let mut want = |path: String, content: Option<Content>, sum: Sum| -> Result<(), FileError> {
        if !cx.is_file(&path, sum, access(&path)?, true)? {
            differences.push(Difference { path, wanted: Some(Wanted { content, sum }) });
        }
        Ok(())
    };
    if let Some(shipped) = cx.content {
        want(unit.path(), shipped.bytes().ok().cloned(), shipped.sum)?;
    }
    for (name, text) in &unit.dropins {
        let bytes = dropin(text);
        let sum = Sum::of_bytes(&bytes);
        want(format!("{}/{name}", unit.folder()), Some(Content::Bytes(bytes)), sum)?;
    }
    // An earlier version of the task shipped a unit file, and this one does not.
    if cx.content.is_none() && shipped && root.exists(&unit.path())? {
        differences.push(Difference { path: unit.path(), wanted: None });
    }
    let stale = ours(root, unit)?.into_iter().filter(|name| !unit.dropins.contains_key(name));
    let claim = Claim::named("unit", &unit.unit);
    let stale = stale.map(|name| format!("{}/{name}", unit.folder())).filter(|path| !cx.is_as_found(&claim, path));
    differences.extend(stale.map(|path| Difference { path, wanted: None }));
    for Difference { path, .. } in differences.iter().filter(|difference| difference.wanted.is_none()) {
        cx.differs(path, None, Some("present"));
    }
    Ok(differences)
}

/// Applies the differences; returns what was there before.
pub(super) fn write(cx: &Context<'_>, unit: &Systemd, differences: &[Difference]) -> Result<Vec<Before>, HostError> {
    let root = &cx.host.environment.root;
    let mut before = Vec::new();
    for Difference { path, wanted } in differences {
        // Read before it is written: the rollback also has what was half done.
        before.push(Before { path: path.clone(), was: read(root, path)? });
        let written = match wanted {
            Some(Wanted { content: Some(content), sum }) => {
                files::put_file(root, path, content, *sum, access(path)?).map_err(HostError::from)
            }
            Some(Wanted { content: None, .. }) => Err(FileError::NoContent { path: path.clone() }.into()),
            None => take_away(cx, unit, path).map(drop),
        };
        if let Err(error) = written {
            // The first error is reported, not one of the rollback.
            let _ = restore(cx, unit, before);
            return Err(error);
        }
    }
    if unit.dropins.is_empty() {
        remove_empty_folder(root, unit)?;
    }
    Ok(before)
}

/// Restores what was there before.
pub(super) fn restore(cx: &Context<'_>, unit: &Systemd, before: Vec<Before>) -> Result<(), FileError> {
    let root = &cx.host.environment.root;
    for Before { path, was } in before {
        match was {
            Was::Nothing => drop(files::remove_file(root, &path, false)?),
            Was::Link(target) => files::put_link(root, &path, &target)?,
            Was::File(bytes) => {
                let sum = Sum::of_bytes(&bytes);
                files::put_file(root, &path, &Content::Bytes(bytes), sum, access(&path)?)?;
            }
        }
    }
    remove_empty_folder(root, unit)
}

/// Takes away all that the task shipped, and restores what was there before; whether there was anything.
pub(super) fn remove(cx: &Context<'_>, unit: &Systemd, shipped: bool) -> Result<bool, HostError> {
    let root = &cx.host.environment.root;
    let dropins = ours(root, unit)?.into_iter().map(|name| format!("{}/{name}", unit.folder()));
    let mut changed = false;
    for path in shipped.then(|| unit.path()).into_iter().chain(dropins) {
        changed |= take_away(cx, unit, &path)?;
    }
    remove_empty_folder(root, unit)?;
    Ok(changed)
}

/// Removes the folder of drop-ins once it has none, of others neither.
fn remove_empty_folder(root: &Root, unit: &Systemd) -> Result<(), FileError> {
    files::remove_directory(root, &unit.folder()).map(drop)
}

/// Takes one file of the task's away, and restores what was there before; whether there was anything.
fn take_away(cx: &Context<'_>, unit: &Systemd, path: &str) -> Result<bool, HostError> {
    let found = cx.found_files(&Claim::named("unit", &unit.unit), path);
    let taken =
        cx.take_away(path, found.as_ref(), || Ok(files::remove_file(&cx.host.environment.root, path, false)?))?;
    Ok(taken == Removal::Removed)
}

/// Notes that a restart of the unit is pending.
pub(super) fn note_restart(cx: &Context<'_>, unit: &str) -> Result<(), FileError> {
    let path = format!("{DUE}/{unit}");
    let content = Content::Bytes(Vec::new());
    files::put_file(&cx.host.environment.root, &path, &content, Sum::of_bytes(&[]), access(&path)?)
}

pub(super) fn is_restart_pending(cx: &Context<'_>, unit: &str) -> Result<bool, FileError> {
    Ok(cx.host.environment.root.exists(&format!("{DUE}/{unit}"))?)
}

pub(super) fn clear_restart(cx: &Context<'_>, unit: &str) -> Result<(), FileError> {
    files::remove_file(&cx.host.environment.root, &format!("{DUE}/{unit}"), false).map(drop)
}

fn access(path: &str) -> Result<Access, FileError> {
    Access::new(path, None, None, None, 0o644)
}

fn dropin(text: &str) -> Vec<u8> {
    let end = if text.ends_with('\n') { "" } else { "\n" };
    format!("{HEADER}{text}{end}").into_bytes()
}

/// The names of the drop-ins that this or an earlier version of the task shipped.
pub(super) fn ours(root: &Root, unit: &Systemd) -> Result<Vec<String>, FileError> {
    let folder = match root.directory(&unit.folder(), Missing::Leave) {
        Ok(Some((_, folder))) => folder,
        Ok(None) => return Ok(Vec::new()),
        Err(error) if error.is_not_a_directory() => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let io = |source| FileError::Io { path: unit.folder(), doing: "list it", source };
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(io)? {
        let entry = entry.map_err(io)?;
        let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
        let is_ours = || fs::read(entry.path()).is_ok_and(|bytes| bytes.starts_with(HEADER.as_bytes()));
        if is_file && entry.path().extension().is_some_and(|e| e == "conf") && is_ours() {
            names.extend(entry.file_name().into_string());
        }
    }
    names.sort();
    Ok(names)
}

fn read(root: &Root, path: &str) -> Result<Was, FileError> {
    let Some(place) = root.place(path, Missing::Leave)? else { return Ok(Was::Nothing) };
    let real: PathBuf = place.real;
    let io = |source| FileError::Io { path: path.to_owned(), doing: "read it", source };
    match fs::symlink_metadata(&real) {
        Ok(found) if found.is_symlink() => {
            Ok(Was::Link(fs::read_link(&real).map_err(io)?.to_string_lossy().into_owned()))
        }
        Ok(found) if found.is_file() => Ok(Was::File(fs::read(&real).map_err(io)?)),
        Ok(_) => Ok(Was::Nothing),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Was::Nothing),
        Err(e) => Err(io(e)),
    }
}
