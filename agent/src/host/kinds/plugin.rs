//! Kinds that the site's own programs carry out: JSON in, JSON out.
//!
//! In: a program, parameters, and a request. Out: its answer, or the way in which it failed. The content of an answer is trusted;
//! that the program ends, stays within its limits and answers in the right form is enforced here. docs/plugins.md describes the
//! interface for programs.

use std::{io, time::Duration};

use groundplan_protocol::{
    digest::Digest,
    duration::Span,
    effect::Effect,
    kinds::{Kind as _, Plugin},
};
use serde_json::{Map, Value, json};

use super::{
    context::Context,
    kind::{Applied, Check, Kind, blocking},
};
use crate::host::{
    error::{HostError, KindError, ToolError},
    found::FoundError,
    process::{
        exec::{ExecError, status_text},
        spawn::SpawnError,
    },
    programs::ProgramError,
    tool::{self, Tool},
};

/// Largest answer, in bytes.
const MOST: usize = 1 << 20;

/// The request for its description.
const SCHEMA_REQUEST: &str = "{\"version\":1,\"request\":\"schema\"}\n";

/// Largest memory that it may ask to be kept, in bytes.
const MEMORY: usize = 64 << 10;

/// Most of its own output that is reported, in characters.
const OUTPUT: usize = 4096;

/// Longest parameter that is also put into the environment, in bytes.
const VARIABLE: usize = 16 << 10;

/// Why a plugin did not carry out a request.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PluginError {
    #[error("the plugin `{name}`: {source}")]
    Program { name: String, source: ProgramError },
    #[error("the plugin `{name}` cannot be started: {source}{}", advice(interpreter))]
    Start { name: String, source: io::Error, interpreter: Option<String> },
    #[error(
        "the plugin `{name}` did not finish `{request}` within {limit} and was ended; raise `timeout` in its description if it needs longer"
    )]
    Silent { name: String, request: &'static str, limit: Span },
    #[error("the plugin `{name}` printed more than {} MiB at `{request}`, and was ended", MOST >> 20)]
    Endless { name: String, request: &'static str },
    #[error("the plugin `{name}` {ending} at `{request}`{}", colon(last))]
    Ended { name: String, request: &'static str, ending: String, last: String },
    #[error(
        "the plugin `{name}` answered `{request}` with something that is not JSON: `{line}`; only its answer may go to standard output"
    )]
    Garbage { name: String, request: &'static str, line: String },
    #[error("the plugin `{name}` answered `{request}` wrongly: {fault}")]
    Answer { name: String, request: &'static str, fault: String },
    #[error(
        "the plugin `{name}` describes itself otherwise than `plugins/{name}.schema.json` of the commit, and is not used; write that file again with `groundplan plugin schema {name}`, and commit it"
    )]
    Disagrees { name: String },
    #[error("the plugin `{name}`: {message}")]
    Reported { name: String, message: String },
    #[error(transparent)]
    Tool(ToolError),
    #[error(transparent)]
    Found(#[from] FoundError),
}

impl KindError for PluginError {}

fn colon(last: &str) -> String {
    if last.is_empty() { String::new() } else { format!(": {last}") }
}

fn advice(interpreter: &Option<String>) -> String {
    interpreter.as_ref().map_or_else(String::new, |name| {
        format!("; its first line names `{name}`, which a task before this one must install")
    })
}

impl Kind for Plugin {
    fn drifts(&self, _: &Context<'_>) -> bool {
        self.can_check
    }

    async fn check(&self, cx: &Context<'_>) -> Result<Check, HostError> {
        if !self.can_check {
            return Ok(Check::OutOfSync);
        }
        let answer = Request { plugin: self, name: "check" }.ask(cx).await?;
        let in_sync = answer.flag("so", true)?;
        answer.only(&["so", "differences", "output"])?;
        answer.differences(cx)?;
        Ok(in_sync.into())
    }

    async fn apply(&self, cx: &Context<'_>) -> Result<Applied, HostError> {
        let answer = Request { plugin: self, name: "apply" }.ask(cx).await?;
        let (changed, afresh) = (answer.flag("changed", true)?, answer.flag("afresh", false)?);
        answer.only(&["changed", "afresh", "memory", "output"])?;
        if !changed {
            cx.nothing_changed();
        }
        Ok(Applied { afresh })
    }

    async fn remove(&self, cx: &Context<'_>) -> Result<bool, HostError> {
        if let Some(other) = self.subject(cx.task).iter().find_map(|claim| cx.held_by_another(claim)) {
            cx.report(&format!("left in place: part of it belongs to {other} now"));
            return Ok(false);
        }
        let answer = Request { plugin: self, name: "remove" }.ask(cx).await?;
        let changed = answer.flag("changed", true)?;
        answer.only(&["changed", "output"])?;
        Ok(changed)
    }

    async fn effect(&self, cx: &Context<'_>, effect: Effect) -> Result<bool, HostError> {
        let name = match effect {
            Effect::Run => "run",
            Effect::Reload => "reload",
            Effect::Restart => "restart",
        };
        let answer = Request { plugin: self, name }.ask(cx).await?;
        let changed = answer.flag("changed", true)?;
        answer.only(&["changed", "memory", "output"])?;
        Ok(changed)
    }
}

/// A request to a plugin.
#[derive(Clone, Copy)]
struct Request<'a> {
    plugin: &'a Plugin,
    name: &'static str,
}

