//! An agent's program for hosts: which machine it is for, and that it needs no libraries there.
//!
//! In: the bytes of a file. Out: a static program for a known machine, or an error. Reads the ELF header and the program headers
//! (System V ABI, gABI chapters 4 and 5); never runs the file.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use groundplan_protocol::digest::Digest;

/// A statically linked agent, read and checked for its machine.
#[derive(Debug, Clone)]
pub struct Program {
    /// The file that it was read from.
    pub path: PathBuf,
    /// The machine that it is for, by its first name in `uname -m`.
    pub machine: &'static str,
    /// The content of the file.
    pub bytes: Arc<[u8]>,
    /// The digest of `bytes`, which the host checks.
    pub digest: Digest,
}

/// Why a file cannot be put on hosts as the agent.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// The file cannot be read.
    #[error("cannot read the agent {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Not an ELF executable.
    #[error("{} is not a program for Linux: it {what}", path.display())]
    NotElf {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, as a predicate.
        what: &'static str,
    },
    /// An ELF machine that is not in the list.
    #[error("{} is for an unknown machine (ELF machine {machine})", path.display())]
    Machine {
        /// The file.
        path: PathBuf,
        /// `e_machine` of the ELF header.
        machine: u16,
    },
    /// Dynamically linked.
    #[error("{} is dynamically linked: it would need this machine's libraries on every host", path.display())]
    Dynamic {
        /// The file.
        path: PathBuf,
    },
    /// A static program, but not the agent.
    #[error("{} is not groundplan-agent", path.display())]
    Other {
        /// The file.
        path: PathBuf,
    },
}

impl ProgramError {
    /// What the user can do about it; none where the message suffices.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Dynamic { .. } => {
                Some("build the static one with packaging/build-agent, or take it from a release".to_owned())
            }
            Self::Io { .. } | Self::NotElf { .. } | Self::Machine { .. } | Self::Other { .. } => {
                Some("name the released, static groundplan-agent with --agent FILE".to_owned())
            }
        }
    }
}

/// Machines by their ELF number, with the names that `uname -m` has for them on different kernels; the first is used here.
const MACHINES: [(u16, &[&str]); 8] = [
    (62, &["x86_64", "amd64"]),
    (183, &["aarch64", "arm64"]),
    (40, &["armv7l", "armv6l", "armv8l", "arm"]),
    (243, &["riscv64"]),
    (21, &["ppc64le"]),
    (22, &["s390x"]),
    (3, &["i686", "i586", "i486", "i386"]),
    (258, &["loongarch64"]),
];

/// The one name that is used here for a machine of `uname -m`; an unknown one stays as it is.
pub fn machine(uname: &str) -> &str {
    MACHINES.iter().find(|(_, names)| names.contains(&uname)).map_or(uname, |(_, names)| names[0])
}

impl Program {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// See [`ProgramError`].
    pub fn read(path: &Path) -> Result<Self, ProgramError> {
        let bytes = fs::read(path).map_err(|source| ProgramError::Io { path: path.to_owned(), source })?;
        Self::of(path, bytes)
    }

    fn of(path: &Path, bytes: Vec<u8>) -> Result<Self, ProgramError> {
        let path = path.to_owned();
        let machine = match header(&bytes) {
            Err(what) => return Err(ProgramError::NotElf { path, what }),
            Ok((_, true)) => return Err(ProgramError::Dynamic { path }),
            Ok((machine, false)) => machine,
        };
        let Some((_, names)) = MACHINES.iter().find(|(number, _)| *number == machine) else {
            return Err(ProgramError::Machine { path, machine });
        };
        let name = b"groundplan-agent";
        if !bytes.windows(name.len()).any(|window| window == name) {
            return Err(ProgramError::Other { path });
        }
        Ok(Self { digest: Digest::of(&bytes), bytes: bytes.into(), machine: names[0], path })
    }
}

