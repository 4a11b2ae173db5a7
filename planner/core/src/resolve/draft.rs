//! A task's parameters and probes before rendering: which of their strings are templates, and where each stands.
//!
//! In: a declared task. Out: the templates by name, and parameters again once each is rendered. Strings without a template are left
//! alone, so that most tasks cost nothing here.

use std::{collections::BTreeMap, ops::Range, sync::Arc};

use groundplan_inventory::Location;
use groundplan_protocol::{digest::Digest, kinds::TaskParams};
use groundplan_services::Task;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{
    desired::Input,
    render::{Named, Sink, Sinks, is_template, short},
};

/// A value with templates in it.
#[derive(Debug)]
pub(crate) struct Draft {
    json: Value,
    /// The strings that are templates.
    pub(crate) strings: Vec<Templated>,
}

/// A string that is a template.
#[derive(Debug)]
pub(crate) struct Templated {
    /// JSON pointer (RFC 6901) to it.
    pointer: String,
    /// Its name among the templates.
    pub(crate) name: String,
    pub(crate) text: Arc<str>,
    /// Where it goes.
    sink: Sink,
}

impl Draft {
    /// Finds the templates of a value. `root` is the prefix of the names of its strings, such as `ready.`; `depth` is how many keys on
    /// top, such as the kind's, are left out of them.
    pub(crate) fn of(value: &impl Serialize, folder: &str, root: &str, depth: usize) -> Self {
        let json = serde_json::to_value(value).unwrap_or_default();
        let mut strings = Vec::new();
        walk(&json, &mut String::new(), root, depth, &mut |pointer, param, text| {
            if is_template(text) {
                let name = Named::Param { folder, param }.to_string();
                let sink = if depth > 1 {
                    Sink::Line
                } else {
                    sink(&json, pointer, param.strip_prefix(root).unwrap_or(param))
                };
                strings.push(Templated { pointer: pointer.to_owned(), name, text: text.into(), sink });
            }
        });
        Self { json, strings }
    }

    /// Whether the parameter of that name contains a template.
    pub(crate) fn renders(&self, param: &str) -> bool {
        self.strings.iter().any(|string| match Named::of(&string.name) {
            Named::Param { param: name, .. } => name.split(['.', '[']).next() == Some(param),
            Named::File { .. } => false,
        })
    }

    /// The value with what its templates rendered to, in their order.
    pub(crate) fn filled<T: DeserializeOwned>(&self, rendered: Vec<String>) -> Result<T, serde_json::Error> {
        let mut json = self.json.clone();
        for (string, text) in self.strings.iter().zip(rendered) {
            if let Some(place) = json.pointer_mut(&string.pointer) {
                *place = Value::String(text);
            }
        }
        serde_json::from_value(json)
    }
}

/// How many keys stand above the parameters of a task as they are on the wire.
pub(crate) fn depth(params: &TaskParams) -> usize {
    match params {
        TaskParams::Plugin(_) => 2,
        _ => 1,
    }
}

/// Parameters of tasks and probes that are a shell line, or a program with its arguments.
const RUN: [&str; 6] = ["run", "unless", "only_if", "command", "health", "validate.command"];

/// Programs that run the argument after `-c` as a shell line.
const SHELLS: [&str; 6] = ["sh", "bash", "dash", "ash", "ksh", "zsh"];

/// Where a string at this place goes, in parameters other than a plugin's.
fn sink(json: &Value, pointer: &str, param: &str) -> Sink {
    if RUN.contains(&param) {
        return Sink::Shell;
    }
    // The environment of a program that the agent starts itself; others are written into a file.
    let kind = pointer.split('/').nth(1).unwrap_or_default();
    if param.starts_with("env.") && ["command", "process"].contains(&kind) {
        return Sink::Argument;
    }
    let Some((list, index)) = param.strip_suffix(']').and_then(|param| param.rsplit_once('[')) else {
        return Sink::Line;
    };
    let (Ok(index), true) = (index.parse::<usize>(), RUN.contains(&list)) else { return Sink::Line };
    let args = pointer.rsplit_once('/').and_then(|(list, _)| json.pointer(list)?.as_array());
    let before: Vec<_> = args.into_iter().flatten().take(index).filter_map(Value::as_str).collect();
    let is_shell = |arg: &&str| arg.rsplit('/').next().is_some_and(|name| SHELLS.contains(&name));
    let is_flag = |arg: &str| arg.starts_with('-') && !arg.starts_with("--") && arg.contains('c');
    match before.iter().position(is_shell).map(|shell| &before[shell + 1..]) {
        // `sh -c`, `sudo bash -ec`: what follows the first such flag; what comes after that are its arguments.
        Some(after) if after.iter().position(|arg| is_flag(arg)).is_some_and(|flag| flag + 1 == after.len()) => {
            Sink::Shell
        }
        _ => Sink::Argument,
    }
}

