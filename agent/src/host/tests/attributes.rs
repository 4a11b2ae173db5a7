//! Files that are rewritten keep their access control lists, labels, extended attributes, owner and mode.

use std::{
    ffi::CString,
    fs,
    os::unix::{
        ffi::OsStrExt,
        fs::{MetadataExt, PermissionsExt},
    },
    path::Path,
};

use nix::libc;
use serde_json::json;

use super::*;

const ACL: &str = "system.posix_acl_access";
const DEFAULT_ACL: &str = "system.posix_acl_default";
const LABEL: &str = "security.selinux";
const CAPABILITY: &str = "security.capability";

fn set(path: &Path, name: &str, value: &[u8]) {
    let [path, name] = [path.as_os_str().as_bytes(), name.as_bytes()].map(|text| CString::new(text).unwrap());
    #[expect(unsafe_code, reason = "neither std nor nix has setxattr")]
    // SAFETY: both texts end with NUL, and the kernel reads as many bytes as the value has.
    let done = unsafe { libc::setxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    assert_eq!(done, 0, "{name:?}: {}", std::io::Error::last_os_error());
}

fn get(path: &Path, name: &str) -> Option<Vec<u8>> {
    let [path, name] = [path.as_os_str().as_bytes(), name.as_bytes()].map(|text| CString::new(text).unwrap());
    let mut value = vec![0; 4096];
    #[expect(unsafe_code, reason = "neither std nor nix has getxattr")]
    // SAFETY: both texts end with NUL, and the kernel writes at most as many bytes as the buffer has.
    let size = unsafe { libc::getxattr(path.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), value.len()) };
    value.truncate(usize::try_from(size).ok()?);
    Some(value)
}