/// The machine's number, and whether the program is dynamic: has a header of type PT_INTERP, the loader of its libraries.
fn header(bytes: &[u8]) -> Result<(u16, bool), &'static str> {
    const INTERP: u32 = 3;
    const SHORT: &str = "is truncated";
    if bytes.get(..4) != Some(b"\x7fELF") {
        return Err("does not begin with an ELF header");
    }
    let (wide, big) = match (bytes.get(4), bytes.get(5)) {
        (Some(class @ 1..=2), Some(data @ 1..=2)) => (*class == 2, *data == 2),
        _ => return Err("has an unknown ELF class"),
    };
    // An unsigned field in the file's byte order, `None` beyond the end of the file.
    let number = |at: usize, length: usize| -> Option<u64> {
        let field = bytes.get(at..at.checked_add(length)?)?;
        let push = |value: u64, byte: &u8| value << 8 | u64::from(*byte);
        Some(if big { field.iter().fold(0, push) } else { field.iter().rev().fold(0, push) })
    };
    // e_type: ET_EXEC, or ET_DYN, which static-pie programs are too.
    if !matches!(number(16, 2), Some(2 | 3)) {
        return Err("cannot be executed");
    }
    let machine = number(18, 2).ok_or(SHORT)? as u16;
    // The offsets of e_phoff, e_phentsize and e_phnum.
    let (at, size, count) = if wide { (32, 54, 56) } else { (28, 42, 44) };
    let start = number(at, if wide { 8 } else { 4 }).ok_or(SHORT)?;
    let (size, count) = (number(size, 2).ok_or(SHORT)?, number(count, 2).ok_or(SHORT)?);
    let mut dynamic = false;
    for n in 0..count {
        // The offset comes from the file: an overflow is an invalid file, not a panic.
        let at = start.checked_add(n * size).and_then(|at| usize::try_from(at).ok()).ok_or(SHORT)?;
        dynamic |= number(at, 4).ok_or(SHORT)? == u64::from(INTERP);
    }
    Ok((machine, dynamic))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The beginning of a program with one program header of that type.
    fn elf(machine: u16, wide: bool, big: bool, header: u32) -> Vec<u8> {
        let (ehdr, phdr) = if wide { (64, 56) } else { (52, 32) };
        let mut bytes = vec![0; ehdr + phdr];
        bytes[..6].copy_from_slice(&[0x7f, b'E', b'L', b'F', 1 + u8::from(wide), 1 + u8::from(big)]);
        let mut set = |at: usize, length: usize, value: u64| {
            let all = if big { value.to_be_bytes() } else { value.to_le_bytes() };
            let field = if big { &all[8 - length..] } else { &all[..length] };
            bytes[at..at + length].copy_from_slice(field);
        };
        set(16, 2, 3);
        set(18, 2, u64::from(machine));
        let (at, size, count, width) = if wide { (32, 54, 56, 8) } else { (28, 42, 44, 4) };
        set(at, width, ehdr as u64);
        set(size, 2, phdr as u64);
        set(count, 2, 1);
        set(ehdr, 4, u64::from(header));
        bytes.extend(b"groundplan-agent");
        bytes
    }

    fn read(bytes: Vec<u8>) -> Result<&'static str, String> {
        Program::of(Path::new("agent"), bytes).map(|program| program.machine).map_err(|e| e.to_string())
    }

    #[test]
    fn the_header_has_the_machine_and_whether_the_program_is_static() {
        assert_eq!(read(elf(62, true, false, 1)), Ok("x86_64"));
        assert_eq!(read(elf(183, true, false, 2)), Ok("aarch64"));
        assert_eq!(read(elf(40, false, false, 1)), Ok("armv7l"));
        assert_eq!(read(elf(22, true, true, 1)), Ok("s390x"));
        assert!(read(elf(62, true, false, 3)).unwrap_err().contains("dynamically linked"));
        assert!(read(elf(40, false, false, 3)).unwrap_err().contains("dynamically linked"));
        assert!(read(elf(7, true, false, 1)).unwrap_err().contains("unknown machine (ELF machine 7)"));
        assert!(read(b"#!/bin/sh\n".to_vec()).unwrap_err().contains("does not begin with an ELF header"));
        assert!(read(Vec::new()).is_err());
        let mut other = elf(62, true, false, 1);
        other.truncate(120);
        assert!(read(other).unwrap_err().contains("is not groundplan-agent"));
    }

    #[test]
    fn truncated_and_damaged_headers_do_not_panic() {
        let whole = elf(62, true, false, 1);
        for length in 0..120 {
            assert!(read(whole[..length].to_vec()).is_err());
        }
        for at in 4..64 {
            let mut odd = whole.clone();
            odd[at] = 0xff;
            let _ = read(odd);
        }
    }

    #[test]
    fn a_machine_has_one_name() {
        assert_eq!(
            [machine("amd64"), machine("arm64"), machine("i386"), machine("m68k")],
            ["x86_64", "aarch64", "i686", "m68k"]
        );
    }
}
