//! Service definitions: schema, model, validation.
//!
//! In: the texts of `services/<name>/service.toml`. Out: a validated [`Catalog`], or every fault at once. Parameters keep their templates
//! unrendered, and references their names: the planner's core resolves both, with the whole site at hand. No IO. Also the entry point for
//! all site files: [`tree`] reads those of the inventory beside the services.

pub mod check;
pub mod model;
pub mod parse;
pub mod plugin;
mod reference;
pub mod schema;
pub mod task;
pub mod task_fields;
pub mod tree;

pub use self::{
    model::{Catalog, Reference, Service, Task, TaskTrigger},
    plugin::{Description, Plugins},
    reference::InvalidReference,
    schema::schemas,
    tree::{Model, ParsedFile},
};

#[cfg(test)]
mod tests;
