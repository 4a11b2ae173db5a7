//! Service definitions: schema, model, validation.
//!
//! In: the texts of `services/<name>/service.toml`. Out: a validated [`Catalog`], or every fault at once. Parameters keep their
//! templates unrendered; references keep their names: both are resolved in the planner's core, which knows the whole site.
//! No IO.

pub mod model;

pub use model::{Catalog, Reference, Service, Task, TaskTrigger};
