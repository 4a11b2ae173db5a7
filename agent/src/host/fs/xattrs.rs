//! Extended attributes of a file or directory (xattr(7)): ACLs, security labels, capabilities and attributes of users.
//!
//! In: an open file. Out: its attributes by name, or a file that has exactly those. A file system without attributes has none. What only
//! the kernel may change, such as a label that another policy has assigned since, is left as it is where it cannot be removed.

use std::{
    collections::BTreeMap,
    ffi::{CStr, CString},
    fs::File,
    io,
    os::fd::AsRawFd as _,
};

use nix::libc;

/// Attributes by name, such as `system.posix_acl_access`.
pub(crate) type Xattrs = BTreeMap<String, Vec<u8>>;

/// The attributes of an open file or directory, as far as the agent may see them; not for one that was opened with `O_PATH`.
pub(crate) fn read(file: &File) -> io::Result<Xattrs> {
    let names = match list(file) {
        Err(e) if is_unsupported(&e) => return Ok(Xattrs::new()),
        names => names?,
    };
    let mut found = Xattrs::new();
    // The list ends each name with a NUL.
    for name in names.split_inclusive(|byte| *byte == 0) {
        let Ok(name) = CStr::from_bytes_with_nul(name) else { continue };
        let Ok(text) = name.to_str() else { continue };
        match get(file, name) {
            Ok(value) => drop(found.insert(text.to_owned(), value)),
            // It was removed since, or only the kernel may read it.
            Err(e) if is_unsupported(&e) || e.raw_os_error() == Some(libc::ENODATA) => {}
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

fn is_unsupported(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOSYS))
}

/// Calls `fill` with a buffer of the size that it asked for, until that suffices: the attributes may grow in between.
fn sized(fill: impl Fn(&mut [u8]) -> isize) -> io::Result<Vec<u8>> {
    loop {
        let size = usize::try_from(fill(&mut [])).map_err(|_| io::Error::last_os_error())?;
        if size == 0 {
            return Ok(Vec::new());
        }
        let mut buffer = vec![0; size];
        match usize::try_from(fill(&mut buffer)) {
            Ok(size) => {
                buffer.truncate(size);
                return Ok(buffer);
            }
            Err(_) => match io::Error::last_os_error() {
                e if e.raw_os_error() == Some(libc::ERANGE) => {}
                e => return Err(e),
            },
        }
    }
}

#[expect(unsafe_code, reason = "neither std nor nix has flistxattr")]
fn list(file: &File) -> io::Result<Vec<u8>> {
    // SAFETY: the kernel writes at most as many bytes as the buffer has; an empty one makes it return the size only.
    sized(|buffer| unsafe { libc::flistxattr(file.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len()) })
}

#[expect(unsafe_code, reason = "neither std nor nix has fgetxattr")]
fn get(file: &File, name: &CStr) -> io::Result<Vec<u8>> {
    // SAFETY: the name ends with a NUL; the kernel writes at most as many bytes as the buffer has.
    sized(|buffer| unsafe {
        libc::fgetxattr(file.as_raw_fd(), name.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len())
    })
}

#[expect(unsafe_code, reason = "neither std nor nix has fsetxattr")]
fn set(file: &File, name: &CStr, value: &[u8]) -> io::Result<()> {
    // SAFETY: the name ends with a NUL; the kernel reads exactly the bytes of the value.
    let done = unsafe { libc::fsetxattr(file.as_raw_fd(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[expect(unsafe_code, reason = "neither std nor nix has fremovexattr")]
fn remove(file: &File, name: &CStr) -> io::Result<()> {
    // SAFETY: the name ends with a NUL.
    let done = unsafe { libc::fremovexattr(file.as_raw_fd(), name.as_ptr()) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
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
