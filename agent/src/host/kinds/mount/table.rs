//! /etc/fstab by its lines, and the kernel's tables of mounts and swap areas (proc(5)). Pure.
//!
//! A line of /etc/fstab is compared by its fields: blanks between them and a comment after them make no difference, and the
//! comment stays with the line when its fields change. Other lines, also of the same path, are left alone.

/// A file system that is mounted at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mounted {
    pub(super) fstype: String,
    pub(super) source: String,
    /// The part of the file system that is mounted: `/`, or a directory in it for a bind mount.
    pub(super) part: String,
    /// Its device, as `major:minor`.
    pub(super) device: String,
    /// Its own options and those of the file system.
    pub(super) options: Vec<String>,
}

/// What a line of /etc/fstab is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Subject<'a> {
    /// A mount point.
    Path(&'a str),
    /// A swap area, by its source.
    Swap(&'a str),
}

impl Subject<'_> {
    fn has(self, line: &str) -> bool {
        let Some([source, path, fstype, ..]) = fields(line) else { return false };
        match self {
            Self::Path(wanted) => fstype != "swap" && path == wanted,
            Self::Swap(wanted) => fstype == "swap" && source == wanted,
        }
    }
}

/// The six fields of a line, unescaped, with the defaults of the last two (fstab(5)); `None` for an empty line or a comment.
fn fields(line: &str) -> Option<[String; 6]> {
    let mut words = line.split_whitespace().take_while(|word| !word.starts_with('#'));
    let [source, path, fstype] = [words.next()?, words.next()?, words.next()?].map(unescape);
    let options = words.next().map_or("defaults".to_owned(), unescape);
    let [dump, pass] = [(); 2].map(|()| words.next().unwrap_or("0").to_owned());
    Some([source, path, fstype, options, dump, pass])
}

/// Source, type and options of a line, for mount(8).
pub(super) fn to_mount(line: &str) -> Option<[String; 3]> {
    fields(line).map(|[source, _, fstype, options, ..]| [source, fstype, options])
}

/// What follows the fields of a line: a comment, with the blanks before it.
fn comment(line: &str) -> &str {
    let mut at = 0;
    for _ in 0..6 {
        let rest = &line[at..];
        let word = rest.trim_start();
        if word.is_empty() || word.starts_with('#') {
            break;
        }
        let length = word.find(char::is_whitespace).unwrap_or(word.len());
        at = line.len() - word.len() + length;
    }
    if line[at..].trim_start().starts_with('#') { line[at..].trim_end() } else { "" }
}

/// Whether two lines have the same fields.
pub(super) fn is_same(one: Option<&str>, other: Option<&str>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => fields(one) == fields(other),
        (one, other) => one.is_none() && other.is_none(),
    }
}

/// All lines of the subject, as one text; `None` if there are none.
pub(super) fn all_lines(fstab: &str, subject: Subject<'_>) -> Option<String> {
    let lines: Vec<&str> = fstab.lines().filter(|line| subject.has(line)).collect();
    (!lines.is_empty()).then(|| lines.join("\n"))
}

/// The line that is the task's: of several of its subject, the one that is as `wanted`, else the one that it wrote, `known`, else
/// one with the wanted source, else the first, which is the one that mount(8) would take.
pub(super) fn line_of<'a>(
    fstab: &'a str,
    subject: Subject<'_>,
    wanted: Option<&str>,
    known: Option<&str>,
) -> Option<&'a str> {
    let lines = || fstab.lines().filter(|line| subject.has(line));
    let like = |one: Option<&str>| one.and_then(|one| lines().find(|line| is_same(Some(line), Some(one))));
    let source = wanted.and_then(fields).map(|[source, ..]| source);
    let same_source = || lines().find(|line| fields(line).map(|[is, ..]| is) == source);
    like(wanted).or_else(|| like(known)).or_else(same_source).or_else(|| lines().next())
}

