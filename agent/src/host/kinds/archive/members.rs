//! The members of an archive, each checked before anything is made of it. Pure.
//!
//! In: names, modes and link targets from an archive, which may be hostile. Out: members by plain relative paths, none of which
//! can lead out of the directory they are unpacked into: no absolute names, no `..`, no path through a link, no link that leads
//! out, no devices, and no more bytes and members than allowed.

use std::collections::BTreeMap;

use groundplan_protocol::digest::Digest;

/// Most members that an archive may have.
const MOST: usize = 200_000;

/// Limits of what is unpacked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Bytes in all files together.
    pub(super) size: u64,
    /// How many leading components are dropped.
    pub(super) strip: usize,
    pub(super) setuid: bool,
}

/// What a member is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum What {
    Directory,
    /// A file, by its number in the staging directory.
    File {
        staged: u32,
        size: u64,
        sha256: Digest,
    },
    Link {
        target: String,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) mode: u32,
    pub(super) what: What,
}

/// Why an archive is refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum Refused {
    #[error("the member `{name}` {what}")]
    Member { name: String, what: String },
    #[error("its members have more than {limit} bytes in all; raise `max_size` if that is intended")]
    TooLarge { limit: u64 },
    #[error("it has more than {MOST} members")]
    TooMany,
}

/// All members, by path.
#[derive(Debug)]
pub(super) struct Members {
    limits: Limits,
    seen: usize,
    size: u64,
    by_path: BTreeMap<String, Member>,
}

impl Members {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, seen: 0, size: 0, by_path: BTreeMap::new() }
    }

    /// The path of a member after leading components are dropped; `None` if nothing is left of it.
    pub(super) fn path(&mut self, name: &[u8]) -> Result<Option<String>, Refused> {
        self.seen += 1;
        if self.seen > MOST {
            return Err(Refused::TooMany);
        }
        let components = components(name)?;
        let kept = components.get(self.limits.strip..).unwrap_or_default();
        Ok((!kept.is_empty()).then(|| kept.join("/")))
    }

    /// Checks that so many more bytes are allowed, before they are read.
    pub(super) fn allow(&self, size: u64) -> Result<(), Refused> {
        match self.size.checked_add(size) {
            Some(size) if size <= self.limits.size => Ok(()),
            _ => Err(Refused::TooLarge { limit: self.limits.size }),
        }
    }

    /// How many more bytes are allowed.
    pub(super) fn left(&self) -> u64 {
        self.limits.size - self.size
    }

    /// Adds a member with the mode that the archive gives it.
    pub(super) fn add(&mut self, path: String, mode: u32, what: What) -> Result<(), Refused> {
        let refused = |what: &str| Refused::Member { name: path.clone(), what: what.to_owned() };
        let special = mode & 0o6000 != 0 && what != What::Directory;
        if special && !self.limits.setuid && !matches!(what, What::Link { .. }) {
            return Err(refused("is set-user-id or set-group-id; set `setuid = true` if that is intended"));
        }
        if let What::Link { target } = &what {
            link_stays(&path, target).map_err(|what| refused(&what))?;
        }
        if let What::File { size, .. } = &what {
            self.allow(*size)?;
            self.size += size;
        }
        // No member is put below a link of the same archive, wherever that leads: the link would be followed.
        for (at, _) in path.match_indices('/') {
            match self.by_path.get(&path[..at]).map(|parent| &parent.what) {
                Some(What::Link { .. }) => return Err(refused(&format!("goes through the link `{}`", &path[..at]))),
                Some(What::File { .. }) => {
                    return Err(refused(&format!("lies below `{}`, which is a file", &path[..at])));
                }
                _ => {}
            }
        }
        let is_directory = what == What::Directory;
        // The other way round: a link or file must not take the place of a directory that has members already.
        let below = format!("{path}/");
        let has_below = self.by_path.range(below.clone()..).next().is_some_and(|(next, _)| next.starts_with(&below));
        let before = self.by_path.get(&path);
        let was_directory = before.is_some_and(|before| before.what == What::Directory);
        if (has_below && !is_directory) || before.is_some_and(|_| was_directory != is_directory) {
            return Err(refused("is in it twice, as a directory and as something else"));
        }
        // The owner can always enter and change a directory: members are put into it, and removed from it later.
        let mode = match is_directory {
            true => mode & 0o1777 | 0o700,
            false => mode & if self.limits.setuid { 0o6777 } else { 0o777 },
        };
        self.by_path.insert(path, Member { mode, what });
        Ok(())
    }

    /// The file that a hard link names.
    pub(super) fn linked(&self, name: &str, target: &[u8]) -> Result<Member, Refused> {
        let refused = |what: String| Refused::Member { name: name.to_owned(), what };
        // Checked like the name of a member: its components are dropped alike, and it must come before the link.
        let components = components(target).map_err(|_| {
            refused(format!("is a hard link that leads out, to `{}`", String::from_utf8_lossy(target).escape_debug()))
        })?;
        let target = components.get(self.limits.strip..).unwrap_or_default().join("/");
        match self.by_path.get(&target) {
            Some(member @ Member { what: What::File { .. }, .. }) => Ok(member.clone()),
            _ => Err(refused(format!("is a hard link to `{target}`, which is not a file that comes before it"))),
        }
    }

    /// All members, directories before their content; with directories that the archive only implies.
    pub(super) fn finish(mut self) -> BTreeMap<String, Member> {
        let parents = |path: &String| path.match_indices('/').map(|(at, _)| path[..at].to_owned()).collect::<Vec<_>>();
        let implied: Vec<String> = self.by_path.keys().flat_map(parents).collect();
        for path in implied {
            self.by_path.entry(path).or_insert(Member { mode: 0o755, what: What::Directory });
        }
        self.by_path
    }
}

