//! Vars that hold templates: they are rendered when they are used, with what the node that uses them sees.
//!
//! In: the value of a var. Out: the value with each text in it rendered, or an error value, which is an error wherever it is used. What a
//! text reads goes into the log of the template that uses the var. A var that leads back to itself is an error. Only vars are
//! rendered: what nodes report never is.

use std::sync::{Arc, OnceLock};

use minijinja::{Environment, Error, ErrorKind, Value, value::Serde};
use serde_json::Value as Json;

use super::{
    context::{Log, RenderVar, Root},
    depth,
    engine::environment,
    facts::{VAR_FAULT, var_fault},
    fault::Fault,
    limits::Limits,
    syntax::is_template,
};

/// What vars are rendered with: the engine, made at first use.
#[derive(Debug, Clone)]
pub(super) struct Vars {
    log: Arc<Log>,
    limits: Limits,
    env: Arc<OnceLock<Environment<'static>>>,
}

impl Vars {
    pub(super) fn new(log: &Arc<Log>, limits: &Limits) -> Self {
        Self { log: log.clone(), limits: limits.clone(), env: Arc::default() }
    }

    fn walk(&self, name: &str, value: Json, root: &Arc<Root>) -> Result<Json, Error> {
        Ok(match value {
            Json::String(text) if is_template(&text) => Json::String(self.text(name, &text, root)?),
            Json::Array(items) => {
                items.into_iter().map(|item| self.walk(name, item, root)).collect::<Result<_, _>>()?
            }
            Json::Object(entries) => {
                let entries = entries.into_iter().map(|(key, value)| Ok((key, self.walk(name, value, root)?)));
                Json::Object(entries.collect::<Result<_, Error>>()?)
            }
            other => other,
        })
    }

    fn text(&self, name: &str, text: &str, root: &Arc<Root>) -> Result<String, Error> {
        if depth::too_deep(text, false).is_some() {
            return Err(var_fault(name, "this nests too deeply"));
        }
        if self.limits.are_used_up() {
            return Err(var_fault(name, &Limits::too_much().0));
        }
        let env = self.env.get_or_init(|| environment(&self.log, &self.limits));
        let fault = |error: &Error| match error.detail().filter(|detail| detail.starts_with(VAR_FAULT)) {
            // Of a var that this one uses.
            Some(detail) => Error::new(ErrorKind::InvalidOperation, detail.to_owned()),
            None => var_fault(name, &Fault::of(error, name, text, Some(&root.place)).message),
        };
        let template = env.template_from_named_str(name, text).map_err(|error| fault(&error))?;
        let (written, steps) = self.limits.within(|writer| {
            let rendered = template.render_captured_to(Value::from_dyn_object(root.clone()), writer)?;
            Ok(rendered.state().fuel_levels().map_or(self.limits.steps(), |(used, _)| used))
        });
        let bytes = written.as_ref().map_or(0, |text| text.len() as u64);
        self.limits.used(*steps.as_ref().unwrap_or(&self.limits.steps()), bytes);
        let Some(written) = written else { return Err(var_fault(name, &self.limits.too_long().0)) };
        steps.map(|_| written).map_err(|error: Error| fault(&error))
    }
}

impl RenderVar for Vars {
    fn rendered(&self, name: &str, value: &Value, root: &Arc<Root>) -> Value {
        // As JSON, which keeps the order of tables.
        let json = serde_json::to_value(value);
        let json = json.map_err(|e| var_fault(name, &e.to_string())).and_then(|json| self.walk(name, json, root));
        json.map_or_else(Value::from, |json| Value::from(Serde(json)))
    }
}
