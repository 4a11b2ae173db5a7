//! The inputs of fuzzing that are committed, each run once: those of the corpora, and those that once failed.

use std::{
    collections::BTreeSet,
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
};

use groundplan_protocol::topic::TOPICS;
use groundplan_tests::fuzz::{TARGETS, folder, inputs, message, seeds};

/// Runs each input of a target; every one that fails is named.
fn replay(target: &str) {
    let (_, check) = TARGETS.iter().find(|(name, _)| *name == target).expect("a target");
    let inputs = inputs(target).expect("a corpus");
    assert!(!inputs.is_empty(), "tests/fuzz/corpus/{target} is empty");
    let failed: Vec<_> = inputs
        .iter()
        .filter(|input| {
            let bytes = fs::read(input).expect("an input");
            catch_unwind(AssertUnwindSafe(|| check(&bytes))).is_err()
        })
        .collect();
    assert!(failed.is_empty(), "{target}: {failed:#?}");
}

macro_rules! replayed {
    ($($target:ident)*) => {
        const REPLAYED: &[&str] = &[$(stringify!($target)),*];

        $(#[test]
        fn $target() {
            replay(stringify!($target));
        })*
    };
}

replayed! { api archive broker envelope git message plugin selector site template }

#[test]
fn every_target_has_its_program_its_corpus_and_its_test() {
    let targets: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(REPLAYED.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>(), targets);
    for part in ["fuzz_targets", "corpus"] {
        let names = fs::read_dir(folder().join(part)).expect("a folder").map(|entry| entry.expect("an entry").path());
        let names = names.map(|path| path.file_stem().expect("a name").to_string_lossy().into_owned());
        assert_eq!(names.collect::<BTreeSet<_>>(), targets, "{part}");
    }
}

#[test]
fn every_type_of_message_is_fed() {
    let of_topics: BTreeSet<&str> =
        TOPICS.iter().flat_map(|topic| topic.messages).map(|message| message.name).collect();
    assert_eq!(message::TYPES.iter().copied().collect::<BTreeSet<_>>(), of_topics);
}

/// `UPDATE=1` writes them.
#[test]
fn the_first_inputs_are_as_they_are_made() {
    for (target, name, bytes) in seeds::all() {
        let path = folder().join("corpus").join(target).join(name);
        if std::env::var_os("UPDATE").is_some() {
            fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            fs::write(&path, &bytes).expect("an input is written");
        }
        let found =
            fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}; run this with UPDATE=1", path.display()));
        assert!(found == bytes, "{} is not as seeds.rs makes it; run this with UPDATE=1", path.display());
    }
}
