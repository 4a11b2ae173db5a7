//! Fed: a byte for what is asked of it, and an archive: tar, tar.gz or zip. Checksums of tar's headers are made right first, so that changes
//! of the rest come through; for tar.gz, what is fed is the tar archive inside.
//!
//! Checked: nothing outside of the destination is touched, wherever names and links lead. What is unpacked has no more bytes than allowed, no
//! devices, no set-user-id files unless asked for, and no link that leads out. If the archive is refused, nothing of it is there. After it
//! is unpacked, the drift check finds nothing; after its removal all is as before.

use std::{collections::BTreeMap, fs, io::Write as _, os::unix::fs::symlink, path::PathBuf};

use flate2::{Compression, write::GzEncoder};
use groundplan_agent::drift::CheckResult;
use serde_json::json;

use super::host::{OneTask, spec};

/// Where it is unpacked, below the root.
const DEST: &str = "opt/app";
/// Most bytes of its members.
const MOST: u64 = 64 << 10;

/// See the module.
pub fn check(input: &[u8]) {
    let Some((options, bytes)) = input.split_first() else { return };
    let (format, bytes) = match options & 3 {
        0 => ("tar", with_checksums(bytes)),
        1 => ("tar.gz", gzip(&with_checksums(bytes))),
        2 => ("zip", bytes.to_vec()),
        _ => ("tar.gz", bytes.to_vec()),
    };
    let (setuid, there) = (options & 4 != 0, options & 8 != 0);
    let params = json!({ "archive": {
        "dest": format!("/{DEST}"), "format": format, "strip_components": options >> 4 & 1, "setuid": setuid,
        "max_size": format!("{} KiB", MOST >> 10),
    } });
    let spec = spec(&params, &bytes);
    // Larger ones are fetched, by code that is not meant here.
    if spec.content.is_none() {
        return;
    }
    let mut host = OneTask::new();
    // What members may meet: files, directories and links in their places, and what a link that leads out would hit.
    fs::create_dir_all(host.at("etc")).expect("a directory");
    fs::write(host.at("etc/passwd"), "root").expect("a file");
    fs::write(host.at("../outside"), "beside the root").expect("a file");
    if there {
        fs::create_dir_all(host.at(DEST).join("dir")).expect("a directory");
        fs::write(host.at(DEST).join("file"), "theirs").expect("a file");
        symlink("../../etc", host.at(DEST).join("out")).expect("a link");
        symlink("/etc/passwd", host.at(DEST).join("link")).expect("a link");
    } else {
        fs::create_dir(host.at("opt")).expect("a directory");
    }
    let (before, around) = (host.tree(None), host.tree(Some(DEST)));

    let applied = host.apply(&spec);
    assert_eq!(host.tree(Some(DEST)), around, "outside of {DEST}");
    let unpacked = host.tree(None);
    if let Err(error) = &applied.result {
        assert!(!error.is_empty());
        assert_eq!(unpacked, before, "refused with {error}");
        return;
    }
    is_allowed(&host, &unpacked, &before, setuid);
    match host.check(&spec) {
        CheckResult::InSync => {}
        other => panic!("drift right after it was unpacked: {other:?}"),
    }
    let removed = host.remove(&spec);
    removed.result.expect("it is removed");
    let after = host.tree(None);
    assert_eq!(after, before, "after its removal");
}

fn is_allowed(host: &OneTask, now: &BTreeMap<PathBuf, String>, before: &BTreeMap<PathBuf, String>, setuid: bool) {
    let mut size = 0;
    for (path, what) in now {
        if before.get(path) == Some(what) {
            continue;
        }
        assert!(!what.contains("neither file"), "{path:?}: {what}");
        let mode = u32::from_str_radix(what.split(' ').next().expect("a mode"), 8).expect("a mode");
        let about = fs::symlink_metadata(path).expect("what is there");
        assert!(setuid || about.is_dir() || mode & 0o6000 == 0, "{path:?}: {what}");
        if about.is_file() {
            size += about.len();
        }
        if about.is_symlink() {
            // By its text: followed, it could lead anywhere by now.
            let target = fs::read_link(path).expect("a link");
            assert!(target.is_relative(), "{path:?} leads to {target:?}");
            let mut depth =
                path.parent().expect("a directory").strip_prefix(host.at(DEST)).expect("below it").iter().count()
                    as i64;
            for part in target.components() {
                depth += match part {
                    std::path::Component::ParentDir => -1,
                    std::path::Component::Normal(_) => 1,
                    _ => 0,
                };
                assert!(depth >= 0, "{path:?} leads out: {target:?}");
            }
        }
    }
    assert!(size <= MOST, "{size} bytes");
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).expect("memory");
    encoder.finish().expect("memory")
}

/// The archive with the checksum of each header, as far as the sizes in them lead, as POSIX has it (pax(1), ustar).
fn with_checksums(tar: &[u8]) -> Vec<u8> {
    let mut tar = tar.to_vec();
    let mut at = 0;
    while let Some(header) = tar.get_mut(at..at + 512) {
        if header.iter().all(|byte| *byte == 0) {
            break;
        }
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        let size = std::str::from_utf8(&header[124..136]).unwrap_or_default();
        let size = usize::from_str_radix(size.trim_matches([' ', '\0']), 8).unwrap_or_default();
        at += 512 + size.min(1 << 20).next_multiple_of(512);
    }
    tar
}
