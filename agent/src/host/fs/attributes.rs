//! Extended attributes of files (xattr(7)): access control lists, labels, capabilities, and what users noted.
//!
//! In: an open file. Out: what a file that takes its place is to have as well. Hashes and signatures of the content (IMA, EVM) are
//! never copied, because they are wrong for other content; nor are capabilities, but from one program to another. A file system
//! without attributes counts as one whose files have none.

use std::{
    collections::BTreeMap,
    ffi::{CStr, CString},
    fs::File,
    io,
};

use nix::{libc, unistd::Uid};

use super::xattrs::{get, is_unsupported, names, remove, set};

const ACL: &CStr = c"system.posix_acl_access";
const CAPABILITY: &CStr = c"security.capability";

/// Attributes that are about the content or the place of one file.
const OWN: [&[u8]; 3] = [b"security.ima", b"security.evm", b"trusted.overlay."];

/// The extended attributes of a file, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Attributes(BTreeMap<CString, Vec<u8>>);

impl Attributes {
    /// All that another file in its place is to have; capabilities only if that is a program.
    pub(crate) fn of(file: &File, to_program: bool) -> io::Result<Self> {
        let mut all = BTreeMap::new();
        for name in names(file)? {
            let is_own = OWN.iter().any(|own| name.to_bytes().starts_with(own));
            if !is_own
                && (to_program || name.as_c_str() != CAPABILITY)
                && let Some(value) = get(file, &name)?
            {
                all.insert(name, value);
            }
        }
        Ok(Self(all))
    }

    /// Sets them on a new file. The access control list comes from here only: what the file inherited from its directory is
    /// dropped. Fails if one of them cannot be set, but for those that only root may set.
    pub(crate) fn give(&self, file: &File) -> io::Result<()> {
        if !self.0.contains_key(ACL) {
            remove(file, ACL)?;
        }
        for (name, value) in &self.0 {
            match set(file, name, value) {
                Err(e) if is_unsupported(&e) => {}
                // The label that the new file has already, or what an agent without privileges may read and not set.
                Err(e) if is_denied(&e) && !Uid::effective().is_root() && !name.to_bytes().starts_with(b"system.") => {}
                result => result?,
            }
        }
        Ok(())
    }
}

/// The access control list of an open file; `None` if it has no more than its mode.
pub(crate) fn acl(file: &File) -> io::Result<Option<Acl>> {
    Ok(get(file, ACL)?.and_then(|bytes| Acl::parse(&bytes)))
}

/// Sets the access control list; its permissions become those of the mode.
pub(crate) fn set_acl(file: &File, acl: &Acl) -> io::Result<()> {
    set(file, ACL, &acl.bytes())
}

/// An access control list (acl(5)), as the kernel keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Acl(Vec<Entry>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    tag: u16,
    permissions: u16,
    id: u32,
}

const OWNER: u16 = 0x01;
const NAMED_USER: u16 = 0x02;
const GROUP: u16 = 0x04;
const NAMED_GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHERS: u16 = 0x20;

/// The version that the kernel has written since it has lists.
const VERSION: [u8; 4] = 2_u32.to_le_bytes();

impl Acl {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let entries = bytes.strip_prefix(&VERSION)?.chunks_exact(8);
        let entry = |entry: &[u8]| {
            let [tag, permissions] = [[entry[0], entry[1]], [entry[2], entry[3]]].map(u16::from_le_bytes);
            Entry { tag, permissions, id: u32::from_le_bytes([entry[4], entry[5], entry[6], entry[7]]) }
        };
        entries.remainder().is_empty().then(|| Self(entries.map(entry).collect()))
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = VERSION.to_vec();
        for Entry { tag, permissions, id } in &self.0 {
            bytes.extend_from_slice(&tag.to_le_bytes());
            bytes.extend_from_slice(&permissions.to_le_bytes());
            bytes.extend_from_slice(&id.to_le_bytes());
        }
        bytes
    }

    /// What the owner, the owning group and others may do. In a file's mode the bits of the group are the mask instead, that is,
    /// the most that any named user or group may do.
    pub(crate) fn mode(&self) -> u32 {
        let mask = self.permissions(MASK).unwrap_or(0o7);
        let [owner, group, others] = [OWNER, GROUP, OTHERS].map(|tag| self.permissions(tag).unwrap_or(0));
        owner << 6 | (group & mask) << 3 | others
    }

    /// The bits of the file's mode that the kernel shows for it.
    pub(crate) fn bits(&self) -> u32 {
        let group = self.permissions(MASK).or_else(|| self.permissions(GROUP)).unwrap_or(0);
        self.mode() & 0o707 | group << 3
    }

    /// The list with which the owner, the owning group and others may do what `mode` says; for all others it stays as it is.
    pub(crate) fn with_mode(&self, mode: u32) -> Self {
        let mut list = self.clone();
        if self.mode() == mode & 0o777 {
            return list;
        }
        let [owner, group, others] = [mode >> 6 & 0o7, mode >> 3 & 0o7, mode & 0o7].map(|bits| bits as u16);
        let mask = self.permissions(MASK).map(|mask| mask as u16);
        // A mask that is too narrow for the group is widened, and the named entries keep what they had by the narrow one.
        let narrow = mask.filter(|mask| group & !mask != 0);
        for entry in &mut list.0 {
            match entry.tag {
                OWNER => entry.permissions = owner,
                GROUP => entry.permissions = group,
                OTHERS => entry.permissions = others,
                MASK if narrow.is_some() => entry.permissions |= group,
                NAMED_USER | NAMED_GROUP => entry.permissions &= narrow.unwrap_or(0o7),
                _ => {}
            }
        }
        list
    }

    fn permissions(&self, tag: u16) -> Option<u32> {
        self.0.iter().find(|entry| entry.tag == tag).map(|entry| u32::from(entry.permissions) & 0o7)
    }
}

fn is_denied(e: &io::Error) -> bool {
    matches!(e.raw_os_error(), Some(libc::EPERM | libc::EACCES))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: u32 = u32::MAX;

    /// `u::rw-,u:1000:rw-,g::<group>,m::<mask>,o::---`
    fn list(group: u16, mask: u16) -> Acl {
        let entry = |tag, permissions, id| Entry { tag, permissions, id };
        Acl(vec![
            entry(OWNER, 6, NONE),
            entry(NAMED_USER, 6, 1000),
            entry(GROUP, group, NONE),
            entry(MASK, mask, NONE),
            entry(OTHERS, 0, NONE),
        ])
    }

    #[test]
    fn the_mask_is_not_the_group() {
        let acl = list(4, 6);
        assert_eq!((acl.mode(), acl.bits()), (0o640, 0o660));
        assert_eq!(acl.with_mode(0o640), acl);
        assert_eq!(acl.with_mode(0o600), list(0, 6), "the named user keeps its rights");
        assert_eq!(acl.with_mode(0o660), list(6, 6));
        assert_eq!((list(6, 4).mode(), list(6, 4).bits()), (0o640, 0o640));
        assert_eq!(Acl::parse(&acl.bytes()), Some(acl));
        assert_eq!((Acl::parse(b""), Acl::parse(b"\x02\0\0\0\x01")), (None, None));
    }

    #[test]
    fn a_wider_mask_gives_named_users_nothing() {
        let wider = list(4, 4).with_mode(0o660);
        assert_eq!((wider.mode(), wider.bits()), (0o660, 0o660));
        assert_eq!(wider.permissions(NAMED_USER), Some(4), "as much as the narrow mask allowed");
    }
}
