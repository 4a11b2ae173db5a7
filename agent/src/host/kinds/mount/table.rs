//! /etc/fstab by its lines, and the kernel's table of mounts (proc(5)). Pure.

/// A file system that is mounted at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mounted {
    pub(super) fstype: String,
    pub(super) source: String,
    /// The part of the file system that is mounted: `/`, or a directory in it for a bind mount.
    pub(super) part: String,
    /// Its own options and those of the file system.
    pub(super) options: Vec<String>,
}

/// The line of a path in /etc/fstab.
pub(super) fn line_of<'a>(fstab: &'a str, path: &str) -> Option<&'a str> {
    fstab.lines().find(|line| is_of(line, path))
}

/// /etc/fstab with another line for a path, or with none.
pub(super) fn with_line(fstab: &str, path: &str, line: Option<&str>) -> String {
    let mut line = line;
    let mut out = String::new();
    for old in fstab.lines() {
        let new = if is_of(old, path) { line.take() } else { Some(old) };
        if let Some(new) = new {
            out.push_str(new);
            out.push('\n');
        }
    }
    if let Some(new) = line {
        out.push_str(new);
        out.push('\n');
    }
    out
}

fn is_of(line: &str, path: &str) -> bool {
    !line.trim_start().starts_with('#') && line.split_whitespace().nth(1).is_some_and(|at| unescape(at) == path)
}

/// The topmost mount at a path, from /proc/self/mountinfo.
pub(super) fn mounted_at(mountinfo: &str, path: &str) -> Option<Mounted> {
    let line = mountinfo.lines().rev().find(|line| line.split(' ').nth(4).is_some_and(|at| unescape(at) == path))?;
    let (own, of_fs) = line.split_once(" - ")?;
    let own: Vec<&str> = own.split(' ').collect();
    let of_fs: Vec<&str> = of_fs.split(' ').collect();
    let options = own.get(5)?.split(',').chain(of_fs.get(2)?.split(','));
    Some(Mounted {
        fstype: unescape(of_fs.first()?),
        source: unescape(of_fs.get(1)?),
        part: unescape(own.get(3)?),
        options: options.map(str::to_owned).collect(),
    })
}

impl Mounted {
    /// Whether it has the wanted ones among the options that the kernel shows for every mount.
    pub(super) fn has(&self, options: &str) -> bool {
        let shown = |option: &str| self.options.iter().any(|found| found == option);
        let wanted: Vec<&str> = options.split(',').collect();
        let flags = ["nosuid", "nodev", "noexec", "noatime"];
        // Options of the mount take precedence over those of the file system, such as `ro`.
        let read_only = self.options.first().is_some_and(|first| first == "ro");
        flags.iter().filter(|flag| wanted.contains(*flag)).all(|flag| shown(flag))
            && read_only == wanted.contains(&"ro")
    }
}

/// Octal escapes for blanks, as in the kernel's table and in fstab(5).
fn unescape(field: &str) -> String {
    let bytes = field.as_bytes();
    let (mut out, mut i) = (Vec::with_capacity(bytes.len()), 0);
    while i < bytes.len() {
        let code =
            field.get(i + 1..i + 4).filter(|_| bytes[i] == b'\\').and_then(|code| u8::from_str_radix(code, 8).ok());
        match code {
            Some(byte) => {
                out.push(byte);
                i += 4;
            }
            None => {
                out.push(bytes[i]);
                i += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FSTAB: &str = "# /dev/x /data\nUUID=1 / ext4 defaults 0 1\n/dev/y /a\\040b ext4 ro 0 0\n";

    #[test]
    fn lines_by_path() {
        assert_eq!(line_of(FSTAB, "/a b"), Some("/dev/y /a\\040b ext4 ro 0 0"));
        assert_eq!(line_of(FSTAB, "/data"), None);
        let with = with_line(FSTAB, "/data", Some("tmpfs /data tmpfs defaults 0 0"));
        assert_eq!(with, format!("{FSTAB}tmpfs /data tmpfs defaults 0 0\n"));
        assert_eq!(with_line(&with, "/data", None), FSTAB);
        assert_eq!(
            with_line(FSTAB, "/", Some("x / y z 0 0")),
            FSTAB.replace("UUID=1 / ext4 defaults 0 1", "x / y z 0 0")
        );
        assert_eq!(with_line("a b", "/x", Some("c")), "a b\nc\n");
    }

    #[test]
    fn what_is_mounted() {
        let info = "\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:40 / /a\\040b rw,nosuid,nodev shared:5 - tmpfs tmpfs rw,size=1024k
31 22 8:1 /srv/x /srv/bound ro,relatime - ext4 /dev/sda1 rw
";
        let tmp = mounted_at(info, "/a b").unwrap();
        assert_eq!((tmp.fstype.as_str(), tmp.source.as_str(), tmp.part.as_str()), ("tmpfs", "tmpfs", "/"));
        assert!(tmp.has("nosuid,size=1m") && !tmp.has("noexec") && !tmp.has("ro"));
        let bound = mounted_at(info, "/srv/bound").unwrap();
        assert_eq!((bound.part.as_str(), bound.has("bind,ro"), bound.has("bind")), ("/srv/x", true, false));
        assert_eq!(mounted_at(info, "/srv"), None);
    }
}