/// Calls `with` for each string: its pointer, its name such as `env.PORT` or `run[2]`, and itself.
fn walk(json: &Value, pointer: &mut String, param: &str, depth: usize, with: &mut impl FnMut(&str, &str, &str)) {
    let length = pointer.len();
    match json {
        Value::String(text) => with(pointer, param, text),
        Value::Array(items) => {
            for (i, item) in items.iter().enumerate() {
                pointer.push_str(&format!("/{i}"));
                walk(item, pointer, &format!("{param}[{i}]"), depth, with);
                pointer.truncate(length);
            }
        }
        Value::Object(fields) => {
            for (key, item) in fields {
                pointer.push('/');
                pointer.push_str(&key.replace('~', "~0").replace('/', "~1"));
                match depth.checked_sub(1) {
                    Some(depth) => walk(item, pointer, param, depth, with),
                    None if param.is_empty() || param.ends_with('.') => {
                        walk(item, pointer, &format!("{param}{key}"), 0, with)
                    }
                    None => walk(item, pointer, &format!("{param}.{key}"), 0, with),
                }
                pointer.truncate(length);
            }
        }
        _ => {}
    }
}

/// The parameters themselves as inputs: those that decide the result, as they are written, with templates unrendered.
pub(crate) fn parameters(task: &Task) -> Vec<Input> {
    let mut params = task.params.clone();
    params.drop_incidental();
    let mut inputs = vec![input("kind".to_owned(), &Value::from(params.kind()), task.at.clone())];
    let is_plugin = matches!(params, TaskParams::Plugin(_));
    for (key, value) in &params.given() {
        match value {
            // The content of the file is the input, not its name.
            _ if key == "source" && !is_plugin => {}
            Value::Object(fields) => {
                for (field, value) in fields {
                    let name = format!("{key}.{field}");
                    let at = place(task, &name);
                    inputs.push(input(format!("param {name}"), value, at));
                }
            }
            value => inputs.push(input(format!("param {key}"), value, place(task, key))),
        }
    }
    inputs
}

fn input(name: String, value: &Value, at: Location) -> Input {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    Input { name, digest: Digest::of(&serde_json::to_vec(value).unwrap_or_default()).short(), value: short(text), at }
}

/// Where a parameter stands: itself, the first part of it that is known, or the task.
pub(crate) fn place(task: &Task, param: &str) -> Location {
    let part = |name: &str| name.strip_prefix(param).is_some_and(|rest| rest.starts_with(['.', '[']));
    let whole = |name: &str| param.strip_prefix(name).is_some_and(|rest| rest.starts_with(['.', '[']));
    let places = &task.places;
    let exact = places.get(param).or_else(|| places.iter().find(|(name, _)| part(name)).map(|(_, at)| at));
    exact.or_else(|| places.iter().find(|(name, _)| whole(name)).map(|(_, at)| at)).unwrap_or(&task.at).clone()
}

/// Where a range of a string's value stands in the TOML text that it was written in; the whole string if that cannot be determined.
pub(crate) fn locate(toml: &str, at: &Location, value: &str, range: &Range<usize>) -> Location {
    let within = || {
        let (raw, sought) = (toml.get(at.span())?, value.get(range.clone())?);
        let quotes = ["\"\"\"\r\n", "\"\"\"\n", "\"\"\"", "'''\r\n", "'''\n", "'''", "\"", "'"];
        let begin = quotes.iter().find(|q| raw.starts_with(**q)).map_or(0, |q| q.len()) + range.start;
        // Without escapes before it, it stands at its offset. With them it is found by a search, if it has none itself.
        let straight = raw.get(begin..).is_some_and(|rest| rest.starts_with(sought)).then_some(begin);
        let start = at.start + straight.or_else(|| raw.find(sought))?;
        (!sought.is_empty()).then(|| Location::new(at.file.clone(), start..start + sought.len()))
    };
    within().unwrap_or_else(|| at.clone())
}

/// Where templates go, by name.
pub(crate) fn sinks<'d>(drafts: impl IntoIterator<Item = &'d Draft>) -> Sinks {
    drafts.into_iter().flat_map(|draft| &draft.strings).map(|s| (s.name.clone(), s.sink)).collect()
}

/// Templates by name, for compilation.
pub(crate) fn texts<'d>(drafts: impl IntoIterator<Item = &'d Draft>) -> BTreeMap<String, Arc<str>> {
    drafts.into_iter().flat_map(|draft| &draft.strings).map(|s| (s.name.clone(), s.text.clone())).collect()
}
