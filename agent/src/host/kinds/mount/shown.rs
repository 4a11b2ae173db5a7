//! Whether what is mounted is what is wanted, although the kernel shows it in another way.
//!
//! In: the parameters, and the kernel's tables. The kernel shows a loop device for an image, a device for a label, `fuseblk` for
//! `ntfs-3g`, and for many FUSE file systems a source that was never given. What no rule here covers is recognised by what the kernel
//! showed right after the task had mounted it ([`Shown`]).

use std::{
    fs,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
};

use groundplan_protocol::kinds::Mount;
use serde::{Deserialize, Serialize};

use super::table::Mounted;

/// File systems that are never written to.
const READ_ONLY: [&str; 5] = ["iso9660", "squashfs", "erofs", "cramfs", "romfs"];

/// What the kernel showed for a mount of the task right after it was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Shown {
    /// Source and type that it was mounted with.
    wanted: (String, String),
    /// Source and type that the kernel showed.
    found: (String, String),
    read_only: bool,
}

impl Shown {
    pub(super) fn new(mount: &Mount, there: &Mounted) -> Self {
        let wanted = (mount.source.clone().unwrap_or_default(), mount.fstype().to_owned());
        Self { wanted, found: (there.source.clone(), there.fstype.clone()), read_only: there.is_read_only() }
    }

    /// Whether it is a mount with the same source and type, and is there as it was then.
    fn is(&self, mount: &Mount, there: &Mounted) -> bool {
        let now = Self::new(mount, there);
        (&self.wanted, &self.found) == (&now.wanted, &now.found)
    }
}

/// Whether the wanted file system is mounted, as far as the kernel shows it. `known`: what it showed for the task's own mount.
pub(super) fn is_this(mount: &Mount, there: &Mounted, known: Option<&Shown>) -> bool {
    let Some(source) = mount.source.as_deref() else { return true };
    if mount.is_bind() {
        // One directory may have two names.
        let identity = |path: &str| fs::metadata(path).ok().map(|found| (found.dev(), found.ino()));
        return identity(source).is_some_and(|it| Some(it) == identity(&mount.path));
    }
    // Its first use mounts what /etc/fstab has.
    if there.is_idle_automount() && mount.is_automount() {
        return true;
    }
    known.is_some_and(|known| known.is(mount, there))
        || is_type(mount.fstype(), &there.fstype) && is_source(source, mount.fstype(), there)
}

/// Whether it is read-only because nothing else is possible, whatever was wanted.
pub(super) fn is_protected(mount: &Mount, there: &Mounted, known: Option<&Shown>) -> bool {
    let device = Path::new("/sys/dev/block").join(&there.device);
    // A partition has the flag of its own, and its disk one for the whole.
    let is_set = |flag: PathBuf| fs::read_to_string(flag).is_ok_and(|flag| flag.trim() == "1");
    READ_ONLY.contains(&there.fstype.as_str())
        || is_set(device.join("ro"))
        || is_set(device.join("../ro"))
        || known.is_some_and(|known| known.read_only && known.is(mount, there))
}

/// Whether the kernel may show the wanted type like this.
fn is_type(wanted: &str, shown: &str) -> bool {
    let fuse = shown.strip_prefix("fuse.");
    match wanted {
        "auto" | "none" => true,
        "fuse" => fuse.is_some() || shown == "fuseblk",
        // Drivers in user space for block devices have no type of their own.
        "ntfs" | "ntfs-3g" | "exfat" | "exfat-fuse" if shown == "fuseblk" => true,
        "cifs" | "smb3" => matches!(shown, "cifs" | "smb3"),
        // `nfs` is shown as `nfs4`, `ntfs` as `ntfs3`; `sshfs` as `fuse.sshfs`.
        wanted => shown.starts_with(wanted) || fuse == Some(wanted),
    }
}

/// Whether the kernel may show the wanted source like this.
fn is_source(wanted: &str, fstype: &str, there: &Mounted) -> bool {
    // `mount -t fuse sshfs#host:` names the program in the source.
    let wanted = wanted.split_once('#').filter(|_| fstype == "fuse").map_or(wanted, |(_, source)| source);
    let short = |source: &str| source.trim_end_matches('/').to_owned();
    if there.source == wanted || short(&there.source) == short(wanted) {
        return true;
    }
    let found = fs::canonicalize(&there.source).unwrap_or_else(|_| there.source.clone().into());
    device(wanted).is_some_and(|device| device == found || loop_file(&found).is_some_and(|file| file == device))
}

