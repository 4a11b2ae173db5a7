//! The modules of one crate, as its sources declare them: items, imports and the paths that are used.
//!
//! In: the file of the crate's root. Out: every module with what it defines and refers to, inline ones included. What is compiled for tests
//! only is left out. Not understood: `#[path]`, and items that a macro defines; a path to one of those counts as defined in the module that it names.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use super::lexer::{Token, tokens};

/// Number of a module in [`Crate::modules`].
pub(super) type Id = usize;

/// A crate's modules; the first is the root.
pub(super) struct Crate {
    pub(super) modules: Vec<Module>,
}

/// What one module defines and refers to.
#[derive(Default)]
pub(super) struct Module {
    pub(super) file: PathBuf,
    pub(super) parent: Option<Id>,
    pub(super) children: BTreeMap<String, Id>,
    pub(super) items: BTreeSet<String>,
    pub(super) imports: Vec<Import>,
    /// Paths of at least two segments outside of imports.
    pub(super) paths: BTreeSet<Vec<String>>,
    /// Types, called functions, and first segments of paths, outside of imports.
    pub(super) words: BTreeSet<String>,
    /// Folder in which the files of its child modules lie.
    folder: PathBuf,
}

/// One name, or all of a module's names, brought in by `use`.
#[derive(Debug, Clone)]
pub(super) struct Import {
    pub(super) path: Vec<String>,
    /// Name that it gets here; none for `*`.
    pub(super) name: Option<String>,
    /// Whether it is passed on to other modules.
    pub(super) public: bool,
}

impl Crate {
    /// Reads the crate whose root is `root`: a `lib.rs` or `main.rs`.
    ///
    /// # Panics
    /// If a file of a module cannot be read.
    pub(super) fn read(root: &Path) -> Self {
        let mut read = Self { modules: Vec::new() };
        let folder = root.parent().expect("a file lies in a folder").to_owned();
        read.file(root, folder, None);
        read
    }

    fn file(&mut self, file: &Path, folder: PathBuf, parent: Option<Id>) -> Id {
        let text = fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        self.module(&tokens(&text), file, folder, parent)
    }

    fn module(&mut self, body: &[Token], file: &Path, folder: PathBuf, parent: Option<Id>) -> Id {
        let id = self.modules.len();
        self.modules.push(Module { file: file.to_owned(), parent, folder, ..Module::default() });
        self.scan(id, body, true);
        id
    }

    /// Collects what `body` of a module holds. `top` is false within items, whose own items are theirs alone.
    fn scan(&mut self, id: Id, body: &[Token], top: bool) {
        let mut at = 0;
        let mut public = false;
        while let Some(token) = body.get(at) {
            match token {
                Token::Punctuation('#') if matches!(body.get(at + 1), Some(Token::Open('['))) => {
                    let end = end_of_group(body, at + 1);
                    // Attributes may hold paths too, such as `#[serde(with = …)]`'s, but those are in literals.
                    at = if is_for_tests(&body[at..end]) { end_of_item(body, end) } else { end };
                }
                Token::Word(word) if word == "pub" => {
                    public = true;
                    at += 1;
                    // `pub(in crate::a)` names a module and uses nothing of it.
                    if matches!(body.get(at), Some(Token::Open('(')))
                        && body.get(at + 1).is_some_and(|t| ["crate", "super", "self", "in"].iter().any(|w| t.is(w)))
                    {
                        at = end_of_group(body, at);
                    }
                }
                // `use<'a>` bounds a captured lifetime.
                Token::Word(word) if word == "use" && !matches!(body.get(at + 1), Some(Token::Punctuation('<'))) => {
                    let end = end_at(body, at, ';');
                    use_tree(&body[at + 1..end], &mut Vec::new(), public && top, &mut self.modules[id].imports);
                    public = false;
                    at = end;
                }
                Token::Word(word) if top && word == "mod" => {
                    at = self.child(id, body, at + 1);
                    public = false;
                }
                Token::Word(word) => {
                    if top && let Some(name) = defined(body, at) {
                        self.modules[id].items.insert(name.to_owned());
                    }
                    let before = |n: usize| at.checked_sub(n).and_then(|place| body.get(place));
                    let dot = Some(&Token::Punctuation('.'));
                    // `.word` is a field or method, but `..word` the end of a range; `::word` goes on from what is no plain path, or
                    // begins at another crate.
                    let starts = before(1) != Some(&Token::Path) && (before(1) != dot || before(2) == dot);
                    let is_declared = before(1).is_some_and(|token| token.is("fn"));
                    let mut path = vec![word.clone()];
                    at += 1;
                    while let (Some(Token::Path), Some(Token::Word(next))) = (body.get(at), body.get(at + 1)) {
                        path.push(next.clone());
                        at += 2;
                    }
                    // A local variable or field may have a function's name: functions count where they are called.
                    let is_type = path[0].starts_with(char::is_uppercase);
                    let is_called = body.get(at) == Some(&Token::Open('(')) && !is_declared;
                    if starts && (path.len() > 1 || is_type || is_called) {
                        self.modules[id].words.insert(path[0].clone());
                    }
                    if starts && path.len() > 1 {
                        self.modules[id].paths.insert(path);
                    }
                }
                Token::Open(_) => {
                    let end = end_of_group(body, at);
                    self.scan(id, &body[at + 1..end - 1], false);
                    public = false;
                    at = end;
                }
                _ => {
                    public = public && !matches!(token, Token::Punctuation(';' | ','));
                    at += 1;
                }
            }
        }
    }

