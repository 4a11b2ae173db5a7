//! What the host is: a few facts for people and for templates, read once, at no cost.

use std::{collections::BTreeMap, fs};

/// `os`, `os_version`, `arch`, `kernel`, `hostname`, where the host tells them.
pub fn facts() -> BTreeMap<String, String> {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let known = [
        ("os", release_value(&release, "ID")),
        ("os_version", release_value(&release, "VERSION_ID")),
        ("arch", Some(std::env::consts::ARCH.to_owned())),
        ("kernel", line("/proc/sys/kernel/osrelease")),
        ("hostname", line("/proc/sys/kernel/hostname")),
    ];
    known.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
}

/// The kernel's random name of this boot; empty where there is none, so that all boots look the same.
pub fn boot_id() -> String {
    line("/proc/sys/kernel/random/boot_id").unwrap_or_default()
}

fn line(path: &str) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
}

/// A value of os-release(5).
fn release_value(text: &str, key: &str) -> Option<String> {
    let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='))?;
    Some(value.trim_matches(['"', '\'']).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_os_release() {
        let text = "PRETTY_NAME=\"Debian GNU/Linux 13\"\nVERSION_ID=\"13\"\nID=debian\n";
        assert_eq!(release_value(text, "ID").as_deref(), Some("debian"));
        assert_eq!(release_value(text, "VERSION_ID").as_deref(), Some("13"));
        assert_eq!(release_value(text, "NAME"), None);
    }
}
