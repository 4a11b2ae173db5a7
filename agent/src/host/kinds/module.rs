//! `module`: a kernel module, with modprobe(8), /etc/modules-load.d and /etc/modprobe.d.
//!
//! A module that is built into the kernel counts as loaded. Removal unloads a module if the task loaded it, unless it is in use.
//! Test hosts are containers, where no module can be loaded: the suite tests blacklisting and the errors; loading and unloading
//! have not been run on a real host.

use std::{fs, path::Path};

use groundplan_protocol::kinds::{Claim, Module};
use serde_json::json;

use super::{
    context::Context,
    kind::{Applied, Check, Kind},
};
use crate::host::{
    error::{HostError, KindError, ToolError},
    found::FoundError,
    fs::files::{self, Access, Removal, Sum},
};
use crate::machine::Found as Note;

/// Why a module could not be brought in sync.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ModuleError {
    #[error("this host has no `modprobe`; install kmod")]
    NoModprobe,
    #[error("the module {name} cannot be {done}{}", in_container(*container))]
    Modprobe { name: String, done: &'static str, container: bool, source: ToolError },
    #[error("the module {name} is built into the kernel: it cannot be unloaded")]
    BuiltIn { name: String },
    #[error("the module {name} is in use by {by}: it is not unloaded")]
    InUse { name: String, by: String },
    #[error("modprobe reported success, but the kernel has no module {name}")]
    NotThere { name: String },
    #[error(transparent)]
    Found(#[from] FoundError),
}

impl KindError for ModuleError {}

fn in_container(container: bool) -> &'static str {
    if container { "; this host is a container, and the host below it loads modules" } else { "" }
}

/// The state of a module.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    BuiltIn,
    Loaded { users: u32, by: String },
    Not,
}

impl Kind for Module {
    fn whole_host(&self) -> bool {
        true
    }

    async fn find(&self, cx: &Context<'_>) -> Result<(), HostError> {
        let files = files_of(self);
        let is_own = |path: &str, found: &Note| {
            let wanted = files.iter().find(|(of, _)| of == path).and_then(|(_, text)| text.as_ref());
            let wanted = wanted.map(|text| Sum::of_bytes(text.as_bytes()).digest);
            matches!(found, Note::File { sha256, .. } if Some(*sha256) == wanted)
        };
        let paths: Vec<String> = files.iter().map(|(path, _)| path.clone()).collect();
        cx.note_files(&claim(self), &paths, is_own)
    }

    async fn check(&self, cx: &Context<'_>) -> Result<Check, HostError> {
        let loaded = find(&self.name) != Found::Not;
        let mut in_sync = loaded == self.state.is_present();
        if !in_sync {
            let words = |loaded| if loaded { "loaded" } else { "not loaded" };
            let what = format!("module {}", self.name);
            cx.differs(&what, Some(words(self.state.is_present())), Some(words(loaded)));
        }
        for (path, text) in files_of(self) {
            match text {
                Some(text) => in_sync &= cx.is_file(&path, Sum::of_bytes(text.as_bytes()), access()?, true)?,
                None if cx.host.environment.root.exists(&path)? && !cx.is_as_found(&claim(self), &path) => {
                    in_sync = false;
                    cx.differs(&path, None, Some("present"));
                }
                None => {}
            }
        }
        Ok(in_sync.into())
    }

    async fn apply(&self, cx: &Context<'_>) -> Result<Applied, HostError> {
        let root = &cx.host.environment.root;
        let found = find(&self.name);
        // Its options must be in place before it is loaded.
        for (path, text) in files_of(self) {
            match text {
                Some(text) => files::write_text(root, &path, &text, access()?)?,
                None => drop(take_away(self, cx, &path)?),
            }
        }
        // Kept from earlier runs: a module that the task loaded once stays the task's to unload.
        let mut loaded_by_us = cx.memory().and_then(|memory| memory["loaded"].as_bool()).unwrap_or(false);
        match (self.state.is_present(), found) {
            (true, Found::Not) => {
                let args = ["modprobe", "--", &self.name];
                cx.change(&json!({ "loaded": true }), modprobe(cx, &self.name, "loaded", &args)).await?;
                if find(&self.name) == Found::Not {
                    return Err(ModuleError::NotThere { name: self.name.clone() }.into());
                }
                loaded_by_us = true;
            }
            (true, _) if !self.params.is_empty() => {
                cx.report(&format!(
                    "{} is already loaded: its parameters take effect when it is next loaded",
                    self.name
                ));
            }
            (false, found) => unload(cx, &self.name, found).await?,
            _ => {}
        }
        cx.remember(&json!({ "loaded": loaded_by_us }));
        Ok(Applied { afresh: false })
    }

    async fn remove(&self, cx: &Context<'_>) -> Result<bool, HostError> {
        let mut changed = false;
        for (path, _) in files_of(self) {
            changed |= take_away(self, cx, &path)? == Removal::Removed;
        }
        let loaded_by_us = cx.memory().and_then(|memory| memory["loaded"].as_bool()).unwrap_or(false);
        if loaded_by_us && self.state.is_present() {
            match find(&self.name) {
                Found::Not => {}
                found => match unload(cx, &self.name, found).await {
                    Ok(()) => changed = true,
                    // A module that cannot be unloaded does no harm.
                    Err(error) => cx.report(&crate::log::chain(&error)),
                },
            }
        }
        Ok(changed)
    }
}

