//! What is wrong with a template, and where in it.
//!
//! In: minijinja's errors, which name a template, a range and a cause. Out: [`Fault`]s with our own messages, each with a range as narrow
//! as possible and, for a name that is not defined, the nearest one that is.

use std::{error::Error as _, fmt, ops::Range};

use minijinja::{Error, ErrorKind};

use super::{
    context::{Field, GIVEN, ON_NODE, RenderContext},
    facts::VAR_FAULT,
    known::{FACTS, parts},
    origin::REPORTED,
    quote::LINE_FAULT,
    reported::Misplaced,
};
use crate::nearest::did_you_mean;
use groundplan_inventory::{DeclaredIn, foreign};

/// A fault in a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    /// The name of the template: a parameter or a file.
    pub(crate) template: String,
    /// Where in it, in bytes.
    pub(crate) range: Range<usize>,
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
    /// The undefined name, if that is what is wrong.
    pub(crate) undefined: Option<String>,
    /// Where the name that it reports as missing may be declared.
    pub(crate) missing_from: Vec<DeclaredIn>,
    /// Whether it is a fault whatever values nodes report: no missing value was read before it.
    pub(crate) sure: bool,
    /// Whether it is a fault of its own even after undefined names were defined as nothing: these have every attribute, so none of them
    /// causes it.
    pub(crate) certain: bool,
    /// The limit that it exceeds, by the engine's error. Such a fault is not looked for on every node: each search takes as long.
    pub(crate) exceeds: Option<ErrorKind>,
}

/// The parts of a template's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Named<'a> {
    /// A file below a service's folder.
    File { folder: &'a str, path: &'a str },
    /// A string parameter.
    Param { folder: &'a str, param: &'a str },
}

impl<'a> Named<'a> {
    /// Splits a name into its parts.
    pub(crate) fn of(name: &'a str) -> Self {
        let (folder, rest) = name.split_once('\0').unwrap_or(("", name));
        match rest.strip_prefix('\0') {
            Some(param) => Self::Param { folder, param },
            None => Self::File { folder, path: rest },
        }
    }
}

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { folder, path } => write!(f, "{folder}\0{path}"),
            Self::Param { folder, param } => write!(f, "{folder}\0\0{param}"),
        }
    }
}

impl Fault {
    /// The fault behind an error of the template `name`, or of one that it includes.
    pub(crate) fn of(error: &Error, name: &str, text: &str, place: Option<&RenderContext>) -> Self {
        // The innermost error is the fault itself; the outer ones only name the templates that include it.
        let mut error = error;
        while let Some(cause) = error.source().and_then(|e| e.downcast_ref::<Error>()) {
            error = cause;
        }
        let template = error.name().unwrap_or(name).to_owned();
        let text = error.template_source().unwrap_or(text);
        let range = error.range().or_else(|| line(text, error.line()?)).unwrap_or(0..0);
        // The engine's range may end behind the text.
        let range = range.start.min(text.len())..range.end.min(text.len());
        let (message, hint, undefined) = (String::new(), None, None);
        let (missing_from, exceeds) = (Vec::new(), None);
        let mut fault =
            Self { template, range, message, hint, undefined, missing_from, sure: true, certain: false, exceeds };
        match error.kind() {
            _ if error.detail().and_then(expression).is_some() => fault.undefined(error, text, place),
            ErrorKind::UndefinedError => fault.undefined(error, text, place),
            ErrorKind::TemplateNotFound => fault.not_found(text),
            kind @ (ErrorKind::OutOfFuel | ErrorKind::WriteFailure) => fault.exceeds = Some(kind),
            // With the name of the var, which has the fault, instead of the kind of error.
            _ if error.detail().is_some_and(|detail| detail.starts_with(VAR_FAULT)) => {
                fault.message = error.detail().unwrap_or_default().to_owned();
            }
            _ if error.detail().is_some_and(|detail| detail.starts_with(LINE_FAULT)) => {
                fault.message = error.detail().unwrap_or_default().to_owned();
                fault.hint =
                    Some("print each of `… | lines` by itself, or encode it, with `tojson` for example".to_owned());
            }
            kind => fault.other(kind, error.detail(), text),
        }
        fault
    }

    /// A template that exceeds a limit, with message and hint.
    pub(crate) fn exceeding(name: &str, range: Range<usize>, (message, hint): (String, String)) -> Self {
        let (template, hint) = (name.to_owned(), Some(hint));
        let exceeds = Some(ErrorKind::WriteFailure);
        let missing_from = Vec::new();
        Self { template, range, message, hint, undefined: None, missing_from, sure: true, certain: true, exceeds }
    }

