//! Templates, by minijinja: strict about undefined names, with the trailing newline kept and nothing escaped.
//!
//! In: texts and a [`RenderContext`]. Out: the rendered text and a [`Log`] of what it came from, or every fault with its range in the
//! template. Vars are values, never templates themselves. A template includes others of its service's folder by their path below it.
//! Templates of a file are named `<folder>\0<path>`, strings of a task `<folder>\0\0<parameter>`.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use minijinja::{AutoEscape, Environment, Error, ErrorKind, Template, UndefinedBehavior, Value, syntax::SyntaxConfig};

mod context;
mod facts;
mod fault;
mod known;

pub(crate) use self::{
    context::{Access, Log, REPORTED, RenderContext, Root},
    facts::{ServiceFacts, SiteFacts, short},
    fault::{Fault, Named},
    known::{Exported, Known},
};

/// How many undefined names one rendering reports at most.
const MOST_FAULTS: usize = 50;

/// Whether a string is a template at all.
pub(crate) fn is_template(text: &str) -> bool {
    text.contains('{') && ["{{", "{%", "{#"].iter().any(|open| text.contains(open))
}

/// Compiled templates that may include each other, and the log of what they read.
pub(crate) struct Templates<'t> {
    env: Environment<'t>,
    log: Arc<Log>,
}

impl<'t> Templates<'t> {
    /// Compiles texts by name. Those with a syntax error are left out and reported.
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

    /// Renders the compiled template of that name.
    pub(crate) fn render(&self, name: &str, place: &RenderContext) -> Result<String, Vec<Fault>> {
        let template = self.env.get_template(name).map_err(|error| vec![Fault::of(&error, name, "", Some(place))])?;
        self.run(name, &template, place)
    }

    /// Compiles and renders a template that is used for this one rendering.
    pub(crate) fn render_text(&self, name: &str, text: &str, place: &RenderContext) -> Result<String, Vec<Fault>> {
        let template = self.env.template_from_named_str(name, text);
        self.run(name, &template.map_err(|error| vec![Fault::of(&error, name, text, Some(place))])?, place)
    }

    /// The log of what rendering read.
    pub(crate) fn log(&self) -> &Log {
        &self.log
    }

    /// The syntax error of a condition, if it has one.
    pub(crate) fn syntax(&self, name: &str, text: &str) -> Option<Fault> {
        let error = self.env.compile_expression_owned(text).err()?;
        Some(Fault { template: name.to_owned(), ..Fault::of(&error, name, text, None) })
    }

    /// Evaluates a condition. It is a fault if the value is not true or false.
    pub(crate) fn condition(&self, name: &str, text: &str, place: &RenderContext) -> Result<bool, Vec<Fault>> {
        let fault = |error: &Error| {
            let mut fault = Fault::of(error, name, text, Some(place));
            fault.template = name.to_owned();
            if fault.range.is_empty() {
                fault.range = 0..text.len();
            }
            fault
        };
        let expression = self.env.compile_expression_owned(text).map_err(|error| vec![fault(&error)])?;
        for unknown in expression.undeclared_variables(false) {
            // The engine compares an undefined value as unequal without an error, so that a misspelt name would go unnoticed.
            if !place.defines(&unknown) && !tested(text, &unknown) {
                let start = text.find(&*unknown).unwrap_or_default();
                let range = start..start + unknown.len();
                return Err(vec![Fault { range, ..fault(&undefined(&unknown)) }]);
            }
        }
        let value = self.until_clear(place, &fault, &|root| expression.eval(root))?;
        match bool::try_from(value.clone()) {
            Ok(holds) => Ok(holds),
            Err(_) if value.is_undefined() => {
                let unknown = self.log.seen().iter().any(|access| place.is_unknown(access));
                let fault = fault(&undefined(text));
                Err(vec![Fault { sure: !unknown, ..fault }])
            }
            Err(_) => {
                let message = format!("`when` is not true or false, but {value:?}");
                let hint = Some("compare it with something, such as `facts.os.id == 'debian'`".to_owned());
                let range = 0..text.len();
                Err(vec![Fault { message, hint, range, undefined: None, ..fault(&undefined(text)) }])
            }
        }
    }

    fn run(&self, name: &str, template: &Template<'_, '_>, place: &RenderContext) -> Result<String, Vec<Fault>> {
        let fault = |error: &Error| Fault::of(error, name, template.source(), Some(place));
        self.until_clear(place, &fault, &|root| template.render(root))
    }

    /// Renders repeatedly, each time with the undefined names so far defined as nothing, so that all of them are reported and not only
    /// the first.
    fn until_clear<T>(
        &self,
        place: &RenderContext,
        fault: &dyn Fn(&Error) -> Fault,
        render: &dyn Fn(Value) -> Result<T, Error>,
    ) -> Result<T, Vec<Fault>> {
        let mut faults = Vec::new();
        let mut reported = BTreeSet::new();
        loop {
            let root = Root { place: place.clone(), log: self.log.clone(), reported: reported.clone() };
            let error = match render(Value::from_object(root)) {
                Ok(done) if faults.is_empty() => return Ok(done),
                Ok(_) => return Err(faults),
                Err(error) => error,
            };
            let mut fault = fault(&error);
            // Where a value is missing, rendering with it may take another branch and not meet this fault.
            fault.sure = !self.log.seen().iter().any(|access| place.is_unknown(access));
            match &fault.undefined {
                Some(name) if faults.len() < MOST_FAULTS && reported.insert(name.clone()) => faults.push(fault),
                _ if faults.is_empty() || fault.certain => {
                    faults.push(fault);
                    return Err(faults);
                }
                // After a name was defined as nothing, any other fault may be a consequence of that.
                _ => return Err(faults),
            }
        }
    }
}

fn undefined(expression: &str) -> Error {
    Error::new(ErrorKind::UndefinedError, format!("`{expression}` is undefined"))
}

/// Whether an expression applies a test or a filter to a name; these handle undefined values themselves.
fn tested(text: &str, name: &str) -> bool {
    let mut rest = text;
    while let Some(at) = rest.find(name) {
        rest = rest[at + name.len()..].trim_start();
        if rest.starts_with('|') || rest.strip_prefix("is").is_some_and(|rest| rest.starts_with(char::is_whitespace)) {
            return true;
        }
    }
    false
}

/// The full name of the template that `parent` includes as `name`. The access is noted, so that the file is loaded and counts as an input.
fn included<'s>(name: &'s str, parent: &'s str, log: &Log) -> Cow<'s, str> {
    let folder = parent.split('\0').next().unwrap_or_default();
    let plain = name.split('/').all(|part| !matches!(part, "" | "." | "..")) && !name.contains('\0');
    if plain {
        log.note(Access::Template(name.into()));
    }
    Cow::Owned(Named::File { folder, path: name }.to_string())
}
