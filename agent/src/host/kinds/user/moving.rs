//! A change of an account's ids or home that is under way, which usermod(8) makes in two steps: first the tables, then the files of the
//! home. What ends between the two leaves a table that shows nothing, and files of the old owner at the old place.
//!
//! In: the account before the change. Out: a record on the disk, from before the change until after it; and, where one is left, the
//! tables as they were, so that the whole change is made again. Files have the old owner or the new one at any time, and usermod(8)
//! changes those of the one into those of the other: so it may be killed as often as it likes.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{
    super::group::change,
    account::{Found, find},
    error::UserKindError,
};
use crate::{host::kinds::context::Context, private};

/// The account before the change.
#[derive(Debug, Serialize, Deserialize)]
struct Before {
    uid: u32,
    gid: u32,
    home: String,
}

/// Whether a change was begun and not ended.
pub(super) fn is_left(cx: &Context<'_>, name: &str) -> bool {
    path(cx, name).exists()
}

/// Makes a change with usermod(8), with a record as long as it is under way.
pub(super) async fn make(
    cx: &Context<'_>,
    name: &str,
    found: &Found,
    what: &str,
    words: &[&str],
) -> Result<(), UserKindError> {
    let moves = words.iter().any(|word| matches!(*word, "-u" | "-g" | "-d"));
    if moves {
        begin(cx, name, found)?;
    }
    let result = change(cx, what, &[words, &["--", name]].concat()).await;
    // What usermod(8) refuses it has not begun, or else the tables show it: then it is made again.
    if moves && (result.is_ok() || find(cx, name).await?.as_ref() == Some(found)) {
        end(cx, name)?;
    }
    Ok(result?)
}

/// Brings the tables back to where they were before a change that was begun and not ended; to be followed by the whole change. Returns
/// the account as it is then.
pub(super) async fn resume(cx: &Context<'_>, name: &str, found: Found) -> Result<Found, UserKindError> {
    let Some(before) = read(cx, name) else { return Ok(found) };
    let (uid, gid) = (before.uid.to_string(), before.gid.to_string());
    // Another account may have the id by now; it is only for a moment.
    let mut words = vec!["usermod"];
    if before.uid != found.uid {
        words.extend(["-o", "-u", &uid]);
    }
    if before.gid != found.gid {
        words.extend(["-g", &gid]);
    }
    if before.home != found.home && Path::new(&before.home).is_dir() && !Path::new(&found.home).exists() {
        words.extend(["-d", &before.home]);
    }
    if words.len() > 1 {
        cx.report(&format!(
            "a change of {name} was interrupted before its files had their new owner: it is made again"
        ));
        let what = format!("cannot make the interrupted change of the user {name} again");
        change(cx, &what, &[words.as_slice(), &["--", name]].concat()).await?;
    }
    Ok(find(cx, name).await?.unwrap_or(found))
}

/// The user is gone, or is as it was before the change.
pub(super) fn end(cx: &Context<'_>, name: &str) -> Result<(), UserKindError> {
    let path = path(cx, name);
    match fs::remove_file(&path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(UserKindError::Moving { path, source }),
        _ => Ok(()),
    }
}

fn begin(cx: &Context<'_>, name: &str, found: &Found) -> Result<(), UserKindError> {
    let path = path(cx, name);
    // One that is left is of an earlier attempt, whose files may still have the owner from before that.
    if path.exists() {
        return Ok(());
    }
    let before = Before { uid: found.uid, gid: found.gid, home: found.home.clone() };
    let folder = path.parent().unwrap_or(&path);
    let write = || {
        private::directory(folder)?;
        private::replace(&path, &serde_json::to_vec(&before)?)?;
        folder.parent().map_or(Ok(()), |above| File::open(above)?.sync_all())
    };
    write().map_err(|source| UserKindError::Moving { path: path.clone(), source })
}

fn read(cx: &Context<'_>, name: &str) -> Option<Before> {
    serde_json::from_slice(&fs::read(path(cx, name)).ok()?).ok()
}

fn path(cx: &Context<'_>, name: &str) -> PathBuf {
    cx.host.state_dir.join("accounts").join(format!("{name}.json"))
}