/// The real path of a device or an image: what a tag of it names (mount(8)), or the path itself without links.
pub(super) fn device(source: &str) -> Option<PathBuf> {
    const TAGS: [(&str, &str); 4] =
        [("UUID=", "by-uuid"), ("LABEL=", "by-label"), ("PARTUUID=", "by-partuuid"), ("PARTLABEL=", "by-partlabel")];
    let tagged = TAGS.into_iter().find_map(|(tag, folder)| Some((source.strip_prefix(tag)?.trim_matches('"'), folder)));
    match tagged {
        Some((name, folder)) => fs::canonicalize(Path::new("/dev/disk").join(folder).join(name)).ok(),
        None => fs::canonicalize(source).ok().filter(|_| source.starts_with('/')),
    }
}

/// The image behind a loop device (loop(4)).
fn loop_file(device: &Path) -> Option<PathBuf> {
    if !fs::metadata(device).ok()?.file_type().is_block_device() {
        return None;
    }
    let file = Path::new("/sys/block").join(device.file_name()?).join("loop/backing_file");
    let file = fs::read_to_string(file).ok()?;
    Some(file.trim_end_matches('\n').trim_end_matches(" (deleted)").into())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn mount(source: &str, fstype: &str, options: &str) -> Mount {
        serde_json::from_value(json!({ "path": "/m", "source": source, "fstype": fstype, "options": options })).unwrap()
    }

    fn there(source: &str, fstype: &str, options: &str) -> Mounted {
        let options = options.split(',').map(str::to_owned).collect();
        let (source, fstype, device) = (source.to_owned(), fstype.to_owned(), "0:99".to_owned());
        Mounted { fstype, source, part: "/".to_owned(), device, options }
    }

    #[test]
    fn what_the_kernel_shows_in_another_way() {
        let is = |wanted: (&str, &str), shown: (&str, &str)| {
            is_this(&mount(wanted.0, wanted.1, "defaults"), &there(shown.0, shown.1, "rw"), None)
        };
        for (wanted, shown) in [
            (("host:/srv", "nfs"), ("host:/srv", "nfs4")),
            (("host:/srv/", "nfs"), ("host:/srv", "nfs4")),
            (("/dev/null", "ntfs-3g"), ("/dev/null", "fuseblk")),
            (("me@host:/", "sshfs"), ("me@host:/", "fuse.sshfs")),
            (("me@host:/", "fuse.sshfs"), ("me@host:/", "fuse.sshfs")),
            (("sshfs#me@host:", "fuse"), ("me@host:", "fuse.sshfs")),
            (("//host/share", "cifs"), ("//host/share/", "smb3")),
        ] {
            assert!(is(wanted, shown), "{wanted:?} {shown:?}");
        }
        assert!(!is(("host:/srv", "nfs"), ("host:/other", "nfs4")) && !is(("tmpfs", "tmpfs"), ("tmpfs", "ext4")));
        assert!(!is(("/a:/b", "mergerfs"), ("a:b", "fuse.mergerfs")), "no rule covers it");
    }

    #[test]
    fn what_was_shown_right_after_mounting_is_recognised() {
        let (merged, found) = (mount("/a:/b", "mergerfs", "defaults"), there("a:b", "fuse.mergerfs", "rw"));
        let known = Shown::new(&merged, &found);
        assert!(
            is_this(&merged, &found, Some(&known))
                && !is_this(&merged, &there("a:c", "fuse.mergerfs", "rw"), Some(&known))
        );
        assert!(!is_this(&mount("/a:/c", "mergerfs", "defaults"), &found, Some(&known)), "another is wanted now");

        let (disk, found) = (mount("/dev/null", "ext4", "defaults"), there("/dev/null", "ext4", "ro,relatime"));
        assert!(!is_protected(&disk, &found, None), "it became read-only later, after an error");
        assert!(is_protected(&disk, &found, Some(&Shown::new(&disk, &found))), "mount(8) itself made it read-only");
        assert!(is_protected(&disk, &there("/dev/null", "iso9660", "ro"), None));
    }

    #[test]
    fn an_automount_that_waits_is_in_place() {
        let idle = there("systemd-1", "autofs", "rw,relatime");
        assert!(is_this(&mount("host:/srv", "nfs", "x-systemd.automount"), &idle, None));
        assert!(!is_this(&mount("host:/srv", "nfs", "defaults"), &idle, None));
    }
}
