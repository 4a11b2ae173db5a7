//! The example's files, with this site's name and the hosts' addresses in them.

use std::{
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
};

use groundplan_tests::fleet::SITE;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/examples/keystone")
}

/// All files of the example, variants apart.
pub(super) fn example(addresses: &[(&str, Ipv4Addr)]) -> Vec<(String, String)> {
    let mut files = files_of(&folder(), addresses);
    files.retain(|(path, _)| !path.starts_with("variants/"));
    files
}

/// The files that a variant puts in place of the example's.
pub(super) fn variant(name: &str, addresses: &[(&str, Ipv4Addr)]) -> Vec<(String, String)> {
    files_of(&folder().join("variants").join(name), addresses)
}

/// The example's nodes, and nothing on them.
pub(super) fn bare(example: &[(String, String)]) -> Vec<(String, String)> {
    let groups =
        |text: &str| text.lines().filter(|line| !line.starts_with("services = ")).collect::<Vec<_>>().join("\n");
    let inventory = example.iter().filter(|(path, _)| path.starts_with("inventory/"));
    let inventory = inventory.map(|(path, text)| (path.clone(), groups(text)));
    inventory.chain([("site.toml".to_owned(), format!("name = {SITE:?}\n"))]).collect()
}

/// A committed file with one text in it replaced.
pub(super) fn edited(repository: &Path, file: &str, from: &str, to: &str) -> String {
    let text = fs::read_to_string(repository.join(file)).expect("a file of the site");
    assert_eq!(text.matches(from).count(), 1, "{from:?} in {file}");
    text.replace(from, to)
}

/// As the harness takes them.
pub(super) fn borrowed(files: &[(String, String)]) -> Vec<(&str, &str)> {
    files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect()
}

/// The machine that the figures are of.
pub(super) fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    let memory: u64 = read("/proc/meminfo").split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).unwrap_or(0);
    let load = read("/proc/loadavg").split(' ').next().unwrap_or_default().to_owned();
    let today = std::process::Command::new("date").args(["--utc", "+%F"]).output().expect("date runs").stdout;
    format!(
        "{}: all three hosts, the planner and the broker on one machine with {cpus} cores and {} GiB, load {load}.",
        String::from_utf8_lossy(&today).trim(),
        memory >> 20
    )
}

fn files_of(folder: &Path, addresses: &[(&str, Ipv4Addr)]) -> Vec<(String, String)> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(&next).expect("a folder of the example") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let name = path.strip_prefix(folder).expect("a path below it").to_str().expect("UTF-8").to_owned();
            files.push((name, ours(&fs::read_to_string(&path).expect("a text"), addresses)));
        }
    }
    files.sort();
    files
}

/// A text of the example with this site's name and addresses.
fn ours(text: &str, addresses: &[(&str, Ipv4Addr)]) -> String {
    // As in the example's inventory.
    let theirs = [("db-0", "10.77.0.11"), ("mq-0", "10.77.0.12"), ("id-0", "10.77.0.13")];
    let mut text = text.replace("name = \"keystone\"", &format!("name = {SITE:?}"));
    for (node, address) in theirs {
        let (_, ours) = addresses.iter().find(|(name, _)| *name == node).expect("a host for each node");
        text = text.replace(address, &ours.to_string());
    }
    text
}
