//! Extended attributes of a file or directory (xattr(7)): ACLs, security labels, capabilities and attributes of users.
//!
//! In: an open file. Out: its attributes by name, or a file that has exactly those. A file system without attributes has none. What only
//! the kernel may change, such as a label that another policy has assigned since, is left as it is where it cannot be removed.

use std::{
    collections::BTreeMap,
    ffi::{CStr, CString},
    fs::File,
    io,
    os::{fd::AsRawFd as _, unix::ffi::OsStrExt as _},
    path::Path,
};

use nix::libc;

const LABEL: &CStr = c"security.selinux";

/// Attributes by name, such as `system.posix_acl_access`.
pub(crate) type Xattrs = BTreeMap<String, Vec<u8>>;

/// The attributes of an open file or directory, as far as the agent may see them; not for one that was opened with `O_PATH`.
pub(crate) fn read(file: &File) -> io::Result<Xattrs> {
    let mut found = Xattrs::new();
    for name in names(file)? {
        let Ok(text) = name.to_str() else { continue };
        match get(file, &name) {
            Ok(value) => found.extend(value.map(|value| (text.to_owned(), value))),
            // Only the kernel may read it.
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {}
            Err(e) => return Err(e),
        }
    }
    Ok(found)
}

/// Gives an open file or directory exactly these attributes. After owner and mode: a change of the mode changes the ACL's mask.
pub(crate) fn write(file: &File, wanted: &Xattrs) -> io::Result<()> {
    let found = read(file)?;
    for (name, value) in wanted.iter().filter(|(name, value)| found.get(*name) != Some(value)) {
        set(file, &CString::new(name.as_str())?, value)?;
    }
    // A label cannot be removed, and a new file has one that its directory or the policy gave it.
    for name in found.keys().filter(|name| !wanted.contains_key(*name) && *name != "security.selinux") {
        remove(file, &CString::new(name.as_str())?)?;
    }
    Ok(())
}

/// The SELinux label of what is at a path, such as `system_u:object_r:etc_t:s0`; a link is not followed.
pub(crate) fn label(path: &Path) -> io::Result<Option<String>> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let read = |buffer: &mut [u8]| {
        #[expect(unsafe_code, reason = "neither std nor nix has lgetxattr")]
        // SAFETY: both texts end with NUL, and the kernel writes at most as many bytes as the buffer has.
        let size = unsafe { libc::lgetxattr(path.as_ptr(), LABEL.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len()) };
        size
    };
    Ok(if_any(grow(read))?.map(|label| String::from_utf8_lossy(&label).trim_end_matches('\0').to_owned()))
}

/// The names of all attributes of a file.
pub(super) fn names(file: &File) -> io::Result<Vec<CString>> {
    let read = |buffer: &mut [u8]| {
        #[expect(unsafe_code, reason = "neither std nor nix has flistxattr")]
        // SAFETY: the descriptor is open, and the kernel writes at most as many bytes as the buffer has.
        let size = unsafe { libc::flistxattr(file.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len()) };
        size
    };
    let list = match grow(read) {
        Err(e) if is_unsupported(&e) => return Ok(Vec::new()),
        result => result?,
    };
    Ok(list
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
        .filter_map(|name| CString::new(name).ok())
        .collect())
}

/// The value of an attribute; `None` where there is none of that name.
pub(super) fn get(file: &File, name: &CStr) -> io::Result<Option<Vec<u8>>> {
    let read = |buffer: &mut [u8]| {
        #[expect(unsafe_code, reason = "neither std nor nix has fgetxattr")]
        // SAFETY: the descriptor is open, the name ends with NUL, and the kernel writes at most as many bytes as the buffer has.
        let size =
            unsafe { libc::fgetxattr(file.as_raw_fd(), name.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len()) };
        size
    };
    if_any(grow(read))
}

/// `None` where there is no such attribute.
fn if_any(value: io::Result<Vec<u8>>) -> io::Result<Option<Vec<u8>>> {
    match value {
        Ok(value) => Ok(Some(value)),
        Err(e) if e.raw_os_error() == Some(libc::ENODATA) || is_unsupported(&e) => Ok(None),
        Err(e) => Err(e),
    }
}

/// Sets an attribute.
pub(super) fn set(file: &File, name: &CStr, value: &[u8]) -> io::Result<()> {
    #[expect(unsafe_code, reason = "neither std nor nix has fsetxattr")]
    // SAFETY: the descriptor is open, the name ends with NUL, and the kernel reads as many bytes as the value has.
    let done = unsafe { libc::fsetxattr(file.as_raw_fd(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Removes an attribute, if there is one of that name.
pub(super) fn remove(file: &File, name: &CStr) -> io::Result<()> {
    #[expect(unsafe_code, reason = "neither std nor nix has fremovexattr")]
    // SAFETY: the descriptor is open, and the name ends with NUL.
    let done = unsafe { libc::fremovexattr(file.as_raw_fd(), name.as_ptr()) };
    match io::Error::last_os_error() {
        e if done != 0 && e.raw_os_error() != Some(libc::ENODATA) && !is_unsupported(&e) => Err(e),
        _ => Ok(()),
    }
}

/// Reads into a buffer that is large enough: another process may have made the value longer since its length was asked for.
fn grow(read: impl Fn(&mut [u8]) -> isize) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; 256];
    loop {
        if let Ok(size) = usize::try_from(read(&mut buffer)) {
            buffer.truncate(size);
            return Ok(buffer);
        }
        match io::Error::last_os_error() {
            // The kernel's limit for lists and values is 64 KiB.
            e if e.raw_os_error() == Some(libc::ERANGE) && buffer.len() < 1 << 17 => buffer.resize(buffer.len() * 4, 0),
            e => return Err(e),
        }
    }
}

/// Whether the file system has no attributes, or none of that kind.
pub(super) fn is_unsupported(e: &io::Error) -> bool {
    matches!(e.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOSYS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_read_and_written() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str| File::create_new(dir.path().join(name)).unwrap();
        let (one, two) = (file("one"), file("two"));
        let none = read(&one).unwrap();
        if set(&one, c"user.a", b"1").is_err() {
            eprintln!("NOT RUN: the file system has no attributes of users");
            return;
        }
        set(&one, c"user.empty", b"").unwrap();
        set(&two, c"user.b", b"2").unwrap();
        let found = read(&one).unwrap();
        assert_eq!((&*found["user.a"], &*found["user.empty"]), (&b"1"[..], &b""[..]));
        write(&two, &found).unwrap();
        assert_eq!(read(&two).unwrap(), found, "others are removed");
        write(&two, &none).unwrap();
        assert_eq!(read(&two).unwrap(), none);
    }
}
