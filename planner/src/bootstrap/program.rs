//! The agent's program as it is to be put on hosts: which machine it is for, and whether it will run there by itself.
//!
//! In: the bytes of a file. Out: a program that is static and for a known machine, or why it is none. Reads the ELF header and the
//! program headers (System V ABI, gABI chapters 4 and 5), and runs nothing.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use groundplan_protocol::digest::Digest;

/// An agent to put on hosts.
#[derive(Debug, Clone)]
pub struct Program {
    /// Where it was read from.
    pub path: PathBuf,
    /// What machine it runs on, in the words of `uname -m`.
    pub machine: &'static str,
    /// The file.
    pub bytes: Arc<[u8]>,
    /// Its digest.
    pub digest: Digest,
}

/// Why a file is no agent for a host.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// It cannot be read.
    #[error("cannot read the agent {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is something else.
    #[error("{} is no program for Linux: it {what}", path.display())]
    NotElf {
        /// The file.
        path: PathBuf,
        /// What is odd about it.
        what: &'static str,
    },
    /// It is for a machine that we do not know.
    #[error("{} is for a machine that is not known here (ELF machine {machine})", path.display())]
    Machine {
        /// The file.
        path: PathBuf,
        /// Its number.
        machine: u16,
    },
    /// It needs libraries.
    #[error("{} is dynamically linked: it would need this machine's libraries on every host", path.display())]
    Dynamic {
        /// The file.
        path: PathBuf,
    },
    /// It is another program.
    #[error("{} is not groundplan-agent", path.display())]
    Other {
        /// The file.
        path: PathBuf,
    },
}

impl ProgramError {
    /// What to do about it.
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

/// Machines by their ELF number, the first in the words of `uname -m`, the others what it says as well.
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

/// The machine that `uname -m` means, by one name.
pub fn machine(uname: &str) -> &str {
    MACHINES.iter().find(|(_, names)| names.contains(&uname)).map_or(uname, |(_, names)| names[0])
}

impl Program {
    /// Reads it from a file.
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

/// The machine's number, and whether the program names an interpreter, which loads its libraries.
fn header(bytes: &[u8]) -> Result<(u16, bool), &'static str> {
    const INTERP: u32 = 3;
    const SHORT: &str = "is cut off";
    if bytes.get(..4) != Some(b"\x7fELF") {
        return Err("does not begin as one");
    }
    let (wide, big) = match (bytes.get(4), bytes.get(5)) {
        (Some(class @ 1..=2), Some(data @ 1..=2)) => (*class == 2, *data == 2),
        _ => return Err("is of an unknown class"),
    };
    let number = |at: usize, length: usize| -> Option<u64> {
        let field = bytes.get(at..at.checked_add(length)?)?;
        let push = |value: u64, byte: &u8| value << 8 | u64::from(*byte);
        Some(if big { field.iter().fold(0, push) } else { field.iter().rev().fold(0, push) })
    };
    if !matches!(number(16, 2), Some(2 | 3)) {
        return Err("cannot be executed");
    }
    let machine = number(18, 2).ok_or(SHORT)? as u16;
    let (at, size, count) = if wide { (32, 54, 56) } else { (28, 42, 44) };
    let start = number(at, if wide { 8 } else { 4 }).ok_or(SHORT)?;
    let (size, count) = (number(size, 2).ok_or(SHORT)?, number(count, 2).ok_or(SHORT)?);
    let mut dynamic = false;
    for n in 0..count {
        let at = start.checked_add(n * size).and_then(|at| usize::try_from(at).ok()).ok_or(SHORT)?;
        dynamic |= number(at, 4).ok_or(SHORT)? == u64::from(INTERP);
    }
    Ok((machine, dynamic))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A program's beginning, as a linker writes it, with one program header of that type.
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
    fn the_header_says_which_machine_and_whether_it_is_static() {
        assert_eq!(read(elf(62, true, false, 1)), Ok("x86_64"));
        assert_eq!(read(elf(183, true, false, 2)), Ok("aarch64"));
        assert_eq!(read(elf(40, false, false, 1)), Ok("armv7l"));
        assert_eq!(read(elf(22, true, true, 1)), Ok("s390x"));
        assert!(read(elf(62, true, false, 3)).unwrap_err().contains("dynamically linked"));
        assert!(read(elf(40, false, false, 3)).unwrap_err().contains("dynamically linked"));
        assert!(read(elf(7, true, false, 1)).unwrap_err().contains("not known here (ELF machine 7)"));
        assert!(read(b"#!/bin/sh\n".to_vec()).unwrap_err().contains("does not begin as one"));
        assert!(read(Vec::new()).is_err());
        let mut other = elf(62, true, false, 1);
        other.truncate(120);
        assert!(read(other).unwrap_err().contains("is not groundplan-agent"));
    }

    #[test]
    fn no_header_is_too_short_or_too_odd_to_be_refused() {
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