    /// A reported value that must not stand where it does.
    pub(super) fn misplaced(name: &str, range: Range<usize>, why: Misplaced) -> Self {
        let (message, hint) = match why {
            Misplaced::Unquoted => (
                "what nodes report stands unquoted in a shell line, which runs whatever a node puts there",
                "write `{{ … | quote }}`, or give a list of arguments instead of a line",
            ),
            Misplaced::WithinQuotes => (
                "what nodes report stands within quotes, backquotes, a comment or a here-document of a shell line, where `quote` does not hold",
                "let `{{ … | quote }}` stand by itself, or give a list of arguments instead of a line",
            ),
            Misplaced::Unchecked => (
                "what nodes report cannot be checked for line breaks here",
                "keep the block with `{% set x %}…{% endset %}`, and print `{{ x | … }}`",
            ),
        };
        let (template, message, hint) = (name.to_owned(), message.to_owned(), Some(hint.to_owned()));
        let missing_from = Vec::new();
        Self { template, range, message, hint, undefined: None, missing_from, sure: true, certain: true, exceeds: None }
    }

    /// A template that nests too deeply.
    pub(crate) fn too_deep(name: &str, range: Range<usize>) -> Self {
        let hint = "split it with `{% set %}`, or compare with a list: `x in [\"a\", \"b\"]`".to_owned();
        Self::exceeding(
            name,
            range,
            ("this nests too deeply: too many operators depend on each other".to_owned(), hint),
        )
    }

    fn undefined(&mut self, error: &Error, text: &str, place: Option<&RenderContext>) {
        let shown = text.get(self.range.clone()).unwrap_or_default();
        let expression = error.detail().and_then(expression).unwrap_or(shown).to_owned();
        // The range may be that of the filter or operator that got the undefined value; the expression then stands before it.
        let within = shown.find(&expression).map(|at| self.range.start + at);
        if let Some(at) = within.or_else(|| text.get(..self.range.end)?.rfind(&expression)) {
            self.range = at..at + expression.len();
        }
        self.message = format!("`{expression}` is undefined");
        self.certain = true;
        let Some(place) = place else { return };
        let root = root(&expression);
        if ON_NODE.contains(&root) {
            self.message =
                format!("`{root}` is known only on the node, where this version does not render templates yet");
            self.hint = Some("use vars, `node`, `groups`, `external`, `facts` and `exports`".to_owned());
            self.undefined = Some(root.to_owned());
        } else if !place.defines(root) && is_name(root) {
            self.message = format!("undefined variable `{root}`");
            let elsewhere = || "set it in the vars of the service, the site, a group or the node".to_owned();
            let foreign = foreign::name(root).map(str::to_owned);
            self.hint = Some(foreign.or_else(|| did_you_mean(root, place.names())).unwrap_or_else(elsewhere));
            self.undefined = Some(root.to_owned());
            self.missing_from = vec![DeclaredIn::Site, DeclaredIn::Inventory, self.service_file()];
        } else if GIVEN.contains(&root) {
            if REPORTED.contains(&root) {
                self.undefined = Some(root.to_owned());
            }
            self.given(root, expression[root.len()..].trim_start(), place);
        }
    }

    /// The file of the service that the template belongs to.
    fn service_file(&self) -> DeclaredIn {
        let (Named::File { folder, .. } | Named::Param { folder, .. }) = Named::of(&self.template);
        DeclaredIn::File(format!("{folder}/service.toml").into())
    }

    /// Message and hint for an error that is not about an undefined name.
    fn other(&mut self, kind: ErrorKind, detail: Option<&str>, text: &str) {
        self.message = detail.map_or(kind.to_string(), |detail| in_words(kind, detail));
        let named = |detail: &str| foreign::call(callee(detail)).map(str::to_owned);
        self.hint = match kind {
            ErrorKind::UnknownFilter | ErrorKind::UnknownTest | ErrorKind::UnknownFunction => detail.and_then(named),
            ErrorKind::SyntaxError => {
                let detail = detail.unwrap_or_default();
                match unclosed(text, &self.range, detail) {
                    // Where it begins: the engine names the end of the text, which says nothing of the cause.
                    Some((range, hint)) => {
                        self.range = range;
                        Some(hint)
                    }
                    None => foreign_syntax(text, &self.range),
                }
            }
            _ => None,
        };
    }

