//! The plugins of a tree, with the descriptions that they print.
//!
//! In: a tree's files in `plugins/`. Out: descriptions, and a diagnostic for each unusable program. A program is run once for each of its
//! versions; failures are not cached, because they may be temporary. Loading a site runs its plugins with the rights of the process that
//! loads it.

mod run;
mod schema;

use std::{
    collections::HashMap,
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use groundplan_core::{
    SourceTree,
    source::{Entry, EntryKind},
};
use groundplan_inventory::{Diagnostic, Location};
use groundplan_protocol::ids::TaskName;
use groundplan_services::{
    Description, Plugins,
    plugin::{self, FOLDER, InvalidDescription},
};

use self::run::RunError;

/// The request that plugins get on standard input.
const REQUEST: &[u8] = b"{\"version\":1,\"request\":\"schema\"}\n";

/// How many descriptions are cached beyond those of the last tree.
const KNOWN: usize = 256;

/// How many plugins run at a time.
const PARALLEL: usize = 4;

/// Descriptions by the version of the program, which is the object id of its content or, in a directory, its inode and time stamp.
pub(crate) type Cache = HashMap<Arc<str>, Arc<Description>>;

/// Why a plugin has no description.
enum Unusable {
    Run(RunError),
    Description(InvalidDescription),
}

/// A plugin whose description is not cached.
struct Unknown<'t> {
    entry: &'t Entry,
    name: TaskName,
    program: Arc<[u8]>,
}

/// The descriptions of the plugins of `tree`: from `cache`, or by running them. Adds a diagnostic to `faults` for each unusable one.
/// Afterwards the cache has those of this tree and some of earlier ones: after a refused commit, the active one is loaded again.
pub(crate) fn describe(tree: &dyn SourceTree, cache: &mut Cache, faults: &mut Vec<Diagnostic>) -> Plugins {
    let mut plugins = Plugins::default();
    // By version, which identifies the content: an unchanged program is not run again, whatever its name.
    let mut kept = Cache::new();
    let mut unknown = Vec::new();
    for (entry, file) in programs(tree) {
        let mut refuse = |fault: Diagnostic| {
            plugins.faulty.insert(file.to_owned());
            faults.push(fault);
        };
        let name = match plugin::name(file) {
            Ok(name) => name,
            // Not meant as a plugin, such as a README.md.
            Err(_) if !entry.executable && file.contains(['.', '~']) => continue,
            Err((message, hint)) => {
                refuse(fault(entry, message).hint(hint));
                continue;
            }
        };
        if !entry.executable {
            refuse(fault(entry, "is not executable").hint(format!(
                "commit it with its mode: chmod +x {0} && git update-index --chmod=+x {0}; or move it elsewhere if it is not a plugin",
                entry.path
            )));
            continue;
        }
        if let Some(known) = cache.get(&entry.version) {
            kept.insert(entry.version.clone(), known.clone());
            plugins.known.insert(name, known.clone());
            continue;
        }
        match tree.read(&entry.path) {
            Ok(program) => unknown.push(Unknown { entry, name, program }),
            Err(error) => refuse(fault(entry, format!("cannot be read: {}", error.cause))),
        }
    }
    for (Unknown { entry, name, program }, answer) in run_all(unknown) {
        match answer {
            Ok(description) => {
                kept.insert(entry.version.clone(), description.clone());
                plugins.known.insert(name, description);
            }
            Err(unusable) => {
                plugins.faulty.insert(name.as_str().to_owned());
                faults.push(unusable.diagnostic(entry, &program));
            }
        }
    }
    // Programs that change often would otherwise let the cache grow without bound.
    if cache.len() + kept.len() > KNOWN {
        cache.clear();
    }
    cache.extend(kept);
    plugins
}

/// The files directly in the folder of plugins, with their names. Subfolders are ignored.
fn programs(tree: &dyn SourceTree) -> impl Iterator<Item = (&Entry, &str)> {
    let files = tree.entries().iter().filter(|entry| entry.kind == EntryKind::File);
    files.filter_map(|entry| {
        let file = entry.path.strip_prefix(FOLDER)?.strip_prefix('/')?;
        (!file.contains('/')).then_some((entry, file))
    })
}

/// The result of running one plugin.
type Answer = Result<Arc<Description>, Unusable>;

/// Runs the plugins, some in parallel, and returns the results in their order.
fn run_all(unknown: Vec<Unknown<'_>>) -> Vec<(Unknown<'_>, Answer)> {
    let answers: Vec<Mutex<Option<Answer>>> = unknown.iter().map(|_| Mutex::default()).collect();
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        // Each thread takes the next plugin and writes only to its slot, so that a slow one delays no other.
        for _ in 0..unknown.len().min(PARALLEL) {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(plugin) = unknown.get(at) else { break };
                    let printed = run::run(&plugin.program, REQUEST).map_err(Unusable::Run);
                    let read =
                        |printed: Vec<u8>| Description::read(&printed, &schema::compile).map_err(Unusable::Description);
                    *answers[at].lock().unwrap_or_else(PoisonError::into_inner) =
                        Some(printed.and_then(read).map(Arc::new));
                }
            });
        }
    });
    let answers = answers.into_iter().filter_map(|answer| answer.into_inner().unwrap_or_else(PoisonError::into_inner));
    unknown.into_iter().zip(answers).collect()
}

fn fault(entry: &Entry, message: impl AsRef<str>) -> Diagnostic {
    Diagnostic::new(Location::file(entry.path.clone()), format!("the plugin {}", message.as_ref()))
}

