//! Templates, by minijinja: strict about undefined names, with the trailing newline kept and nothing escaped.
//!
//! In: texts and a [`RenderContext`]. Out: the rendered text and a [`Log`] of what it came from, or every fault with its range in the
//! template. A var may hold templates, which are rendered where it is used. A template includes others of its service's folder by their path below it.
//! What nodes report is data: it stands in a shell line only quoted, and begins no new line elsewhere.
//! Templates of a file are named `<folder>\0<path>`, strings of a task `<folder>\0\0<parameter>`. Bounded in depth, steps and output.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    sync::Arc,
};

use minijinja::{Environment, Error, ErrorKind, Expression, Template, Value};

mod assign;
mod calls;
mod context;
mod depth;
mod engine;
mod facts;
mod fault;
mod follow;
mod known;
mod limits;
mod origin;
mod quote;
mod reported;
mod shell;
mod syntax;
mod vars;

use self::{
    assign::Inserted,
    engine::environment,
    limits::Writer,
    reported::{Found, Text},
    vars::Vars,
};
pub(crate) use self::{
    context::{Access, Log, RenderContext, Root},
    facts::{ServiceFacts, SiteFacts, short},
    fault::{Fault, Named},
    known::{Exported, Known},
    limits::Limits,
    origin::{Origins, REPORTED, Sink, Sinks},
    syntax::is_template,
};

/// How many undefined names one rendering reports at most.
const MOST_FAULTS: usize = 50;

/// Compiled templates that may include each other, and the log of what they read.
#[derive(Clone)]
pub(crate) struct Templates<'t> {
    env: Environment<'t>,
    log: Arc<Log>,
    limits: Limits,
    vars: Vars,
    /// What was put into templates before they were compiled, by name.
    inserted: BTreeMap<String, Inserted>,
    /// The expressions whose values are checked when they are printed, by template.
    printed: BTreeMap<String, Vec<Range<usize>>>,
    texts: &'t BTreeMap<String, Arc<str>>,
    sinks: &'t Sinks,
    origins: Arc<Origins>,
}

impl<'t> Templates<'t> {
    /// Compiles texts by name. Those with a syntax error are left out and reported; reported as well are those that put what nodes report,
    /// vars with such `origins` included, where it could become code.
    pub(crate) fn compile(
        texts: &'t BTreeMap<String, Arc<str>>,
        sinks: &'t Sinks,
        origins: Arc<Origins>,
        limits: &Limits,
    ) -> (Self, Vec<Fault>) {
        let log = Arc::new(Log::default());
        let env = environment(&log, limits);
        let vars = Vars::new(&log, limits);
        let (limits, inserted, printed) = (limits.clone(), BTreeMap::new(), BTreeMap::new());
        let mut templates = Self { env, log, limits, vars, inserted, printed, texts, sinks, origins };
        let mut faults = Vec::new();
        for (name, text) in texts {
            faults.extend(templates.add(name.as_str(), &**text).err().map(|fault| *fault));
        }
        // Of the others, because what the engine refuses has been reported.
        let compiled: Vec<_> = texts.iter().filter(|(name, _)| templates.env.get_template(name).is_ok()).collect();
        let (mut found, mut misplaced) = templates.found(compiled.iter().map(|(name, text)| (name.as_str(), &***text)));
        for (name, text) in compiled {
            let printed = found.checked.remove(name).unwrap_or_default();
            faults.extend(templates.put_filters(name.as_str(), text, printed).err().map(|fault| *fault));
        }
        faults.append(&mut misplaced);
        (templates, faults)
    }

