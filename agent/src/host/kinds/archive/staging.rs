//! An archive read into a staging directory: each file under a number, so that no name of the archive is a path there.
//!
//! In: an open archive. Out: its members, checked, and their content in the directory, with owner and mode. A refused or damaged
//! member ends the reading; the directory is removed when the value is dropped. Nothing outside of it is touched.

use std::{
    cell::Cell,
    collections::BTreeMap,
    ffi::OsStr,
    fs::File,
    io::{self, Read, Write},
    os::fd::OwnedFd,
    path::PathBuf,
    process::{Child, ChildStdout, Command, Stdio},
    rc::Rc,
};

use flate2::read::{DeflateDecoder, MultiGzDecoder};
use groundplan_protocol::{digest::Hasher, kinds::ArchiveFormat};
use nix::{
    errno::Errno,
    fcntl::{AtFlags, OFlag, openat},
    sys::stat::{Mode, fchmod, fstat, mkdirat},
    unistd::{Gid, LinkatFlags, Uid, UnlinkatFlags, fchown, linkat, unlinkat},
};

use super::{
    error::ArchiveError,
    members::{Member, Members, Refused, What},
};
use crate::host::fs::paths::path_of;

/// Most bytes between one member of a tar and the next: long names and extended headers, which are read into memory.
const HEADERS: u64 = 1 << 20;

const DIRECTORY: OFlag = OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

/// The name of a link there; files have numbers.
pub(super) const LINK: &str = "link";

/// The directory in which unpacked files are kept until they are put in place.
#[derive(Debug)]
pub(super) struct Staging {
    pub(super) dir: OwnedFd,
    dest: OwnedFd,
    real: PathBuf,
    next: u32,
    owner: (Uid, Gid),
    members: Members,
}

impl Staging {
    /// Creates the directory at `name` in `dest`, after removing what a killed agent left there.
    pub(super) fn new(
        dest: &OwnedFd,
        real: PathBuf,
        name: &str,
        owner: (Uid, Gid),
        members: Members,
    ) -> Result<Self, ArchiveError> {
        let failed = |source: io::Error| ArchiveError::Stage { path: real.display().to_string(), source };
        match openat(dest, name, DIRECTORY, Mode::empty()) {
            Ok(left) => clear(&left, dest, name),
            Err(Errno::ENOENT) => Ok(()),
            Err(e) => Err(e.into()),
        }
        .map_err(failed)?;
        mkdirat(dest, name, Mode::from_bits_truncate(0o700)).map_err(|e| failed(e.into()))?;
        let dir = openat(dest, name, DIRECTORY, Mode::empty()).map_err(|e| failed(e.into()))?;
        // Whoever has `dest` may have put another directory at the name since.
        if fstat(&dir).map_err(|e| failed(e.into()))?.st_uid != Uid::effective().as_raw() {
            return Err(failed(io::Error::other("another user has put a directory in its place")));
        }
        let dest = dest.try_clone().map_err(failed)?;
        Ok(Self { dir, dest, real, next: 0, owner, members })
    }

    /// Reads the whole archive; `path` is the `PATH` in which decompression programs are found.
    pub(super) fn read(
        &mut self,
        mut archive: File,
        format: Option<ArchiveFormat>,
        path: &str,
    ) -> Result<(), ArchiveError> {
        let format = match format {
            Some(format) => format,
            None => sniff(&mut archive).map_err(ArchiveError::Read)?.ok_or(ArchiveError::Unknown)?,
        };
        let program = match format {
            ArchiveFormat::Tar => return self.tar(archive),
            ArchiveFormat::TarGz => return self.tar(MultiGzDecoder::new(io::BufReader::new(archive))),
            ArchiveFormat::Zip => return self.zip(archive),
            ArchiveFormat::TarXz => "xz",
            ArchiveFormat::TarZst => "zstd",
            ArchiveFormat::TarBz2 => "bzip2",
        };
        let mut unpacker = Unpacker::start(program, archive, path)?;
        self.tar(&mut unpacker)?;
        unpacker.finish()
    }

