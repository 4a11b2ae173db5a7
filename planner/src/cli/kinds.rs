//! `groundplan kinds`: the kinds of tasks and their parameters, and the keys of all tasks, from the same JSON schema that editors use.

use std::{fmt::Write as _, process::ExitCode};

use clap::ValueEnum;
use groundplan_inventory::hint::nearest;
use groundplan_protocol::kinds::{About, KINDS, NAMES};
use serde_json::Value;

use crate::terminal::{Failure, Output};

/// List the kinds of tasks, or explain one with all its parameters.
///
/// These are the built-in kinds. A site can add kinds with programs in `plugins/`; a file beside each program describes its kind, and
/// `groundplan check` validates tasks against it.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  groundplan kinds\n  groundplan kinds package\n  groundplan kinds --keys\n  groundplan kinds --format markdown > docs/kinds.md"
)]
pub(super) struct Args {
    /// The kind to explain.
    #[arg(value_name = "KIND")]
    kind: Option<String>,

    /// Explain the keys that tasks of all kinds have, such as `requires` and `on_remove`, instead of kinds.
    #[arg(long, conflicts_with = "kind")]
    keys: bool,

    /// The output format; `markdown` explains all kinds on one page.
    #[arg(long, value_enum, default_value_t = KindsFormat::Text, value_name = "FORMAT")]
    format: KindsFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum KindsFormat {
    Text,
    Markdown,
}

/// A parameter as it is printed.
struct Param {
    name: String,
    /// Its type or its possible values.
    takes: String,
    required: bool,
    about: String,
    /// As it is written in a service file; empty if the schema has no example.
    example: String,
}

const INTRO: &str = "\
# Kinds of tasks

This page is printed by `groundplan kinds --format markdown`. A task has exactly one kind; every string may be a template.
An *effect* is what a trigger edge (`restart_on`, `reload_on`, `run_on`) may do to a task of that kind.
A site can add kinds with programs in `plugins/`: [plugins.md](plugins.md). The keys that tasks of all kinds have are on a page of
their own: [task-keys.md](task-keys.md).
";

const KEYS: &str = "\
# Keys of every task

This page is printed by `groundplan kinds --keys --format markdown`. A task has exactly one key that names its kind, with the parameters
of that kind: [kinds.md](kinds.md). Beside it, any task may have these. Only `id` is required.

";

const ABOUT_KEYS: &str = "
A reference, in `requires` and the other edges, is a task of the service on the same node (`config`), a task of a service on every node
that runs it (`database.server`), that task on one node (`database.server@db-0`), or a capability (`database/ready`): all instances of the
task that `provides` it. Without `requires`, a task comes after the one before it in the file.

A commit that changes only the edges of a task, its `conflicts`, `prevent_destroy` or `on_remove`, has nothing done: its nodes record it,
and `groundplan plan` lists that. What counts for a removal is what a node has recorded: [ownership.md](ownership.md).
`when` and what it may read are in [facts.md](facts.md).
";

pub(super) fn run(args: &Args, out: &mut Output) -> Result<ExitCode, Failure> {
    let schema = schema();
    let chosen = match &args.kind {
        None => None,
        Some(name) => Some(KINDS.iter().find(|kind| kind.name == name).ok_or_else(|| unknown(name))?),
    };
    let text = match (chosen, args.format) {
        (_, KindsFormat::Text) if args.keys => plain_keys(&schema),
        (_, KindsFormat::Markdown) if args.keys => {
            format!("{KEYS}{}{ABOUT_KEYS}", table(["key", "takes", "", "example"], keys(&schema)))
        }
        (None, KindsFormat::Text) => list(),
        (Some(kind), KindsFormat::Text) => plain(kind, &schema),
        (None, KindsFormat::Markdown) => {
            let sections = KINDS.iter().map(|kind| markdown(kind, &schema));
            [INTRO.to_owned()].into_iter().chain(sections).collect::<Vec<_>>().join("\n")
        }
        (Some(kind), KindsFormat::Markdown) => markdown(kind, &schema),
    };
    out.print(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn unknown(name: &str) -> Failure {
    let hint = nearest(name, NAMES.iter().copied()).map(|near| format!("did you mean `{near}`? "));
    let hint = hint.unwrap_or_default() + "`groundplan kinds` lists them";
    Failure::new(format!("there is no kind `{name}`")).hint(hint)
}

/// The schema of a task in a service file.
fn schema() -> Value {
    let (_, schema) = groundplan_services::schemas().into_iter().next().expect("services have a schema");
    schema.to_value().pointer("/properties/task/items").cloned().unwrap_or_default()
}

fn list() -> String {
    let width = NAMES.iter().map(|name| name.len()).max().unwrap_or_default();
    KINDS.iter().map(|kind| format!("{:<width$}  {}\n", kind.name, kind.summary)).collect()
}

fn of<'s>(kind: &About, schema: &'s Value) -> &'s Value {
    &schema["properties"][kind.name]
}

fn effects(kind: &About) -> String {
    let names: Vec<String> = kind.effects.iter().map(ToString::to_string).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

fn plain(kind: &About, schema: &Value) -> String {
    let of = of(kind, schema);
    let mut out = format!("{}: {}\n\n{}\nEffects: {}\n", kind.name, kind.summary, about(of), effects(kind));
    params(of).iter().for_each(|param| out.push_str(&entry(param)));
    out
}

fn entry(Param { name, takes, required, about, .. }: &Param) -> String {
    let need = if *required { ", required" } else { "" };
    format!("\n{name}  ({takes}{need})\n    {about}\n")
}

/// The keys of all tasks.
fn plain_keys(schema: &Value) -> String {
    let example = |key: &Param| if key.example.is_empty() { String::new() } else { format!("    {}\n", key.example) };
    let entries = keys(schema).into_iter().map(|key| entry(&key) + &example(&key));
    ["The keys that tasks of all kinds have:\n".to_owned()].into_iter().chain(entries).collect()
}

/// The keys that tasks have beside that of their kind; those of nested tables as `outer.inner`.
fn keys(schema: &Value) -> Vec<Param> {
    let is_kind = |name: &str| NAMES.contains(&name.split(['.', '[']).next().unwrap_or(name));
    params(schema).into_iter().filter(|param| !is_kind(&param.name)).collect()
}

fn markdown(kind: &About, schema: &Value) -> String {
    let of = of(kind, schema);
    let mut out = format!("## `{}`\n\n{}\n\nEffects: {}.\n", kind.name, about(of), effects(kind));
    let params = params(of);
    if !params.is_empty() {
        let _ = write!(out, "\n{}", table(["parameter", "takes", ""], params));
    }
    out
}

/// A table of parameters; with a fourth column, that has the examples.
fn table<const N: usize>(headings: [&str; N], params: Vec<Param>) -> String {
    let mut out = format!("| {} |\n{}|\n", headings.join(" | "), "|---".repeat(N)).replace("|  |", "| |");
    for Param { name, takes, required, about, example } in params {
        let need = if required { " **required**" } else { "" };
        let cell = |text: &str| text.replace('|', "\\|");
        let _ = write!(out, "| `{name}`{need} | {} | {} |", cell(&takes), cell(&about));
        if N > 3 {
            let example = if example.is_empty() { String::new() } else { format!(" `{}`", cell(&example)) };
            let _ = write!(out, "{example} |");
        }
        out.push('\n');
    }
    out
}

/// The description of a schema on one line.
fn about(schema: &Value) -> String {
    let text = schema["description"].as_str().unwrap_or_default();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The parameters of a kind in the order of their names; those of nested tables as `outer.inner`, of lists of tables as `outer[].inner`.
fn params(schema: &Value) -> Vec<Param> {
    let mut out = Vec::new();
    collect(schema, "", &mut out);
    out
}

fn collect(schema: &Value, prefix: &str, out: &mut Vec<Param>) {
    // A kind with alternatives (`anyOf`) lists its parameters in each of them; they are shown once.
    let ways = ["anyOf", "oneOf"].iter().filter_map(|key| schema[key].as_array()).flatten();
    let tables = ways.filter(|way| way["properties"].is_object());
    for table in [schema].into_iter().chain(tables) {
        let required: Vec<&str> =
            table["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        for (name, param) in table["properties"].as_object().into_iter().flatten() {
            let full = format!("{prefix}{name}");
            if out.iter().any(|known| known.name == full) {
                continue;
            }
            let (takes, about) = (takes(param), about(param));
            let example = param["examples"].get(0).map(|example| format!("{name} = {}", toml(example)));
            let (required, example) = (required.contains(&name.as_str()), example.unwrap_or_default());
            out.push(Param { name: full.clone(), takes, required, about, example });
            let inner = if param["items"].is_object() { (&param["items"], "[].") } else { (param, ".") };
            collect(inner.0, &format!("{full}{}", inner.1), out);
        }
    }
}

/// The type or the possible values of a parameter.
fn takes(schema: &Value) -> String {
    if let Some(choices) = schema["enum"].as_array() {
        return choices.iter().map(|choice| format!("`{}`", plain_value(choice))).collect::<Vec<_>>().join(", ");
    }
    if let Some(only) = schema.get("const") {
        return format!("`{}`", plain_value(only));
    }
    for key in ["anyOf", "oneOf"] {
        if let Some(ways) = schema[key].as_array() {
            let mut words: Vec<String> = ways.iter().map(takes).collect();
            words.dedup();
            return words.join(" or ");
        }
    }
    match &schema["type"] {
        Value::String(name) => match name.as_str() {
            "array" if schema["items"].is_object() => format!("list of {}", takes(&schema["items"])),
            "array" => "list".to_owned(),
            "object" if schema["properties"].is_object() => "table".to_owned(),
            "object" if schema["additionalProperties"].is_object() => {
                format!("table of {}", takes(&schema["additionalProperties"]))
            }
            "object" => "table".to_owned(),
            name => name.to_owned(),
        },
        Value::Array(names) => names.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" or "),
        _ => "any value".to_owned(),
    }
}

/// A value as TOML; tables inline.
fn toml(value: &Value) -> String {
    match value {
        Value::Object(table) => {
            let fields = table.iter().map(|(name, value)| format!("{name} = {}", toml(value)));
            format!("{{ {} }}", fields.collect::<Vec<_>>().join(", "))
        }
        Value::Array(list) => format!("[{}]", list.iter().map(toml).collect::<Vec<_>>().join(", ")),
        // Strings, numbers and truth values are written as in JSON.
        value => value.to_string(),
    }
}

fn plain_value(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
