//! No file imports another in a circle: to understand one file of it, one has to read all\.

mod graph;
mod lexer;
mod modules;

use std::{fs, path::PathBuf};

use groundplan_tests::binaries;
use serde_json::Value;

use super::workspace;

/// The roots of our libraries and programs. Tests may refer to each other as they like.
fn roots() -> Vec<PathBuf> {
    let output = binaries::cargo()
        .args(["metadata", "--format-version", "1", "--locked", "--no-deps"])
        .output()
        .expect("cargo metadata runs");
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let packages = metadata["packages"].as_array().expect("packages").iter();
    packages
        .flat_map(|package| package["targets"].as_array().expect("targets"))
        .filter(|target| target["kind"].as_array().expect("kinds").iter().any(|kind| kind == "lib" || kind == "bin"))
        .map(|target| target["src_path"].as_str().expect("a path").into())
        .collect()
}

#[test]
fn files_import_each_other_in_no_circle() {
    let roots = roots();
    assert!(!roots.is_empty());
    let circles: Vec<_> = roots.iter().flat_map(|root| graph::circles(root, &workspace())).collect();
    assert!(circles.is_empty(), "{} circles:\n{}", circles.len(), circles.join("\n"));
}

/// The circles of a crate with these files.
fn circles_of(files: &[(&str, &str)]) -> Vec<String> {
    let folder = tempfile::tempdir().expect("a scratch directory");
    for (name, text) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        fs::write(path, text).expect("a file");
    }
    graph::circles(&folder.path().join("lib.rs"), folder.path()).into_iter().collect()
}

#[test]
fn a_circle_is_found() {
    let found = circles_of(&[
        ("lib.rs", "mod a; mod b; pub use a::A;"),
        // The path leads through `b`, which passes `C` on, to `b/c.rs`.
        ("a.rs", "use crate::b::C; pub struct A(C);"),
        ("b/mod.rs", "mod c; pub(crate) use c::C;"),
        ("b/c.rs", "use crate::b::d; mod x { pub struct D; } pub struct C; fn f() -> Option<super::super::A> { None }"),
        ("b/d.rs", ""),
    ]);
    assert_eq!(found, ["a.rs → b/c.rs (C) → a.rs (A)"]);
}

#[test]
fn a_parent_and_its_child_are_a_circle_if_each_uses_the_other() {
    let child = ("a/child.rs", "use super::*; pub fn child() -> Parent { Parent }");
    let uses = circles_of(&[
        ("lib.rs", "mod a;"),
        ("a/mod.rs", "mod child; pub struct Parent; fn f() { child::child(); }"),
        child,
    ]);
    assert_eq!(uses, ["a/child.rs → a/mod.rs (Parent) → a/child.rs (child)"]);
    let passes_on =
        circles_of(&[("lib.rs", "mod a;"), ("a/mod.rs", "mod child; pub use child::child; pub struct Parent;"), child]);
    assert_eq!(passes_on, [] as [&str; 0]);
}

#[test]
fn longer_circles_and_inline_paths_are_found() {
    let found = circles_of(&[
        ("lib.rs", "mod a; mod b; mod c;"),
        ("a.rs", "pub struct A; fn f() { assert!(crate::b::g::<u8>().is_none()); }"),
        ("b.rs", "use crate::{c as other}; pub fn g<T>() -> Option<T> { other::Kind::New.into() }"),
        ("c.rs", "pub enum Kind { New } impl From<Kind> for Option<super::a::A> {}"),
    ]);
    assert_eq!(found, ["a.rs → b.rs (g) → c.rs (Kind) → a.rs (A)"]);
}

#[test]
fn tests_comments_and_texts_make_no_circle() {
    let found = circles_of(&[
        ("lib.rs", "mod a; mod b;"),
        ("a.rs", "//! [`crate::b::B`]\nuse crate::b::B; pub struct A(B); pub fn a() {}"),
        (
            "b.rs",
            "pub struct B; /// See [`crate::a::A`].\nfn f(a: u8) { g(\"crate::a::A\", a) } \
             #[cfg(test)] use crate::a::A; #[cfg(test)] fn h() { crate::a::a() } \
             #[cfg(test)] mod tests { use super::super::a::A; } #[cfg(test)] mod more;",
        ),
    ]);
    assert_eq!(found, [] as [&str; 0]);
}