    /// The members; the staging directory stays until it is dropped.
    pub(super) fn members(&mut self) -> BTreeMap<String, Member> {
        let limits = super::members::Limits { size: 0, strip: 0, setuid: false };
        std::mem::replace(&mut self.members, Members::new(limits)).finish()
    }

    fn tar(&mut self, reader: impl Read) -> Result<(), ArchiveError> {
        let budget = Rc::new(Cell::new(0));
        let mut archive = tar::Archive::new(Budget { reader, left: budget.clone() });
        let mut entries = archive.entries().map_err(ArchiveError::Read)?;
        loop {
            // The library reads headers into memory, whatever size they claim.
            budget.set(HEADERS);
            let Some(entry) = entries.next() else { break };
            let mut entry = entry.map_err(ArchiveError::Read)?;
            let name = entry.path_bytes().into_owned();
            let Some(path) = self.members.path(&name)? else { continue };
            let kind = entry.header().entry_type();
            let mode = entry.header().mode().map_err(ArchiveError::Read)? & 0o7777;
            let target = entry.link_name_bytes().map(|target| target.into_owned()).unwrap_or_default();
            let size = entry.size();
            // The content, then the padding and the headers up to the next member.
            budget.set(size.saturating_add(HEADERS));
            if kind.is_dir() {
                self.members.add(path, mode, What::Directory)?;
            } else if kind.is_symlink() {
                self.link(path, target)?;
            } else if kind.is_hard_link() {
                self.hard_link(path, &target)?;
            } else if kind.is_file() || kind.is_contiguous() || kind.is_gnu_sparse() {
                // Old versions of tar mark a directory only by the slash.
                if name.ends_with(b"/") {
                    self.members.add(path, mode, What::Directory)?;
                } else {
                    self.members.allow(size)?;
                    self.file(path, mode, &mut entry)?;
                }
            } else {
                let what = "is a device, a pipe or something else that is not unpacked".to_owned();
                return Err(Refused::Member { name: path, what }.into());
            }
        }
        // Read up to the end, where a compressed stream has its checksum; a truncated archive fails only there.
        let mut rest = archive.into_inner();
        budget.set(HEADERS);
        io::copy(&mut rest, &mut io::sink()).map(drop).map_err(ArchiveError::Read)
    }

