//! The plugins of a tree, with the descriptions beside them.
//!
//! In: a tree's files in `plugins/`. Out: descriptions, from `plugins/<name>.schema.json`, and a diagnostic for each program that has none.
//! Loading a site runs nothing of it. Only [`printed`], which an operator asks for by `groundplan plugin schema`, runs a program, so that
//! nothing of an unmerged branch runs where it is checked, planned or reviewed.

mod run;
mod schema;

use std::{collections::HashMap, io, sync::Arc};

use groundplan_core::{
    SourceTree,
    source::{Entry, EntryKind},
};
use groundplan_inventory::{Diagnostic, Location};
use groundplan_services::{
    Description, Plugins,
    plugin::{self, FOLDER, InvalidDescription, SCHEMA},
};

use self::run::RunError;

/// The request that plugins get on standard input.
const REQUEST: &[u8] = b"{\"version\":1,\"request\":\"schema\"}\n";

/// How many descriptions are cached beyond those of the last tree.
const KNOWN: usize = 256;

/// The longest description, in bytes.
const LONGEST: usize = 1 << 20;

/// Descriptions by the version of their file, which is the object id of its content or, in a directory, its inode and time stamp.
pub(crate) type Cache = HashMap<Arc<str>, Arc<Description>>;

/// Why a program has not printed a description.
#[derive(Debug)]
pub(crate) enum Unusable {
    Run(RunError),
    Description(InvalidDescription),
}

/// The descriptions of the plugins of `tree`. Adds a diagnostic to `faults` for each program without one. Afterwards the cache has those of
/// this tree and some of earlier ones: after a refused commit, the active one is loaded again.
pub(crate) fn describe(tree: &dyn SourceTree, cache: &mut Cache, faults: &mut Vec<Diagnostic>) -> Plugins {
    let mut plugins = Plugins::default();
    let mut kept = Cache::new();
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
                refuse(fault(&entry.path, message).hint(hint));
                continue;
            }
        };
        if !entry.executable {
            refuse(fault(&entry.path, "is not executable").hint(format!(
                "commit it with its mode: chmod +x {0} && git update-index --chmod=+x {0}; or move it elsewhere if it is not a plugin",
                entry.path
            )));
            continue;
        }
        let path = format!("{}{SCHEMA}", entry.path);
        let Some(described) = tree.entry(&path).filter(|described| described.kind == EntryKind::File) else {
            refuse(fault(&entry.path, format!("has no `{path}` beside it, which describes its kind")).hint(format!(
                "read the program, because this runs it with your rights, then: groundplan plugin schema {name}; and commit the file that it writes"
            )));
            continue;
        };
        if let Some(known) = cache.get(&described.version) {
            kept.insert(described.version.clone(), known.clone());
            plugins.known.insert(name, known.clone());
            continue;
        }
        let read = match tree.read(&path) {
            Ok(text) if text.len() > LONGEST => Err(format!("cannot be used: it has more than {} MiB", LONGEST >> 20)),
            Ok(text) => Description::read(&text, &schema::compile).map_err(|error| format!("cannot be used: {error}")),
            Err(error) => Err(format!("cannot be read: {}", error.cause)),
        };
        match read {
            Ok(description) => {
                let description = Arc::new(description);
                kept.insert(described.version.clone(), description.clone());
                plugins.known.insert(name, description);
            }
            Err(message) => refuse(
                Diagnostic::new(Location::file(path), format!("the description of the plugin `{name}` {message}"))
                    .hint(format!("docs/plugins.md says what is in it; `groundplan plugin schema {name}` writes it")),
            ),
        }
    }
    // Descriptions that change often would otherwise let the cache grow without bound.
    if cache.len() + kept.len() > KNOWN {
        cache.clear();
    }
    cache.extend(kept);
    plugins
}

/// The files directly in the folder of plugins, with their names. Subfolders are ignored, and so is what describes the programs.
fn programs(tree: &dyn SourceTree) -> impl Iterator<Item = (&Entry, &str)> {
    let files = tree.entries().iter().filter(|entry| entry.kind == EntryKind::File);
    files.filter_map(|entry| {
        let file = entry.path.strip_prefix(FOLDER)?.strip_prefix('/')?;
        (!file.contains('/') && !file.ends_with(SCHEMA)).then_some((entry, file))
    })
}

fn fault(path: &str, message: impl AsRef<str>) -> Diagnostic {
    Diagnostic::new(Location::file(path), format!("the plugin {}", message.as_ref()))
}

/// Runs a program, with the rights of this process, and returns the description that it prints, as a file has it.
///
/// # Errors
/// It does not print one.
pub(crate) fn printed(program: &[u8]) -> Result<String, Unusable> {
    let printed = run::run(program, REQUEST).map_err(Unusable::Run)?;
    Description::read(&printed, &schema::compile).map_err(Unusable::Description)?;
    // The description was read from it: it is JSON.
    let value: serde_json::Value = serde_json::from_slice(&printed).unwrap_or_default();
    Ok(format!("{value:#}\n"))
}

