//! Follows reported values through the names of templates.
//!
//! In: parsed texts, and which vars are made of reported values. Out: each expression that is printed, with what it is made of, and whether
//! quotes of its own may stand there. Names are followed without regard to their order, and to their scope but for the parameters of macros:
//! a name that holds a reported value anywhere holds one everywhere. So it may report too much, never too little.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

use minijinja::{
    Value,
    machinery::{
        Span,
        ast::{BinOpKind, Call, CallArg, Expr, Filter, Macro, Stmt, UnaryOpKind},
    },
};

use super::{
    origin::{Origin, Origins, REPORTED},
    shell::Shell,
    syntax::{each, joins},
};

/// How often the assignments of texts are followed before every name that is assigned counts as reported.
pub(super) const ROUNDS: usize = 16;

/// With more macros than this, all parameters count as reported.
const MACROS: usize = 200;

/// Filters with a result that is a number or a truth value, whatever they are given.
const PLAIN: [&str; 5] = ["int", "float", "length", "count", "bool"];

/// The engine's functions: they define nothing from their arguments.
const FUNCTIONS: [&str; 6] = ["range", "dict", "namespace", "debug", "cycler", "joiner"];

/// An expression whose value is put into the text.
pub(super) struct Put {
    pub(super) range: Range<usize>,
    pub(super) origin: Origin,
    /// Whether quotes of its own may stand there, if the text is a shell line.
    pub(super) apart: bool,
    /// Whether it is an expression, whose value can be checked; else a block.
    pub(super) expression: bool,
}

/// A macro or the body of a call block, with its parameters.
struct Declared<'a> {
    /// None for the body of a call block.
    name: Option<&'a str>,
    params: Vec<&'a str>,
    scope: Scope,
}

/// Where a name is a parameter: the macro, by its place in memory; 0 for a name that is none.
type Scope = usize;

/// Follows names through texts.
pub(super) struct Walk<'a, 'v> {
    vars: &'v Origins,
    names: BTreeMap<(Scope, &'a str), Origin>,
    macros: Vec<Declared<'a>>,
    /// Names that are assigned, which may stand for any macro.
    assigned: BTreeSet<&'a str>,
    /// The files that are looked through, and names that are imported from others: these are loaded when rendering comes to them, and then
    /// all of this is looked through again.
    pub(super) files: BTreeSet<&'a str>,
    later: BTreeSet<&'a str>,
    /// The macros that are walked through, outermost first.
    scopes: Vec<Scope>,
    /// Whether texts include or import each other: then an attribute may be a name of another text.
    joined: bool,
    /// What texts hold that macros and blocks make: each value was looked at where it is put there.
    made: Origin,
    /// Whether any name holds reported values.
    any: bool,
    same: bool,
    /// What is put into the text that is walked through, within which block filters, and the shell that reads it: one more for each text
    /// that is kept instead of printed.
    puts: Vec<Put>,
    within: Vec<BlockFilter>,
    shells: Vec<Shell>,
}

/// What a `{% filter %}` does to what is put into it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum BlockFilter {
    Quote,
    Other,
}

impl<'a, 'v> Walk<'a, 'v> {
    pub(super) fn new(vars: &'v Origins) -> Self {
        Self {
            vars,
            names: BTreeMap::new(),
            macros: Vec::new(),
            assigned: BTreeSet::new(),
            files: BTreeSet::new(),
            later: BTreeSet::new(),
            scopes: Vec::new(),
            joined: false,
            made: Origin::Site,
            any: !vars.is_empty(),
            same: true,
            puts: Vec::new(),
            within: Vec::new(),
            shells: vec![Shell::default()],
        }
    }

