//! Templates, by minijinja: strict about undefined names, with the trailing newline kept and nothing escaped.
//!
//! In: texts and a [`Place`]. Out: the rendered text and a [`Log`] of what it came from, or every fault with its range in the
//! template. Vars are values, never templates themselves. A template includes others of its service's folder by their path below it.
//! Templates of a file are named `<folder>\0<path>`, strings of a task `<folder>\0\0<parameter>`.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use minijinja::{AutoEscape, Environment, Template, UndefinedBehavior, Value, syntax::SyntaxConfig};

mod context;
mod facts;
mod fault;

pub(crate) use self::{
    context::{Access, Log, Place, Root},
    facts::{ServiceFacts, SiteFacts, short},
    fault::{Fault, Named},
};

/// Most undefined names that one rendering reports.
const MOST_FAULTS: usize = 50;

/// Whether a string is a template at all.
pub(crate) fn is_template(text: &str) -> bool {
    text.contains('{') && ["{{", "{%", "{#"].iter().any(|open| text.contains(open))
}

/// Compiled templates that may include each other, and the log that they write.
pub(crate) struct Templates<'t> {
    env: Environment<'t>,
    log: Arc<Log>,
}

impl<'t> Templates<'t> {
    /// Compiles texts by name. What has a syntax error is left out.
    pub(crate) fn compile(texts: &'t BTreeMap<String, Arc<str>>) -> (Self, Vec<Fault>) {
        let log = Arc::new(Log::default());
        let mut env = Environment::new();
        env.set_undefined_behavior(UndefinedBehavior::Strict);
        env.set_syntax(SyntaxConfig::builder().keep_trailing_newline(true).build().unwrap_or_default());
        env.set_auto_escape_callback(|_| AutoEscape::None);
        env.set_debug(true);
        let noted = log.clone();
        env.set_path_join_callback(move |name, parent| included(name, parent, &noted));
        let mut faults = Vec::new();
        for (name, text) in texts {
            if let Err(error) = env.add_template(name, text) {
                faults.push(Fault::of(&error, name, text, None));
            }
        }
        (Self { env, log }, faults)
    }

    /// Renders the template of that name, which was compiled.
    pub(crate) fn render(&self, name: &str, place: &Place) -> Result<String, Vec<Fault>> {
        let template = self.env.get_template(name).map_err(|error| vec![Fault::of(&error, name, "", Some(place))])?;
        self.run(name, &template, place)
    }

    /// Compiles and renders a template that only one place has.
    pub(crate) fn render_text(&self, name: &str, text: &str, place: &Place) -> Result<String, Vec<Fault>> {
        let template = self.env.template_from_named_str(name, text);
        self.run(name, &template.map_err(|error| vec![Fault::of(&error, name, text, Some(place))])?, place)
    }

    /// What rendering has asked for.
    pub(crate) fn log(&self) -> &Log {
        &self.log
    }

    /// Renders until nothing undefined is left that has not been reported.
    fn run(&self, name: &str, template: &Template<'_, '_>, place: &Place) -> Result<String, Vec<Fault>> {
        let mut faults = Vec::new();
        let mut reported = BTreeSet::new();
        loop {
            let root = Root { place: place.clone(), log: self.log.clone(), reported: reported.clone() };
            let error = match template.render(Value::from_object(root)) {
                Ok(text) if faults.is_empty() => return Ok(text),
                Ok(_) => return Err(faults),
                Err(error) => error,
            };
            let fault = Fault::of(&error, name, template.source(), Some(place));
            match &fault.undefined {
                Some(name) if faults.len() < MOST_FAULTS && reported.insert(name.clone()) => faults.push(fault),
                _ if faults.is_empty() || fault.certain => {
                    faults.push(fault);
                    return Err(faults);
                }
                // Whatever else is wrong after a name that stands for nothing may only follow from that.
                _ => return Err(faults),
            }
        }
    }
}

/// The name of the template that `parent` calls `name`; noted, so that it can be loaded and counts as an input.
fn included<'s>(name: &'s str, parent: &'s str, log: &Log) -> Cow<'s, str> {
    let folder = parent.split('\0').next().unwrap_or_default();
    let plain = name.split('/').all(|part| !matches!(part, "" | "." | "..")) && !name.contains('\0');
    if plain {
        log.note(Access::Template(name.into()));
    }
    Cow::Owned(Named::File { folder, path: name }.to_string())
}