impl Unusable {
    /// The diagnostic for the program, with the next step.
    fn diagnostic(&self, entry: &Entry, program: &[u8]) -> Diagnostic {
        let by_hand = format!("try it: echo '{}' | {}", String::from_utf8_lossy(REQUEST).trim(), entry.path);
        match self {
            Self::Run(error @ (RunError::Start(cause) | RunError::Scratch(cause) | RunError::Monitor(cause))) => {
                let hint = match (cause.kind(), interpreter(program)) {
                    (io::ErrorKind::NotFound, Some(interpreter)) => {
                        format!("its first line names `{interpreter}`, which this machine does not have: install it")
                    }
                    (io::ErrorKind::PermissionDenied, _) => {
                        "programs cannot run from the directory for temporary files (mounted noexec?): set TMPDIR to another one".to_owned()
                    }
                    _ if cause.raw_os_error() == Some(nix::errno::Errno::ENOEXEC as i32) => {
                        "begin it with a line such as `#!/bin/sh`, or build it for this machine".to_owned()
                    }
                    _ => by_hand,
                };
                fault(entry, format!("{error}: {cause}")).hint(hint)
            }
            Self::Run(error) => fault(entry, error.to_string()).hint(by_hand),
            Self::Description(error) => fault(entry, format!("cannot be used: {error}"))
                .hint(format!("docs/plugins.md describes what it must print; {by_hand}")),
        }
    }
}

/// The interpreter that the first line of a script names.
fn interpreter(program: &[u8]) -> Option<String> {
    let line = program.strip_prefix(b"#!")?.split(|b| *b == b'\n').next()?;
    let line = String::from_utf8_lossy(&line[..line.len().min(200)]).into_owned();
    line.split_whitespace().next().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use groundplan_core::source::MemoryTree;

    use super::*;

    const GOOD: &str = "#!/bin/sh\necho '{ \"summary\": \"x\", \"schema\": {} }'\n";

    fn described(tree: &MemoryTree) -> (Vec<String>, Vec<String>) {
        let mut faults = Vec::new();
        let plugins = describe(tree, &mut Cache::new(), &mut faults);
        faults.sort();
        let texts =
            faults.iter().map(|f| format!("{}: {} ({})", f.at.file, f.message, f.hint.as_deref().unwrap_or("")));
        (plugins.known.keys().map(ToString::to_string).collect(), texts.collect())
    }

    #[test]
    fn plugins_are_the_programs_of_the_folder() {
        let mut tree = MemoryTree::default();
        for (path, text) in [("plugins/good", GOOD), ("plugins/deep/er", "x"), ("services/s/x", "x")] {
            tree.write_program(path, text);
        }
        tree.write("plugins/README.md", "words");
        assert_eq!(described(&tree), (vec!["good".to_owned()], vec![]));
        tree.write("plugins/forgotten", GOOD);
        tree.write_program("plugins/named.sh", GOOD);
        tree.write_program("plugins/file", GOOD);
        let (known, faults) = described(&tree);
        assert_eq!(known, ["good"]);
        assert_eq!(faults.len(), 3, "{faults:#?}");
        assert!(
            faults[0].starts_with("plugins/file: the plugin `file` is the name of a kind that is built in"),
            "{faults:#?}"
        );
        assert!(
            faults[1].contains(
                "forgotten: the plugin is not executable (commit it with its mode: chmod +x plugins/forgotten"
            ),
            "{faults:#?}"
        );
        assert!(
            faults[2].contains("named.sh: the plugin `named.sh` is not a valid name of a kind (rename it"),
            "{faults:#?}"
        );
    }

    #[test]
    fn an_unusable_plugin_has_a_diagnostic_with_the_next_step() {
        for (program, expected) in [
            (
                "#!/bin/sh\necho words >&2; exit 2",
                "the plugin exited with 2: words (try it: echo '{\"version\":1,\"request\":\"schema\"}' | plugins/p)",
            ),
            (
                "#!/bin/sh\necho hello",
                "the plugin cannot be used: it printed no JSON when it was asked for its schema, but `hello` (docs/plugins.md describes what it must print",
            ),
            (
                "#!/nowhere/python\n",
                "(its first line names `/nowhere/python`, which this machine does not have: install it)",
            ),
            ("echo hello\n", "(begin it with a line such as `#!/bin/sh`, or build it for this machine)"),
            (
                "#!/bin/sh\necho '{ \"summary\": \"x\", \"schema\": { \"type\": 7 } }'",
                "the plugin cannot be used: its schema is not a JSON schema: `type`",
            ),
        ] {
            let mut tree = MemoryTree::default();
            tree.write_program("plugins/p", program);
            let (known, faults) = described(&tree);
            assert!(known.is_empty() && faults.len() == 1 && faults[0].contains(expected), "{program}: {faults:#?}");
        }
    }

    #[test]
    fn an_unchanged_plugin_is_not_run_again() {
        let marks = tempfile::tempdir().unwrap();
        let marks = marks.path().join("marks");
        let program = format!("#!/bin/sh\necho run >> {}\n{}", marks.display(), GOOD.replace("#!/bin/sh\n", ""));
        let mut tree = MemoryTree::default();
        tree.write_program("plugins/a", program.as_str());
        tree.write_program("plugins/b", program.as_str());
        let (mut cache, mut faults) = (Cache::new(), Vec::new());
        for _ in 0..3 {
            assert_eq!(describe(&tree, &mut cache, &mut faults).known.len(), 2);
        }
        let before = tree.clone();
        tree.write_program("plugins/b", format!("{program}# edited\n"));
        for tree in [&tree, &before, &tree] {
            assert_eq!(describe(tree, &mut cache, &mut faults).known.len(), 2);
        }
        assert_eq!(faults, []);
        assert_eq!(
            std::fs::read_to_string(marks).unwrap().lines().count(),
            3,
            "two at first, then the one that was edited"
        );
    }
}