    /// Follows assignments until nothing changes any more.
    pub(super) fn settle<'s>(&mut self, texts: impl IntoIterator<Item = &'s Stmt<'a>> + Clone)
    where
        'a: 's,
    {
        // What a macro includes sees its parameters.
        let mut scoped = true;
        for stmt in texts.clone() {
            self.joined |= joins(stmt);
            each(stmt, &mut |stmt| {
                let body = match stmt {
                    Stmt::Macro(decl) => &decl.body,
                    Stmt::CallBlock(block) => &block.macro_decl.body,
                    _ => return,
                };
                scoped &= !body.iter().any(joins);
            });
        }
        for stmt in texts.clone() {
            each(stmt, &mut |stmt| {
                let (name, decl) = match stmt {
                    Stmt::Macro(decl) => (Some(decl.name), decl),
                    Stmt::CallBlock(block) => (None, &block.macro_decl),
                    _ => return,
                };
                let params =
                    decl.args.iter().filter_map(|arg| if let Expr::Var(var) = arg { Some(var.id) } else { None });
                let scope = if scoped { std::ptr::from_ref::<Macro<'a>>(decl) as Scope } else { 0 };
                self.macros.push(Declared { name, params: params.collect(), scope });
            });
        }
        for _ in 0..if self.macros.len() > MACROS { 0 } else { ROUNDS } {
            self.same = true;
            texts.clone().into_iter().for_each(|stmt| self.stmt(stmt));
            if self.same {
                return;
            }
        }
        // A chain of assignments against their order, or more than can be followed.
        (self.made, self.any) = (Origin::Reported, true);
        self.names.values_mut().for_each(|origin| *origin = Origin::Reported);
        for stmt in texts {
            each(stmt, &mut |stmt| match stmt {
                Stmt::Set(set) => self.raise(&set.target, Origin::Reported),
                Stmt::SetBlock(set) => self.raise(&set.target, Origin::Reported),
                Stmt::ForLoop(each) => self.raise(&each.target, Origin::Reported),
                Stmt::WithBlock(with) => {
                    with.assignments.iter().for_each(|(target, _)| self.raise(target, Origin::Reported));
                }
                _ => {}
            });
        }
        // Without scopes again, so that every parameter is one of these names.
        let params: Vec<_> = self.macros.iter().flat_map(|declared| declared.params.clone()).collect();
        let names = params.into_iter().chain(["varargs", "kwargs", "loop", "loop()"]);
        names.for_each(|name| self.name_in(0, name, Origin::Reported));
        // Whatever they are given, their parameters hold anything.
        self.macros.clear();
    }

    /// What is put into a text, in order.
    pub(super) fn puts(&mut self, stmt: &Stmt<'a>) -> Vec<Put> {
        self.puts.clear();
        self.shells = vec![Shell::default()];
        self.stmt(stmt);
        std::mem::take(&mut self.puts)
    }

    fn stmts(&mut self, stmts: &[Stmt<'a>]) {
        stmts.iter().for_each(|stmt| self.stmt(stmt));
    }

    pub(super) fn shell(&mut self) -> &mut Shell {
        if self.shells.is_empty() {
            self.shells.push(Shell::default());
        }
        let last = self.shells.len() - 1;
        &mut self.shells[last]
    }

    fn stmt(&mut self, stmt: &Stmt<'a>) {
        match stmt {
            Stmt::Template(s) => self.stmts(&s.children),
            Stmt::EmitRaw(s) if self.within.is_empty() => self.shell().read(s.raw),
            Stmt::EmitRaw(_) => {}
            Stmt::EmitExpr(s) => {
                let origin = self.expr(&s.expr);
                self.put(s.span(), origin, true);
            }
            Stmt::ForLoop(s) => {
                let over = self.expr(&s.iter);
                self.each_of(&s.target, &s.iter, over);
                if s.recursive {
                    let deeper = self.get("loop()");
                    self.raise(&s.target, deeper);
                }
                self.name("loop", over.changed());
                s.filter_expr.iter().for_each(|filter| _ = self.expr(filter));
                let before = self.shell().clone();
                self.stmts(&s.body);
                // Any number of times.
                self.shell().either(&before);
                self.branch(&before, &s.else_body);
            }
            Stmt::IfCond(s) => {
                self.expr(&s.expr);
                let before = self.shell().clone();
                self.stmts(&s.true_body);
                self.branch(&before, &s.false_body);
            }
            Stmt::WithBlock(s) => {
                for (target, value) in &s.assignments {
                    let origin = self.expr(value);
                    self.raise(target, origin);
                }
                self.stmts(&s.body);
            }
            Stmt::Set(s) => {
                let origin = self.expr(&s.expr);
                self.raise(&s.target, origin);
            }
            Stmt::SetBlock(s) => {
                self.kept(&s.body);
                let origin = match &s.filter {
                    Some(Expr::Filter(filter)) if filter.name == "quote" && filter.expr.is_none() => self.made,
                    Some(filter) => self.expr(filter).and(self.made).changed(),
                    None => self.made,
                };
                self.raise(&s.target, origin);
            }
            Stmt::AutoEscape(s) => self.stmts(&s.body),
            Stmt::FilterBlock(s) => {
                let quote = matches!(&s.filter, Expr::Filter(filter) if filter.name == "quote");
                let before = self.puts.len();
                self.within.push(if quote { BlockFilter::Quote } else { BlockFilter::Other });
                self.stmts(&s.body);
                self.within.pop();
                let reported = self.puts[before..].iter().any(|put| put.origin != Origin::Site);
                let mut origin = self.expr(&s.filter);
                if quote && reported {
                    // All of the block is one word that is quoted.
                    origin = Origin::Quoted;
                }
                self.put(s.filter_span, origin, false);
            }
            // Printed where it stands, and where another template that extends this one has it: there it is looked at as well.
            Stmt::Block(s) => self.stmts(&s.body),
            Stmt::Macro(s) => self.declared(s),
            Stmt::CallBlock(s) => {
                self.declared(&s.macro_decl);
                let origin = self.call(&s.call);
                self.put(s.call_expr_span, origin, false);
            }
            Stmt::Do(s) => _ = self.call(&s.call),
            Stmt::Import(s) => {
                self.expr(&s.expr);
                self.raise(&s.name, self.made);
            }
            Stmt::FromImport(s) => {
                self.expr(&s.expr);
                let of = s.expr.as_const();
                let later = of.as_ref().and_then(Value::as_str).is_some_and(|file| !self.files.contains(file));
                for (name, alias) in &s.names {
                    if let (Expr::Var(var), true) = (alias.as_ref().unwrap_or(name), later) {
                        self.later.insert(var.id);
                    }
                    let origin = self.expr(name);
                    alias.iter().for_each(|alias| self.raise(alias, origin));
                }
            }
            Stmt::Extends(s) => _ = self.expr(&s.name),
            Stmt::Include(s) => {
                self.expr(&s.name);
                // It may print anything, which is looked at where it is.
                self.shell().lose();
            }
        }
    }

    /// The other branch, from the state before the first: where they end differently, what follows is not known.
    fn branch(&mut self, before: &Shell, body: &[Stmt<'a>]) {
        let first = std::mem::replace(self.shell(), before.clone());
        self.stmts(body);
        self.shell().either(&first);
    }

    /// Text that is kept, and not printed where it stands.
    fn kept(&mut self, body: &[Stmt<'a>]) {
        let outer = std::mem::take(&mut self.within);
        self.shells.push(Shell::default());
        let before = self.puts.len();
        self.stmts(body);
        let reported = self.puts[before..].iter().any(|put| put.origin != Origin::Site);
        let closed = self.shells.pop().is_some_and(|shell| shell.is_closed());
        self.within = outer;
        if reported {
            let made = self.made.and(if closed { Origin::Quoted } else { Origin::Reported });
            self.same &= made == self.made;
            self.made = made;
        }
    }

    fn declared(&mut self, decl: &Macro<'a>) {
        let defaults: Vec<_> = decl.defaults.iter().map(|value| self.expr(value)).collect();
        let first = decl.args.len() - defaults.len().min(decl.args.len());
        let scope = std::ptr::from_ref(decl) as Scope;
        let scope = if self.macros.iter().any(|declared| declared.scope == scope) { scope } else { 0 };
        for (target, origin) in decl.args[first..].iter().zip(defaults) {
            if let Expr::Var(var) = target {
                self.name_in(scope, var.id, origin);
            }
        }
        self.scopes.push(std::ptr::from_ref(decl) as Scope);
        self.kept(&decl.body);
        self.scopes.pop();
    }

    fn put(&mut self, span: Span, origin: Origin, expression: bool) {
        let range = span.start_offset as usize..span.end_offset as usize;
        let (origin, apart) = match self.within.last() {
            // The filter may undo the quotes.
            Some(BlockFilter::Other) => (origin.changed(), false),
            Some(BlockFilter::Quote) if origin == Origin::Site => (origin, true),
            Some(BlockFilter::Quote) => (Origin::Quoted, true),
            None => {
                let apart = self.shell().takes_quotes();
                self.shell().word();
                (origin, apart)
            }
        };
        self.puts.push(Put { range, origin, apart, expression });
    }

    /// The macro of which a name is a parameter here.
    fn scope(&self, name: &str) -> Scope {
        let has = |scope: &Scope| self.macros.iter().any(|decl| decl.scope == *scope && decl.params.contains(&name));
        self.scopes.iter().rev().copied().find(has).unwrap_or(0)
    }

    /// What a name holds.
    fn get(&self, name: &str) -> Origin {
        let own = self.names.get(&(self.scope(name), name)).copied().unwrap_or(Origin::Site);
        let var = self.vars.get(name).copied().unwrap_or(Origin::Site);
        if REPORTED.contains(&name) { Origin::Reported } else { own.and(var) }
    }

    /// Notes that a name may hold this.
    fn name(&mut self, name: &'a str, origin: Origin) {
        self.name_in(self.scope(name), name, origin);
    }

    fn name_in(&mut self, scope: Scope, name: &'a str, origin: Origin) {
        let held = self.names.entry((scope, name)).or_insert(Origin::Site);
        let both = held.and(origin);
        if both != *held {
            *held = both;
            (self.same, self.any) = (false, true);
        }
    }

    /// Notes that the names that are assigned may hold this.
    fn raise(&mut self, target: &Expr<'a>, origin: Origin) {
        match target {
            Expr::Var(var) => {
                self.assigned.insert(var.id);
                self.name(var.id, origin);
            }
            Expr::List(list) => list.items.iter().for_each(|item| self.raise(item, origin.changed())),
            Expr::Tuple(tuple) => tuple.items.iter().for_each(|item| self.raise(item, origin.changed())),
            // A namespace: whichever attribute it is.
            Expr::GetAttr(attr) => self.raise(&attr.expr, origin.changed()),
            Expr::GetItem(item) => self.raise(&item.expr, origin.changed()),
            _ => {}
        }
    }

    /// Notes what the names of a loop hold.
    fn each_of(&mut self, target: &Expr<'a>, iter: &Expr<'a>, over: Origin) {
        let pair: Option<&[Expr<'a>]> = match target {
            Expr::List(list) => Some(&list.items),
            Expr::Tuple(tuple) => Some(&tuple.items),
            _ => None,
        };
        match (pair, over) {
            // Of `exports.s.t | items`, the first is the name of a node.
            (Some([_, value]), _) if is_by_node(iter) => self.raise(value, over.changed()),
            (None, Origin::Items) => self.raise(target, Origin::Quoted),
            _ => self.raise(target, over.changed()),
        }
    }

    fn args(&mut self, args: &[CallArg<'a>]) -> Origin {
        args.iter().map(|arg| self.expr(argument(arg))).fold(Origin::Site, Origin::and)
    }

    fn expr(&mut self, expr: &Expr<'a>) -> Origin {
        match expr {
            Expr::Var(var) => self.get(var.id),
            Expr::Const(_) => Origin::Site,
            Expr::Slice(s) => {
                [&s.start, &s.stop, &s.step].into_iter().flatten().for_each(|part| _ = self.expr(part));
                self.expr(&s.expr).changed()
            }
            Expr::UnaryOp(op) => {
                self.expr(&op.expr);
                match op.op {
                    UnaryOpKind::Not | UnaryOpKind::Neg => Origin::Site,
                }
            }
            Expr::BinOp(op) => {
                let both = self.expr(&op.left).and(self.expr(&op.right));
                match op.op {
                    // Of numbers only, or true or false.
                    BinOpKind::Sub | BinOpKind::Div | BinOpKind::FloorDiv | BinOpKind::Rem | BinOpKind::Pow => {
                        Origin::Site
                    }
                    BinOpKind::Eq
                    | BinOpKind::Ne
                    | BinOpKind::Lt
                    | BinOpKind::Lte
                    | BinOpKind::Gt
                    | BinOpKind::Gte
                    | BinOpKind::In => Origin::Site,
                    BinOpKind::ScAnd | BinOpKind::ScOr | BinOpKind::Add | BinOpKind::Concat => both,
                    BinOpKind::Mul => both.changed(),
                }
            }
            Expr::Compare(compare) => {
                self.expr(&compare.expr);
                compare.ops.iter().for_each(|op| _ = self.expr(&op.expr));
                Origin::Site
            }
            Expr::IfExpr(choice) => {
                self.expr(&choice.test_expr);
                let other = choice.false_expr.as_ref().map_or(Origin::Site, |other| self.expr(other));
                self.expr(&choice.true_expr).and(other)
            }
            Expr::Filter(filter) => self.filter(filter),
            Expr::Test(test) => {
                self.expr(&test.expr);
                self.args(&test.args);
                Origin::Site
            }
            Expr::GetAttr(attr) => {
                let of = self.expr(&attr.expr);
                let another = if self.joined { self.get(attr.name) } else { Origin::Site };
                match &attr.expr {
                    Expr::Var(var) if var.id == "loop" && !matches!(attr.name, "previtem" | "nextitem") => another,
                    _ => of.changed().and(another),
                }
            }
            Expr::GetItem(item) => {
                let of = self.expr(&item.expr);
                self.expr(&item.subscript_expr);
                // Of a template that is imported, it may be any name.
                if self.joined && self.any { Origin::Reported } else { of.changed() }
            }
            Expr::Call(call) => self.call(call),
            Expr::List(list) => list.items.iter().map(|item| self.expr(item)).fold(Origin::Site, Origin::and).changed(),
            Expr::Tuple(tuple) => {
                tuple.items.iter().map(|item| self.expr(item)).fold(Origin::Site, Origin::and).changed()
            }
            Expr::Map(map) => {
                let parts = map.keys.iter().chain(&map.values);
                parts.map(|part| self.expr(part)).fold(Origin::Site, Origin::and).changed()
            }
        }
    }

    fn filter(&mut self, filter: &Filter<'a>) -> Origin {
        let of = filter.expr.as_ref().map_or(Origin::Site, |expr| self.expr(expr));
        let args = self.args(&filter.args);
        let first = filter.args.first().and_then(|arg| argument(arg).as_const());
        match (filter.name, of) {
            ("quote", Origin::Site) => Origin::Site,
            ("quote", _) => Origin::Quoted,
            ("map", of) if filter.args.len() == 1 && first.as_ref().and_then(|name| name.as_str()) == Some("quote") => {
                if of == Origin::Site {
                    Origin::Site
                } else {
                    Origin::Items
                }
            }
            ("join", Origin::Items) if args == Origin::Site => Origin::Quoted,
            ("first" | "last", Origin::Items) => Origin::Quoted,
            ("list" | "sort" | "unique", Origin::Items) if args == Origin::Site => Origin::Items,
            ("default" | "d", of) => of.and(args),
            (name, _) if PLAIN.contains(&name) => args.changed(),
            (_, of) => of.and(args).changed(),
        }
    }

    fn call(&mut self, call: &Call<'a>) -> Origin {
        let of = self.expr(&call.expr);
        let args: Vec<_> = call.args.iter().map(|arg| (arg, self.expr(argument(arg)))).collect();
        let all = args.iter().fold(Origin::Site, |all, (_, origin)| all.and(*origin));
        let name = if let Expr::Var(var) = &call.expr { Some(var.id) } else { None };
        if name == Some("loop") {
            self.name("loop()", all.changed());
            return self.made;
        }
        if name.is_some_and(|name| self.later.contains(name)) {
            return Origin::Site;
        }
        // A name that is also assigned may stand for anything.
        let name = name.filter(|name| !self.assigned.contains(name) && self.scope(name) == 0);
        let is_macro = name.is_some_and(|name| self.macros.iter().any(|declared| declared.name == Some(name)));
        if !is_macro && name.is_some_and(|name| FUNCTIONS.contains(&name)) {
            // It prints all that the template has.
            return if name == Some("debug") { Origin::Reported } else { of.and(all).changed() };
        }
        if all != Origin::Site {
            self.name("varargs", all.changed());
            self.name("kwargs", all.changed());
            let mut raised = Vec::new();
            for declared in &self.macros {
                if is_macro && declared.name != name {
                    continue;
                }
                let plain = is_macro
                    && !args.iter().any(|(arg, _)| matches!(arg, CallArg::PosSplat(_) | CallArg::KwargSplat(_)));
                for (position, param) in declared.params.iter().enumerate() {
                    let given = args.iter().enumerate().filter(|(n, (arg, _))| match arg {
                        CallArg::Kwarg(name, _) => name == param,
                        _ => *n == position,
                    });
                    // Whatever else is called may be any of them.
                    let origin =
                        if plain { given.map(|(_, (_, origin))| *origin).fold(Origin::Site, Origin::and) } else { all };
                    raised.push((declared.scope, *param, origin));
                }
            }
            raised.into_iter().for_each(|(scope, param, origin)| self.name_in(scope, param, origin));
        }
        if is_macro || matches!(name, Some("caller" | "super")) {
            return of.and(self.made);
        }
        // A method, or what is not known.
        of.and(all).and(self.made).changed()
    }
}

/// The value of an argument.
fn argument<'s, 'a>(arg: &'s CallArg<'a>) -> &'s Expr<'a> {
    match arg {
        CallArg::Pos(expr) | CallArg::Kwarg(_, expr) | CallArg::PosSplat(expr) | CallArg::KwargSplat(expr) => expr,
    }
}

/// Whether an expression is `exports.<service>.<task> | items`: pairs of a node's name and a value.
fn is_by_node(expr: &Expr<'_>) -> bool {
    let Expr::Filter(filter) = expr else { return false };
    let mut of = match &filter.expr {
        Some(of) if matches!(filter.name, "items" | "dictsort") && filter.args.is_empty() => of,
        _ => return false,
    };
    for _ in 0..2 {
        of = match of {
            Expr::GetAttr(attr) => &attr.expr,
            Expr::GetItem(item) => &item.expr,
            _ => return false,
        };
    }
    matches!(of, Expr::Var(var) if var.id == "exports")
}