    /// Message and hint for an attribute that one of the given names does not have.
    fn given(&mut self, root: &str, rest: &str, place: &RenderContext) {
        let Some(key) = key(rest) else { return };
        let site = &place.site;
        match root {
            "node" if key == Field::Address.name() => {
                self.hint = Some("give the node an `address`".to_owned());
                self.missing_from = vec![DeclaredIn::Inventory];
            }
            "node" => {
                let names = Field::ALL.map(|(name, _)| name);
                let known = || format!("a node has {}", groundplan_inventory::hint::list(&names));
                self.hint = Some(did_you_mean(key, names).unwrap_or_else(known));
            }
            "groups" if !site.groups.contains_key(key) => {
                self.message = format!("there is no group `{key}`");
                self.hint = did_you_mean(key, site.groups.keys().map(|name| &**name));
                self.missing_from = vec![DeclaredIn::Inventory];
            }
            "external" if !site.externals.contains_key(key) => {
                self.message = format!("there is no external capability `{key}`");
                self.hint = did_you_mean(key, site.externals.keys().map(|name| &**name));
                self.missing_from = vec![DeclaredIn::Site];
            }
            "facts" => self.fact(key, rest),
            "exports" => self.export(key, rest, place),
            _ => {}
        }
    }

    /// Hint for a fact that does not exist, or that this host does not report.
    fn fact(&mut self, name: &str, rest: &str) {
        let part = parts(name).and_then(|parts| Some((parts, key(after_key(rest, name)?)?)));
        let near = match part {
            Some((parts, part)) if !parts.is_empty() && !parts.contains(&part) => {
                did_you_mean(part, parts.iter().copied())
            }
            _ if !FACTS.contains(&name) => did_you_mean(name, FACTS),
            _ => {
                let hint = "not every host reports it: test it with `is defined`, or give it a `default('…')`";
                return self.hint = Some(hint.to_owned());
            }
        };
        let known = || format!("facts are {}", groundplan_inventory::hint::list(&FACTS));
        self.hint = Some(near.unwrap_or_else(known));
    }

    /// Message and hint for an export that does not exist.
    fn export(&mut self, service: &str, rest: &str, place: &RenderContext) {
        let exports = place.known.exports();
        self.missing_from = vec![DeclaredIn::Services, DeclaredIn::Inventory];
        let Some(tasks) = exports.get(service) else {
            self.message = format!("no task of a service `{service}` exports anything");
            let none = || "a task of the kind `export` publishes a value".to_owned();
            return self.hint = Some(did_you_mean(service, exports.keys().map(String::as_str)).unwrap_or_else(none));
        };
        let Some(task) = after_key(rest, service).and_then(key) else { return };
        match tasks.get(task) {
            None => {
                self.message = format!("service `{service}` has no export `{task}`");
                self.hint = did_you_mean(task, tasks.keys().map(String::as_str));
            }
            Some(exported) => {
                let nodes: Vec<_> = exported.nodes().collect();
                self.hint = Some(match nodes.as_slice() {
                    [] => format!("`{}` runs on no node", exported.task),
                    nodes => format!("`{}` runs on {}", exported.task, groundplan_inventory::hint::list(nodes)),
                });
            }
        }
    }

    /// Message and hint for an included template that does not exist.
    fn not_found(&mut self, text: &str) {
        let statement = text.get(self.range.clone()).unwrap_or_default();
        let name = statement.split(['"', '\'']).nth(1).map(|name| format!(" `{name}`")).unwrap_or_default();
        self.message = format!("there is no template{name} in the service's folder");
        self.hint = Some("name a file by its path below that folder".to_owned());
    }
}

fn in_words(kind: ErrorKind, detail: &str) -> String {
    let thing = |what: &str| format!("there is no {what} `{}`", callee(detail));
    match kind {
        ErrorKind::SyntaxError => format!("syntax error in a template: {detail}"),
        ErrorKind::UnknownFilter => thing("filter"),
        ErrorKind::UnknownTest => thing("test"),
        ErrorKind::UnknownFunction => thing("function"),
        kind => format!("{kind}: {detail}"),
    }
}

/// The name of the filter, test or function that does not exist.
fn callee(detail: &str) -> &str {
    let rest = detail.trim_start_matches("filter ").trim_start_matches("test ");
    rest.split(' ').next().unwrap_or_default()
}