    /// Reads the child module whose name stands at `at`; returns where its declaration ends.
    fn child(&mut self, parent: Id, body: &[Token], at: usize) -> usize {
        let Some(Token::Word(name)) = body.get(at) else { return at };
        let folder = self.modules[parent].folder.join(name);
        let (child, end) = if let Some(Token::Open('{')) = body.get(at + 1) {
            let end = end_of_group(body, at + 1);
            let file = self.modules[parent].file.clone();
            (self.module(&body[at + 2..end - 1], &file, folder, Some(parent)), end)
        } else {
            let beside = folder.with_extension("rs");
            let file = if beside.exists() { beside } else { folder.join("mod.rs") };
            (self.file(&file, folder, Some(parent)), at + 1)
        };
        self.modules[parent].children.insert(name.clone(), child);
        end
    }
}

/// Whether an attribute makes what follows a part of tests only.
fn is_for_tests(attribute: &[Token]) -> bool {
    let cfg = attribute.iter().any(|token| token.is("cfg"));
    let test = attribute.iter().any(|token| token.is("test"));
    let only = !attribute.iter().any(|token| token.is("not") || token.is("any"));
    // `#[test]` and `#[cfg(test)]`, also in `all(…)`.
    test && only && (cfg || attribute.len() == 4)
}

/// The name of the item whose keyword stands at `at`.
fn defined(body: &[Token], at: usize) -> Option<&str> {
    let keyword = ["fn", "struct", "enum", "union", "trait", "type", "const", "static"];
    let mut name = at + 1;
    if body[at].is("macro_rules") {
        // `macro_rules! name`.
        name += 1;
    } else if !keyword.iter().any(|word| body[at].is(word)) {
        return None;
    }
    match body.get(name)? {
        // `const fn` and `static mut` are followed by another keyword or name.
        Token::Word(word) if !["fn", "unsafe", "async", "extern", "mut", "_"].contains(&word.as_str()) => Some(word),
        _ => None,
    }
}

/// Reads a tree of `use` below `prefix`.
fn use_tree(tree: &[Token], prefix: &mut Vec<String>, public: bool, imports: &mut Vec<Import>) {
    let length = prefix.len();
    let mut at = 0;
    let mut name = None;
    while let Some(token) = tree.get(at) {
        match token {
            Token::Word(word) if word == "as" => {
                if let Some(Token::Word(new)) = tree.get(at + 1) {
                    name = Some(new.clone());
                }
                at += 1;
            }
            Token::Word(word) => prefix.push(word.clone()),
            Token::Punctuation('*') => {
                imports.push(Import { path: prefix.clone(), name: None, public });
                prefix.truncate(length);
                return;
            }
            Token::Open('{') => {
                let end = end_of_group(tree, at);
                for branch in split(&tree[at + 1..end - 1]) {
                    use_tree(branch, prefix, public, imports);
                }
                prefix.truncate(length);
                return;
            }
            _ => {}
        }
        at += 1;
    }
    // `{self}` brings in the module itself.
    if length > 0 && prefix.last().is_some_and(|last| last == "self") {
        prefix.pop();
    }
    if let Some(last) = prefix.last() {
        imports.push(Import { name: Some(name.unwrap_or_else(|| last.clone())), path: prefix.clone(), public });
    }
    prefix.truncate(length);
}

/// The branches between the commas of a group's inside.
fn split(inside: &[Token]) -> Vec<&[Token]> {
    let mut branches = Vec::new();
    let mut rest = inside;
    while !rest.is_empty() {
        let end = end_at(rest, 0, ',');
        branches.push(&rest[..end.min(rest.len())]);
        rest = &rest[(end + 1).min(rest.len())..];
    }
    branches
}

/// Where the first such character outside of groups stands, from `at` on, or the end.
fn end_at(body: &[Token], mut at: usize, end: char) -> usize {
    while let Some(token) = body.get(at) {
        match token {
            Token::Open(_) => at = end_of_group(body, at),
            Token::Punctuation(c) if *c == end => return at,
            _ => at += 1,
        }
    }
    at
}

/// The place after the group that opens at `at`.
fn end_of_group(body: &[Token], at: usize) -> usize {
    let mut depth = 0;
    for (place, token) in body.iter().enumerate().skip(at) {
        match token {
            Token::Open(_) => depth += 1,
            Token::Close(_) => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return place + 1;
        }
    }
    body.len()
}

/// The place after the item, field, variant or statement that begins at `at`, with further attributes of its own.
fn end_of_item(body: &[Token], mut at: usize) -> usize {
    while let (Some(Token::Punctuation('#')), Some(Token::Open('['))) = (body.get(at), body.get(at + 1)) {
        at = end_of_group(body, at + 1);
    }
    let mut kinds = body[at.min(body.len())..].iter().filter(|token| !token.is("pub"));
    let first = kinds.next();
    let second = kinds.next();
    let is = |token: Option<&Token>, words: &[&str]| token.is_some_and(|t| words.iter().any(|word| t.is(word)));
    // These end with a semicolon alone; a `const fn` does not.
    if is(first, &["use", "static", "type", "let"]) || is(first, &["const"]) && !is(second, &["fn", "unsafe", "async"])
    {
        return end_at(body, at, ';') + 1;
    }
    let item = is(
        first,
        &["fn", "struct", "enum", "union", "trait", "impl", "mod", "const", "async", "unsafe", "extern", "macro_rules"],
    );
    while let Some(token) = body.get(at) {
        match token {
            Token::Open('{') => return end_of_group(body, at),
            Token::Open(_) => at = end_of_group(body, at),
            Token::Punctuation(';') => return at + 1,
            // A field, variant or arm; an item's commas stand between its generic parameters.
            Token::Punctuation(',') if !item => return at + 1,
            _ => at += 1,
        }
    }
    at
}
