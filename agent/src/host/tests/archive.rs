//! `archive`.

use std::{
    fs,
    io::Write,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::Path,
};

use flate2::{Compression, write::GzEncoder};
use serde_json::json;
use tar::EntryType;

use super::*;

/// Name, type, mode, and content or target.
pub(super) type Given<'a> = (&'a str, EntryType, u32, &'a str);

pub(super) const FILE: EntryType = EntryType::Regular;
pub(super) const DIR: EntryType = EntryType::Directory;
pub(super) const LINK: EntryType = EntryType::Symlink;

/// A tar archive with the names exactly as given, some of which the library refuses to write.
pub(super) fn tar(members: &[Given<'_>]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, kind, mode, text) in members {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(*kind);
        header.set_mode(*mode);
        let gnu = header.as_gnu_mut().unwrap();
        gnu.name[..name.len()].copy_from_slice(name.as_bytes());
        let is_link = matches!(*kind, EntryType::Symlink | EntryType::Link);
        if is_link {
            gnu.linkname[..text.len()].copy_from_slice(text.as_bytes());
        }
        let content = if is_link { "" } else { *text };
        header.set_size(content.len() as u64);
        header.set_cksum();
        builder.append(&header, content.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub(super) fn archive(bytes: &[u8], more: Value) -> TaskSpec {
    let mut params = json!({ "dest": "/opt/app" });
    params.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    TaskSpec { content: Some(Shipped::of(bytes)), ..spec(json!({ "archive": params })) }
}

/// All below a directory: `name`, `name/`, `name -> target`.
pub(super) fn tree(dir: &Path) -> Vec<String> {
    let mut all = Vec::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(next) = dirs.pop() {
        for entry in fs::read_dir(next).unwrap().map(|entry| entry.unwrap().path()) {
            let name = entry.strip_prefix(dir).unwrap().display().to_string();
            let kind = fs::symlink_metadata(&entry).unwrap().file_type();
            if kind.is_symlink() {
                all.push(format!("{name} -> {}", fs::read_link(&entry).unwrap().display()));
            } else if kind.is_dir() {
                all.push(format!("{name}/"));
                dirs.push(entry);
            } else {
                all.push(name);
            }
        }
    }
    all.sort();
    all
}

fn first() -> Vec<u8> {
    gzip(&tar(&[
        ("app-1/", DIR, 0o755, ""),
        ("app-1/bin/run", FILE, 0o755, "#!/bin/sh\n"),
        ("app-1/lib/one", FILE, 0o640, "1"),
        ("app-1/lib/same", EntryType::Link, 0o640, "app-1/lib/one"),
        ("app-1/lib/current", LINK, 0o777, "one"),
        ("app-1/bin/up", LINK, 0o777, "../lib/one"),
    ]))
}

#[tokio::test]
async fn an_archive_is_unpacked_updated_and_removed() {
    let site = Site::new();
    let one = archive(&first(), json!({ "strip_components": 1 }));
    assert_eq!(site.create(&one).await, CHANGED);
    let all = ["bin/", "bin/run", "bin/up -> ../lib/one", "lib/", "lib/current -> one", "lib/one", "lib/same"];
    assert_eq!(tree(&site.at("opt/app")), all);
    assert_eq!(fs::metadata(site.at("opt/app/lib/one")).unwrap().mode() & 0o7777, 0o640);
    assert_eq!(fs::read_to_string(site.at("opt/app/bin/up")).unwrap(), "1");
    assert_eq!(site.update(&one, &one).await, UNCHANGED);

    // Drift: content, mode, a link with another target.
    fs::write(site.at("opt/app/lib/one"), "2").unwrap();
    assert_eq!(site.update(&one, &one).await, CHANGED);
    fs::set_permissions(site.at("opt/app/bin/run"), fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(site.update(&one, &one).await, CHANGED);
    fs::remove_file(site.at("opt/app/lib/current")).unwrap();
    symlink("same", site.at("opt/app/lib/current")).unwrap();
    assert_eq!(site.update(&one, &one).await, CHANGED);
    assert_eq!(tree(&site.at("opt/app")), all);
    assert_eq!(site.update(&one, &one).await, UNCHANGED);

    // Members that the new archive lacks are removed; files of others are kept.
    fs::write(site.at("opt/app/lib/theirs"), "").unwrap();
    let two = archive(&tar(&[("lib/one", FILE, 0o640, "new"), ("etc/x", FILE, 0o600, "")]), json!({}));
    assert_eq!(site.update(&one, &two).await, CHANGED);
    assert_eq!(tree(&site.at("opt/app")), ["etc/", "etc/x", "lib/", "lib/one", "lib/theirs"]);
    let finished = site.job("svc.task", Work::Remove { spec: two.clone() }, None).await;
    assert_eq!(finished.result, CHANGED);
    assert!(finished.output.unwrap().head.contains("/lib is not empty: left in place"));
    assert_eq!(tree(&site.at("opt/app")), ["lib/", "lib/theirs"]);
    assert_eq!(site.remove(&two).await, UNCHANGED);
}

#[tokio::test]
async fn removal_deletes_exactly_what_was_unpacked() {
    let site = Site::new();
    let spec = archive(&first(), json!({}));
    assert_eq!(site.create(&spec).await, CHANGED);
    assert_eq!(site.remove(&spec).await, CHANGED);
    assert!(!site.at("opt/app").exists() && site.at("opt").exists());

    // Into an existing directory, moved to another one, and members that two tasks unpack.
    fs::create_dir_all(site.at("opt/app/bin")).unwrap();
    let flat = |names: &[&str]| tar(&names.iter().map(|name| (*name, FILE, 0o644, *name)).collect::<Vec<_>>());
    let mine = archive(&flat(&["bin/a", "bin/b"]), json!({}));
    let theirs = archive(&flat(&["bin/b", "bin/c"]), json!({}));
    assert_eq!(site.create(&mine).await, CHANGED);
    assert_eq!(site.job("svc.other", apply(&theirs, None), None).await.result, CHANGED);
    let moved = archive(&flat(&["bin/a"]), json!({ "dest": "/srv/app" }));
    assert_eq!(site.update(&mine, &moved).await, CHANGED);
    assert_eq!(tree(&site.at("opt/app")), ["bin/", "bin/b", "bin/c"]);
    assert_eq!(tree(&site.at("srv/app")), ["bin/", "bin/a"]);
    assert_eq!(site.job("svc.other", Work::Remove { spec: theirs }, None).await.result, CHANGED);
    assert_eq!(tree(&site.at("opt/app")), ["bin/"]);
}

/// What a job reported.
fn lines(finished: &Finished) -> String {
    finished.output.as_ref().map(|output| output.head.clone()).unwrap_or_default()
}

#[tokio::test]
async fn a_member_turns_into_something_else() {
    let site = Site::new();
    let versions = [
        archive(
            &tar(&[("conf", FILE, 0o644, "1"), ("current", LINK, 0o777, "conf"), ("z", FILE, 0o644, "")]),
            json!({}),
        ),
        archive(
            &tar(&[("conf/a/b", FILE, 0o644, "1"), ("conf/c", LINK, 0o777, "a"), ("current/x", FILE, 0o644, "")]),
            json!({}),
        ),
        archive(&tar(&[("conf", LINK, 0o777, "z"), ("current", FILE, 0o644, ""), ("z", FILE, 0o644, "")]), json!({})),
    ];
    let trees: [&[&str]; 3] = [
        &["conf", "current -> conf", "z"],
        &["conf/", "conf/a/", "conf/a/b", "conf/c -> a", "current/", "current/x"],
        &["conf -> z", "current", "z"],
    ];
    assert_eq!(site.create(&versions[0]).await, CHANGED);
    for (from, to) in [(0, 1), (1, 2), (2, 1), (1, 0)] {
        assert_eq!(site.update(&versions[from], &versions[to]).await, CHANGED, "{from} to {to}");
        assert_eq!(tree(&site.at("opt/app")), trees[to]);
        assert_eq!(site.update(&versions[to], &versions[to]).await, UNCHANGED);
    }
    assert_eq!(site.update(&versions[0], &versions[1]).await, CHANGED);
    // What is not the task's own is in the way, and then nothing is touched.
    fs::write(site.at("opt/app/conf/theirs"), "precious").unwrap();
    let before = tree(&site.at("opt/app"));
    let error = site.update(&versions[1], &versions[2]).await.unwrap_err();
    assert_eq!(
        error,
        "the member `conf` cannot be put in place, and nothing of the archive was: /conf: a directory with \
         `conf/theirs`, which this task did not unpack, is in the way; move it away"
    );
    assert_eq!(tree(&site.at("opt/app")), before);
    fs::remove_file(site.at("opt/app/conf/theirs")).unwrap();
    fs::write(site.at("opt/app/conf/a/b"), "changed").unwrap();
    let error = site.update(&versions[1], &versions[2]).await.unwrap_err();
    assert!(
        error.contains("a directory with `conf/a/b`, which was changed since it was unpacked, is in the way"),
        "{error}"
    );
    fs::write(site.at("opt/app/conf/a/b"), "1").unwrap();
    assert_eq!(site.update(&versions[1], &versions[2]).await, CHANGED);
    // The same for a file that was changed, where a directory is to be.
    fs::remove_file(site.at("opt/app/conf")).unwrap();
    fs::write(site.at("opt/app/conf"), "mine").unwrap();
    let error = site.update(&versions[2], &versions[1]).await.unwrap_err();
    assert!(error.contains("/conf: something that is not a directory is in the way"), "{error}");
    assert_eq!(fs::read_to_string(site.at("opt/app/conf")).unwrap(), "mine");
    // A pipe is not replaced by a file.
    fs::remove_file(site.at("opt/app/z")).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(site.at("opt/app/z")).status().unwrap().success());
    let error = site.update(&versions[2], &versions[0]).await.unwrap_err();
    assert!(error.contains("a pipe, a socket or a device is in the way"), "{error}");
}

#[tokio::test]
async fn what_others_changed_is_left_in_place() {
    let site = Site::new();
    let both = archive(
        &tar(&[("etc/a", FILE, 0o644, "a"), ("etc/b", FILE, 0o644, "b"), ("l", LINK, 0o777, "etc")]),
        json!({}),
    );
    let one = archive(&tar(&[("etc/b", FILE, 0o644, "b")]), json!({}));
    assert_eq!(site.create(&both).await, CHANGED);
    fs::write(site.at("opt/app/etc/a"), "tuned by hand").unwrap();
    let finished = site.job("svc.task", apply(&one, Some(&both)), None).await;
    assert_eq!(finished.result, CHANGED);
    assert_eq!(lines(&finished), "in /opt/app: /etc/a was changed since it was unpacked: left in place\n");
    assert_eq!(tree(&site.at("opt/app")), ["etc/", "etc/a", "etc/b"]);
    // A mode alone is no content.
    fs::set_permissions(site.at("opt/app/etc/b"), fs::Permissions::from_mode(0o600)).unwrap();
    let finished = site.job("svc.task", Work::Remove { spec: one.clone() }, None).await;
    assert_eq!(finished.result, CHANGED);
    assert_eq!(tree(&site.at("opt/app")), ["etc/", "etc/a"]);

    let site = Site::new();
    assert_eq!(site.create(&both).await, CHANGED);
    fs::write(site.at("opt/app/etc/b"), "b2").unwrap();
    fs::remove_file(site.at("opt/app/l")).unwrap();
    symlink("elsewhere", site.at("opt/app/l")).unwrap();
    let finished = site.job("svc.task", Work::Remove { spec: both }, None).await;
    assert_eq!(finished.result, CHANGED);
    assert_eq!(tree(&site.at("opt/app")), ["etc/", "etc/b", "l -> elsewhere"]);
    for line in
        ["/l was changed since it was unpacked", "/etc/b was changed since it was unpacked", "/etc is not empty"]
    {
        assert!(lines(&finished).contains(line), "{line}");
    }
}

#[tokio::test]
async fn an_heir_replaces_and_removes_what_the_former_task_unpacked() {
    let site = Site::new();
    let before = archive(&tar(&[("a/b", FILE, 0o644, "b"), ("c", FILE, 0o644, "c")]), json!({}));
    let after = archive(&tar(&[("a", FILE, 0o644, "a file now")]), json!({}));
    assert_eq!(site.create(&before).await, CHANGED);
    let heir = Job { others: vec![id("svc.task")], ..job("svc.heir", apply(&after, None), None, None) };
    assert_eq!(site.host.run(heir, Cancel::never()).await.result, CHANGED);
    assert_eq!(tree(&site.at("opt/app")), ["a"]);
    let removal = job("svc.task", Work::Remove { spec: before }, None, None);
    let given = Job { others: vec![id("svc.heir")], touched: true, ..removal };
    assert!(site.host.run(given, Cancel::never()).await.result.is_ok());
    assert_eq!(tree(&site.at("opt/app")), ["a"]);
    // Nothing is left of the former one that would keep what both had.
    assert_eq!(site.job("svc.heir", Work::Remove { spec: after }, None).await.result, CHANGED);
    assert!(!site.at("opt/app").exists());
}

#[tokio::test]
async fn what_a_removal_kept_belongs_to_no_task() {
    let site = Site::new();
    let spec = archive(&tar(&[("a/b", FILE, 0o644, "b")]), json!({}));
    assert_eq!(site.create(&spec).await, CHANGED);
    let removal = job("svc.task", Work::Remove { spec: spec.clone() }, None, None);
    let kept = Job { on_remove: OnRemove::Keep, touched: true, ..removal };
    assert!(site.host.run(kept, Cancel::never()).await.result.is_ok());
    assert_eq!(tree(&site.at("opt/app")), ["a/", "a/b"]);
    // To another task that unpacks the same, it was there before.
    assert_eq!(site.job("svc.other", apply(&spec, None), None).await.result, CHANGED);
    assert_eq!(site.job("svc.other", Work::Remove { spec }, None).await.result, UNCHANGED);
    assert_eq!(tree(&site.at("opt/app")), ["a/", "a/b"]);
}

#[tokio::test]
async fn what_others_claim_is_left_to_them() {
    let site = Site::new();
    let bytes = |version: &str| {
        tar(&[
            ("etc/app.conf", FILE, 0o644, version),
            ("etc/app.ini", FILE, 0o644, "[a]\nb = 1\n"),
            ("run", FILE, 0o755, version),
        ])
    };
    let [one, two] = ["1", "2"].map(|version| archive(&bytes(version), json!({})));
    let theirs = file("/opt/app/etc/app.conf", "theirs");
    let option = spec(json!({ "ini": { "path": "/opt/app/etc/app.ini", "section": "a", "option": "b", "value": 2 } }));
    assert_eq!(site.create(&one).await, CHANGED);
    for (task, spec) in [("svc.file", &theirs), ("svc.option", &option)] {
        assert_eq!(site.job(task, apply(spec, None), None).await.result, CHANGED);
    }
    let theirs_is_there = || {
        let read = |path: &str| fs::read_to_string(site.at(path)).unwrap();
        assert_eq!(read("opt/app/etc/app.conf"), "theirs");
        assert_eq!(read("opt/app/etc/app.ini"), "[a]\nb = 2\n");
    };
    // Neither is a difference, and an update leaves both.
    assert_eq!(site.update(&one, &one).await, UNCHANGED);
    assert!(matches!(site.check(&one).await, CheckResult::InSync));
    let finished = site.job("svc.task", apply(&two, Some(&one)), None).await;
    assert_eq!(finished.result, CHANGED);
    assert_eq!(
        lines(&finished),
        "in /opt/app: /etc/app.conf belongs to svc.file: left to it\nin /opt/app: /etc/app.ini belongs to svc.option: left to it\n"
    );
    theirs_is_there();
    assert_eq!(fs::read_to_string(site.at("opt/app/run")).unwrap(), "2");
    assert_eq!(site.update(&two, &two).await, UNCHANGED);
    // So does the removal; and once the other task is removed, the member is the archive's again.
    let archive_again = site.job("svc.task", Work::Remove { spec: two.clone() }, None).await;
    assert_eq!(archive_again.result, CHANGED);
    theirs_is_there();
    assert_eq!(tree(&site.at("opt/app")), ["etc/", "etc/app.conf", "etc/app.ini"]);
    assert_eq!(site.create(&two).await, CHANGED);
    theirs_is_there();
    assert_eq!(site.job("svc.file", Work::Remove { spec: theirs }, None).await.result, CHANGED);
    assert_eq!(site.update(&two, &two).await, CHANGED);
    assert_eq!(fs::read_to_string(site.at("opt/app/etc/app.conf")).unwrap(), "2");
}

#[tokio::test]
async fn members_that_lead_out_are_refused_and_nothing_is_unpacked() {
    let site = Site::new();
    let outside = site.dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    let good = ("good", FILE, 0o644, "good");
    let cases: &[(&[Given<'_>], &str)] = &[
        (&[good, ("../evil", FILE, 0o644, "x")], "the member `../evil` has `..` in its path"),
        (&[good, ("a/../../evil", FILE, 0o644, "x")], "the member `a/../../evil` has `..` in its path"),
        (&[good, ("/evil", FILE, 0o644, "x")], "the member `/evil` has an absolute path"),
        (&[good, ("l", LINK, 0o777, "/etc")], "the member `l` is a link that leads out, to `/etc`"),
        (&[good, ("d/l", LINK, 0o777, "../../x")], "the member `d/l` is a link that leads out, to `../../x`"),
        (
            &[good, ("l", LINK, 0o777, "good"), ("l/evil", FILE, 0o644, "x")],
            "the member `l/evil` goes through the link `l`",
        ),
        (
            &[good, ("h", EntryType::Link, 0o644, "../evil")],
            "the member `h` is a hard link that leads out, to `../evil`",
        ),
        (&[good, ("h", EntryType::Link, 0o644, "/etc/passwd")], "is a hard link that leads out, to `/etc/passwd`"),
        (&[good, ("dev", EntryType::Block, 0o644, "")], "the member `dev` is a device"),
        (&[good, ("pipe", EntryType::Fifo, 0o644, "")], "the member `pipe` is a device, a pipe"),
        (&[good, ("su", FILE, 0o4755, "x")], "the member `su` is set-user-id"),
    ];
    for (members, word) in cases {
        for bytes in [tar(members), gzip(&tar(members))] {
            let error = site.create(&archive(&bytes, json!({}))).await.unwrap_err();
            assert!(error.starts_with("the archive is refused, and nothing of it was put in place: "), "{error}");
            assert!(error.contains(word), "{error}");
            assert!(!site.at("opt/app").exists());
        }
    }
    // Links that existed before are not followed out either.
    fs::create_dir_all(site.at("opt/app")).unwrap();
    symlink(&outside, site.at("opt/app/way")).unwrap();
    let through = tar(&[good, ("way/evil", FILE, 0o644, "x")]);
    let error = site.create(&archive(&through, json!({}))).await.unwrap_err();
    let word = "the member `way` cannot be put in place, and nothing of the archive was: /way: the symbolic link /way leads out of the root";
    assert_eq!(error, word);
    assert_eq!(tree(&site.at("opt/app")), [format!("way -> {}", outside.display())]);
    symlink(&outside, site.at("opt/out")).unwrap();
    let error = site.create(&archive(&first(), json!({ "dest": "/opt/out" }))).await.unwrap_err();
    assert_eq!(error, "/opt/out: the symbolic link /opt/out leads out of the root");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
}

#[tokio::test]
async fn bombs_and_damaged_archives() {
    let site = Site::new();
    let zeros = "0".repeat(3 << 20);
    let bomb = gzip(&tar(&[("a", FILE, 0o644, &zeros), ("b", FILE, 0o644, &zeros)]));
    let error = site.create(&archive(&bomb, json!({ "max_size": "5 MiB" }))).await.unwrap_err();
    assert!(error.contains("more than 5242880 bytes in all; raise `max_size`"), "{error}");
    // A member name that is too long to be kept in memory.
    let name = gzip(&tar(&[("././@LongLink", EntryType::GNULongName, 0o644, &zeros), ("a", FILE, 0o644, "")]));
    let error = site.create(&archive(&name, json!({}))).await.unwrap_err();
    assert!(error.contains("a header, or what comes after the end, is too large"), "{error}");
    let whole = first();
    let mut flipped = whole.clone();
    let at = flipped.len() - 6;
    flipped[at] ^= 1;
    for (bytes, word) in [
        (&whole[..whole.len() / 2], "the archive is damaged or truncated"),
        (&flipped, "the archive is damaged or truncated"),
        (&b"no archive"[..], "the format of the archive cannot be detected"),
        (b"PK\x03\x04 and no more", "the archive is damaged or truncated"),
        (b"\xfd7zXZ\0 and no more", "damaged"),
    ] {
        let error = site.create(&archive(bytes, json!({}))).await.unwrap_err();
        assert!(error.contains(word), "{error}");
        assert!(!site.at("opt/app").exists());
    }
    // A directory in the place of a file.
    fs::create_dir_all(site.at("opt/app/bin/run")).unwrap();
    let error = site.create(&archive(&first(), json!({ "strip_components": 1 }))).await.unwrap_err();
    assert!(
        error.starts_with("the member `bin/run` cannot be put in place, and nothing of the archive was"),
        "{error}"
    );
    assert_eq!(tree(&site.at("opt/app")), ["bin/", "bin/run/"]);
}

#[tokio::test]
async fn an_archive_on_the_node() {
    let site = Site::new();
    let here = |more: Value| {
        let mut params = json!({ "dest": "/opt/app", "path": "/srv/a.tgz" });
        params.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        spec(json!({ "archive": params }))
    };
    assert_eq!(site.create(&here(json!({}))).await, Err("there is no archive at /srv/a.tgz on this node".to_owned()));
    fs::create_dir(site.at("srv")).unwrap();
    fs::write(site.at("srv/a.tgz"), first()).unwrap();
    let error = site.create(&here(json!({ "sha256": "0".repeat(64) }))).await.unwrap_err();
    assert!(error.contains("has the SHA-256 digest") && !site.at("opt/app").exists(), "{error}");
    let right = here(json!({ "sha256": groundplan_protocol::digest::Digest::of(&first()).to_string() }));
    assert_eq!(site.create(&right).await, CHANGED);
    assert_eq!(site.update(&right, &right).await, UNCHANGED);
    // Another archive at the same path.
    fs::write(site.at("srv/a.tgz"), tar(&[("x", FILE, 0o644, "")])).unwrap();
    assert_eq!(site.update(&right, &here(json!({}))).await, CHANGED);
    assert_eq!(tree(&site.at("opt/app")), ["x"]);
    let guarded = here(json!({ "creates": "/opt/app", "dest": "/opt/other" }));
    assert_eq!(site.job("svc.guarded", apply(&guarded, None), None).await.result, UNCHANGED);
}

#[tokio::test]
async fn zip() {
    let site = Site::new();
    let pack = |members: &[(&str, u32, &str)]| {
        let mut out = Vec::new();
        let mut zip = rawzip::ZipArchiveWriter::new(&mut out);
        for (name, mode, text) in members {
            let (mut entry, config) = zip
                .new_file(name)
                .unix_permissions(*mode)
                .compression_method(rawzip::CompressionMethod::DEFLATE)
                .start()
                .unwrap();
            let encoder = flate2::write::DeflateEncoder::new(&mut entry, Compression::fast());
            let mut writer = config.wrap(encoder);
            writer.write_all(text.as_bytes()).unwrap();
            let (encoder, descriptor) = writer.finish().unwrap();
            encoder.finish().unwrap();
            entry.finish(descriptor).unwrap();
        }
        zip.finish().unwrap();
        // The library refuses to write such a name.
        for at in 0..out.len() - 3 {
            if &out[at..at + 3] == b"UP/" {
                out[at..at + 2].copy_from_slice(b"..");
            }
        }
        out
    };
    let good = [("d/run", 0o100_755, "#!/bin/sh\n"), ("d/l", 0o120_777, "run"), ("f", 0o100_600, "text")];
    let spec = archive(&pack(&good), json!({}));
    assert_eq!(site.create(&spec).await, CHANGED);
    assert_eq!(tree(&site.at("opt/app")), ["d/", "d/l -> run", "d/run", "f"]);
    assert_eq!(fs::metadata(site.at("opt/app/d/run")).unwrap().mode() & 0o7777, 0o755);
    assert_eq!(site.update(&spec, &spec).await, UNCHANGED);
    assert_eq!(site.remove(&spec).await, CHANGED);
    for (evil, word) in [
        (("UP/evil", 0o100_644, "x"), "has `..` in its path"),
        (("l", 0o120_777, "/etc"), "is a link that leads out, to `/etc`"),
        (("su", 0o104_755, "x"), "is set-user-id"),
    ] {
        let error = site.create(&archive(&pack(&[good[0], evil]), json!({}))).await.unwrap_err();
        assert!(error.contains(word), "{error}");
        assert!(!site.at("opt/app").exists());
    }
    let zeros = "0".repeat(3 << 20);
    let bomb = pack(&[("a", 0o100_644, &zeros)]);
    assert!(bomb.len() < 1 << 20);
    let error = site.create(&archive(&bomb, json!({ "max_size": "1 MiB" }))).await.unwrap_err();
    assert!(error.contains("raise `max_size`"), "{error}");
    let mut flipped = pack(&[good[2]]);
    let at = flipped.windows(4).position(|window| window == b"text").unwrap_or(40);
    flipped[at] ^= 1;
    let error = site.create(&archive(&flipped, json!({}))).await.unwrap_err();
    assert!(error.contains("damaged or truncated"), "{error}");
}

#[tokio::test]
async fn other_formats_by_the_programs_of_the_host() {
    let site = Site::new();
    let whole = site.dir.path().join("a.tar");
    fs::write(&whole, tar(&[("x", FILE, 0o644, "content")])).unwrap();
    for program in ["xz", "zstd", "bzip2"] {
        let packed = std::process::Command::new(program).arg("-c").arg(&whole).output();
        let Ok(packed) = packed else {
            eprintln!("SKIPPED: this machine has no `{program}`");
            continue;
        };
        let spec = archive(&packed.stdout, json!({ "dest": format!("/opt/{program}") }));
        assert_eq!(site.create(&spec).await, CHANGED, "{program}");
        assert_eq!(fs::read_to_string(site.at(&format!("opt/{program}/x"))).unwrap(), "content");
        let cut = archive(&packed.stdout[..packed.stdout.len() - 9], json!({ "dest": "/opt/cut" }));
        assert!(site.job("svc.cut", apply(&cut, None), None).await.result.is_err());
        assert!(!site.at("opt/cut").exists());
    }
}

#[tokio::test]
async fn a_full_disk_leaves_nothing() {
    let site = Site::new();
    let mount = site.at("small");
    fs::create_dir_all(&mount).unwrap();
    let mounted =
        std::process::Command::new("mount").args(["-t", "tmpfs", "-o", "size=256k", "tmpfs"]).arg(&mount).output();
    if !mounted.is_ok_and(|output| output.status.success()) {
        eprintln!("SKIPPED: a tmpfs could not be mounted; this needs root");
        return;
    }
    let large = "x".repeat(1 << 20);
    let bytes = gzip(&tar(&[("a", FILE, 0o644, "a"), ("b", FILE, 0o644, &large)]));
    let result = site.create(&archive(&bytes, json!({ "dest": "/small/app" }))).await;
    let left = tree(&mount);
    std::process::Command::new("umount").arg(&mount).status().unwrap();
    assert!(result.unwrap_err().contains("No space left on device"));
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn the_last_archive_removes_the_directories_that_the_first_one_made() {
    let of =
        |name: &str| archive(&tar(&[("lib/", DIR, 0o755, ""), (&format!("lib/{name}"), FILE, 0o644, name)]), json!({}));
    let tasks = ["a", "b", "c"].map(|name| (format!("svc.{name}"), of(name)));
    for order in [[0, 1, 2], [1, 0, 2], [2, 1, 0]] {
        let site = Site::new();
        fs::create_dir(site.at("opt")).unwrap();
        for (task, spec) in &tasks {
            assert_eq!(site.job(task, apply(spec, None), None).await.result, CHANGED);
        }
        assert_eq!(tree(&site.at("opt/app")), ["lib/", "lib/a", "lib/b", "lib/c"]);
        for at in order {
            let (task, spec) = &tasks[at];
            assert_eq!(site.job(task, Work::Remove { spec: spec.clone() }, None).await.result, CHANGED);
        }
        assert!(!site.at("opt/app").exists(), "{order:?}: {:?}", tree(&site.at("opt/app")));
        assert!(site.at("opt").exists());
    }
}