/// The claim under which it is noted what its files were before any task had the module.
fn claim(module: &Module) -> Claim<'static> {
    Claim::named("kernel module", module.name.replace('-', "_"))
}

/// Takes one of its files away; what was there before comes back.
fn take_away(module: &Module, cx: &Context<'_>, path: &str) -> Result<Removal, HostError> {
    let found = cx.found_files(&claim(module), path);
    cx.take_away(path, found.as_ref(), || Ok(files::remove_file(&cx.host.environment.root, path, false)?))
}

async fn unload(cx: &Context<'_>, name: &str, found: Found) -> Result<(), ModuleError> {
    match found {
        Found::Not => Ok(()),
        Found::BuiltIn => Err(ModuleError::BuiltIn { name: name.to_owned() }),
        Found::Loaded { users, by } if users > 0 => {
            let by = if by.is_empty() { format!("{users} users") } else { by };
            Err(ModuleError::InUse { name: name.to_owned(), by })
        }
        Found::Loaded { .. } => modprobe(cx, name, "unloaded", &["modprobe", "-r", "--", name]).await,
    }
}

async fn modprobe(cx: &Context<'_>, name: &str, done: &'static str, args: &[&str]) -> Result<(), ModuleError> {
    let container = Path::new("/run/systemd/container").exists();
    cx.tool(args).await.map(drop).map_err(|source| match source.is_missing() {
        true => ModuleError::NoModprobe,
        false => ModuleError::Modprobe { name: name.to_owned(), done, container, source },
    })
}

/// Its files with their wanted text; `None` for a file that is not to exist.
fn files_of(module: &Module) -> [(String, Option<String>); 2] {
    let name = &module.name;
    let head = "# Written by groundplan; changes are overwritten.\n";
    let load = module.state.is_present().then(|| format!("{head}{name}\n"));
    let params: Vec<String> = module.params.iter().map(|(key, value)| format!(" {key}={}", value.text())).collect();
    let options = match (params.is_empty(), module.blacklist) {
        (false, _) => Some(format!("{head}options {name}{}\n", params.concat())),
        (true, true) => Some(format!("{head}blacklist {name}\n")),
        (true, false) => None,
    };
    [
        (format!("/etc/modules-load.d/groundplan-{name}.conf"), load),
        (format!("/etc/modprobe.d/groundplan-{name}.conf"), options),
    ]
}

fn access() -> Result<Access, HostError> {
    Ok(Access::new("/etc/modprobe.d", None, None, None, 0o644)?)
}

fn find(name: &str) -> Found {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let built_in = fs::read_to_string(format!("/lib/modules/{}/modules.builtin", release.trim())).unwrap_or_default();
    let modules = fs::read_to_string("/proc/modules").unwrap_or_default();
    // The kernel shows `_` where names in files may have `-`.
    let in_sys = Path::new("/sys/module").join(name.replace('-', "_")).exists();
    found(name, &modules, &built_in, in_sys)
}

/// The state of a module, from /proc/modules (proc(5)), modules.builtin (modules.builtin is described in kbuild.rst) and /sys/module.
fn found(name: &str, modules: &str, built_in: &str, in_sys: bool) -> Found {
    let plain = |name: &str| name.replace('-', "_");
    let name = plain(name);
    for line in modules.lines() {
        let mut words = line.split_whitespace();
        if words.next() == Some(&name) {
            let users = words.nth(1).and_then(|users| users.parse().ok()).unwrap_or(0);
            let by = words.next().unwrap_or("-").trim_matches(|c| c == ',' || c == '-').replace(',', ", ");
            return Found::Loaded { users, by };
        }
    }
    let file = |path: &str| path.rsplit('/').next().and_then(|file| Some(plain(file.split_once(".ko")?.0)));
    if in_sys || built_in.lines().any(|path| file(path).as_deref() == Some(&name)) {
        return Found::BuiltIn;
    }
    Found::Not
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_a_module_is() {
        let modules = "\
nf_nat 61440 2 xt_MASQUERADE,iptable_nat, Live 0x0000000000000000
br_netfilter 32768 0 - Live 0x0000000000000000
";
        let built_in = "kernel/fs/ext4/ext4.ko\nkernel/drivers/net/virtio-net.ko.xz\n";
        let of = |name: &str| found(name, modules, built_in, name == "printk");
        assert_eq!(of("nf-nat"), Found::Loaded { users: 2, by: "xt_MASQUERADE, iptable_nat".to_owned() });
        assert_eq!(of("br_netfilter"), Found::Loaded { users: 0, by: String::new() });
        for name in ["ext4", "virtio_net", "printk"] {
            assert_eq!(of(name), Found::BuiltIn);
        }
        assert_eq!(of("nf"), Found::Not);
    }

    #[test]
    fn its_files() {
        let of = |json: &str| files_of(&serde_json::from_str(json).unwrap()).map(|(_, text)| text);
        let head = "# Written by groundplan; changes are overwritten.\n";
        assert_eq!(
            of(r#"{"name": "dummy", "params": {"numdummies": 2, "x": "a,b"}}"#),
            [Some(format!("{head}dummy\n")), Some(format!("{head}options dummy numdummies=2 x=a,b\n"))]
        );
        assert_eq!(
            of(r#"{"name": "floppy", "state": "absent", "blacklist": true}"#),
            [None, Some(format!("{head}blacklist floppy\n"))]
        );
        assert_eq!(of(r#"{"name": "x", "state": "absent"}"#), [None, None]);
    }
}