impl Unusable {
    /// What is wrong with the program at `path`, and the next step.
    pub(crate) fn explained(&self, path: &str, program: &[u8]) -> (String, String) {
        let by_hand =
            format!("try it: echo '{}' | GROUNDPLAN_REQUEST=schema {path}", String::from_utf8_lossy(REQUEST).trim());
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
                (format!("the plugin {error}: {cause}"), hint)
            }
            Self::Run(error) => (format!("the plugin {error}"), by_hand),
            Self::Description(error) => (
                format!("what the plugin printed when it was asked for its schema cannot be used: {error}"),
                format!("docs/plugins.md describes what it must print; {by_hand}"),
            ),
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

    const GOOD: &str = "{ \"summary\": \"x\", \"schema\": {} }";

    fn described(tree: &MemoryTree) -> (Vec<String>, Vec<String>) {
        let mut faults = Vec::new();
        let plugins = describe(tree, &mut Cache::new(), &mut faults);
        faults.sort();
        let texts =
            faults.iter().map(|f| format!("{}: {} ({})", f.at.file, f.message, f.hint.as_deref().unwrap_or("")));
        (plugins.known.keys().map(ToString::to_string).collect(), texts.collect())
    }

    #[test]
    fn plugins_are_the_programs_of_the_folder_that_are_described() {
        let mut tree = MemoryTree::default();
        for (path, text) in [("plugins/good", "x"), ("plugins/deep/er", "x"), ("services/s/x", "x")] {
            tree.write_program(path, text);
        }
        tree.write("plugins/README.md", "words");
        tree.write("plugins/good.schema.json", GOOD);
        tree.write("plugins/nothing.schema.json", "beside no program");
        assert_eq!(described(&tree), (vec!["good".to_owned()], vec![]));
        tree.write("plugins/forgotten", "x");
        for path in ["plugins/named.sh", "plugins/file", "plugins/undescribed"] {
            tree.write_program(path, "x");
        }
        let (known, faults) = described(&tree);
        assert_eq!(known, ["good"]);
        let expected = [
            "plugins/file: the plugin `file` is the name of a kind that is built in",
            "plugins/forgotten: the plugin is not executable (commit it with its mode: chmod +x plugins/forgotten",
            "plugins/named.sh: the plugin `named.sh` is not a valid name of a kind (rename it",
            "plugins/undescribed: the plugin has no `plugins/undescribed.schema.json` beside it, which describes its kind (read the program, because this runs it with your rights, then: groundplan plugin schema undescribed",
        ];
        assert_eq!(faults.len(), expected.len(), "{faults:#?}");
        for (found, expected) in faults.iter().zip(expected) {
            assert!(found.starts_with(expected), "{found}");
        }
    }

    #[test]
    fn a_description_that_is_none_is_named() {
        for (text, expected) in [
            ("hello", "the description of the plugin `p` cannot be used: it is no JSON, but `hello` (docs/plugins.md"),
            ("{}", "cannot be used: it is no description: missing field `summary`"),
            ("{ \"summary\": \"x\", \"schema\": { \"type\": 7 } }", "its schema is not a JSON schema: `type`"),
        ] {
            let mut tree = MemoryTree::default();
            tree.write_program("plugins/p", "x");
            tree.write("plugins/p.schema.json", text);
            let (known, faults) = described(&tree);
            assert!(known.is_empty() && faults.len() == 1 && faults[0].contains(expected), "{text}: {faults:#?}");
            assert!(faults[0].starts_with("plugins/p.schema.json: "), "{faults:#?}");
        }
    }

    #[test]
    fn nothing_of_a_tree_runs() {
        let marks = tempfile::tempdir().unwrap();
        let mark = marks.path().join("mark");
        let mut tree = MemoryTree::default();
        tree.write_program("plugins/p", format!("#!/bin/sh\ntouch {}\necho '{GOOD}'\n", mark.display()));
        described(&tree);
        tree.write("plugins/p.schema.json", GOOD);
        assert_eq!(described(&tree), (vec!["p".to_owned()], vec![]));
        assert!(!mark.exists());
        let text = printed(&tree.read("plugins/p").unwrap()).unwrap();
        let json = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        assert_eq!(json(&text), json(GOOD));
        assert!(text.contains("\n  \"summary\": \"x\"") && text.ends_with("}\n"), "{text}");
        assert!(mark.exists());
    }

    #[test]
    fn a_program_that_prints_no_description_is_explained() {
        for (program, expected) in [
            (
                "#!/bin/sh\necho words >&2; exit 2",
                "the plugin exited with 2: words (try it: echo '{\"version\":1,\"request\":\"schema\"}' | GROUNDPLAN_REQUEST=schema plugins/p)",
            ),
            (
                "#!/bin/sh\necho hello",
                "asked for its schema cannot be used: it is no JSON, but `hello` (docs/plugins.md describes what it must print",
            ),
            (
                "#!/nowhere/python\n",
                "(its first line names `/nowhere/python`, which this machine does not have: install it)",
            ),
            ("echo hello\n", "(begin it with a line such as `#!/bin/sh`, or build it for this machine)"),
            (
                "#!/bin/sh\necho '{ \"summary\": \"x\", \"schema\": { \"type\": 7 } }'",
                "its schema is not a JSON schema: `type`",
            ),
        ] {
            let (message, hint) = printed(program.as_bytes()).unwrap_err().explained("plugins/p", program.as_bytes());
            let found = format!("{message} ({hint})");
            assert!(found.contains(expected), "{program}: {found}");
        }
    }
}