/// /etc/fstab with `new` in place of the line `old`, which keeps its comment; with `new` at its end if there is no `old`.
pub(super) fn with_line(fstab: &str, old: Option<&str>, new: Option<&str>) -> String {
    let mut out = String::new();
    let mut placed = false;
    for line in fstab.split_inclusive('\n') {
        let text = line.trim_end_matches(['\n', '\r']);
        if placed || old != Some(text) {
            out.push_str(line);
            continue;
        }
        placed = true;
        if let Some(new) = new {
            out.push_str(new);
            // A line that comes back has its own comment.
            if new.lines().all(|new| comment(new).is_empty()) {
                out.push_str(comment(text));
            }
            out.push_str(&line[text.len()..]);
        }
    }
    if let Some(new) = new.filter(|_| !placed) {
        if !out.is_empty() && !out.ends_with('\n') {
            out.push('\n');
        }
        out.push_str(new);
        out.push('\n');
    }
    out
}

/// /etc/fstab without any line of the subject.
pub(super) fn without(fstab: &str, subject: Subject<'_>) -> String {
    fstab.split_inclusive('\n').filter(|line| !subject.has(line)).collect()
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
        device: (*own.get(2)?).to_owned(),
        options: options.map(str::to_owned).collect(),
    })
}

/// The priority of each swap area that is in use, by path, from /proc/swaps.
pub(super) fn swaps(table: &str) -> impl Iterator<Item = (String, i32)> {
    table.lines().skip(1).filter_map(|line| {
        let mut words = line.split_whitespace();
        Some((unescape(words.next()?), words.next_back()?.parse().ok()?))
    })
}

impl Mounted {
    /// Whether it has the wanted ones among the options that the kernel shows for every mount. `protected`: its device cannot be
    /// written to, and so it is read-only whatever is wanted.
    pub(super) fn has(&self, options: &str, protected: bool) -> bool {
        let shown = |option: &str| self.options.iter().any(|found| found == option);
        let wanted: Vec<&str> = options.split(',').collect();
        let flags = ["nosuid", "nodev", "noexec", "noatime"];
        flags.iter().filter(|flag| wanted.contains(*flag)).all(|flag| shown(flag))
            && (self.is_read_only() == wanted.contains(&"ro") || protected && self.is_read_only())
    }

    /// By the options of the mount, which take precedence over those of the file system.
    pub(super) fn is_read_only(&self) -> bool {
        self.options.first().is_some_and(|first| first == "ro")
    }

    /// Whether it only waits for its first use (autofs(5)).
    pub(super) fn is_idle_automount(&self) -> bool {
        self.fstype == "autofs"
    }
}

