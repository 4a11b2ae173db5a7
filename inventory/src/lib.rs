//! Nodes, groups and the site itself: schema, model, validation.
//!
//! In: the texts of `site.toml` and `inventory/**/*.toml`. Out: a validated [`Site`] and [`Inventory`], or every fault at once as
//! [`Diagnostic`]s. No IO: the caller has read the files. Also contains what all readers of site files share: places, diagnostics, and
//! decoding TOML into types without stopping at the first error.
//!
//! The pipeline: [`parse`] one file → [`merge`] all of them. `groundplan_services::tree` runs it for a whole site.

pub mod decode;
pub mod diagnostic;
pub mod foreign;
pub mod hint;
pub mod merge;
pub mod model;
pub mod parse;
pub mod probe;
pub mod schema;
pub mod vars;

pub use self::{
    diagnostic::{DeclaredIn, Diagnostic, Located, Location, Severity},
    model::{Drift, DriftPolicy, External, Group, Inventory, Lifecycle, Node, Rollout, Site, Var, Vars},
    schema::schemas,
};
