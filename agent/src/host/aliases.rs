//! What only the host knows: that two names are one thing, such as `sshd.service` and `ssh.service`, or `/var/run/x` and `/run/x`.
//!
//! In: a claim. Out: the claim under the thing's own name. Reads links only; what cannot be read is its own name.

use std::path::Path;

use groundplan_protocol::kinds::{Claim, EDITED};

use super::fs::paths::{Missing, Root};

/// Where units are, in the order of precedence (systemd.unit(5)).
const UNITS: [&str; 4] = ["etc/systemd/system", "run/systemd/system", "usr/lib/systemd/system", "lib/systemd/system"];

/// Most aliases that lead from one to the next.
const MOST: usize = 8;

/// The same claim by the thing's own name on this host; `None` if it is that already.
pub(super) fn own_name(root: &Root, claim: &Claim<'_>) -> Option<Claim<'static>> {
    match claim {
        Claim::Named { what, name } if what == "unit" => {
            let mut own = name.to_string();
            for _ in 0..MOST {
                match alias(root.path(), &own) {
                    Some(of) => own = of,
                    None => break,
                }
            }
            (own != **name).then(|| Claim::Named { what: "unit".into(), name: own.into() })
        }
        Claim::Named { what, name } if what == EDITED => Some(Claim::named(EDITED, own_path(root, name)?)),
        Claim::Path(path) => Some(Claim::Path(own_path(root, path)?.into())),
        _ => None,
    }
}

/// The path without links on its way; `None` if it is that already, or cannot be read.
fn own_path(root: &Root, path: &str) -> Option<String> {
    let place = root.place(path, Missing::Leave).ok()??;
    let below = place.real.strip_prefix(root.path()).ok()?;
    let own = format!("/{}", below.to_str()?);
    (own != path).then_some(own)
}

/// The unit that `unit` is another name of: its file is a link to one of another name, in the first folder that has it.
fn alias(root: &Path, unit: &str) -> Option<String> {
    let file = UNITS.iter().map(|folder| root.join(folder).join(unit)).find(|file| file.symlink_metadata().is_ok())?;
    let target = file.read_link().ok()?;
    let name = target.file_name()?.to_str()?;
    // A link to /dev/null masks the unit; one to a file of its own name, or to a template, is the unit itself.
    let kind = |name: &str| name.rsplit_once('.').map(|(_, kind)| kind.to_owned());
    let is_unit = kind(name).is_some() && kind(name) == kind(unit) && !name.contains("@.");
    (is_unit && name != unit).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    #[test]
    fn units_and_paths_have_one_own_name() {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        for folder in ["etc/systemd/system", "usr/lib/systemd/system", "run"] {
            fs::create_dir_all(at(folder)).unwrap();
        }
        fs::create_dir(at("var")).unwrap();
        symlink("../run", at("var/run")).unwrap();
        fs::write(at("usr/lib/systemd/system/ssh.service"), "").unwrap();
        symlink("/usr/lib/systemd/system/ssh.service", at("etc/systemd/system/sshd.service")).unwrap();
        symlink("/dev/null", at("etc/systemd/system/masked.service")).unwrap();
        symlink("/opt/linked.service", at("etc/systemd/system/linked.service")).unwrap();
        symlink("a.service", at("etc/systemd/system/b.service")).unwrap();
        symlink("b.service", at("etc/systemd/system/a.service")).unwrap();
        let root = Root::new(dir.path().canonicalize().unwrap());
        let unit = |name: &'static str| Claim::named("unit", name);
        assert_eq!(own_name(&root, &unit("sshd.service")), Some(unit("ssh.service")));
        for own in ["ssh.service", "masked.service", "linked.service", "none.service"] {
            assert_eq!(own_name(&root, &unit(own)), None, "{own}");
        }
        own_name(&root, &unit("a.service"));
        assert_eq!(own_name(&root, &Claim::path("/var/run/x")), Some(Claim::path("/run/x")));
        assert_eq!(own_name(&root, &Claim::edited("/var/run/x")), Some(Claim::edited("/run/x")));
        for own in ["/run/x", "/none/x", "/var/run"] {
            assert_eq!(own_name(&root, &Claim::path(own)), None, "{own}");
        }
    }
}