    /// What of these texts comes from nodes; the faults of those that put it where it could become code.
    fn found<'s>(&self, texts: impl IntoIterator<Item = (&'s str, &'s str)>) -> (Found, Vec<Fault>) {
        let texts = texts.into_iter().map(|(name, text)| match Named::of(name) {
            Named::File { path, .. } => Text { name, path: Some(path), text },
            Named::Param { .. } => Text { name, path: None, text },
        });
        let mut found = reported::of_texts(texts, self.sinks, &self.origins);
        let misplaced = std::mem::take(&mut found.misplaced).into_iter();
        let faults = misplaced.map(|(name, range, why)| Fault::misplaced(&name, range, why)).collect();
        (found, faults)
    }

    fn add<S: Into<Cow<'t, str>> + Clone + AsRef<str>>(&mut self, name: S, text: S) -> Result<(), Box<Fault>> {
        if let Some(range) = depth::too_deep(text.as_ref(), false) {
            return Err(Box::new(Fault::too_deep(name.as_ref(), range)));
        }
        // As it is written, so that errors of its syntax are its own.
        let added = self.env.add_template_owned(name.clone(), text.clone());
        added.map_err(|error| Box::new(Fault::of(&error, name.as_ref(), text.as_ref(), None)))
    }

    /// Compiles a template again, with filters for what it assigns and for the expressions at `printed`.
    fn put_filters<S: Into<Cow<'t, str>> + AsRef<str>>(
        &mut self,
        name: S,
        text: &str,
        printed: Vec<Range<usize>>,
    ) -> Result<(), Box<Fault>> {
        let Some((filtered, inserted)) = assign::with_filters(text, &printed) else { return Ok(()) };
        let key = name.as_ref().to_owned();
        self.inserted.insert(key.clone(), inserted);
        self.printed.insert(key.clone(), printed);
        let fault = |error: &Error, name: &str| Box::new(Fault::of(error, name, text, None));
        self.env.add_template_owned(name, filtered).map_err(|error| fault(&error, &key))
    }

    /// Renders the compiled template of that name.
    pub(crate) fn render(&self, name: &str, place: &RenderContext) -> Result<String, Vec<Fault>> {
        let template = self.env.get_template(name).map_err(|error| vec![Fault::of(&error, name, "", Some(place))])?;
        self.until_clear(place, &|root| self.written(name, &template, root, place))
    }

    /// Compiles and renders a template that is used for this one rendering.
    pub(crate) fn render_text(&self, name: &str, text: &str, place: &RenderContext) -> Result<String, Vec<Fault>> {
        let mut templates = self.clone();
        templates.add(name.to_owned(), text.to_owned()).map_err(|fault| vec![*fault])?;
        let others = self.texts.iter().map(|(name, text)| (name.as_str(), &**text));
        let (mut found, mut faults) = templates.found(others.chain([(name, text)]));
        faults.retain(|fault| fault.template == name);
        if !faults.is_empty() {
            return Err(faults);
        }
        let printed = found.checked.remove(name).unwrap_or_default();
        templates.put_filters(name.to_owned(), text, printed).map_err(|fault| vec![*fault])?;
        templates.render(name, place)
    }

    /// What the compiled templates and the `condition`, a name with a text, call that does not exist, whether or not rendering comes to it.
    pub(crate) fn missing(&self, condition: Option<(&str, &str)>) -> Vec<Fault> {
        let templates: Vec<_> = self.env.templates().collect();
        let texts = templates.iter().map(|(name, template)| (*name, template.source(), false));
        let texts = texts.chain(condition.map(|(name, text)| (name, text, true)));
        let texts: Vec<_> = texts.map(|(name, text, expression)| calls::Text { name, text, expression }).collect();
        let fault = |missing: calls::Missing<'_>| {
            let error = Error::new(missing.kind, format!("{} is unknown", missing.name));
            let range = self.original(missing.of.name, &missing.range);
            Fault { range, ..Fault::of(&error, missing.of.name, missing.of.text, None) }
        };
        calls::missing(&self.env, &texts).into_iter().map(fault).collect()
    }

    /// The log of what rendering read.
    pub(crate) fn log(&self) -> &Log {
        &self.log
    }

    /// The syntax error of a condition, if it has one.
    pub(crate) fn syntax(&self, name: &str, text: &str) -> Option<Fault> {
        self.expression(name, text).err().map(|fault| *fault)
    }

    fn expression(&self, name: &str, text: &str) -> Result<Expression<'_, 't>, Box<Fault>> {
        if let Some(range) = depth::too_deep(text, true) {
            return Err(Box::new(Fault::too_deep(name, range)));
        }
        let compiled = self.env.compile_expression_owned(text.to_owned());
        compiled.map_err(|error| Box::new(self.of_condition(&error, name, text, None)))
    }

    fn of_condition(&self, error: &Error, name: &str, text: &str, place: Option<&RenderContext>) -> Fault {
        let mut fault = self.fault(error, name, text, place);
        fault.template = name.to_owned();
        if fault.range.is_empty() {
            fault.range = 0..text.len();
        }
        fault
    }

    /// Evaluates a condition. It is a fault if the value is not true or false.
    pub(crate) fn condition(&self, name: &str, text: &str, place: &RenderContext) -> Result<bool, Vec<Fault>> {
        let fault = |error: &Error| self.of_condition(error, name, text, Some(place));
        let expression = self.expression(name, text).map_err(|fault| vec![*fault])?;
        // A set in another order each time: of several names, the same is to be reported each time.
        for unknown in BTreeSet::from_iter(expression.undeclared_variables(false)) {
            // The engine compares an undefined value as unequal without an error, so that a misspelt name would go unnoticed.
            if !place.defines(&unknown) && !tested(text, &unknown) {
                let start = text.find(&*unknown).unwrap_or_default();
                let range = start..start + unknown.len();
                return Err(vec![Fault { range, ..fault(&undefined(&unknown)) }]);
            }
        }
        let value = self.until_clear(place, &|root| expression.eval(root).map_err(|error| Box::new(fault(&error))))?;
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
                let missing_from = Vec::new();
                Err(vec![Fault { message, hint, range, undefined: None, missing_from, ..fault(&undefined(text)) }])
            }
        }
    }

    /// What a template renders to, within the limits.
    fn written(
        &self,
        name: &str,
        template: &Template<'_, '_>,
        root: Value,
        place: &RenderContext,
    ) -> Result<String, Box<Fault>> {
        if self.limits.are_used_up() {
            return Err(Box::new(Fault::exceeding(name, 0..0, Limits::too_much())));
        }
        let mut writer = self.limits.writer();
        let rendered = template.render_captured_to(root, &mut writer);
        let levels = rendered.as_ref().ok().and_then(|rendered| rendered.state().fuel_levels());
        self.limits.used(levels.map_or(self.limits.steps(), |(used, _)| used), writer.len());
        match rendered {
            Err(error) if self.limits.is_full() => {
                let mut fault = self.fault(&error, name, template.source(), Some(place));
                if fault.range.is_empty() {
                    (fault.template, fault.range) = self.place_of_last(&writer, name);
                }
                Err(Box::new(fault))
            }
            Err(error) => Err(Box::new(self.fault(&error, name, template.source(), Some(place)))),
            Ok(_) if self.limits.is_full() => {
                let (template, range) = self.place_of_last(&writer, name);
                Err(Box::new(Fault::exceeding(&template, range, self.limits.too_long())))
            }
            Ok(_) => Ok(writer.into_text()),
        }
    }

    /// Where the text stands that a template wrote last: only the writer has seen it.
    fn place_of_last(&self, writer: &Writer<'_>, name: &str) -> (String, Range<usize>) {
        let found = self.env.templates().find_map(|(name, template)| {
            let at = writer.last_in(template.source())?;
            Some((name.to_owned(), self.original(name, &(at..at + 1))))
        });
        found.unwrap_or_else(|| (name.to_owned(), 0..0))
    }

    /// The fault behind an error of the template `name`, or of one that it includes.
    fn fault(&self, error: &Error, name: &str, text: &str, place: Option<&RenderContext>) -> Fault {
        let mut fault = Fault::of(error, name, text, place);
        fault.range = self.original(&fault.template, &fault.range);
        // At the filter that was put after an expression: it is that expression.
        let printed = self.printed.get(&fault.template).into_iter().flatten();
        if let Some(range) = printed.rev().find(|range| fault.range.is_empty() && range.end == fault.range.start) {
            fault.range = range.clone();
        }
        let explained = match fault.exceeds {
            Some(ErrorKind::OutOfFuel) => self.limits.too_many_steps(),
            Some(_) => self.limits.too_long(),
            None => return fault,
        };
        Fault { message: explained.0, hint: Some(explained.1), ..fault }
    }

    fn original(&self, name: &str, range: &Range<usize>) -> Range<usize> {
        self.inserted.get(name).map_or_else(|| range.clone(), |inserted| inserted.original(range))
    }

    /// Renders repeatedly, each time with the undefined names so far defined as nothing, so that all of them are reported and not only
    /// the first.
    fn until_clear<T>(
        &self,
        place: &RenderContext,
        render: &dyn Fn(Value) -> Result<T, Box<Fault>>,
    ) -> Result<T, Vec<Fault>> {
        let mut faults = Vec::new();
        let mut reported = BTreeSet::new();
        loop {
            let root = Root {
                place: place.clone(),
                log: self.log.clone(),
                reported: reported.clone(),
                vars: Arc::new(self.vars.clone()),
                open: Vec::new(),
                done: Arc::default(),
            };
            let mut fault = match render(Value::from_object(root)) {
                Ok(done) if faults.is_empty() => return Ok(done),
                Ok(_) => return Err(faults),
                Err(fault) => *fault,
            };
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