    fn zip(&mut self, archive: File) -> Result<(), ArchiveError> {
        // As much as one entry of the directory can have: name, extra field and comment have at most 64 KiB each.
        let mut buffer = vec![0; 4 * 64 * 1024];
        let broken = |e: rawzip::Error| ArchiveError::Read(io::Error::new(io::ErrorKind::InvalidData, e.to_string()));
        let archive = rawzip::ZipArchive::from_file(archive, &mut buffer).map_err(broken)?;
        let mut entries = archive.entries(&mut buffer);
        while let Some(entry) = entries.next_entry().map_err(broken)? {
            let name = entry.file_path().as_bytes().to_owned();
            let Some(path) = self.members.path(&name)? else { continue };
            let mode = entry.mode();
            let bits = mode.value() & 0o7777;
            let kind = mode.value() & 0o170_000;
            if entry.is_dir() {
                self.members.add(path, if bits == 0 { 0o755 } else { bits }, What::Directory)?;
                continue;
            }
            // The size is only a claim: it refuses honest archives early, `file` counts what is really read.
            self.members.allow(entry.uncompressed_size_hint())?;
            let method = entry.compression_method();
            let found = archive.get_entry(entry.wayfinder()).map_err(broken)?;
            let reader: Box<dyn Read + '_> = match method {
                rawzip::CompressionMethod::STORE => Box::new(found.reader()),
                rawzip::CompressionMethod::DEFLATE => Box::new(DeflateDecoder::new(found.reader())),
                other => {
                    let what = format!("is compressed by method {other}, which is not supported; use deflate");
                    return Err(Refused::Member { name: path, what }.into());
                }
            };
            let mut reader = found.verifying_reader(reader);
            match kind {
                0o120_000 => {
                    // In a zip archive, the content of a link is its target; one byte more than `link` accepts.
                    let mut target = Vec::new();
                    reader.take(4097).read_to_end(&mut target).map_err(ArchiveError::Read)?;
                    self.link(path, target)?;
                }
                0o100_000 | 0 => {
                    let bits = if bits == 0 { 0o644 } else { bits };
                    self.file(path, bits, &mut reader)?;
                }
                _ => {
                    let what = "is a device, a pipe or something else that is not unpacked".to_owned();
                    return Err(Refused::Member { name: path, what }.into());
                }
            }
        }
        Ok(())
    }

    fn link(&mut self, path: String, target: Vec<u8>) -> Result<(), ArchiveError> {
        let refused = |what: &str| Refused::Member { name: path.clone(), what: what.to_owned() };
        if target.len() > 4096 {
            return Err(refused("is a link to a path that is too long").into());
        }
        let target = String::from_utf8(target).map_err(|_| refused("is a link to a path that is not UTF-8"))?;
        Ok(self.members.add(path, 0o777, What::Link { target })?)
    }

    /// Adds a hard link: the same file under a second number.
    fn hard_link(&mut self, path: String, target: &[u8]) -> Result<(), ArchiveError> {
        let member = self.members.linked(&path, target)?;
        let What::File { staged, size, sha256 } = member.what else { return Ok(()) };
        let number = self.number();
        linkat(&self.dir, staged.to_string().as_str(), &self.dir, number.to_string().as_str(), LinkatFlags::empty())
            .map_err(|e| self.failed(e.into()))?;
        Ok(self.members.add(path, member.mode, What::File { staged: number, size, sha256 })?)
    }

    fn file(&mut self, path: String, mode: u32, reader: &mut impl Read) -> Result<(), ArchiveError> {
        let staged = self.number();
        let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let name = staged.to_string();
        let file = openat(&self.dir, name.as_str(), flags, Mode::from_bits_truncate(0o600));
        let mut file = File::from(file.map_err(|e| self.failed(e.into()))?);
        let (mut hasher, mut size, mut buffer) = (Hasher::new(), 0_u64, vec![0; 64 * 1024]);
        let most = self.members.left();
        loop {
            let n = match reader.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(ArchiveError::Member { name: path, source: e }),
            };
            size += n as u64;
            // The limit applies to the bytes that are read, not to the size in the header.
            if size > most {
                self.members.allow(size)?;
            }
            hasher.update(&buffer[..n]);
            file.write_all(&buffer[..n]).map_err(|e| self.failed(e))?;
        }
        self.members.add(path.clone(), mode, What::File { staged, size, sha256: hasher.finish() })?;
        // The mode comes last, because a change of owner clears set-user-id bits.
        let (uid, gid) = self.owner;
        fchown(&file, Some(uid), Some(gid)).map_err(|e| self.failed(e.into()))?;
        fchmod(&file, Mode::from_bits_truncate(mode & 0o6777)).map_err(|e| self.failed(e.into()))
    }

    fn number(&mut self) -> u32 {
        self.next += 1;
        self.next
    }

    fn failed(&self, source: io::Error) -> ArchiveError {
        ArchiveError::Stage { path: self.real.display().to_string(), source }
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // If it cannot be removed now, the next job of the task removes it.
        let name = self.real.file_name().unwrap_or_default();
        let _ = clear(&self.dir, &self.dest, name);
    }
}