/// The components of a name, if it can lead only downwards.
fn components(name: &[u8]) -> Result<Vec<&str>, Refused> {
    let shown = || String::from_utf8_lossy(name).escape_debug().to_string();
    let refused = |what: &str| Refused::Member { name: shown(), what: what.to_owned() };
    let text = std::str::from_utf8(name).map_err(|_| refused("has a name that is not UTF-8"))?;
    if text.contains('\0') {
        return Err(refused("has a NUL byte in its name"));
    }
    if text.starts_with('/') {
        return Err(refused("has an absolute path"));
    }
    let components: Vec<&str> = text.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    if components.contains(&"..") {
        return Err(refused("has `..` in its path"));
    }
    Ok(components)
}

/// Checks that a link can lead only to what is below the directory: `..` is allowed at its beginning only, and not too often.
/// After a name, which may be a link itself, it would climb from wherever that leads.
fn link_stays(path: &str, target: &str) -> Result<(), String> {
    let leads_out = || Err(format!("is a link that leads out, to `{}`", target.escape_debug()));
    if target.is_empty() || target.contains('\0') {
        return Err("is a link to nothing".to_owned());
    }
    if target.starts_with('/') {
        return leads_out();
    }
    let depth = path.matches('/').count();
    let parts: Vec<&str> = target.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    let climbs = parts.iter().take_while(|part| **part == "..").count();
    if climbs > depth || parts[climbs..].contains(&"..") { leads_out() } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(strip: usize) -> Members {
        Members::new(Limits { size: 100, strip, setuid: false })
    }

    fn file(size: u64) -> What {
        What::File { staged: 0, size, sha256: Digest::of(b"") }
    }

    fn link(target: &str) -> What {
        What::Link { target: target.to_owned() }
    }

    fn add(members: &mut Members, name: &str, mode: u32, what: What) -> Result<(), String> {
        match members.path(name.as_bytes()).map_err(|e| e.to_string())? {
            Some(path) => members.add(path, mode, what).map_err(|e| e.to_string()),
            None => Ok(()),
        }
    }

    #[test]
    fn names_lead_downwards_only() {
        let mut all = members(0);
        for name in ["a", "./b/./c", "d//e", "..f", "g..", "h/...", "./"] {
            add(&mut all, name, 0o644, file(1)).unwrap();
        }
        for (name, error) in [
            ("/etc/passwd", "the member `/etc/passwd` has an absolute path"),
            ("../x", "the member `../x` has `..` in its path"),
            ("a/../../x", "the member `a/../../x` has `..` in its path"),
            ("..", "the member `..` has `..` in its path"),
            ("a\0b", "the member `a\\0b` has a NUL byte in its name"),
        ] {
            assert_eq!(add(&mut all, name, 0o644, file(1)), Err(error.to_owned()));
        }
        assert!(all.path(b"\xff").unwrap_err().to_string().ends_with("has a name that is not UTF-8"));
        let paths: Vec<String> = all.finish().into_keys().collect();
        assert_eq!(paths, ["..f", "a", "b", "b/c", "d", "d/e", "g..", "h", "h/..."]);
    }

    #[test]
    fn links_stay_and_nothing_goes_through_them() {
        let mut all = members(0);
        for (path, target) in [("l", "x"), ("d/l", "../x"), ("d/m", "./e/f"), ("d/e/n", "../../x/y"), ("o", ".")] {
            assert_eq!(add(&mut all, path, 0o777, link(target)), Ok(()));
        }
        for (path, target) in
            [("p", "../x"), ("d/p", "../../x"), ("p", "/etc"), ("d/p", "e/../../x"), ("d/p", "../l/..")]
        {
            let error = format!("the member `{path}` is a link that leads out, to `{target}`");
            assert_eq!(add(&mut all, path, 0o777, link(target)), Err(error));
        }
        assert_eq!(add(&mut all, "l/x", 0o644, file(0)), Err("the member `l/x` goes through the link `l`".to_owned()));
        assert_eq!(
            add(&mut all, "l/x/y", 0o644, file(0)),
            Err("the member `l/x/y` goes through the link `l`".to_owned())
        );
        add(&mut all, "f", 0o644, file(0)).unwrap();
        assert_eq!(
            add(&mut all, "f/x", 0o644, file(0)),
            Err("the member `f/x` lies below `f`, which is a file".to_owned())
        );
        let twice = "is in it twice, as a directory and as something else";
        assert_eq!(add(&mut all, "d", 0o777, link("x")), Err(format!("the member `d` {twice}")));
        assert_eq!(add(&mut all, "f", 0o755, What::Directory), Err(format!("the member `f` {twice}")));
        // The later of two files with one name counts.
        add(&mut all, "f", 0o600, file(0)).unwrap();
        assert_eq!(all.finish()["f"].mode, 0o600);
    }

    #[test]
    fn hard_links_lead_to_files_before_them() {
        let mut all = members(1);
        add(&mut all, "top/f", 0o640, file(3)).unwrap();
        assert_eq!(all.linked("g", b"top/f").unwrap().mode, 0o640);
        for target in ["../top/f", "/f", "top/none", "f"] {
            assert!(all.linked("g", target.as_bytes()).is_err(), "{target}");
        }
    }

    #[test]
    fn no_more_than_allowed() {
        let mut all = members(0);
        add(&mut all, "a", 0o644, file(60)).unwrap();
        assert!(add(&mut all, "b", 0o644, file(41)).unwrap_err().contains("more than 100 bytes in all"));
        assert_eq!((all.left(), all.allow(40), all.allow(u64::MAX).is_err()), (40, Ok(()), true));
        assert!(add(&mut all, "s", 0o4755, file(0)).unwrap_err().contains("is set-user-id"));
        let mut all = Members::new(Limits { size: 100, strip: 0, setuid: true });
        add(&mut all, "s", 0o4755, file(0)).unwrap();
        assert_eq!(all.finish()["s"].mode, 0o4755);
    }

    #[test]
    fn leading_components_are_dropped() {
        let mut all = members(1);
        for name in ["top", "top/", "top/a/b"] {
            add(&mut all, name, 0o644, if name.ends_with('b') { file(1) } else { What::Directory }).unwrap();
        }
        // Names that climb out are refused before components are dropped.
        assert!(add(&mut all, "../a", 0o644, file(1)).is_err());
        assert_eq!(all.finish().into_keys().collect::<Vec<_>>(), ["a", "a/b"]);
    }
}
