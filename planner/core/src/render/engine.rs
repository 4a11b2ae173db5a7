//! The template engine as sites see it: its syntax, what it calls undefined, its limits, and how templates name each other.

use std::{borrow::Cow, sync::Arc};

use minijinja::{AutoEscape, Environment, ErrorKind, UndefinedBehavior, escape_formatter};

use super::{
    assign,
    context::{Access, Log},
    fault::Named,
    limits::Limits,
    quote, syntax,
};

/// The engine as sites see it.
pub(super) fn environment<'t>(log: &Arc<Log>, limits: &Limits) -> Environment<'t> {
    let mut env = Environment::new();
    env.set_undefined_behavior(UndefinedBehavior::Strict);
    env.set_syntax(syntax::syntax());
    env.set_auto_escape_callback(|_| AutoEscape::None);
    env.set_debug(true);
    env.set_fuel(Some(limits.steps()));
    let full = limits.clone();
    env.set_formatter(move |out, state, value| match full.is_full() {
        true => Err(ErrorKind::WriteFailure.into()),
        false => escape_formatter(out, state, value),
    });
    assign::add_to(&mut env);
    quote::add_to(&mut env);
    let noted = log.clone();
    env.set_path_join_callback(move |name, parent| included(name, parent, &noted));
    env
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