/// Octal escapes for blanks, as in the kernel's tables and in fstab(5).
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

    const FSTAB: &str = "# /dev/x /data\nUUID=1 / ext4 defaults 0 1 # the root\n/dev/y /a\\040b ext4 ro 0 0\n\
                         /dev/p none swap sw 0 0\n/dev/q none swap sw\n";

    fn put(fstab: &str, subject: Subject<'_>, new: &str) -> String {
        with_line(fstab, line_of(fstab, subject, Some(new), None), Some(new))
    }

    #[test]
    fn lines_by_path() {
        let of = |path: &str| line_of(FSTAB, Subject::Path(path), None, None);
        assert_eq!(of("/a b"), Some("/dev/y /a\\040b ext4 ro 0 0"));
        assert_eq!((of("/data"), of("none")), (None, None));
        let new = "tmpfs /data tmpfs defaults 0 0";
        let with = put(FSTAB, Subject::Path("/data"), new);
        assert_eq!(with, format!("{FSTAB}{new}\n"));
        assert_eq!(with_line(&with, Some(new), None), FSTAB);
        assert_eq!(put("a b c", Subject::Path("/x"), "c /x d"), "a b c\nc /x d\n");
        assert_eq!(put("", Subject::Path("/x"), "c /x d"), "c /x d\n");
        assert!(
            is_same(Some("a /b  c"), Some("a\t/b c defaults 0 0 # d")) && !is_same(Some("a /b c"), Some("a /b c ro"))
        );
        assert!(is_same(None, None) && !is_same(None, Some("a /b c")));
    }

    #[test]
    fn comments_and_other_lines_stay() {
        let new = "UUID=1 / ext4 noatime 0 1";
        assert_eq!(put(FSTAB, Subject::Path("/"), new), FSTAB.replace("defaults 0 1 #", "noatime 0 1 #"));
        let changed = put(FSTAB, Subject::Path("/"), new);
        // The line that was there before comes back as it was, without a second comment.
        let now = line_of(&changed, Subject::Path("/"), Some(new), None);
        assert_eq!(with_line(&changed, now, Some("UUID=1 / ext4 defaults 0 1 # the root")), FSTAB);
        // Other lines of the same path are others' mounts.
        let two = "/dev/a /m ext4 noauto 0 0 # one\n/dev/b /m ext4 noauto 0 0 # two\n";
        let b = "/dev/b /m ext4 ro 0 0";
        assert_eq!(put(two, Subject::Path("/m"), b), two.replace("/dev/b /m ext4 noauto", "/dev/b /m ext4 ro"));
        let known = Some("/dev/b /m ext4 noauto 0 0");
        assert_eq!(line_of(two, Subject::Path("/m"), Some("/dev/c /m ext4 ro 0 0"), known), two.lines().nth(1));
        assert_eq!(put(two, Subject::Path("/m"), "x /m y 0 0"), two.replace("/dev/a /m ext4 noauto", "x /m y"));
        assert_eq!(all_lines(two, Subject::Path("/m")).as_deref(), Some(two.trim_end()));
        assert_eq!(without(&format!("# c\n{two}"), Subject::Path("/m")), "# c\n");
    }

    #[test]
    fn swap_areas_differ_by_their_sources() {
        let new = "/dev/q none swap pri=5 0 0";
        assert_eq!(put(FSTAB, Subject::Swap("/dev/q"), new), FSTAB.replace("/dev/q none swap sw", new));
        assert_eq!(line_of(FSTAB, Subject::Swap("/dev/z"), None, None), None);
        let table = "Filename\tType\tSize\tUsed\tPriority\n/dev/dm-1 partition 1000 0 -2\n/swap\\040file file 10 1 5\n";
        let found: Vec<(String, i32)> = swaps(table).collect();
        assert_eq!(found, [("/dev/dm-1".to_owned(), -2), ("/swap file".to_owned(), 5)]);
    }

    #[test]
    fn what_is_mounted() {
        let info = "\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:40 / /a\\040b rw,nosuid,nodev shared:5 - tmpfs tmpfs rw,size=1024k
31 22 8:1 /srv/x /srv/bound ro,relatime - ext4 /dev/sda1 rw
32 22 0:41 / /auto rw,relatime shared:6 - autofs systemd-1 rw,fd=51,direct
";
        let tmp = mounted_at(info, "/a b").unwrap();
        assert_eq!((tmp.fstype.as_str(), tmp.source.as_str(), tmp.part.as_str()), ("tmpfs", "tmpfs", "/"));
        assert!(tmp.has("nosuid,size=1m", false) && !tmp.has("noexec", false) && !tmp.has("ro", false));
        let bound = mounted_at(info, "/srv/bound").unwrap();
        assert_eq!(bound.part, "/srv/x");
        assert!(bound.has("bind,ro", false) && !bound.has("bind", false));
        assert!(bound.has("defaults", true), "a device that cannot be written to");
        assert!(!tmp.has("ro", true));
        assert_eq!(mounted_at(info, "/srv"), None);
        assert!(mounted_at(info, "/auto").unwrap().is_idle_automount() && !tmp.is_idle_automount());
    }
}
