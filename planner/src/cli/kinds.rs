//! `groundplan kinds`: the kinds of tasks and their parameters, from the same JSON schema that editors use.

use std::{fmt::Write as _, process::ExitCode};

use clap::ValueEnum;
use groundplan_inventory::hint::nearest;
use groundplan_protocol::kinds::{About, KINDS, NAMES};
use serde_json::Value;

use crate::terminal::{Failure, Output};

/// List the kinds of tasks, or explain one with all its parameters.
///
/// These are the built-in kinds. A site can add kinds with programs in `plugins/`; each program prints the schema of its own kind, and
/// `groundplan check` validates tasks against it.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  groundplan kinds\n  groundplan kinds package\n  groundplan kinds --format markdown > docs/kinds.md"
)]
pub(super) struct Args {
    /// The kind to explain.
    #[arg(value_name = "KIND")]
    kind: Option<String>,

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
}

const INTRO: &str = "\
# Kinds of tasks

This page is printed by `groundplan kinds --format markdown`. A task has exactly one kind; every string may be a template.
An *effect* is what a trigger edge (`restart_on`, `reload_on`, `run_on`) may do to a task of that kind.
A site can add kinds with programs in `plugins/`: [plugins.md](plugins.md).
";

pub(super) fn run(args: &Args, out: &mut Output) -> Result<ExitCode, Failure> {
    let schema = schema();
    let chosen = match &args.kind {
        None => None,
        Some(name) => Some(KINDS.iter().find(|kind| kind.name == name).ok_or_else(|| unknown(name))?),
    };
    let text = match (chosen, args.format) {
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
    for Param { name, takes, required, about } in params(of) {
        let need = if required { ", required" } else { "" };
        let _ = write!(out, "\n{name}  ({takes}{need})\n    {about}\n");
    }
    out
}

fn markdown(kind: &About, schema: &Value) -> String {
    let of = of(kind, schema);
    let mut out = format!("## `{}`\n\n{}\n\nEffects: {}.\n", kind.name, about(of), effects(kind));
    let params = params(of);
    if !params.is_empty() {
        out.push_str("\n| parameter | takes | |\n|---|---|---|\n");
    }
    for Param { name, takes, required, about } in params {
        let need = if required { " **required**" } else { "" };
        let cell = |text: &str| text.replace('|', "\\|");
        let _ = writeln!(out, "| `{name}`{need} | {} | {} |", cell(&takes), cell(&about));
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
            out.push(Param { name: full.clone(), takes, required: required.contains(&name.as_str()), about });
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

fn plain_value(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