/// An answer of a plugin.
struct Answer<'a> {
    request: Request<'a>,
    fields: Map<String, Value>,
}

impl<'a> Request<'a> {
    /// Runs the plugin once. Its standard error goes into the report; fields that any answer may have are handled here.
    async fn ask(self, cx: &Context<'_>) -> Result<Answer<'a>, HostError> {
        let program = self.program(cx).await?;
        self.agrees(cx, &program).await?;
        let memory = cx.recall();
        let stdin = self.json(cx, memory.as_ref()).to_string();
        let answer =
            Answer { request: self, fields: self.run(cx, &program, &stdin, &self.env(cx, memory.as_ref())).await? };
        answer.take(cx)?;
        Ok(answer)
    }

    /// Compares what the program prints when it is asked for its schema with the description that the plan was made from: once for each
    /// program while the agent runs, and before anything else is run with it.
    async fn agrees(self, cx: &Context<'_>, program: &str) -> Result<(), HostError> {
        let (Some(description), Some(digest)) = (self.plugin.description, self.plugin.program) else { return Ok(()) };
        if cx.host.programs.agrees(digest, description) {
            return Ok(());
        }
        let schema = Self { name: "schema", ..self };
        let env = [("GROUNDPLAN_REQUEST".to_owned(), "schema".to_owned())];
        let printed = schema.run(cx, program, SCHEMA_REQUEST, &env).await?;
        if Digest::of_json(&Value::Object(printed)) != description {
            return Err(PluginError::Disagrees { name: self.kind() }.into());
        }
        cx.host.programs.note_agreement(digest, description);
        Ok(())
    }

    /// Runs the program once: the JSON object that it prints.
    async fn run(
        self,
        cx: &Context<'_>,
        program: &str,
        stdin: &str,
        env: &[(String, String)],
    ) -> Result<Map<String, Value>, HostError> {
        let limit: Duration = self.plugin.timeout().into();
        let mut tries = 0;
        let answer = loop {
            let mut tool = Tool::new(&[program]).stdin(stdin.as_bytes()).limit(limit).most(MOST);
            for (name, value) in env {
                tool = tool.env(name, value);
            }
            match tool.ask(cx).await {
                // ETXTBSY: it has just been written, and a process that another job is forking still holds it open.
                Err(ToolError::Exec(ExecError::Spawn(SpawnError::Start { source, .. })))
                    if source.kind() == io::ErrorKind::ExecutableFileBusy && tries < 50 =>
                {
                    tries += 1;
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                answer => break answer,
            }
        };
        let tool::Answer { status, out, err, output } = answer.map_err(|error| self.failed(error, program))?;
        cx.print(output);
        if !status.success() {
            let ending = status_text(status);
            // Its message may be on standard output instead of standard error.
            let error = serde_json::from_str::<Value>(&out)
                .ok()
                .and_then(|value| value.get("error")?.as_str().map(str::to_owned));
            let last = error.map_or(err, |error| error.chars().take(OUTPUT).collect());
            return Err(PluginError::Ended { name: self.kind(), request: self.name, ending, last }.into());
        }
        match serde_json::from_str(&out) {
            Ok(Value::Object(fields)) => Ok(fields),
            Ok(_) => Err(self.wrong("it is not an object").into()),
            Err(_) => {
                Err(PluginError::Garbage { name: self.kind(), request: self.name, line: first_line(&out) }.into())
            }
        }
    }

    async fn program(self, cx: &Context<'_>) -> Result<String, HostError> {
        let failed = |source| PluginError::Program { name: self.kind(), source };
        let digest = self.plugin.program.ok_or_else(|| self.wrong("the plan names no program"))?;
        // Removals, effects and drift checks come without content: then the program must be in the store of programs.
        let shipped = cx.content.filter(|shipped| shipped.sum.digest == digest);
        let content = shipped.and_then(|shipped| shipped.bytes().ok().cloned());
        let programs = cx.host.programs.clone();
        let path = blocking(move || programs.ready(digest, content.as_ref())).await?.map_err(failed)?;
        Ok(path.to_string_lossy().into_owned())
    }

    fn json(self, cx: &Context<'_>, memory: Option<&Value>) -> Value {
        let known = |name: &str| cx.host.environment.env.get(name).map(|value| value.to_string_lossy().into_owned());
        json!({
            "version": 1,
            "request": self.name,
            "params": self.plugin.params,
            "context": {
                "site": known("GROUNDPLAN_SITE"),
                "node": known("GROUNDPLAN_NODE"),
                "root": known("GROUNDPLAN_ROOT"),
                "task": cx.task,
                "memory": memory,
            },
        })
    }

    /// The parameters as environment variables, for programs that do not read JSON: only scalars and short values.
    fn env(self, cx: &Context<'_>, memory: Option<&Value>) -> Vec<(String, String)> {
        let mut env = vec![
            ("GROUNDPLAN_REQUEST".to_owned(), self.name.to_owned()),
            ("GROUNDPLAN_TASK".to_owned(), cx.task.to_string()),
        ];
        let params = self.plugin.params.iter().map(|(name, value)| {
            let name = name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' });
            (format!("GROUNDPLAN_PARAM_{}", name.collect::<String>()), Some(value))
        });
        for (name, value) in params.chain([("GROUNDPLAN_MEMORY".to_owned(), memory)]) {
            let text = match value {
                Some(Value::String(text)) => text.clone(),
                Some(value @ (Value::Bool(_) | Value::Number(_))) => value.to_string(),
                _ => continue,
            };
            if text.len() <= VARIABLE && !text.contains('\0') {
                env.push((name, text));
            }
        }
        env
    }

    fn kind(self) -> String {
        self.plugin.name.to_string()
    }

    fn wrong(self, fault: impl Into<String>) -> PluginError {
        PluginError::Answer { name: self.kind(), request: self.name, fault: fault.into() }
    }

    fn failed(self, error: ToolError, program: &str) -> PluginError {
        let (name, request) = (self.kind(), self.name);
        match error {
            ToolError::TooMuchOutput { .. } => PluginError::Endless { name, request },
            ToolError::NoText { .. } => self.wrong("it is not UTF-8 text"),
            ToolError::Exec(ExecError::Timeout { .. }) => {
                PluginError::Silent { name, request, limit: self.plugin.timeout() }
            }
            ToolError::Exec(ExecError::Spawn(SpawnError::Start { source, .. })) => {
                let interpreter = (source.kind() == io::ErrorKind::NotFound).then(|| interpreter(program)).flatten();
                PluginError::Start { name, source, interpreter }
            }
            error => PluginError::Tool(error),
        }
    }
}

impl Answer<'_> {
    /// Handles the fields that any answer may have: output for people, memory, and an error in place of all else.
    fn take(&self, cx: &Context<'_>) -> Result<(), PluginError> {
        let request = self.request;
        // Before `error`: a plugin that failed halfway may note what it has changed so far.
        if let Some(memory) = self.fields.get("memory") {
            if memory.to_string().len() > MEMORY {
                return Err(request.wrong(format!("`memory` has more than {} KiB", MEMORY >> 10)));
            }
            cx.remember_first(memory)?;
        }
        match self.fields.get("output") {
            None | Some(Value::Null) => {}
            Some(Value::String(text)) if text.trim().is_empty() => {}
            Some(Value::String(text)) => cx.report(text.trim_end().chars().take(OUTPUT).collect::<String>().as_str()),
            Some(_) => return Err(request.wrong("`output` is not a text")),
        }
        match self.fields.get("error") {
            None | Some(Value::Null) => Ok(()),
            Some(Value::String(text)) => {
                Err(PluginError::Reported { name: request.kind(), message: text.chars().take(OUTPUT).collect() })
            }
            Some(_) => Err(request.wrong("`error` is not a text")),
        }
    }

    /// Notes the differences, in a drift check.
    fn differences(&self, cx: &Context<'_>) -> Result<(), PluginError> {
        const FORM: &str = "`differences` must be a list of {\"what\": …, \"expected\": …, \"found\": …}, each a text; `what` may not be missing";
        let wrong = || self.request.wrong(FORM);
        let list = match self.fields.get("differences") {
            None | Some(Value::Null) => return Ok(()),
            Some(Value::Array(list)) => list,
            Some(_) => return Err(wrong()),
        };
        for difference in list {
            let text = |name: &str| match difference.get(name) {
                None | Some(Value::Null) => Ok(None),
                Some(Value::String(text)) => Ok(Some(text.as_str())),
                Some(_) => Err(wrong()),
            };
            cx.differs(text("what")?.ok_or_else(wrong)?, text("expected")?, text("found")?);
        }
        Ok(())
    }

    /// A boolean field; `false` if it is missing and not required.
    fn flag(&self, name: &str, required: bool) -> Result<bool, PluginError> {
        match self.fields.get(name) {
            Some(Value::Bool(flag)) => Ok(*flag),
            None if !required => Ok(false),
            None => Err(self.request.wrong(format!("`{name}` is missing: true or false"))),
            Some(_) => Err(self.request.wrong(format!("`{name}` must be true or false"))),
        }
    }

    /// Checks that there are no other fields: a misspelt one would be lost.
    fn only(&self, names: &[&str]) -> Result<(), PluginError> {
        match self.fields.keys().find(|key| !names.contains(&key.as_str()) && *key != "error") {
            Some(key) => {
                Err(self.request.wrong(format!("`{key}` is not known here; it may have {}", names.join(", "))))
            }
            None => Ok(()),
        }
    }
}

/// The interpreter in the first line of a script.
fn interpreter(program: &str) -> Option<String> {
    let text = std::fs::read(program).ok()?;
    let line = text.strip_prefix(b"#!")?.split(|b| *b == b'\n').next()?;
    String::from_utf8_lossy(line).split_whitespace().next().map(str::to_owned)
}

fn first_line(text: &str) -> String {
    let line = text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    line.chars().take(80).map(|c| if c.is_control() { ' ' } else { c }).collect()
}