/// The hint for text of another language that looks like a template.
fn foreign_syntax(text: &str, range: &Range<usize>) -> Option<String> {
    let opened = text.get(..range.start)?.rfind("{{")? + 2;
    let inner = &text[opened..];
    let inner = inner[..inner.find("}}").unwrap_or(inner.len())].trim_matches(['-', ' ']);
    let word = root(inner);
    // A field of a value that has no name, or a word that begins a statement of Go's templates.
    if inner.starts_with('.') || ["template", "define", "block", "with", "if", "range", "else", "end"].contains(&word) {
        let field = groundplan_inventory::hint::excerpt(inner);
        return Some(format!("for another program to read, write {{% raw %}}{{{{{field}}}}}{{% endraw %}}"));
    }
    None
}

/// What is begun and does not end, with the hint; `range` and `detail` are what the engine reports of it.
fn unclosed(text: &str, range: &Range<usize>, detail: &str) -> Option<(Range<usize>, String)> {
    if detail.contains("end of comment") {
        let start = text.rfind("{#").filter(|start| !text[*start..].contains("#}"))?;
        let hint = "`{#` begins a comment that ends with `#}`; for the shell's ${#…} write {% raw %}${#…}{% endraw %}";
        return Some((start..start + 2, hint.to_owned()));
    }
    if let Some(word) = detail.strip_prefix("unknown statement end") {
        // The engine stops at the first end that is not the one it waits for.
        let before = text.get(..range.start)?;
        let (open, statement) = opened(before).pop()?;
        let line = text[..open.start].matches('\n').count() + 1;
        let hint = format!(
            "`{{% {statement} … %}}` in line {line} is still open: is `{{% end{statement} %}}` missing before this?"
        );
        return (statement != word).then(|| (range.clone(), hint));
    }
    if !detail.contains("unexpected end of input") {
        return None;
    }
    for (opens, closes) in [("{{", "}}"), ("{%", "%}")] {
        if let Some(start) = text.rfind(opens).filter(|start| !text[*start..].contains(closes)) {
            return Some((start..start + 2, format!("is a `{closes}` missing?")));
        }
    }
    let (range, word) = opened(text).pop()?;
    Some((range, format!("is `{{% end{word} %}}` missing?")))
}

/// The statements of a text that have not ended, each with its range and its word.
fn opened(text: &str) -> Vec<(Range<usize>, &str)> {
    let mut open: Vec<(Range<usize>, &str)> = Vec::new();
    for (start, _) in text.match_indices("{%") {
        let statement = &text[start..];
        let statement = &statement[..statement.find("%}").map_or(statement.len(), |end| end + 2)];
        let word = root(statement[2..].trim_start_matches(['-', '+', ' ']));
        if word.starts_with("end") {
            open.pop();
        } else if ["if", "for", "filter", "macro", "block", "with", "call", "autoescape"].contains(&word)
            || word == "set" && !statement.contains('=')
        {
            open.push((start..start + statement.len(), word));
        }
    }
    open
}

/// The expression in "`expression` is undefined".
fn expression(detail: &str) -> Option<&str> {
    let before = &detail[..detail.find("` is undefined")?];
    Some(&before[before.rfind('`')? + 1..]).filter(|e| !e.contains("(...)"))
}

fn is_name(text: &str) -> bool {
    let start = |c: char| c.is_alphabetic() || c == '_';
    text.starts_with(start) && text.chars().all(|c| start(c) || c.is_numeric())
}

/// The name that an expression begins with.
fn root(expression: &str) -> &str {
    let end = expression.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(expression.len());
    &expression[..end]
}

/// The first key in `.key…` or `["key"]…`.
fn key(rest: &str) -> Option<&str> {
    match rest.strip_prefix('.') {
        Some(rest) => Some(root(rest)),
        None => rest.strip_prefix('[')?.trim_start().strip_prefix(['"', '\''])?.split(['"', '\'']).next(),
    }
    .filter(|key| !key.is_empty())
}

/// What follows the key `name` that an expression's rest begins with.
fn after_key<'r>(rest: &'r str, name: &str) -> Option<&'r str> {
    let after = &rest[rest.find(name)? + name.len()..];
    Some(after.trim_start_matches(['"', '\'', ' ']).trim_start_matches(']'))
}

/// The range of line `n`, counted from 1, without its ending.
fn line(text: &str, n: usize) -> Option<Range<usize>> {
    let mut start = 0;
    for (i, line) in text.split_inclusive('\n').enumerate() {
        if i + 1 == n {
            return Some(start..start + line.trim_end().len());
        }
        start += line.len();
    }
    None
}
