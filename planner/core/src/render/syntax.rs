//! How templates are written: the engine's syntax as sites see it, and which texts are templates at all.

use minijinja::{
    machinery::{ast::Stmt, parse},
    syntax::SyntaxConfig,
};

/// The syntax of templates.
pub(super) fn syntax() -> SyntaxConfig {
    SyntaxConfig::builder().keep_trailing_newline(true).build().unwrap_or_default()
}

/// Whether a string is a template at all.
pub(crate) fn is_template(text: &str) -> bool {
    text.contains('{') && ["{{", "{%", "{#"].iter().any(|open| text.contains(open))
}

/// A template as the engine reads it; none if its syntax is wrong.
pub(super) fn parsed(text: &str) -> Option<Stmt<'_>> {
    parse(text, "", syntax()).ok()
}

/// Whether a text includes or imports others.
pub(super) fn joins(stmt: &Stmt<'_>) -> bool {
    let mut found = false;
    each(stmt, &mut |stmt| {
        found |= matches!(stmt, Stmt::Include(_) | Stmt::Import(_) | Stmt::FromImport(_) | Stmt::Extends(_));
    });
    found
}

/// Calls `with` for a statement and all within it.
pub(super) fn each<'s, 'a>(stmt: &'s Stmt<'a>, with: &mut impl FnMut(&'s Stmt<'a>)) {
    with(stmt);
    let bodies: [&[Stmt<'a>]; 2] = match stmt {
        Stmt::Template(s) => [&s.children, &[]],
        Stmt::ForLoop(s) => [&s.body, &s.else_body],
        Stmt::IfCond(s) => [&s.true_body, &s.false_body],
        Stmt::WithBlock(s) => [&s.body, &[]],
        Stmt::SetBlock(s) => [&s.body, &[]],
        Stmt::AutoEscape(s) => [&s.body, &[]],
        Stmt::FilterBlock(s) => [&s.body, &[]],
        Stmt::Block(s) => [&s.body, &[]],
        Stmt::Macro(s) => [&s.body, &[]],
        Stmt::CallBlock(s) => [&s.macro_decl.body, &[]],
        Stmt::EmitExpr(_)
        | Stmt::EmitRaw(_)
        | Stmt::Set(_)
        | Stmt::Import(_)
        | Stmt::FromImport(_)
        | Stmt::Extends(_)
        | Stmt::Include(_)
        | Stmt::Do(_) => [&[], &[]],
    };
    bodies.into_iter().flatten().for_each(|inner| each(inner, with));
}
