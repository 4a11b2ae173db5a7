//! A small file system of its own, which a test can fill: what a program on it writes then fails as on a full disk.

use std::{fs, io::Write as _, path::PathBuf, process::Command};

/// It is mounted until it is dropped. It needs root, as real hosts do: [`needs_hosts`](crate::needs_hosts) comes first.
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Mounts one at a folder, which is made, of so many MiB.
    ///
    /// # Panics
    /// If it cannot be mounted.
    pub fn mount(path: PathBuf, mib: u32) -> Self {
        fs::create_dir_all(&path).expect("a folder");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={mib}m,mode=700"), "tmpfs"]).arg(&path);
        assert!(mount.status().expect("mount is installed").success(), "{mount:?}");
        Self(path)
    }

    /// Writes until nothing more fits.
    pub fn fill(&self) {
        let mut filler = fs::File::create(self.filler()).expect("a file");
        while filler.write_all(&[0; 4096]).is_ok() {}
    }

    /// Makes room again.
    pub fn empty(&self) {
        fs::remove_file(self.filler()).expect("a full disk");
    }

    fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}
