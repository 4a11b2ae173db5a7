//! Extended attributes of what is at a path (xattr(7)), for tests that compare and prepare hosts. Links are not followed.

use std::{
    collections::BTreeMap,
    ffi::{CStr, CString},
    io,
    os::unix::ffi::OsStrExt as _,
    path::Path,
};

use nix::libc;

/// Most bytes of a list of names or of a value that the kernel allows.
const MOST: usize = 1 << 16;

/// All attributes by name, such as `system.posix_acl_access`, with their values.
///
/// # Errors
/// If they cannot be read; a file system without attributes has none.
pub(crate) fn read(path: &Path) -> io::Result<BTreeMap<String, Vec<u8>>> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut buffer = vec![0_u8; MOST];
    #[expect(unsafe_code, reason = "neither std nor nix has llistxattr")]
    // SAFETY: the path ends with NUL, and the kernel writes at most as many bytes as the buffer has.
    let size = unsafe { libc::llistxattr(path.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len()) };
    let Ok(size) = usize::try_from(size) else {
        let e = io::Error::last_os_error();
        return if e.raw_os_error() == Some(libc::EOPNOTSUPP) { Ok(BTreeMap::new()) } else { Err(e) };
    };
    let mut found = BTreeMap::new();
    for name in buffer[..size].split_inclusive(|byte| *byte == 0) {
        let name = CStr::from_bytes_with_nul(name).map_err(io::Error::other)?;
        let mut value = vec![0_u8; MOST];
        #[expect(unsafe_code, reason = "neither std nor nix has lgetxattr")]
        // SAFETY: both texts end with NUL, and the kernel writes at most as many bytes as the buffer has.
        let size = unsafe { libc::lgetxattr(path.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), value.len()) };
        if let Ok(size) = usize::try_from(size) {
            value.truncate(size);
            found.insert(name.to_string_lossy().into_owned(), value);
        }
    }
    Ok(found)
}

/// Sets an attribute.
///
/// # Errors
/// If it cannot be set.
pub(crate) fn set(path: &Path, name: &str, value: &[u8]) -> io::Result<()> {
    let (path, name) = (CString::new(path.as_os_str().as_bytes())?, CString::new(name)?);
    #[expect(unsafe_code, reason = "neither std nor nix has lsetxattr")]
    // SAFETY: both texts end with NUL, and the kernel reads as many bytes as the value has.
    let done = unsafe { libc::lsetxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The value of `system.posix_acl_access` that gives one more user the right to read: `rw-` for the owner, `r--` for that user and
/// the group, `r--` as the mask, nothing for others.
pub(crate) fn readable_by(uid: u32) -> Vec<u8> {
    const NO_ID: u32 = u32::MAX;
    // Tag, rights, id: acl(5) and the kernel's posix_acl_xattr.h.
    let entries = [(0x01, 6, NO_ID), (0x02, 4, uid), (0x04, 4, NO_ID), (0x10, 4, NO_ID), (0x20, 0, NO_ID)];
    let mut value = 2_u32.to_le_bytes().to_vec();
    for (tag, rights, id) in entries {
        value.extend(u16::to_le_bytes(tag));
        value.extend(u16::to_le_bytes(rights));
        value.extend(u32::to_le_bytes(id));
    }
    value
}