/// Removes a staging directory with the files that one can have. In a directory of a user it may be another by now, whose content is theirs
/// or root's: that stays, and is an error.
fn clear<N: AsRef<OsStr> + ?Sized>(dir: &OwnedFd, dest: &OwnedFd, name: &N) -> io::Result<()> {
    for entry in std::fs::read_dir(path_of(dir))? {
        let entry = entry?.file_name();
        let is_ours = entry.to_str().is_some_and(|name| name == LINK || name.bytes().all(|b| b.is_ascii_digit()));
        if is_ours {
            unlinkat(dir, entry.as_os_str(), UnlinkatFlags::NoRemoveDir)?;
        }
    }
    Ok(unlinkat(dest, name.as_ref(), UnlinkatFlags::RemoveDir)?)
}

/// A reader that fails instead of giving more bytes than are allowed at the time.
struct Budget<R> {
    reader: R,
    left: Rc<Cell<u64>>,
}

impl<R: Read> Read for Budget<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.left.get()).unwrap_or(usize::MAX);
        if left == 0 && !buffer.is_empty() {
            // Nothing more is allowed: an error only if there is more at all.
            return match self.reader.read(&mut [0])? {
                0 => Ok(0),
                _ => Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "a header, or what comes after the end, is too large",
                )),
            };
        }
        let most = buffer.len().min(left);
        let n = self.reader.read(&mut buffer[..most])?;
        self.left.set(self.left.get() - n as u64);
        Ok(n)
    }
}

/// A program of the host that decompresses.
struct Unpacker {
    program: &'static str,
    child: Child,
    out: ChildStdout,
}

impl Unpacker {
    fn start(program: &'static str, archive: File, path: &str) -> Result<Self, ArchiveError> {
        let mut command = Command::new(program);
        command.arg("-dc").env_clear().env("PATH", path).stdin(archive).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => ArchiveError::NoProgram { program },
            _ => ArchiveError::Program { program, source },
        })?;
        let out = child.stdout.take();
        let out = out.ok_or_else(|| ArchiveError::Program { program, source: io::ErrorKind::BrokenPipe.into() })?;
        Ok(Self { program, child, out })
    }

    /// Checks that it ended successfully: its output alone does not show that the archive was complete.
    fn finish(mut self) -> Result<(), ArchiveError> {
        let program = self.program;
        let status = self.child.wait().map_err(|source| ArchiveError::Program { program, source })?;
        if status.success() { Ok(()) } else { Err(ArchiveError::Unpacked { program, status }) }
    }
}

impl Read for &mut Unpacker {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.out.read(buffer)
    }
}

impl Drop for Unpacker {
    fn drop(&mut self) {
        // It may have ended; otherwise its output is not needed any more.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The format of an archive, by its first bytes.
fn sniff(archive: &mut File) -> io::Result<Option<ArchiveFormat>> {
    use std::io::Seek;
    let mut head = Vec::new();
    (&*archive).take(512).read_to_end(&mut head)?;
    archive.rewind()?;
    let by_magic = [
        (&b"\x1f\x8b"[..], ArchiveFormat::TarGz),
        (b"\xfd7zXZ\0", ArchiveFormat::TarXz),
        (b"\x28\xb5\x2f\xfd", ArchiveFormat::TarZst),
        (b"BZh", ArchiveFormat::TarBz2),
        (b"PK\x03\x04", ArchiveFormat::Zip),
        (b"PK\x05\x06", ArchiveFormat::Zip),
    ];
    let found = by_magic.into_iter().find(|(magic, _)| head.starts_with(magic)).map(|(_, format)| format);
    let is_tar = head.get(257..262) == Some(b"ustar") || (head.len() == 512 && head.iter().all(|byte| *byte == 0));
    Ok(found.or(is_tar.then_some(ArchiveFormat::Tar)))
}

/// Creates a link in the staging directory, to be renamed to its place.
pub(super) fn symlink(staging: &Staging, target: &str, name: &str, owner: (Uid, Gid)) -> Result<(), Errno> {
    nix::unistd::symlinkat(target, &staging.dir, name)?;
    nix::unistd::fchownat(&staging.dir, name, Some(owner.0), Some(owner.1), AtFlags::AT_SYMLINK_NOFOLLOW)
}