/// `user::rw-,user:1000:rw-,group::<group>,mask::<mask>,other::---`, as the kernel keeps it.
fn acl(group: u16, mask: u16) -> Vec<u8> {
    let mut bytes = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in
        [(1_u16, 6_u16, u32::MAX), (2, 6, 1000), (4, group, u32::MAX), (16, mask, u32::MAX), (32, 0, u32::MAX)]
    {
        bytes.extend_from_slice(&tag.to_le_bytes());
        bytes.extend_from_slice(&permissions.to_le_bytes());
        bytes.extend_from_slice(&id.to_le_bytes());
    }
    bytes
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

/// A file of mode 0640 with a list, a label and more; `None`, with a message, for users who may not set them.
fn with_attributes(content: &[u8]) -> Option<Site> {
    if !is_root() {
        eprintln!("SKIPPED: only root may set labels and capabilities");
        return None;
    }
    let site = Site::new();
    let path = site.at("x.conf");
    fs::write(&path, content).unwrap();
    std::os::unix::fs::chown(&path, Some(1234), Some(4321)).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    set(&path, ACL, &acl(4, 6));
    set(&path, LABEL, b"system_u:object_r:etc_t:s0\0");
    set(&path, "user.note", b"theirs");
    set(&path, "security.ima", b"a hash of the content");
    Some(site)
}

/// Checks that all that [`with_attributes`] set is there; the mode shows the mask as the group's bits.
fn assert_kept(site: &Site, inode: u64) {
    let path = site.at("x.conf");
    let found = fs::metadata(&path).unwrap();
    assert_ne!(found.ino(), inode, "the file was replaced");
    assert_eq!((found.uid(), found.gid(), mode(&path)), (1234, 4321, 0o660));
    assert_eq!(get(&path, ACL), Some(acl(4, 6)));
    assert_eq!(get(&path, LABEL).as_deref(), Some(&b"system_u:object_r:etc_t:s0\0"[..]));
    assert_eq!(get(&path, "user.note").as_deref(), Some(&b"theirs"[..]));
    assert_eq!(get(&path, "security.ima"), None, "it is wrong for other content");
}

#[tokio::test]
async fn an_edited_file_keeps_what_it_had() {
    for params in [
        json!({ "line": { "path": "/x.conf", "line": "b = 1" } }),
        json!({ "line": { "path": "/x.conf", "line": "b = 1", "validate": { "command": "grep -q b %s" } } }),
        json!({ "ini": { "path": "/x.conf", "section": "a", "option": "b", "value": 1 } }),
    ] {
        let Some(site) = with_attributes(b"[a]\n") else { return };
        let inode = fs::metadata(site.at("x.conf")).unwrap().ino();
        let spec = spec(params);
        assert_eq!(site.create(&spec).await, CHANGED);
        assert_kept(&site, inode);
        assert_eq!(site.update(&spec, &spec).await, UNCHANGED);
        let inode = fs::metadata(site.at("x.conf")).unwrap().ino();
        assert_eq!(site.remove(&spec).await, CHANGED);
        assert_eq!(fs::read(site.at("x.conf")).unwrap(), b"[a]\n");
        assert_kept(&site, inode);
    }
}

#[tokio::test]
async fn a_replaced_file_keeps_what_it_had() {
    let Some(site) = with_attributes(b"old") else { return };
    let inode = fs::metadata(site.at("x.conf")).unwrap().ino();
    let params = json!({ "template": { "path": "/x.conf", "owner": "1234", "group": "4321", "mode": "0640" } });
    let template = |text: &str| TaskSpec { content: Some(Shipped::of(text.as_bytes())), ..spec(params.clone()) };
    assert_eq!(site.create(&template("new")).await, CHANGED);
    assert_kept(&site, inode);
    assert_eq!(site.update(&template("new"), &template("new")).await, UNCHANGED);
    assert!(matches!(site.check(&template("new")).await, CheckResult::InSync));
    let label = crate::host::fs::files::label(&site.host.environment.root, "/x.conf").unwrap();
    assert_eq!(label.as_deref(), Some("system_u:object_r:etc_t:s0"));
}

#[tokio::test]
async fn a_mode_is_set_without_a_change_for_named_users() {
    let Some(site) = with_attributes(b"text") else { return };
    let path = site.at("x.conf");
    let template = |mode: &str| TaskSpec {
        content: Some(Shipped::of(b"text")),
        ..spec(json!({ "template": { "path": "/x.conf", "owner": "1234", "group": "4321", "mode": mode } }))
    };
    assert_eq!(site.create(&template("0640")).await, UNCHANGED);
    assert_eq!(site.update(&template("0640"), &template("0600")).await, CHANGED);
    assert_eq!((get(&path, ACL), mode(&path)), (Some(acl(0, 6)), 0o660));
    assert_eq!(site.update(&template("0600"), &template("0600")).await, UNCHANGED);

    let directory = |mode: &str| spec(json!({ "directory": { "path": "/d", "mode": mode } }));
    assert_eq!(site.job("svc.d", apply(&directory("0640"), None), None).await.result, CHANGED);
    set(&site.at("d"), ACL, &acl(4, 6));
    assert_eq!(site.job("svc.d", apply(&directory("0640"), None), None).await.result, UNCHANGED);
    assert_eq!(site.job("svc.d", apply(&directory("0600"), None), None).await.result, CHANGED);
    assert_eq!(get(&site.at("d"), ACL), Some(acl(0, 6)));
}

#[tokio::test]
async fn what_a_directory_hands_down_is_for_new_files_only() {
    if !is_root() {
        eprintln!("SKIPPED: only root may set labels and capabilities");
        return;
    }
    let site = Site::new();
    fs::create_dir(site.at("d")).unwrap();
    fs::write(site.at("d/old"), "a").unwrap();
    fs::set_permissions(site.at("d/old"), fs::Permissions::from_mode(0o640)).unwrap();
    set(&site.at("d"), DEFAULT_ACL, &acl(6, 6));
    let template = |path: &str, mode: &str| TaskSpec {
        content: Some(Shipped::of(b"b")),
        ..spec(json!({ "template": { "path": path, "mode": mode } }))
    };
    // The old one had no list: the file that replaces it gets none.
    assert_eq!(site.create(&template("/d/old", "0640")).await, CHANGED);
    assert_eq!((get(&site.at("d/old"), ACL), mode(&site.at("d/old"))), (None, 0o640));
    // A new file has what a program that makes it with this mode would get.
    let new = template("/d/new", "0640");
    assert_eq!(site.job("svc.new", apply(&new, None), None).await.result, CHANGED);
    assert_eq!((get(&site.at("d/new"), ACL), mode(&site.at("d/new"))), (Some(acl(6, 4)), 0o640));
    assert_eq!(site.job("svc.new", apply(&new, None), None).await.result, UNCHANGED);
}

#[tokio::test]
async fn capabilities_stay_with_programs() {
    let Some(site) = with_attributes(b"\x7fELF one") else { return };
    let path = site.at("x.conf");
    // VFS_CAP_REVISION_2, cap_net_bind_service, permitted and effective (capabilities(7)).
    let capability: Vec<u8> = [0x0200_0001_u32, 1 << 10, 0, 0, 0].iter().flat_map(|word| word.to_le_bytes()).collect();
    set(&path, CAPABILITY, &capability);
    let template = |content: &[u8]| TaskSpec {
        content: Some(Shipped::of(content)),
        ..spec(json!({ "template": { "path": "/x.conf", "mode": "0755" } }))
    };
    assert_eq!(site.create(&template(b"\x7fELF two")).await, CHANGED);
    assert_eq!(get(&path, CAPABILITY), Some(capability));
    assert_eq!(site.update(&template(b"\x7fELF two"), &template(b"#!/bin/sh\n")).await, CHANGED);
    assert_eq!(get(&path, CAPABILITY), None);
}
